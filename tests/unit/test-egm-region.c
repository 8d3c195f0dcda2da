/*
 * What the host tells about an EGM region: every variant, and garbage
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include "qemu/units.h"
#include "system/egm.h"

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

/*
 * Retired pages. The stand-in for the driver has @pages, and behaves as each
 * test wants it to.
 */

#define ARGSZ(count) (8 + 16 * (count))

static struct {
    uint32_t pages;         /* in the list */
    uint32_t growth;        /* of the list with each call */
    uint32_t argsz;         /* what it says it needs, if not 0 */
    uint32_t count;         /* what it says it has written, if not 0 */
    int fails;              /* errno of the first calls */
    int failures;           /* how many of them */
    unsigned calls;
} driver;

static int stand_in(int fd, unsigned long request, void *arg)
{
    uint32_t *head = arg, given = head[0], need;
    uint64_t *pages = arg + 8;

    g_assert_cmpint(fd, ==, 42);
    g_assert_cmphex(request, ==, 'E' << 8 | 100);
    g_assert_cmpint(given, >=, 8);
    if (driver.calls++ < driver.failures) {
        errno = driver.fails;
        return -1;
    }
    need = driver.argsz ?: ARGSZ(driver.pages);
    head[0] = need;
    head[1] = 0;
    if (need <= given) {
        for (uint32_t i = 0; i < driver.pages && ARGSZ(i) < given; i++) {
            pages[2 * i] = i * 0x20000ull;
            pages[2 * i + 1] = 0x10000;
        }
        head[1] = driver.count ?: driver.pages;
    }
    driver.pages += driver.growth;
    return 0;
}

static void assert_retired(uint32_t count, unsigned calls)
{
    g_autoptr(GArray) ranges = egm_read_retired(42, stand_in);

    g_assert_nonnull(ranges);
    g_assert_cmpint(ranges->len, ==, count);
    g_assert_cmpint(driver.calls, ==, calls);
    for (uint32_t i = 0; i < count; i++) {
        const EgmRange *range = &g_array_index(ranges, EgmRange, i);

        g_assert_cmphex(range->offset, ==, i * 0x20000ull);
        g_assert_cmphex(range->size, ==, 0x10000);
    }
}

static void test_retired_count(Fixture *f, gconstpointer opaque)
{
    static const uint32_t counts[] = { 1, 2, 100, 4096, 65536 };

    memset(&driver, 0, sizeof(driver));
    assert_retired(0, 1);
    for (int i = 0; i < ARRAY_SIZE(counts); i++) {
        memset(&driver, 0, sizeof(driver));
        driver.pages = counts[i];
        assert_retired(counts[i], 2);
    }
}

/* A page goes bad between two calls, or while all are asked for. */
static void test_retired_growth(Fixture *f, gconstpointer opaque)
{
    g_autoptr(GArray) ranges = NULL;

    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1;
    assert_retired(11, 2);

    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1000;
    ranges = egm_read_retired(42, stand_in);
    g_assert_null(ranges);
    g_assert_cmpint(driver.calls, <, 100);
}

static void test_retired_shrink(Fixture *f, gconstpointer opaque)
{
    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = -1;
    assert_retired(9, 2);
}

static void test_retired_errors(Fixture *f, gconstpointer opaque)
{
    static const int errors[] = { ENOTTY, EINVAL, EFAULT, ENOMEM, EIO };

    for (int i = 0; i < ARRAY_SIZE(errors); i++) {
        memset(&driver, 0, sizeof(driver));
        driver.fails = errors[i];
        driver.failures = 1;
        g_assert_null(egm_read_retired(42, stand_in));
        g_assert_cmpint(driver.calls, ==, 1);
    }

    memset(&driver, 0, sizeof(driver));
    driver.pages = 3;
    driver.fails = EINTR;
    driver.failures = 2;
    assert_retired(3, 4);
}

/* What a driver cannot mean is not believed. */
static void test_retired_garbage(Fixture *f, gconstpointer opaque)
{
    static const struct {
        uint32_t pages, argsz, count;
    } cases[] = {
        { 0, UINT32_MAX, 0 },           /* needs 4 GiB */
        { 0, 512 * MiB, 0 },
        { 0, 0, 1 },                    /* more than there is room for */
        { 2, 0, 2 + 64 + 1 },
        { 2, 0, UINT32_MAX },
        { 2, 0, 0x10000002 },           /* 16 * count overflows */
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        memset(&driver, 0, sizeof(driver));
        driver.pages = cases[i].pages;
        driver.argsz = cases[i].argsz;
        driver.count = cases[i].count;
        g_test_message("case %d", i);
        g_assert_null(egm_read_retired(42, stand_in));
        g_assert_cmpint(driver.calls, <=, 2);
    }

    /* Room for half an entry */
    memset(&driver, 0, sizeof(driver));
    driver.argsz = ARGSZ(1) + 8;
    driver.pages = driver.count = 1;
    assert_retired(1, 2);
}

/* Locks */

static void test_lock_self(Fixture *f, gconstpointer opaque)
{
    g_autofree char *path = g_build_filename(f->dir, "lock", NULL);
    int a = open(path, O_RDWR | O_CREAT, 0600);
    int b = open(path, O_RDWR);
    pid_t holder = -1;

    g_assert_cmpint(egm_lock(a, &holder), ==, 0);
    g_assert_cmpint(holder, ==, 0);
    g_assert_cmpint(egm_lock(b, &holder), ==, -EWOULDBLOCK);
    g_assert_cmpint(holder, ==, getpid());
    close(a);
    g_assert_cmpint(egm_lock(b, &holder), ==, 0);
    close(b);
    g_assert_cmpint(egm_lock(b, &holder), ==, -EBADF);
}

static void test_lock_killed(Fixture *f, gconstpointer opaque)
{
    g_autofree char *path = g_build_filename(f->dir, "lock", NULL);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    pid_t holder, child;
    int ready[2];
    char byte;

    g_assert_cmpint(pipe(ready), ==, 0);
    child = fork();
    if (!child) {
        int own = open(path, O_RDWR);

        if (egm_lock(own, &holder) < 0 || write(ready[1], "", 1) != 1) {
            _exit(1);
        }
        pause();
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    g_assert_cmpint(egm_lock(fd, &holder), ==, -EWOULDBLOCK);
    g_assert_cmpint(holder, ==, child);

    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    g_assert_cmpint(egm_lock(fd, &holder), ==, 0);
    close(fd);
    close(ready[0]);
    close(ready[1]);
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
        { "/egm-region/gpus/many", NULL, test_many_gpus },
        { "/egm-region/loop", NULL, test_loop },
        { "/egm-region/class/other", "mem", test_other_class },
        { "/egm-region/class/longer", "egmx", test_other_class },
        { "/egm-region/no-such-device", NULL, test_no_such_device },
        { "/egm-region/retired/count", NULL, test_retired_count },
        { "/egm-region/retired/growth", NULL, test_retired_growth },
        { "/egm-region/retired/shrink", NULL, test_retired_shrink },
        { "/egm-region/retired/errors", NULL, test_retired_errors },
        { "/egm-region/retired/garbage", NULL, test_retired_garbage },
        { "/egm-region/lock/self", NULL, test_lock_self },
        { "/egm-region/lock/killed", NULL, test_lock_killed },
    };

    g_test_init(&argc, &argv, NULL);
    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        g_test_add(tests[i].path, Fixture, tests[i].class, setup, tests[i].test,
                   teardown);
    }
    return g_test_run();
}
