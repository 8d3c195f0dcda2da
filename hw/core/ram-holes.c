/*
 * Parts of guest RAM that the guest is not told about
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/ram-holes.h"

static RamHole *hole_at(const GArray *holes, unsigned i)
{
    return &g_array_index(holes, RamHole, i);
}

static hwaddr hole_end(const RamHole *hole)
{
    return hole->base + hole->size;
}

GArray *ram_holes_new(void)
{
    return g_array_new(false, false, sizeof(RamHole));
}

void ram_holes_add(GArray *holes, unsigned node, hwaddr ram_base,
                   uint64_t ram_size, uint64_t offset, uint64_t size)
{
    RamHole hole = { .node = node };
    hwaddr end;

    if (!size || offset >= ram_size) {
        return;
    }
    size = MIN(size, ram_size - offset);
    end = QEMU_ALIGN_UP(ram_base + offset + size, RAM_HOLE_BLOCK);
    hole.base = QEMU_ALIGN_DOWN(ram_base + offset, RAM_HOLE_BLOCK);
    hole.base = MAX(hole.base, ram_base);
    hole.size = MIN(end, ram_base + ram_size) - hole.base;
    g_array_append_val(holes, hole);
}

static gint hole_compare(gconstpointer a, gconstpointer b)
{
    const RamHole *x = a, *y = b;

    return x->base < y->base ? -1 : x->base > y->base;
}

/*
 * Merge holes of one node with less than @gap between them, and @ties times
 * those with just @gap.
 */
static void merge_across(GArray *holes, uint64_t gap, unsigned ties)
{
    unsigned n = 0;

    for (unsigned i = 0; i < holes->len; i++) {
        RamHole *last = n ? hole_at(holes, n - 1) : NULL;
        const RamHole *hole = hole_at(holes, i);
        hwaddr end = last ? hole_end(last) : 0;
        bool merge = false;

        if (last && last->node == hole->node) {
            merge = hole->base <= end || hole->base - end < gap;
            if (!merge && hole->base - end == gap && ties) {
                merge = true;
                ties--;
            }
        }
        if (merge) {
            last->size = MAX(end, hole_end(hole)) - last->base;
        } else {
            *hole_at(holes, n++) = *hole;
        }
    }
    g_array_set_size(holes, n);
}

static gint gap_compare(gconstpointer a, gconstpointer b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Merge across the smallest gaps, until there are @max holes. */
static void merge_smallest(GArray *holes, unsigned max)
{
    g_autoptr(GArray) gaps = g_array_new(false, false, sizeof(uint64_t));
    unsigned surplus = holes->len - max, ties = 0;
    uint64_t largest;

    for (unsigned i = 1; i < holes->len; i++) {
        const RamHole *last = hole_at(holes, i - 1), *hole = hole_at(holes, i);
        uint64_t gap = hole->base - hole_end(last);

        if (last->node == hole->node) {
            g_array_append_val(gaps, gap);
        }
    }
    g_array_sort(gaps, gap_compare);
    assert(surplus <= gaps->len);
    largest = g_array_index(gaps, uint64_t, surplus - 1);
    while (ties < surplus &&
           g_array_index(gaps, uint64_t, surplus - 1 - ties) == largest) {
        ties++;
    }
    merge_across(holes, largest, ties);
}

uint64_t ram_holes_merge(GArray *holes, unsigned max)
{
    uint64_t size;

    g_array_sort(holes, hole_compare);
    merge_across(holes, 0, 0);
    if (holes->len <= max) {
        return 0;
    }
    size = ram_holes_size(holes);
    merge_smallest(holes, max);
    return ram_holes_size(holes) - size;
}

uint64_t ram_holes_size(const GArray *holes)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < holes->len; i++) {
        size += hole_at(holes, i)->size;
    }
    return size;
}

bool ram_holes_equal(const GArray *a, const GArray *b)
{
    if (a->len != b->len) {
        return false;
    }
    for (unsigned i = 0; i < a->len; i++) {
        if (hole_at(a, i)->base != hole_at(b, i)->base ||
            hole_at(a, i)->size != hole_at(b, i)->size) {
            return false;
        }
    }
    return true;
}

const RamHole *ram_holes_find(const GArray *holes, hwaddr base, uint64_t size)
{
    for (unsigned i = 0; holes && size && i < holes->len; i++) {
        const RamHole *hole = hole_at(holes, i);

        if (hole->base > base + size - 1) {
            break;
        }
        if (hole_end(hole) > base) {
            return hole;
        }
    }
    return NULL;
}

hwaddr ram_holes_place(const GArray *holes, hwaddr base, uint64_t size,
                       uint64_t step)
{
    const RamHole *hole;
    hwaddr start = base;

    while ((hole = ram_holes_find(holes, base, size))) {
        base = start + QEMU_ALIGN_UP(hole_end(hole) - start, step);
    }
    return base;
}
