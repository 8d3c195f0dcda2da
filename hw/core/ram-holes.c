/*
 * Parts of guest RAM that the guest is not told about
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/boards.h"
#include "hw/ram-holes.h"
#include "system/hostmem.h"
#include "system/numa.h"

static RamBadRange *hole_at(const GArray *holes, unsigned i)
{
    return &g_array_index(holes, RamBadRange, i);
}

static uint64_t hole_end(const RamBadRange *hole)
{
    return hole->offset + hole->size;
}

static uint64_t gap_after(const GArray *holes, unsigned i)
{
    return hole_at(holes, i + 1)->offset - hole_end(hole_at(holes, i));
}

static gint gap_compare(gconstpointer a, gconstpointer b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

uint64_t ram_holes_limit(GArray *holes, unsigned max)
{
    g_autoptr(GArray) gaps = g_array_new(false, false, sizeof(uint64_t));
    unsigned surplus = holes->len > max ? holes->len - max : 0;
    uint64_t largest, lost = 0;
    unsigned n = 0, ties = 0;

    if (!surplus) {
        return 0;
    }
    for (unsigned i = 0; i + 1 < holes->len; i++) {
        uint64_t gap = gap_after(holes, i);

        g_array_append_val(gaps, gap);
    }
    g_array_sort(gaps, gap_compare);
    largest = g_array_index(gaps, uint64_t, surplus - 1);
    while (ties < surplus &&
           g_array_index(gaps, uint64_t, surplus - 1 - ties) == largest) {
        ties++;
    }
    /* All gaps smaller than @largest, and @ties of that size */
    for (unsigned i = 1; i < holes->len; i++) {
        RamBadRange *last = hole_at(holes, n);
        RamBadRange hole = *hole_at(holes, i);
        uint64_t gap = hole.offset - hole_end(last);

        if (gap < largest || (gap == largest && ties)) {
            ties -= gap == largest;
            last->size = hole_end(&hole) - last->offset;
            lost += gap;
        } else {
            *hole_at(holes, ++n) = hole;
        }
    }
    g_array_set_size(holes, n + 1);
    return lost;
}

/*
 * The bad ranges of memory that is at @base of the machine's RAM
 *
 * Returns: whether it can have any
 */
static bool add_holes(GArray *holes, HostMemoryBackend *backend, uint64_t base,
                      uint64_t size)
{
    const RAMBlock *rb = backend ? backend->mr.ram_block : NULL;
    const GArray *bad = rb ? ram_block_bad_ranges(rb) : NULL;

    for (unsigned i = 0; bad && i < bad->len; i++) {
        RamBadRange hole = *hole_at(bad, i);

        if (hole.offset < size) {
            hole.size = MIN(hole.size, size - hole.offset);
            hole.offset += base;
            g_array_append_val(holes, hole);
        }
    }
    return rb && ram_block_tracks_bad_ranges(rb);
}

GArray *ram_holes_of_machine(const MachineState *ms)
{
    g_autoptr(GArray) holes = g_array_new(false, false, sizeof(RamBadRange));
    bool any;

    /* The backend of the machine, or those of the nodes, but not both */
    any = add_holes(holes, ms->memdev, 0, ms->ram_size);
    for (int i = 0; ms->numa_state && i < ms->numa_state->num_nodes; i++) {
        uint64_t base, size;

        numa_node_range(ms, i, 0, &base, &size);
        any |= add_holes(holes, ms->numa_state->nodes[i].node_memdev, base,
                         size);
    }
    if (!any) {
        return NULL;
    }
    ram_bad_ranges_normalize(holes, ms->ram_size, RAM_HOLE_BLOCK);
    return g_steal_pointer(&holes);
}

bool ram_holes_equal(const GArray *a, const GArray *b)
{
    return a->len == b->len &&
           (!a->len || !memcmp(a->data, b->data, a->len * sizeof(RamBadRange)));
}

const RamBadRange *ram_holes_find(const GArray *holes, uint64_t offset,
                                  uint64_t size)
{
    for (unsigned i = 0; holes && size && i < holes->len; i++) {
        const RamBadRange *hole = hole_at(holes, i);

        if (hole->offset > offset + size - 1) {
            break;
        }
        if (hole_end(hole) > offset) {
            return hole;
        }
    }
    return NULL;
}
