/*
 * What the driver of an EGM device tells about bad pages, and garbage
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "system/egm-bad-pages.h"
#include "system/ram-bad-ranges.h"

/* What the file under test needs of the rest of QEMU */

bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp)
{
    g_assert_not_reached();
}

void ram_bad_ranges_normalize(GArray *ranges, uint64_t end, uint64_t align)
{
    g_assert_not_reached();
}

/* The stand-in for the driver has @pages, and behaves as each test wants. */

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

static void assert_pages(uint32_t count, unsigned calls)
{
    g_autoptr(GArray) ranges = egm_read_bad_pages(42, stand_in);

    g_assert_nonnull(ranges);
    g_assert_cmpint(ranges->len, ==, count);
    g_assert_cmpint(driver.calls, ==, calls);
    for (uint32_t i = 0; i < count; i++) {
        const RamBadRange *range = &g_array_index(ranges, RamBadRange, i);

        g_assert_cmphex(range->offset, ==, i * 0x20000ull);
        g_assert_cmphex(range->size, ==, 0x10000);
    }
}

static void test_count(void)
{
    static const uint32_t counts[] = { 1, 2, 100, 4096, 65536 };

    memset(&driver, 0, sizeof(driver));
    assert_pages(0, 1);
    for (int i = 0; i < ARRAY_SIZE(counts); i++) {
        memset(&driver, 0, sizeof(driver));
        driver.pages = counts[i];
        assert_pages(counts[i], 2);
    }
}

/* A page goes bad between two calls, or while all are asked for. */
static void test_growth(void)
{
    g_autoptr(GArray) ranges = NULL;

    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1;
    assert_pages(11, 2);

    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1000;
    ranges = egm_read_bad_pages(42, stand_in);
    g_assert_null(ranges);
    g_assert_cmpint(driver.calls, <, 100);
}

static void test_shrink(void)
{
    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = -1;
    assert_pages(9, 2);
}

static void test_errors(void)
{
    static const int errors[] = { ENOTTY, EINVAL, EFAULT, ENOMEM, EIO };

    for (int i = 0; i < ARRAY_SIZE(errors); i++) {
        memset(&driver, 0, sizeof(driver));
        driver.fails = errors[i];
        driver.failures = 1;
        g_assert_null(egm_read_bad_pages(42, stand_in));
        g_assert_cmpint(driver.calls, ==, 1);
    }

    memset(&driver, 0, sizeof(driver));
    driver.pages = 3;
    driver.fails = EINTR;
    driver.failures = 2;
    assert_pages(3, 4);
}

/* What a driver cannot mean is not believed. */
static void test_garbage(void)
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
        g_assert_null(egm_read_bad_pages(42, stand_in));
        g_assert_cmpint(errno, ==, EPROTO);
        g_assert_cmpint(driver.calls, <=, 2);
    }

    /* Room for half an entry */
    memset(&driver, 0, sizeof(driver));
    driver.argsz = ARGSZ(1) + 8;
    driver.pages = driver.count = 1;
    assert_pages(1, 2);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/egm-bad-pages/count", test_count);
    g_test_add_func("/egm-bad-pages/growth", test_growth);
    g_test_add_func("/egm-bad-pages/shrink", test_shrink);
    g_test_add_func("/egm-bad-pages/errors", test_errors);
    g_test_add_func("/egm-bad-pages/garbage", test_garbage);
    return g_test_run();
}
