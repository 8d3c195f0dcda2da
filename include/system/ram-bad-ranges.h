/*
 * Ranges of a RAM block that must not be touched
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory can have uncorrectable errors that somebody else knows about, such as
 * the device whose memory it is. Such ranges stay part of the RAM block, but
 * whoever walks RAM leaves them out, and a machine leaves them out of the RAM
 * that its guest finds.
 *
 * They are no RamDiscardManager: its users, VFIO first of all, map what is left
 * in pieces of one granularity, which would be more pieces than an IOMMU takes.
 */

#ifndef SYSTEM_RAM_BAD_RANGES_H
#define SYSTEM_RAM_BAD_RANGES_H

/**
 * RamBadRange: part of a RAM block
 * @offset: of its first byte in the block
 * @size: in bytes
 */
typedef struct RamBadRange {
    uint64_t offset;
    uint64_t size;
} RamBadRange;

/* Asks the device behind a descriptor: an array of RamBadRange, or NULL */
typedef GArray *RamReadBadRanges(int fd);

/**
 * ram_block_track_bad_ranges:
 * @rb: a RAM block with a file descriptor
 * @read: asks the device for the bad ranges of @rb
 * @errp: set when there are some and -only-migratable forbids that
 *
 * Reads them for the first time. That the device does not tell is no error.
 *
 * Returns: true on success.
 */
bool ram_block_track_bad_ranges(RAMBlock *rb, RamReadBadRanges *read,
                                Error **errp);

/**
 * ram_block_tracks_bad_ranges:
 * @rb: a RAM block
 *
 * Returns: whether it can have bad ranges.
 */
bool ram_block_tracks_bad_ranges(const RAMBlock *rb);

/**
 * ram_block_bad_ranges:
 * @rb: a RAM block
 *
 * Returns: an array of RamBadRange: those inside of the block, in ascending
 * order, apart from each other, as they were read the last time. NULL if there
 * are none.
 */
const GArray *ram_block_bad_ranges(const RAMBlock *rb);

/**
 * ram_update_bad_ranges:
 *
 * Reads the bad ranges of all RAM blocks again: they can get more while the VM
 * runs. If a device does not tell any more, those that it has told stay. An
 * outgoing migration would read them, and is cancelled.
 */
void ram_update_bad_ranges(void);

/**
 * ram_check_readable:
 * @errp: set when there is RAM that cannot be read or written as a whole
 *
 * Returns: whether all RAM blocks are without bad ranges.
 */
bool ram_check_readable(Error **errp);

typedef void RamRangeFn(uint64_t offset, uint64_t size, void *opaque);

/**
 * ram_block_foreach_good_range:
 * @rb: a RAM block
 * @offset: where to start, in bytes
 * @size: how many bytes of it to walk
 * @fn: called for each part without bad ranges, in ascending order
 * @opaque: for @fn
 */
void ram_block_foreach_good_range(const RAMBlock *rb, uint64_t offset,
                                  uint64_t size, RamRangeFn *fn, void *opaque);

/**
 * ram_bad_ranges_normalize:
 * @ranges: an array of RamBadRange, in any order
 * @end: the size of what they are part of, in bytes
 * @align: a power of two, in bytes
 *
 * Extends the ranges to multiples of @align, cuts off what is beyond @end,
 * sorts them by offset, and merges those that touch.
 */
void ram_bad_ranges_normalize(GArray *ranges, uint64_t end, uint64_t align);

/**
 * ram_bad_ranges_equal:
 * @a: an array of RamBadRange, or NULL
 * @b: an array of RamBadRange
 *
 * Returns: whether both hold the same ranges; NULL equals no array.
 */
bool ram_bad_ranges_equal(const GArray *a, const GArray *b);

#endif
