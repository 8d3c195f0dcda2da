/*
 * Extended GPU Memory (EGM): retired pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_EGM_RETIRED_PAGES_H
#define SYSTEM_EGM_RETIRED_PAGES_H

#include "system/hostmem.h"

/**
 * egm_track_retired_pages:
 * @backend: a memory backend that egm_backend_alloc() has mapped
 * @errp: set if the region has retired pages, and this VM cannot omit them
 *
 * Makes the retired pages of the region bad ranges of @backend's RAM block. If
 * the driver does not list them, warns, and does not ask again.
 *
 * Returns: true on success.
 */
bool egm_track_retired_pages(HostMemoryBackend *backend, Error **errp);

#endif
