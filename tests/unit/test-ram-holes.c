/*
 * Bad ranges of RAM, and the holes that they leave in a guest's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "hw/ram-holes.h"
#include "migration/misc.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "system/system.h"

#define SIZE (256 * MiB)
#define BLOCK RAM_HOLE_BLOCK

/* What the files under test need of the rest of QEMU */

RAMList ram_list;
int only_migratable;
static unsigned aborted;

void migration_abort(Error *reason)
{
    error_free(reason);
    aborted++;
}

void numa_node_range(const MachineState *ms, unsigned node, uint64_t ram_base,
                     uint64_t *base, uint64_t *size)
{
    *base = ram_base + node * SIZE;
    *size = SIZE;
}

const char *memory_region_name(const MemoryRegion *mr)
{
    return "test";
}

static GArray *new_ranges(void)
{
    return g_array_new(false, false, sizeof(RamBadRange));
}

static void add(GArray *ranges, uint64_t offset, uint64_t size)
{
    RamBadRange range = { offset, size };

    g_array_append_val(ranges, range);
}

static uint64_t sum(const GArray *ranges)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < ranges->len; i++) {
        size += g_array_index(ranges, RamBadRange, i).size;
    }
    return size;
}

static void append(GString *text, uint64_t offset, uint64_t size)
{
    g_assert_cmphex(offset % BLOCK, ==, 0);
    g_string_append_printf(text, "%s%" PRIu64 "+%" PRIu64, text->len ? " " : "",
                           offset / BLOCK, size / BLOCK);
}

/* Compare with @text, "first+count" in blocks for each range. */
static void assert_ranges(const GArray *ranges, const char *text)
{
    g_autoptr(GString) found = g_string_new(NULL);

    for (unsigned i = 0; ranges && i < ranges->len; i++) {
        const RamBadRange *range = &g_array_index(ranges, RamBadRange, i);

        append(found, range->offset, range->size);
    }
    g_assert_cmpstr(found->str, ==, text);
}

static void test_blocks(void)
{
    static const struct {
        uint64_t offset, size;
        const char *ranges;
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
        g_autoptr(GArray) ranges = new_ranges();

        add(ranges, cases[i].offset, cases[i].size);
        ram_bad_ranges_normalize(ranges, SIZE, BLOCK);
        assert_ranges(ranges, cases[i].ranges);
    }
}

/* What they are part of does not end with a block. */
static void test_ragged(void)
{
    g_autoptr(GArray) ranges = new_ranges();

    add(ranges, 0, 1);
    ram_bad_ranges_normalize(ranges, 12 * KiB, BLOCK);
    g_assert_cmphex(g_array_index(ranges, RamBadRange, 0).size, ==, 12 * KiB);
}

static void test_merge(void)
{
    g_autoptr(GArray) ranges = new_ranges();

    add(ranges, 9 * BLOCK, BLOCK);
    add(ranges, 2 * BLOCK, 3 * BLOCK);      /* holds the next one */
    add(ranges, 3 * BLOCK, BLOCK);
    add(ranges, 5 * BLOCK, BLOCK);          /* touches */
    add(ranges, 0, BLOCK);
    add(ranges, 0, BLOCK);
    ram_bad_ranges_normalize(ranges, SIZE, BLOCK);
    assert_ranges(ranges, "0+1 2+4 9+1");
}

/* A RAM block whose device tells what @told holds */
static GArray *told;

static GArray *read_told(int fd)
{
    return told ? g_array_append_vals(new_ranges(), told->data, told->len)
                : NULL;
}

static void test_update(void)
{
    RAMBlock rb = { .used_length = SIZE };
    Error *err = NULL;

    QLIST_INIT(&ram_list.blocks);
    QLIST_INSERT_HEAD(&ram_list.blocks, &rb, next);
    told = NULL;
    g_assert_true(ram_block_track_bad_ranges(&rb, read_told, &error_abort));
    g_assert_null(ram_block_bad_ranges(&rb));
    told = new_ranges();
    ram_update_bad_ranges();
    g_assert_null(ram_block_bad_ranges(&rb));
    g_assert_true(ram_check_readable(&error_abort));

    aborted = 0;
    add(told, BLOCK, BLOCK);
    add(told, SIZE, BLOCK);
    ram_update_bad_ranges();
    assert_ranges(ram_block_bad_ranges(&rb), "1+1");
    g_assert_cmpint(aborted, ==, 1);
    ram_update_bad_ranges();
    g_assert_cmpint(aborted, ==, 1);
    g_assert_false(ram_check_readable(&err));
    error_free_or_abort(&err);

    /* The device has forgotten, or does not answer. */
    g_clear_pointer(&told, g_array_unref);
    ram_update_bad_ranges();
    assert_ranges(ram_block_bad_ranges(&rb), "1+1");
    told = new_ranges();
    ram_update_bad_ranges();
    assert_ranges(ram_block_bad_ranges(&rb), "1+1");

    only_migratable = 1;
    g_assert_false(ram_block_track_bad_ranges(&rb, read_told, &err));
    error_free_or_abort(&err);
    only_migratable = 0;
    g_clear_pointer(&told, g_array_unref);
    g_clear_pointer(&rb.bad_ranges, g_array_unref);
    QLIST_REMOVE(&rb, next);
}

static void append_good(uint64_t offset, uint64_t size, void *opaque)
{
    append(opaque, offset, size);
}

static void test_good(void)
{
    static const struct {
        uint64_t offset, size;              /* in blocks */
        const char *good;
    } cases[] = {
        { 0, 16, "0+2 4+4 9+7" },
        { 0, 2, "0+2" },
        { 0, 3, "0+2" },
        { 1, 4, "1+1 4+1" },
        { 2, 2, "" },
        { 3, 1, "" },
        { 4, 4, "4+4" },
        { 9, 7, "9+7" },
        { 5, 0, "" },
    };
    RAMBlock rb = { .bad_ranges = new_ranges() };

    add(rb.bad_ranges, 2 * BLOCK, 2 * BLOCK);
    add(rb.bad_ranges, 8 * BLOCK, BLOCK);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(GString) found = g_string_new(NULL);

        ram_block_foreach_good_range(&rb, cases[i].offset * BLOCK,
                                     cases[i].size * BLOCK, append_good, found);
        g_assert_cmpstr(found->str, ==, cases[i].good);
    }
    g_clear_pointer(&rb.bad_ranges, g_array_unref);
    {
        g_autoptr(GString) found = g_string_new(NULL);

        ram_block_foreach_good_range(&rb, BLOCK, BLOCK, append_good, found);
        g_assert_cmpstr(found->str, ==, "1+1");
    }
}

static void test_limit(void)
{
    static const struct {
        unsigned max;
        uint64_t lost;
        const char *holes;
    } cases[] = {                           /* gaps: 1, 3, 2, 2 */
        { 6, 0, "0+1 2+1 6+1 9+1 12+1" },
        { 5, 0, "0+1 2+1 6+1 9+1 12+1" },
        { 4, 1, "0+3 6+1 9+1 12+1" },
        { 3, 3, "0+3 6+4 12+1" },           /* one of the two gaps of 2 */
        { 2, 5, "0+3 6+7" },
        { 1, 8, "0+13" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        static const int at[] = { 12, 0, 9, 2, 6 };
        g_autoptr(GArray) holes = new_ranges();

        for (int n = 0; n < ARRAY_SIZE(at); n++) {
            add(holes, at[n] * BLOCK, BLOCK);
        }
        ram_bad_ranges_normalize(holes, SIZE, BLOCK);
        g_assert_cmpint(ram_holes_limit(holes, cases[i].max), ==,
                        cases[i].lost * BLOCK);
        assert_ranges(holes, cases[i].holes);
    }
}

/* A full list, spread at random: what is lost is the sum of the least gaps. */
static void test_full(void)
{
    g_autoptr(GArray) holes = new_ranges();
    uint64_t bad, lost;

    for (int i = 0; i < 4096; i++) {
        add(holes, g_test_rand_int_range(0, 8 * 1024 * 1024) * BLOCK, 1);
    }
    ram_bad_ranges_normalize(holes, 512 * GiB, BLOCK);
    bad = sum(holes);
    lost = ram_holes_limit(holes, RAM_HOLES_MAX);
    g_assert_cmpint(holes->len, ==, RAM_HOLES_MAX);
    g_assert_cmpint(sum(holes), ==, bad + lost);
    for (int i = 1; i < holes->len; i++) {
        const RamBadRange *last = &g_array_index(holes, RamBadRange, i - 1);

        g_assert_cmphex(last->offset + last->size, <, last[1].offset);
    }
}

static void test_find(void)
{
    g_autoptr(GArray) holes = new_ranges();

    add(holes, 2 * BLOCK, 2 * BLOCK);
    add(holes, 8 * BLOCK, BLOCK);
    g_assert_null(ram_holes_find(NULL, 0, SIZE));
    g_assert_null(ram_holes_find(holes, 0, 2 * BLOCK));
    g_assert_null(ram_holes_find(holes, 4 * BLOCK, 4 * BLOCK));
    g_assert_null(ram_holes_find(holes, 3 * BLOCK, 0));
    g_assert_nonnull(ram_holes_find(holes, 0, 2 * BLOCK + 1));
    g_assert_cmphex(ram_holes_find(holes, 4 * BLOCK - 1, 1)->offset, ==,
                    2 * BLOCK);
    g_assert_cmphex(ram_holes_find(holes, 4 * BLOCK, SIZE)->offset, ==,
                    8 * BLOCK);
    g_assert_null(ram_holes_find(holes, 9 * BLOCK, UINT64_MAX - 9 * BLOCK));
}

/* Nodes on RAM with bad ranges, and one without; a block across their border */
static void test_machine(void)
{
    RAMBlock rb[2] = {
        { .read_bad_ranges = read_told, .bad_ranges = new_ranges() },
        { .read_bad_ranges = read_told, .bad_ranges = new_ranges() },
    };
    HostMemoryBackend backends[2] = { };
    NumaState numa = { .num_nodes = 3 };
    MachineState ms = { .numa_state = &numa, .ram_size = 3 * SIZE };
    g_autoptr(GArray) holes = NULL;

    g_assert_null(ram_holes_of_machine(&ms));
    for (int i = 0; i < 2; i++) {
        backends[i].mr.ram_block = &rb[i];
        numa.nodes[i + 1].node_memdev = &backends[i];
    }
    add(rb[0].bad_ranges, SIZE - 4 * KiB, 64 * KiB);
    add(rb[1].bad_ranges, 0, 4 * KiB);
    add(rb[1].bad_ranges, 4 * BLOCK, 4 * KiB);
    add(rb[1].bad_ranges, SIZE, 4 * KiB);
    holes = ram_holes_of_machine(&ms);
    assert_ranges(holes, "8191+2 8196+1");
    g_array_unref(rb[0].bad_ranges);
    g_array_unref(rb[1].bad_ranges);
}

static void test_equal(void)
{
    g_autoptr(GArray) a = new_ranges();
    g_autoptr(GArray) b = new_ranges();

    g_assert_true(ram_bad_ranges_equal(a, b));
    g_assert_false(ram_bad_ranges_equal(NULL, b));
    add(a, 0, BLOCK);
    g_assert_false(ram_bad_ranges_equal(a, b));
    add(b, 0, BLOCK);
    g_assert_true(ram_bad_ranges_equal(a, b));
    add(a, 8 * BLOCK, BLOCK);
    add(b, 8 * BLOCK, 2 * BLOCK);
    g_assert_false(ram_bad_ranges_equal(a, b));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ram-holes/blocks", test_blocks);
    g_test_add_func("/ram-holes/ragged", test_ragged);
    g_test_add_func("/ram-holes/merge", test_merge);
    g_test_add_func("/ram-holes/update", test_update);
    g_test_add_func("/ram-holes/good", test_good);
    g_test_add_func("/ram-holes/limit", test_limit);
    g_test_add_func("/ram-holes/full", test_full);
    g_test_add_func("/ram-holes/find", test_find);
    g_test_add_func("/ram-holes/machine", test_machine);
    g_test_add_func("/ram-holes/equal", test_equal);
    return g_test_run();
}
