/*
 * Ranges of a RAM block that must not be touched
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/rcu.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "migration/misc.h"
#include "system/hostmem.h"
#include "system/ram-bad-ranges.h"
#include "system/system.h"

static RamBadRange *range_at(const GArray *ranges, unsigned i)
{
    return &g_array_index(ranges, RamBadRange, i);
}

static gint bad_range_compare(gconstpointer a, gconstpointer b)
{
    const RamBadRange *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void ram_bad_ranges_normalize(GArray *ranges, uint64_t end, uint64_t align)
{
    unsigned n = 0;

    g_array_sort(ranges, bad_range_compare);
    for (unsigned i = 0; i < ranges->len; i++) {
        RamBadRange range = *range_at(ranges, i);
        RamBadRange *last = n ? range_at(ranges, n - 1) : NULL;

        if (!range.size || range.offset >= end) {
            continue;
        }
        range.size = MIN(range.size, end - range.offset);
        range.size += range.offset & (align - 1);
        range.offset = QEMU_ALIGN_DOWN(range.offset, align);
        range.size = MIN(QEMU_ALIGN_UP(range.size, align), end - range.offset);
        if (last && range.offset <= last->offset + last->size) {
            last->size = MAX(last->size,
                             range.offset + range.size - last->offset);
        } else {
            *range_at(ranges, n++) = range;
        }
    }
    g_array_set_size(ranges, n);
}

bool ram_bad_ranges_equal(const GArray *a, const GArray *b)
{
    return a && a->len == b->len &&
           (!a->len || !memcmp(a->data, b->data, a->len * sizeof(RamBadRange)));
}

/* What was told once stays, if the device does not tell any more. */
static bool ram_block_update_bad_ranges(RAMBlock *rb)
{
    GArray *old = rb->bad_ranges;
    g_autoptr(GArray) ranges = rb->read_bad_ranges(rb->fd);

    if (!ranges) {
        return false;
    }
    ram_bad_ranges_normalize(ranges, rb->used_length, 1);
    if (!ranges->len || ram_bad_ranges_equal(old, ranges)) {
        return false;
    }
    /* Other threads only ask whether there are any. */
    qatomic_set(&rb->bad_ranges, g_steal_pointer(&ranges));
    g_clear_pointer(&old, g_array_unref);
    return true;
}

bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp)
{
    rb->read_bad_ranges = read;
    ram_block_update_bad_ranges(rb);
    return !only_migratable || ram_check_readable(errp);
}

bool ram_block_tracks_bad_ranges(const RAMBlock *rb)
{
    return rb->read_bad_ranges;
}

const GArray *ram_block_bad_ranges(const RAMBlock *rb)
{
    return qatomic_read(&rb->bad_ranges);
}

void ram_update_bad_ranges(void)
{
    bool changed = false;
    RAMBlock *rb;
    Error *err = NULL;

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (ram_block_tracks_bad_ranges(rb)) {
                changed |= ram_block_update_bad_ranges(rb);
            }
        }
    }
    if (changed && !ram_check_readable(&err)) {
        migration_abort(err);
    }
}

bool ram_check_readable(Error **errp)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (ram_block_bad_ranges(rb)) {
            error_setg(errp, "RAM block '%s' has bad pages, which must not be "
                       "read", rb->idstr[0] ? rb->idstr :
                       memory_region_name(rb->mr));
            return false;
        }
    }
    return true;
}

void ram_block_foreach_good_range(const RAMBlock *rb, uint64_t offset,
                                  uint64_t size, RamRangeFn *fn, void *opaque)
{
    const GArray *ranges = ram_block_bad_ranges(rb);
    uint64_t end = offset + size;

    for (unsigned i = 0; ranges && i < ranges->len; i++) {
        const RamBadRange *range = range_at(ranges, i);

        if (offset < MIN(range->offset, end)) {
            fn(offset, MIN(range->offset, end) - offset, opaque);
        }
        offset = MAX(offset, range->offset + range->size);
    }
    if (offset < end) {
        fn(offset, end - offset, opaque);
    }
}
