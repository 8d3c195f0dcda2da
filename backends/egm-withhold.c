/*
 * Extended GPU Memory (EGM): keep retired pages from the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "exec/cpu-common.h"
#include "hw/boards.h"
#include "hw/ram-holes.h"
#include "system/egm.h"
#include "system/numa.h"
#include "trace.h"

/* How many holes a warning lists; trace events tell all. */
#define LISTED 4

void egm_backend_add_holes(const HostMemoryBackend *backend, GArray *holes,
                           unsigned node, hwaddr base, uint64_t size)
{
    const GArray *retired = backend->egm->retired;

    for (unsigned i = 0; retired && i < retired->len; i++) {
        const EgmRange *range = &g_array_index(retired, EgmRange, i);

        ram_holes_add(holes, node, base, size, range->offset, range->size);
    }
}

static void egm_warn_withheld(const GArray *holes, uint64_t good)
{
    g_autofree char *size = size_to_str(ram_holes_size(holes));
    g_autoptr(GString) list = g_string_new(NULL);

    for (unsigned i = 0; i < holes->len; i++) {
        const RamHole *hole = &g_array_index(holes, RamHole, i);

        trace_egm_withhold(hole->base, hole->size, hole->node);
        if (i < LISTED) {
            g_string_append_printf(list, "%s0x%" PRIx64 "-0x%" PRIx64,
                                   i ? ", " : "", hole->base,
                                   hole->base + hole->size - 1);
        }
    }
    if (holes->len > LISTED) {
        g_string_append_printf(list, " and %u more", holes->len - LISTED);
    }
    if (holes->len) {
        warn_report("%s of guest RAM are withheld from the guest, for retired "
                    "pages of its EGM: %s", size, list->str);
    }
    if (good) {
        g_autofree char *text = size_to_str(good);

        warn_report("%s of that are good memory, between retired pages: a "
                    "guest can do with %u holes in its RAM", text,
                    RAM_HOLES_MAX);
    }
}

/* Returns: whether the backend is an EGM device */
static bool egm_withhold_one(GArray *holes, HostMemoryBackend *backend,
                             unsigned node, hwaddr base, uint64_t size)
{
    if (!backend || !backend->egm) {
        return false;
    }
    egm_backend_read_retired(backend);
    egm_backend_add_holes(backend, holes, node, base, size);
    if (backend->egm->retired && backend->egm->retired->len) {
        /* Nothing reads or writes all of it, not even for statistics. */
        qemu_ram_unset_migratable(backend->mr.ram_block);
    }
    return true;
}

GArray *egm_withhold(const MachineState *ms, hwaddr ram_base,
                     const GArray *last)
{
    g_autoptr(GArray) holes = ram_holes_new();
    hwaddr base = ram_base;
    bool any = false;
    uint64_t good;

    /* The backend of the machine, or those of the nodes, but not both */
    if (ms->memdev) {
        any = egm_withhold_one(holes, ms->memdev, 0, base, ms->ram_size);
    }
    for (int i = 0; ms->numa_state && i < ms->numa_state->num_nodes; i++) {
        const NodeInfo *node = &ms->numa_state->nodes[i];

        any |= egm_withhold_one(holes, node->node_memdev, i, base,
                                node->node_mem);
        base += node->node_mem;
    }
    if (!any) {
        return NULL;
    }
    good = ram_holes_merge(holes, RAM_HOLES_MAX);
    if (!last || !ram_holes_equal(holes, last)) {
        egm_warn_withheld(holes, good);
    }
    return g_steal_pointer(&holes);
}
