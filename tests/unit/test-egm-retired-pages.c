/*
 * Lists of retired pages as drivers of EGM devices report them, and invalid
 * data
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>

/* The stand-in below replaces the driver. */
static int stand_in(int fd, unsigned long request, void *arg);
#define ioctl stand_in
#include "../../backends/egm-retired-pages.c"

/* Replacements for the parts of QEMU that the tested file calls */

bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp)
{
    g_assert_not_reached();
}

uint64_t memory_region_size(MemoryRegion *mr)
{
    g_assert_not_reached();
}

const char *memory_region_name(const MemoryRegion *mr)
{
    g_assert_not_reached();
}

int memory_region_get_fd(MemoryRegion *mr)
{
    g_assert_not_reached();
}

/* The stand-in for the driver has @pages, and behaves as each test wants. */

#define ARGSZ(count) (8 + 16 * (count))

static struct {
    uint32_t pages;         /* in the list */
    uint32_t growth;        /* of the list with each call */
    uint32_t argsz;         /* size that it asks for, if not 0 */
    uint32_t count;         /* number that it reports, if not 0 */
    int fails;              /* errno of the first calls */
    int failures;           /* number of them */
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
    g_autofree EgmRetiredPages *list = egm_list_retired_pages(42);

    g_assert_nonnull(list);
    g_assert_cmpint(list->count, ==, count);
    g_assert_cmpint(driver.calls, ==, calls);
    for (uint32_t i = 0; i < count; i++) {
        g_assert_cmphex(list->pages[i].offset, ==, i * 0x20000ull);
        g_assert_cmphex(list->pages[i].size, ==, 0x10000);
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

/* A page goes bad between two calls, or during the call for all pages. */
static void test_growth(void)
{
    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1;
    assert_pages(11, 2);

    memset(&driver, 0, sizeof(driver));
    driver.pages = 10;
    driver.growth = 1000;
    g_assert_null(egm_list_retired_pages(42));
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
        g_assert_null(egm_list_retired_pages(42));
        g_assert_cmpint(errno, ==, errors[i]);
        g_assert_cmpint(driver.calls, ==, 1);
    }

    memset(&driver, 0, sizeof(driver));
    driver.pages = 3;
    driver.fails = EINTR;
    driver.failures = 2;
    assert_pages(3, 4);
}

/* Numbers that make no sense */
static void test_garbage(void)
{
    static const struct {
        uint32_t pages, argsz, count;
    } cases[] = {
        { 0, UINT32_MAX, 0 },           /* needs 4 GiB */
        { 0, 512 * MiB, 0 },
        { 0, 0, 1 },                    /* more than fit */
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
        g_assert_null(egm_list_retired_pages(42));
        g_assert_cmpint(errno, ==, EPROTO);
        g_assert_cmpint(driver.calls, <=, 2);
    }

    /* Space for half an entry */
    memset(&driver, 0, sizeof(driver));
    driver.argsz = ARGSZ(1) + 8;
    driver.pages = driver.count = 1;
    assert_pages(1, 2);
}

#define SIZE (256 * MiB)
#define BLOCK (64 * KiB)

/* Compare with @text, which has "first+count" in blocks for each range. */
static void assert_blocks(const EgmRetiredPage *pages, uint32_t count,
                          const char *text)
{
    size_t size = sizeof(EgmRetiredPages) + count * sizeof(*pages);
    g_autofree EgmRetiredPages *list = g_malloc0(size);
    g_autoptr(GString) found = g_string_new(NULL);
    GList *blocks;

    list->count = count;
    memcpy(list->pages, pages, count * sizeof(*pages));
    blocks = egm_retired_blocks(list, SIZE);
    for (GList *item = blocks; item; item = item->next) {
        g_assert_cmphex(range_lob(item->data) % BLOCK, ==, 0);
        g_string_append_printf(found, "%s%" PRIu64 "+%" PRIu64,
                               found->len ? " " : "",
                               range_lob(item->data) / BLOCK,
                               range_size(item->data) / BLOCK);
    }
    g_assert_cmpstr(found->str, ==, text);
    g_list_free_full(blocks, g_free);
}

static void test_blocks(void)
{
    static const struct {
        EgmRetiredPage page;
        const char *blocks;
    } cases[] = {
        { { 0, 1 }, "0+1" },
        { { 0, BLOCK }, "0+1" },
        { { 0, BLOCK + 1 }, "0+2" },
        { { BLOCK - 1, 1 }, "0+1" },
        { { BLOCK - 1, 2 }, "0+2" },
        { { 5 * BLOCK, 4 * KiB }, "5+1" },
        { { SIZE - 1, 1 }, "4095+1" },
        { { SIZE - 1, UINT64_MAX }, "4095+1" },
        { { 0, UINT64_MAX }, "0+4096" },
        { { SIZE, 1 }, "" },
        { { UINT64_MAX, UINT64_MAX }, "" },
        { { 0, 0 }, "" },
    };
    static const EgmRetiredPage several[] = {
        { 9 * BLOCK, BLOCK },
        { 2 * BLOCK, 3 * BLOCK },           /* holds the next one */
        { 3 * BLOCK, BLOCK },
        { 5 * BLOCK, BLOCK },               /* touches */
        { 0, BLOCK },
        { 0, BLOCK },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_blocks(&cases[i].page, 1, cases[i].blocks);
    }
    assert_blocks(several, ARRAY_SIZE(several), "0+1 2+4 9+1");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/egm-retired-pages/count", test_count);
    g_test_add_func("/egm-retired-pages/growth", test_growth);
    g_test_add_func("/egm-retired-pages/shrink", test_shrink);
    g_test_add_func("/egm-retired-pages/errors", test_errors);
    g_test_add_func("/egm-retired-pages/garbage", test_garbage);
    g_test_add_func("/egm-retired-pages/blocks", test_blocks);
    return g_test_run();
}
