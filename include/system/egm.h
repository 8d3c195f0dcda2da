/*
 * Extended GPU Memory (EGM): the host side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On NVIDIA Grace hosts the firmware can withhold part of a socket's DRAM from
 * the host kernel. A character device offers this part as the RAM of a VM. With
 * most drivers only one open file works. So this file is opened, locked and
 * checked here, and then belongs to the RAM block. All that QEMU knows about a
 * region is read from sysfs when it is needed.
 *
 * See docs/system/egm-device.rst.
 */

#ifndef SYSTEM_EGM_H
#define SYSTEM_EGM_H

#include "system/hostmem.h"

/**
 * EgmRegion: the EGM region of one socket, as the host reports it
 * @name: name of the device, e.g. "egm4"
 * @dev: number of the device
 * @size: size of the region in bytes, 0 if the host does not report it
 * @is_host_ram: whether the region is memory that the host itself uses
 * @gpus: PCI addresses of the socket's GPUs, e.g. "0009:01:00.0", sorted; NULL
 *     if the host does not report them
 */
typedef struct EgmRegion {
    char *name;
    dev_t dev;
    uint64_t size;
    bool is_host_ram;
    GStrv gpus;
} EgmRegion;

void egm_region_free(EgmRegion *region);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EgmRegion, egm_region_free)

/**
 * egm_region_probe:
 * @sysfs: directory where sysfs is mounted; tests use a tree of their own
 * @dev: number of a character device
 *
 * Returns: the region of the device, as sysfs reports it; NULL if it is not
 * reported as an EGM device. The caller frees it with egm_region_free().
 */
EgmRegion *egm_region_probe(const char *sysfs, dev_t dev);

/**
 * egm_region_of_backend:
 * @backend: a memory backend
 *
 * Returns: the region that @backend has mapped; NULL if it has mapped another
 * kind of memory. The caller frees it with egm_region_free().
 */
EgmRegion *egm_region_of_backend(HostMemoryBackend *backend);

/**
 * egm_backend_is_device:
 * @mem_path: the mem-path of a memory-backend-file
 * @ram_flags: the RAM_* flags that the properties of the backend ask for
 *
 * Returns: whether @mem_path is an EGM device, or an fd set with one, or has
 * the name of an EGM device: such memory is allocated by egm_backend_alloc().
 */
bool egm_backend_is_device(const char *mem_path, uint32_t ram_flags);

/**
 * egm_backend_alloc:
 * @backend: a memory-backend-file
 * @name: name of the memory region
 * @mem_path: a path for which egm_backend_is_device() is true
 * @align: alignment of the mapping in bytes, a power of two; 0 for an alignment
 *     that depends on the size
 * @ram_flags: the RAM_* flags that the properties of @backend ask for
 * @errp: set if the device does not exist, is in use, is smaller than @backend,
 *     or cannot be used as the properties of @backend ask for
 *
 * Opens the device and maps it as the memory region of @backend, which owns the
 * open file. Makes all possible checks before it opens the device, because
 * opening it clears the region.
 *
 * Returns: true on success.
 */
bool egm_backend_alloc(HostMemoryBackend *backend, const char *name,
                       const char *mem_path, uint64_t align,
                       uint32_t ram_flags, Error **errp);

#endif
