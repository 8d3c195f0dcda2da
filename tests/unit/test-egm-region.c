/*
 * Reading an EGM region's attributes: all variants, and invalid data
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/sysmacros.h>
#include "qemu/units.h"
#include "system/egm.h"

#define DEV makedev(510, 4)

typedef struct {
    char *sysfs;
    char *dir;
} Fixture;

/* As in the kernel's sysfs, dev/char/MAJ:MIN links to the device directory. */
static void setup(Fixture *f, gconstpointer opaque)
{
    g_autofree char *chars = NULL, *class = NULL, *link = NULL;

    f->sysfs = g_dir_make_tmp("egm-sysfs-XXXXXX", NULL);
    f->dir = g_build_filename(f->sysfs, "devices", "virtual", "egm", "egm4",
                              NULL);
    class = g_build_filename(f->sysfs, "class", opaque ?: "egm", NULL);
    chars = g_build_filename(f->sysfs, "dev", "char", NULL);
    g_assert_cmpint(g_mkdir_with_parents(f->dir, 0700), ==, 0);
    g_assert_cmpint(g_mkdir_with_parents(class, 0700), ==, 0);
    g_assert_cmpint(g_mkdir_with_parents(chars, 0700), ==, 0);
    link = g_build_filename(chars, "510:4", NULL);
    g_assert_cmpint(symlink("../../devices/virtual/egm/egm4", link), ==, 0);
    g_free(link);
    link = g_build_filename(f->dir, "subsystem", NULL);
    g_assert_cmpint(symlink(class, link), ==, 0);
}

static void teardown(Fixture *f, gconstpointer opaque)
{
    const char *argv[] = { "rm", "-rf", f->sysfs, NULL };

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH,
                               NULL, NULL, NULL, NULL, NULL, NULL));
    g_free(f->sysfs);
    g_free(f->dir);
}

static void write_attribute(Fixture *f, const char *name, const char *text,
                            gssize len)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);

    g_assert_true(g_file_set_contents(path, text, len, NULL));
}

static void add_gpu_link(Fixture *f, const char *name)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);

    g_assert_cmpint(symlink("../../../pci0009:00", path), ==, 0);
}

static void test_size(Fixture *f, gconstpointer opaque)
{
    static const struct {
        const char *text;
        uint64_t size;
    } cases[] = {
        { "0x1000000000\n", 64 * GiB },
        { "0x1000000000", 64 * GiB },
        { "68719476736\n", 64 * GiB },
        { "0xffffffffffffffff\n", UINT64_MAX },
        { "0x0\n", 0 },
        { "", 0 },
        { "\n", 0 },
        { "0x\n", 0 },
        { "-1\n", 0 },
        { "0x10000000000000000\n", 0 },
        { "0x1000 bytes\n", 0 },
        { "lots\n", 0 },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *text = g_strescape(cases[i].text, NULL);
        g_autoptr(EgmRegion) region = NULL;

        write_attribute(f, "egm_size", cases[i].text, -1);
        region = egm_region_probe(f->sysfs, DEV);
        g_test_message("\"%s\"", text);
        g_assert_nonnull(region);
        g_assert_cmpstr(region->name, ==, "egm4");
        g_assert_cmphex(region->size, ==, cases[i].size);
    }
}

static void test_size_binary(Fixture *f, gconstpointer opaque)
{
    g_autofree char *huge = g_strnfill(1 * MiB, '1');
    g_autoptr(EgmRegion) nul = NULL, big = NULL;

    write_attribute(f, "egm_size", "0x1000\0garbage", 14);
    nul = egm_region_probe(f->sysfs, DEV);
    g_assert_cmphex(nul->size, ==, 0);

    write_attribute(f, "egm_size", huge, -1);
    big = egm_region_probe(f->sysfs, DEV);
    g_assert_cmphex(big->size, ==, 0);
}

/* Only the class: all values are unknown, and none is wrong. */
static void test_nothing(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = egm_region_probe(f->sysfs, DEV);

    g_assert_cmpstr(region->name, ==, "egm4");
    g_assert_cmphex(region->size, ==, 0);
    g_assert_null(region->gpus);
}

static void assert_gpus(Fixture *f, const char *expected)
{
    g_autoptr(EgmRegion) region = egm_region_probe(f->sysfs, DEV);
    g_autofree char *gpus = g_strjoinv(" ", region->gpus);

    g_assert_cmpstr(gpus, ==, expected);
}

/* GPUs as links, in a file with one address per line, or both; sorted */
static void test_gpus(Fixture *f, gconstpointer opaque)
{
    write_attribute(f, "gpu_devices",
                    "0019:ab:1f.7\ngarbage\n\n0009:01:00.0\n000", -1);
    assert_gpus(f, "0009:01:00.0 0019:ab:1f.7");

    add_gpu_link(f, "0009:01:00.0");
    add_gpu_link(f, "0018:01:00.0");
    write_attribute(f, "uevent", "MAJOR=510\n", -1);
    write_attribute(f, "0009:01:00", "no address", -1);
    write_attribute(f, "x0009:01:00.0", "no address", -1);
    write_attribute(f, "0009:01:00.8", "no address", -1);
    assert_gpus(f, "0009:01:00.0 0018:01:00.0 0019:ab:1f.7");
}

static void test_other_class(Fixture *f, gconstpointer opaque)
{
    g_assert_null(egm_region_probe(f->sysfs, DEV));
}

static void test_no_such_device(Fixture *f, gconstpointer opaque)
{
    g_assert_null(egm_region_probe(f->sysfs, makedev(510, 5)));
    g_assert_null(egm_region_probe("/nonexistent", DEV));
}

/* Files of a node of the host, and whether they make egm4 the host's memory */
static void test_host_ram(Fixture *f, gconstpointer opaque)
{
    static const struct {
        const char *node;
        const char *cpus;
        const char *memory;
        bool is_host_ram;
    } cases[] = {
        { "node4", "0-71\n", "Node 4 MemTotal:       4096 kB\n", true },
        { "node4", "3\n", "Node 4 MemFree: 0 kB\nNode 4 MemTotal: 1 kB", true },
        { "node4", "\n", "Node 4 MemTotal:       4096 kB\n", false },
        { "node4", "0-71\n", "Node 4 MemTotal:       0 kB\n", false },
        { "node4", "0-71\n", "garbage", false },
        { "node44", "0-71\n", "Node 44 MemTotal:       4096 kB\n", false },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *dir = g_build_filename(
            f->sysfs, "devices/system/node", cases[i].node, NULL);
        g_autofree char *cpus = g_build_filename(dir, "cpulist", NULL);
        g_autofree char *memory = g_build_filename(dir, "meminfo", NULL);
        g_autoptr(EgmRegion) region = NULL;

        g_test_message("case %d", i);
        g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
        g_assert_true(g_file_set_contents(cpus, cases[i].cpus, -1, NULL));
        g_assert_true(g_file_set_contents(memory, cases[i].memory, -1, NULL));
        region = egm_region_probe(f->sysfs, DEV);
        g_assert_cmpint(region->is_host_ram, ==, cases[i].is_host_ram);
        g_unlink(cpus);
        g_unlink(memory);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        const char *class;
        void (*test)(Fixture *f, gconstpointer opaque);
    } tests[] = {
        { "/egm-region/size", NULL, test_size },
        { "/egm-region/size/binary", NULL, test_size_binary },
        { "/egm-region/nothing", NULL, test_nothing },
        { "/egm-region/gpus", NULL, test_gpus },
        { "/egm-region/class/other", "mem", test_other_class },
        { "/egm-region/class/longer", "egmx", test_other_class },
        { "/egm-region/no-such-device", NULL, test_no_such_device },
        { "/egm-region/host-ram", NULL, test_host_ram },
    };

    g_test_init(&argc, &argv, NULL);
    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        g_test_add(tests[i].path, Fixture, tests[i].class, setup, tests[i].test,
                   teardown);
    }
    return g_test_run();
}
