/*
 * Extended GPU Memory (EGM): bad pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_EGM_BAD_PAGES_H
#define SYSTEM_EGM_BAD_PAGES_H

#include "system/hostmem.h"

#ifdef CONFIG_LINUX

/**
 * egm_track_bad_pages:
 * @backend: a memory backend that egm_backend_alloc() has mapped
 * @errp: set when the region has bad pages and they are not allowed
 *
 * Makes the bad pages of the region bad ranges of @backend's RAM block.
 *
 * Returns: true on success.
 */
bool egm_track_bad_pages(HostMemoryBackend *backend, Error **errp);

/* For tests */

typedef int EgmIoctl(int fd, unsigned long request, void *arg);

/**
 * egm_read_bad_pages:
 * @fd: an EGM device
 * @ioctl_fn: ioctl(), or a test's stand-in for it
 *
 * Returns: an array of RamBadRange as the driver lists them. NULL, with errno
 * set, when it does not tell.
 */
GArray *egm_read_bad_pages(int fd, EgmIoctl *ioctl_fn);

#else

static inline bool egm_track_bad_pages(HostMemoryBackend *backend, Error **errp)
{
    return true;
}

#endif /* CONFIG_LINUX */

#endif
