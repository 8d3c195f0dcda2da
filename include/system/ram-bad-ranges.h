/*
 * Bad ranges of a RAM block
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory can have uncorrectable errors that are known to the device that
 * provides the memory. Such ranges stay part of the RAM block, but code that
 * reads RAM leaves them out or refuses to run, and a machine leaves them out of
 * the RAM that its guest finds.
 *
 * This is not a RamDiscardManager: its users, such as VFIO, map the rest of the
 * RAM in pieces of one granularity, which would be more pieces than an IOMMU
 * can map.
 */

#ifndef SYSTEM_RAM_BAD_RANGES_H
#define SYSTEM_RAM_BAD_RANGES_H

#include "exec/hwaddr.h"

/*
 * Asks the device for the bad ranges of RAM: a list of Range, offsets in bytes
 * into the RAM block, in ascending order, with gaps between them; NULL if the
 * device reports none.
 */
typedef GList *RamReadBadRanges(MemoryRegion *mr);

/**
 * ram_block_track_bad_ranges:
 * @rb: a RAM block
 * @read: asks the device for the bad ranges of @rb
 * @errp: set if there are bad ranges, and the machine or the user's options do
 *     not allow them
 *
 * Reads the bad ranges, and makes the functions below read them again.
 *
 * Returns: true on success.
 */
bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp);

/**
 * ram_tracks_bad_ranges:
 *
 * Returns: whether a RAM block can have bad ranges, now or later.
 */
bool ram_tracks_bad_ranges(void);

/**
 * ram_update_bad_ranges:
 *
 * Reads the bad ranges of all RAM blocks again, because more memory can go bad
 * while the VM runs. If a device reports none, the ranges that it reported
 * before are kept.
 */
void ram_update_bad_ranges(void);

/**
 * ram_check_readable:
 * @errp: set if RAM cannot be read or written as a whole
 *
 * Returns: true if no RAM block has bad ranges, after reading them again.
 */
bool ram_check_readable(Error **errp);

/**
 * address_space_has_bad_range:
 * @as: an address space
 * @addr: the first address
 * @size: number of bytes
 *
 * The caller holds the BQL.
 *
 * Returns: whether RAM at these addresses has a bad range, as far as it was
 * reported when bad ranges were read the last time.
 */
bool address_space_has_bad_range(AddressSpace *as, hwaddr addr, hwaddr size);

#endif
