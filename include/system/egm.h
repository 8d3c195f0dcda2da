/*
 * Extended GPU Memory (EGM): the host side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On NVIDIA Grace hosts the firmware withholds part of a socket's DRAM from the
 * host kernel. A character device hands it out, to be used as a VM's RAM. With
 * most drivers it works through one open file only: that is opened, locked and
 * checked here, and belongs to the RAM block from then on, as does everything
 * that QEMU knows of the region. So what is known is asked for again, not kept.
 *
 * See docs/system/egm-memory.rst.
 */

#ifndef SYSTEM_EGM_H
#define SYSTEM_EGM_H

#include "system/hostmem.h"

/**
 * EgmRegion: what the host tells about the EGM region of one socket
 * @name: the name of the device, e.g. "egm4"
 * @dev: the number of the device
 * @size: in bytes, 0 when unknown
 * @gpus: PCI addresses of the socket's GPUs, e.g. "0009:01:00.0", sorted; NULL
 *     when unknown
 */
typedef struct EgmRegion {
    char *name;
    dev_t dev;
    uint64_t size;
    GStrv gpus;
} EgmRegion;

void egm_region_free(EgmRegion *region);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EgmRegion, egm_region_free)

/**
 * egm_region_has_gpu:
 * @region: a region whose GPUs are known
 * @address: PCI address of a host device
 *
 * Returns: whether the device is one of the region's GPUs.
 */
bool egm_region_has_gpu(const EgmRegion *region, const char *address);

#ifdef CONFIG_LINUX

/**
 * egm_region_of_backend:
 * @backend: a memory backend
 *
 * Returns: the region that @backend has mapped, NULL if it is other memory. To
 * be freed with egm_region_free().
 */
EgmRegion *egm_region_of_backend(HostMemoryBackend *backend);

/**
 * egm_backend_owns:
 * @mem_path: the mem-path of a memory-backend-file
 *
 * Returns: whether @mem_path is an EGM device, or the name of a missing device:
 * nothing that can be opened like a file, or created.
 */
bool egm_backend_owns(const char *mem_path);

/**
 * egm_backend_alloc:
 * @backend: a memory-backend-file
 * @name: of its memory region
 * @mem_path: one for which egm_backend_owns() is true
 * @align: of the mapping's address, a power of two in bytes; 0 for one that
 *     suits the size
 * @ram_flags: RAM_* flags that the properties of @backend ask for
 * @errp: set when there is no such device, or it cannot be used as the
 *     properties of @backend ask for, or somebody else uses it
 *
 * Maps the device as the memory region of @backend, which owns the open file.
 *
 * Returns: true on success.
 */
bool egm_backend_alloc(HostMemoryBackend *backend, const char *name,
                       const char *mem_path, uint64_t align,
                       uint32_t ram_flags, Error **errp);

#else

static inline EgmRegion *egm_region_of_backend(HostMemoryBackend *backend)
{
    return NULL;
}

static inline bool egm_backend_owns(const char *mem_path)
{
    return false;
}

static inline bool egm_backend_alloc(HostMemoryBackend *backend,
                                     const char *name, const char *mem_path,
                                     uint64_t align, uint32_t ram_flags,
                                     Error **errp)
{
    g_assert_not_reached();
}

#endif /* CONFIG_LINUX */

#endif
