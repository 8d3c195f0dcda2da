/*
 * What the host tells about an EGM region: every variant, and garbage
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include "qemu/units.h"
#include "backends/egm-internal.h"

#define DEV makedev(510, 4)

typedef struct {
    char *sysfs;
    char *dir;
} Fixture;

/* As the kernel has it: dev/char/MAJ:MIN is a link to the device's directory */
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

/* Nothing but the class: all is unknown, nothing is wrong. */
static void test_nothing(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = egm_region_probe(f->sysfs, DEV);

    g_assert_cmpstr(region->name, ==, "egm4");
    g_assert_cmphex(region->size, ==, 0);
    g_assert_null(region->gpus);
}

static void test_gpu_links(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = NULL;

    add_gpu_link(f, "0009:01:00.0");
    add_gpu_link(f, "0019:01:00.0");
    write_attribute(f, "uevent", "MAJOR=510\n", -1);
    write_attribute(f, "0009:01:00", "no address", -1);
    write_attribute(f, "x0009:01:00.0", "no address", -1);
    write_attribute(f, "0009:01:00.8", "no address", -1);
    region = egm_region_probe(f->sysfs, DEV);
    g_assert_cmpint(g_strv_length(region->gpus), ==, 2);
    g_assert_true(egm_region_has_gpu(region, "0009:01:00.0"));
    g_assert_true(egm_region_has_gpu(region, "0019:01:00.0"));
    g_assert_false(egm_region_has_gpu(region, "0009:01:00.1"));
    g_assert_false(egm_region_has_gpu(region, ""));
}

static void test_gpu_file(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = NULL;

    write_attribute(f, "gpu_devices",
                    "0009:01:00.0\ngarbage\n\n0019:AB:1f.7\n000", -1);
    region = egm_region_probe(f->sysfs, DEV);
    g_assert_cmpint(g_strv_length(region->gpus), ==, 2);
    g_assert_true(egm_region_has_gpu(region, "0009:01:00.0"));
    g_assert_true(egm_region_has_gpu(region, "0019:ab:1f.7"));
}

static void test_many_gpus(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = NULL;

    for (int i = 0; i < 4000; i++) {
        g_autofree char *name = g_strdup_printf("%04x:01:00.0", i);

        add_gpu_link(f, name);
    }
    region = egm_region_probe(f->sysfs, DEV);
    g_assert_cmpint(g_strv_length(region->gpus), ==, 4000);
    g_assert_true(egm_region_has_gpu(region, "0f9f:01:00.0"));
    g_assert_false(egm_region_has_gpu(region, "0fa0:01:00.0"));
}

static void test_loop(Fixture *f, gconstpointer opaque)
{
    g_autofree char *path = g_build_filename(f->dir, "egm_size", NULL);
    g_autofree char *gpus = g_build_filename(f->dir, "gpu_devices", NULL);
    g_autoptr(EgmRegion) region = NULL;

    g_assert_cmpint(symlink("egm_size", path), ==, 0);
    g_assert_cmpint(symlink("..", gpus), ==, 0);
    region = egm_region_probe(f->sysfs, DEV);
    g_assert_cmphex(region->size, ==, 0);
    g_assert_null(region->gpus);
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

static void test_gpu_both(Fixture *f, gconstpointer opaque)
{
    g_autoptr(EgmRegion) region = NULL;

    add_gpu_link(f, "0009:01:00.0");
    write_attribute(f, "gpu_devices", "0009:01:00.0\n0019:01:00.0\n", -1);
    region = egm_region_probe(f->sysfs, DEV);
    g_assert_cmpint(g_strv_length(region->gpus), ==, 2);
}

/*
 * Who has a device? A made-up procfs, in which this process is @self; process 7
 * has nothing, 8 has a file open, 9 has one mapped by a node that it sees as
 * /mine.
 */
static char *make_proc(Fixture *f, const char *self, const char *open,
                       const char *perms)
{
    char *proc = g_build_filename(f->sysfs, "proc", NULL);
    g_autofree char *link = g_build_filename(proc, "self", NULL);
    g_autofree char *maps = g_build_filename(proc, "9", "maps", NULL);
    g_autofree char *mine = g_build_filename(proc, "9", "root", "mine", NULL);
    g_autofree char *text = g_strdup_printf(
        "4000-5000 r-xp 00000000 fe:01 1 /bin/true\n"
        "5000-6000 rw-s 00000000 00:01 2 /memfd:1 (deleted)\n"
        "7f00-7f01 %s 00000000 00:05 3   /mine\n"
        "7f02-7f03 rw-p 00000000 00:00 0\n", perms);

    for (int pid = 7; pid <= 9; pid++) {
        for (int i = 0; i < 2; i++) {
            g_autofree char *dir = g_strdup_printf("%s/%d/%s", proc, pid,
                                                   i ? "fd" : "root");

            g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
        }
    }
    g_assert_cmpint(symlink(self, link), ==, 0);
    g_assert_cmpint(symlink("/dev/zero", mine), ==, 0);
    g_assert_true(g_file_set_contents(maps, text, -1, NULL));
    if (open) {
        g_autofree char *fd = g_build_filename(proc, "8", "fd", "3", NULL);

        g_assert_cmpint(symlink(open, fd), ==, 0);
    }
    return proc;
}

static void assert_holder(Fixture *f, const char *self, const char *open,
                          const char *perms, pid_t holder)
{
    g_autofree char *proc = make_proc(f, self, open, perms);
    const char *argv[] = { "rm", "-rf", proc, NULL };
    struct stat st;

    g_assert_cmpint(stat("/dev/zero", &st), ==, 0);
    g_assert_cmpint(egm_find_holder(proc, st.st_rdev), ==, holder);
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH,
                               NULL, NULL, NULL, NULL, NULL, NULL));
}

static void test_holder(Fixture *f, gconstpointer opaque)
{
    g_autofree char *self = g_strdup_printf("%d", (int)getpid());

    assert_holder(f, self, NULL, "rw-p", 0);
    assert_holder(f, self, "/dev/null", "rw-p", 0);
    assert_holder(f, self, "/dev/zero", "rw-p", 8);
    assert_holder(f, self, NULL, "rw-s", 9);
    /* Another namespace's procfs: 8 is not what this process calls 8. */
    assert_holder(f, "8", "/dev/zero", "rw-s", 0);
}

/* The real one, with a device that nobody else can have: half a terminal */
static void test_holder_real(Fixture *f, gconstpointer opaque)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    int ready[2];
    pid_t child;
    char byte;

    g_assert_cmpint(unlockpt(master), ==, 0);
    g_assert_cmpint(stat(ptsname(master), &st), ==, 0);
    g_assert_cmpint(egm_find_holder("/proc", st.st_rdev), ==, 0);
    for (int i = 0; i < (getuid() ? 2 : 3); i++) {
        g_assert_cmpint(pipe(ready), ==, 0);
        child = fork();
        if (!child) {
            int flags = i ? O_PATH : O_RDWR | O_NOCTTY;

            /* With O_PATH somebody else cannot be in the way. */
            if ((i == 2 && setuid(65534) < 0) ||
                prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
                open(ptsname(master), flags) < 0 ||
                write(ready[1], "", 1) != 1) {
                _exit(1);
            }
            pause();
        }
        g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
        g_assert_cmpint(egm_find_holder("/proc", st.st_rdev), ==,
                        i < 2 ? child : 0);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        close(ready[0]);
        close(ready[1]);
    }
    g_assert_cmpint(egm_find_holder("/proc", st.st_rdev), ==, 0);
    close(master);
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
        { "/egm-region/gpus/links", NULL, test_gpu_links },
        { "/egm-region/gpus/file", NULL, test_gpu_file },
        { "/egm-region/gpus/both", NULL, test_gpu_both },
        { "/egm-region/gpus/many", NULL, test_many_gpus },
        { "/egm-region/loop", NULL, test_loop },
        { "/egm-region/class/other", "mem", test_other_class },
        { "/egm-region/class/longer", "egmx", test_other_class },
        { "/egm-region/no-such-device", NULL, test_no_such_device },
        { "/egm-region/holder/procfs", NULL, test_holder },
        { "/egm-region/holder/real", NULL, test_holder_real },
    };

    g_test_init(&argc, &argv, NULL);
    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        g_test_add(tests[i].path, Fixture, tests[i].class, setup, tests[i].test,
                   teardown);
    }
    return g_test_run();
}
