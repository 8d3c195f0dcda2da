/*
 * Bad ranges of a RAM block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/range.h"
#include "qemu/rcu.h"
#include "exec/ramlist.h"
#include "hw/boards.h"
#include "system/ram-bad-ranges.h"
#include "system/ramblock.h"
#include "system/system.h"

static void ram_block_update_bad_ranges(RAMBlock *rb)
{
    GList *old = rb->bad_ranges;
    GList *ranges = rb->read_bad_ranges ? rb->read_bad_ranges(rb->mr) : NULL;

    if (ranges) {
        /* Other threads only test whether the list is empty. */
        qatomic_set(&rb->bad_ranges, ranges);
        g_list_free_full(old, g_free);
    }
}

bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp)
{
    MachineClass *mc = MACHINE_GET_CLASS(qdev_get_machine());

    rb->read_bad_ranges = read;
    ram_block_update_bad_ranges(rb);
    if (!rb->bad_ranges) {
        return true;
    }
    if (!mc->ram_holes_supported) {
        error_setg(errp, "the memory has bad ranges, and machine '%s' cannot "
                   "leave them out of guest RAM", mc->name);
    } else if (phase_check(PHASE_MACHINE_READY)) {
        error_setg(errp, "the memory has bad ranges, and they cannot be left "
                   "out of memory that is added to a running VM");
    } else if (only_migratable) {
        error_setg(errp, "the memory has bad ranges, and -only-migratable does "
                   "not allow them: migration would read them");
    } else {
        return true;
    }
    return false;
}

bool ram_tracks_bad_ranges(void)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->read_bad_ranges) {
            return true;
        }
    }
    return false;
}

void ram_update_bad_ranges(void)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        ram_block_update_bad_ranges(rb);
    }
}

bool ram_check_readable(Error **errp)
{
    RAMBlock *rb;

    ram_update_bad_ranges();
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->bad_ranges) {
            error_setg(errp, "RAM block '%s' has bad ranges, which must not be "
                       "read", memory_region_name(rb->mr));
            return false;
        }
    }
    return true;
}

static bool ram_block_has_bad_range(const RAMBlock *rb, hwaddr offset,
                                    hwaddr size)
{
    for (const GList *item = rb->bad_ranges; item; item = item->next) {
        Range *range = item->data;

        if (ranges_overlap(range_lob(range), range_size(range), offset, size)) {
            return true;
        }
    }
    return false;
}

bool address_space_has_bad_range(AddressSpace *as, hwaddr addr, hwaddr size)
{
    bool found = false;

    while (size && !found) {
        MemoryRegionSection section = memory_region_find(as->root, addr, size);
        hwaddr start = section.offset_within_address_space;
        hwaddr len = int128_get64(section.size);

        if (!section.mr) {
            break;
        }
        found = section.mr->ram_block &&
                ram_block_has_bad_range(section.mr->ram_block,
                                        section.offset_within_region, len);
        memory_region_unref(section.mr);
        size -= start + len - addr;
        addr = start + len;
    }
    return found;
}
