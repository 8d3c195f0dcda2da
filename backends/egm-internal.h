/*
 * Extended GPU Memory (EGM): the parts of the host side, for each other and for
 * tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BACKENDS_EGM_INTERNAL_H
#define BACKENDS_EGM_INTERNAL_H

#include "system/egm.h"
#include <linux/ioctl.h>

/*
 * The list of bad pages: 32-bit argsz, in bytes, and count, then 64-bit offset
 * and size of each. With an argsz too small for the list, the driver sets it to
 * what it needs, and count to 0.
 */
#define EGM_RETIRED_PAGES_LIST _IO('E', 100)

/**
 * egm_region_probe:
 * @sysfs: where sysfs is mounted; tests put a tree of their own here
 * @dev: number of a character device
 *
 * Returns: what sysfs tells about the device, or NULL if it is not an EGM
 * device. To be freed with egm_region_free().
 */
EgmRegion *egm_region_probe(const char *sysfs, dev_t dev);

/**
 * egm_find_holder:
 * @proc: where procfs is mounted; tests put a tree of their own here
 * @dev: number of a character device
 *
 * Looks for a process, other than this one, that has the device open or mapped,
 * by whichever node. Open by O_PATH counts for processes of root and of this
 * user. Processes that this one may not look into, or that are in another PID
 * namespace, are not found.
 *
 * Returns: its process id, 0 if there is none.
 */
pid_t egm_find_holder(const char *proc, dev_t dev);

#endif
