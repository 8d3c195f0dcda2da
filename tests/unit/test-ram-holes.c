/*
 * Holes in guest RAM: merging, limiting, and placing around them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/ram-holes.h"

#define BASE (1 * GiB)
#define SIZE (256 * MiB)
#define BLOCK RAM_HOLE_BLOCK

/* Compare with @text, "first+count" in blocks of node 0 for each hole. */
static void assert_holes(const GArray *holes, const char *text)
{
    g_autoptr(GString) found = g_string_new(NULL);

    for (unsigned i = 0; i < holes->len; i++) {
        const RamHole *hole = &g_array_index(holes, RamHole, i);

        g_string_append_printf(found, "%s%" PRIu64 "+%" PRIu64, i ? " " : "",
                               (hole->base - BASE) / BLOCK,
                               hole->size / BLOCK);
        g_assert_cmphex(hole->base % BLOCK, ==, 0);
    }
    g_assert_cmpstr(found->str, ==, text);
}

static void add(GArray *holes, uint64_t offset, uint64_t size)
{
    ram_holes_add(holes, 0, BASE, SIZE, offset, size);
}

static void test_blocks(void)
{
    static const struct {
        uint64_t offset, size;
        const char *holes;
    } cases[] = {
        { 0, 1, "0+1" },
        { 0, BLOCK, "0+1" },
        { 0, BLOCK + 1, "0+2" },
        { BLOCK - 1, 1, "0+1" },
        { BLOCK - 1, 2, "0+2" },
        { 5 * BLOCK, 4 * KiB, "5+1" },
        { SIZE - 1, 1, "4095+1" },
        { SIZE - 1, UINT64_MAX, "4095+1" },
        { 0, UINT64_MAX, "0+4096" },
        { SIZE, 1, "" },
        { UINT64_MAX, UINT64_MAX, "" },
        { 0, 0, "" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(GArray) holes = ram_holes_new();

        add(holes, cases[i].offset, cases[i].size);
        g_assert_cmpint(ram_holes_merge(holes, 10), ==, 0);
        assert_holes(holes, cases[i].holes);
    }
}

/* RAM that does not begin or end with a block: no hole reaches out of it. */
static void test_ragged(void)
{
    g_autoptr(GArray) holes = ram_holes_new();
    const RamHole *hole;

    ram_holes_add(holes, 0, BASE + 4 * KiB, 8 * KiB, 0, 1);
    hole = &g_array_index(holes, RamHole, 0);
    g_assert_cmphex(hole->base, ==, BASE + 4 * KiB);
    g_assert_cmphex(hole->size, ==, 8 * KiB);
}

static void test_merge(void)
{
    g_autoptr(GArray) holes = ram_holes_new();

    add(holes, 9 * BLOCK, BLOCK);
    add(holes, 2 * BLOCK, 3 * BLOCK);       /* holds the next one */
    add(holes, 3 * BLOCK, BLOCK);
    add(holes, 5 * BLOCK, BLOCK);           /* touches */
    add(holes, 0, BLOCK);
    add(holes, 0, BLOCK);
    g_assert_cmpint(ram_holes_merge(holes, 3), ==, 0);
    assert_holes(holes, "0+1 2+4 9+1");
    g_assert_cmpint(ram_holes_size(holes), ==, 6 * BLOCK);
}

static void test_limit(void)
{
    static const struct {
        unsigned max;
        uint64_t lost;
        const char *holes;
    } cases[] = {                           /* gaps: 1, 3, 2, 2 */
        { 5, 0, "0+1 2+1 6+1 9+1 12+1" },
        { 4, 1, "0+3 6+1 9+1 12+1" },
        { 3, 3, "0+3 6+4 12+1" },           /* one of the two gaps of 2 */
        { 2, 5, "0+3 6+7" },
        { 1, 8, "0+13" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(GArray) holes = ram_holes_new();

        for (int n = 0; n < 5; n++) {
            static const int at[] = { 12, 0, 9, 2, 6 };

            add(holes, at[n] * BLOCK, 1);
        }
        g_assert_cmpint(ram_holes_merge(holes, cases[i].max), ==,
                        cases[i].lost * BLOCK);
        assert_holes(holes, cases[i].holes);
    }
}

/* The end of one node and the start of the next are never one hole. */
static void test_nodes(void)
{
    g_autoptr(GArray) holes = ram_holes_new();

    ram_holes_add(holes, 1, BASE + SIZE, SIZE, 0, 1);
    ram_holes_add(holes, 1, BASE + SIZE, SIZE, 8 * BLOCK, 1);
    add(holes, SIZE - 1, 1);
    add(holes, SIZE - 3 * BLOCK, 1);
    g_assert_cmpint(ram_holes_merge(holes, 3), ==, BLOCK);
    assert_holes(holes, "4093+3 4096+1 4104+1");
    g_assert_cmpint(ram_holes_merge(holes, 2), ==, 7 * BLOCK);
    assert_holes(holes, "4093+3 4096+9");
}

/* A full list, spread at random: what is lost is the sum of the least gaps. */
static void test_full(void)
{
    g_autoptr(GArray) holes = ram_holes_new();
    uint64_t bad, lost;

    for (int i = 0; i < 4096; i++) {
        ram_holes_add(holes, 0, BASE, 512 * GiB,
                      g_test_rand_int_range(0, 8 * 1024 * 1024) * BLOCK, 1);
    }
    ram_holes_merge(holes, UINT_MAX);
    bad = ram_holes_size(holes);
    lost = ram_holes_merge(holes, RAM_HOLES_MAX);
    g_assert_cmpint(holes->len, ==, RAM_HOLES_MAX);
    g_assert_cmpint(ram_holes_size(holes), ==, bad + lost);
    for (int i = 1; i < holes->len; i++) {
        const RamHole *last = &g_array_index(holes, RamHole, i - 1);

        g_assert_cmphex(last->base + last->size, <, last[1].base);
    }
}

static void test_find(void)
{
    g_autoptr(GArray) holes = ram_holes_new();

    add(holes, 2 * BLOCK, 2 * BLOCK);
    add(holes, 8 * BLOCK, BLOCK);
    ram_holes_merge(holes, 10);
    g_assert_null(ram_holes_find(NULL, BASE, SIZE));
    g_assert_null(ram_holes_find(holes, BASE, 2 * BLOCK));
    g_assert_null(ram_holes_find(holes, BASE + 4 * BLOCK, 4 * BLOCK));
    g_assert_null(ram_holes_find(holes, BASE + 3 * BLOCK, 0));
    g_assert_nonnull(ram_holes_find(holes, BASE, 2 * BLOCK + 1));
    g_assert_cmphex(ram_holes_find(holes, BASE + 4 * BLOCK - 1, 1)->base, ==,
                    BASE + 2 * BLOCK);
    g_assert_cmphex(ram_holes_find(holes, BASE + 4 * BLOCK, SIZE)->base, ==,
                    BASE + 8 * BLOCK);
    g_assert_null(ram_holes_find(holes, BASE + 9 * BLOCK,
                                 UINT64_MAX - BASE - 9 * BLOCK));
}

static void test_place(void)
{
    g_autoptr(GArray) holes = ram_holes_new();
    static const struct {
        uint64_t at, size, step, place;     /* in blocks */
    } cases[] = {
        { 0, 2, 1, 0 },
        { 0, 3, 1, 4 },
        { 0, 4, 1, 4 },
        { 0, 5, 1, 9 },
        { 1, 2, 2, 5 },
        { 1, 4, 4, 9 },
        { 3, 1, 1, 4 },
        { 20, 100, 1, 20 },
    };

    add(holes, 2 * BLOCK, 2 * BLOCK);
    add(holes, 8 * BLOCK, BLOCK);
    ram_holes_merge(holes, 10);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmpint((ram_holes_place(holes, BASE + cases[i].at * BLOCK,
                                         cases[i].size * BLOCK,
                                         cases[i].step * BLOCK) - BASE) / BLOCK,
                        ==, cases[i].place);
    }
    g_assert_cmphex(ram_holes_place(NULL, BASE, SIZE, BLOCK), ==, BASE);
}

static void test_equal(void)
{
    g_autoptr(GArray) a = ram_holes_new();
    g_autoptr(GArray) b = ram_holes_new();

    g_assert_true(ram_holes_equal(a, b));
    add(a, 0, 1);
    g_assert_false(ram_holes_equal(a, b));
    add(b, BLOCK, 1);
    g_assert_false(ram_holes_equal(a, b));
    add(b, 0, 1);
    add(a, BLOCK, 1);
    ram_holes_merge(a, 1);
    ram_holes_merge(b, 1);
    g_assert_true(ram_holes_equal(a, b));
    add(a, 8 * BLOCK, 1);
    add(b, 8 * BLOCK, 2 * BLOCK);
    g_assert_false(ram_holes_equal(a, b));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ram-holes/blocks", test_blocks);
    g_test_add_func("/ram-holes/ragged", test_ragged);
    g_test_add_func("/ram-holes/merge", test_merge);
    g_test_add_func("/ram-holes/limit", test_limit);
    g_test_add_func("/ram-holes/nodes", test_nodes);
    g_test_add_func("/ram-holes/full", test_full);
    g_test_add_func("/ram-holes/find", test_find);
    g_test_add_func("/ram-holes/place", test_place);
    g_test_add_func("/ram-holes/equal", test_equal);
    return g_test_run();
}
