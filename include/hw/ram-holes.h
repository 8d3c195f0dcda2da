/*
 * Parts of guest RAM that the guest is not told about
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Some host memory must not be touched: pages that have been retired after
 * errors. It stays part of guest RAM as QEMU maps it, but not of the RAM that
 * firmware and operating system find.
 */

#ifndef HW_RAM_HOLES_H
#define HW_RAM_HOLES_H

#include "exec/hwaddr.h"
#include "qemu/units.h"

/*
 * Holes are made of such blocks, aligned: the largest page size of Arm guests,
 * so that what is left can be used with any.
 */
#define RAM_HOLE_BLOCK (64 * KiB)

/*
 * Linux on Arm silently loses what comes after its 1024th range of RAM. The
 * firmware splits some more ranges off, and the nodes have their borders.
 */
#define RAM_HOLES_MAX 768

/**
 * RamHole:
 * @base: guest physical address, in bytes
 * @size: in bytes
 * @node: number of the NUMA node whose RAM it is part of
 */
typedef struct RamHole {
    hwaddr base;
    uint64_t size;
    unsigned node;
} RamHole;

/* An array of RamHole. ram_holes_merge() puts it into its final form. */
GArray *ram_holes_new(void);

/**
 * ram_holes_add:
 * @holes: an array of RamHole
 * @node: number of a NUMA node
 * @ram_base: guest physical address of the node's RAM
 * @ram_size: of the node's RAM, in bytes
 * @offset: of the part to withhold, from the start of the node's RAM
 * @size: of that part, in bytes; what is outside of the RAM is ignored
 *
 * Adds the blocks that this part touches.
 */
void ram_holes_add(GArray *holes, unsigned node, hwaddr ram_base,
                   uint64_t ram_size, uint64_t offset, uint64_t size);

/**
 * ram_holes_merge:
 * @holes: an array of RamHole, in any order
 * @max: how many there may be, at least one for each node
 *
 * Sorts the holes by address, and merges those of one node that touch. If there
 * are still more than @max, also merges across the smallest gaps in between.
 *
 * Returns: the size of these gaps, memory that is withheld without need
 */
uint64_t ram_holes_merge(GArray *holes, unsigned max);

/**
 * ram_holes_size:
 * @holes: holes as ram_holes_merge() leaves them
 *
 * Returns: the sum of their sizes
 */
uint64_t ram_holes_size(const GArray *holes);

bool ram_holes_equal(const GArray *a, const GArray *b);

/**
 * ram_holes_find:
 * @holes: holes as ram_holes_merge() leaves them, or NULL
 * @base: guest physical address
 * @size: in bytes
 *
 * Returns: the lowest hole that touches this range, or NULL
 */
const RamHole *ram_holes_find(const GArray *holes, hwaddr base, uint64_t size);

/**
 * ram_holes_place:
 * @holes: holes as ram_holes_merge() leaves them, or NULL
 * @base: the lowest address that will do
 * @size: of what is to be placed, in bytes
 * @step: the place may be higher by a multiple of this
 *
 * Returns: the lowest address where no hole is touched, inside of RAM or not
 */
hwaddr ram_holes_place(const GArray *holes, hwaddr base, uint64_t size,
                       uint64_t step);

#endif
