/*
 * Parts of guest RAM that the guest is not told about
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Bad ranges of RAM blocks stay part of guest RAM as QEMU maps it, but not of
 * the RAM that firmware and operating system find.
 */

#ifndef HW_RAM_HOLES_H
#define HW_RAM_HOLES_H

#include "hw/boards.h"
#include "qemu/units.h"
#include "system/ram-bad-ranges.h"

/*
 * Holes are made of such blocks, aligned: the largest page size of Arm guests,
 * so that what is left can be used with any.
 */
#define RAM_HOLE_BLOCK (64 * KiB)

/*
 * Linux on Arm silently loses what comes after its 1024th range of RAM, before
 * 6.0 after its 128th. The firmware splits some more ranges off, and the nodes
 * have their borders.
 */
#define RAM_HOLES_MAX 768
#define RAM_HOLES_MAX_OLD 96

/**
 * ram_holes_of_machine:
 * @ms: a machine whose RAM is complete, mapped without gaps
 *
 * Returns: an array of RamBadRange, of blocks of RAM_HOLE_BLOCK: what is bad of
 * the machine's RAM, by offset from the start of it. NULL if none can be.
 */
GArray *ram_holes_of_machine(const MachineState *ms);

/**
 * ram_holes_limit:
 * @holes: holes as ram_holes_of_machine() gives them
 * @max: how many there may be, at least one
 *
 * If there are more, merges across the smallest gaps between them.
 *
 * Returns: the size of these gaps, memory that is withheld without need
 */
uint64_t ram_holes_limit(GArray *holes, unsigned max);

/**
 * ram_holes_find:
 * @holes: holes as ram_holes_of_machine() gives them, or NULL
 * @offset: from the start of the machine's RAM
 * @size: in bytes
 *
 * Returns: the lowest hole that touches this range, or NULL
 */
const RamBadRange *ram_holes_find(const GArray *holes, uint64_t offset,
                                  uint64_t size);

#endif
