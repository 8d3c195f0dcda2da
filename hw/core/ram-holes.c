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

static uint64_t gap_after(const RamBadRange *hole)
{
    return hole[1].offset - hole_end(hole);
}

static gint gap_compare(gconstpointer a, gconstpointer b)
{
    uint64_t x = gap_after(*(RamBadRange * const *)a);
    uint64_t y = gap_after(*(RamBadRange * const *)b);

    return x < y ? -1 : x > y;
}

uint64_t ram_holes_limit(GArray *holes, unsigned max)
{
    g_autoptr(GPtrArray) by_gap = g_ptr_array_new();
    uint64_t lost = 0;

    for (unsigned i = 0; i + 1 < holes->len; i++) {
        g_ptr_array_add(by_gap, hole_at(holes, i));
    }
    g_ptr_array_sort(by_gap, gap_compare);
    for (unsigned i = 0; i + max < holes->len; i++) {
        RamBadRange *hole = g_ptr_array_index(by_gap, i);
        uint64_t gap = gap_after(hole);

        hole->size += gap;
        lost += gap;
    }
    ram_bad_ranges_normalize(holes, UINT64_MAX, 1);
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
