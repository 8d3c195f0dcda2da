/*
 * Extended GPU Memory (EGM): the host side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On NVIDIA Grace hosts the firmware withholds part of a socket's DRAM from the
 * host kernel. A character device hands it out, to be used as a VM's RAM.
 * Everything that QEMU knows about that device is behind this interface.
 *
 * The driver is not in mainline Linux and its ABI has variants. So each piece
 * of information is optional: what is missing is unknown, not an error.
 */

#ifndef SYSTEM_EGM_H
#define SYSTEM_EGM_H

#include "system/hostmem.h"

/**
 * EgmRegion: what the host tells about the EGM region of one socket
 * @name: the name of the device, e.g. "egm4"
 * @size: in bytes, 0 when unknown
 * @gpus: PCI addresses of the socket's GPUs, e.g. "0009:01:00.0", in no
 *     particular order; NULL when unknown
 */
typedef struct EgmRegion {
    char *name;
    uint64_t size;
    GStrv gpus;
} EgmRegion;

/**
 * egm_region_probe:
 * @sysfs: where sysfs is mounted; tests put a tree of their own here
 * @dev: number of a character device
 *
 * Returns: what sysfs tells about the device, or NULL if it is not an EGM
 * device. To be freed with egm_region_free().
 */
EgmRegion *egm_region_probe(const char *sysfs, dev_t dev);

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

/**
 * egm_host_pci_address:
 * @sysfsdev: path of a host PCI device in sysfs
 *
 * Returns: the PCI address of the device, NULL if there is no such device.
 */
char *egm_host_pci_address(const char *sysfsdev);

/**
 * egm_backend_check:
 * @backend: the memory backend of a guest NUMA node, already mapped
 * @errp: set when a GPU could not address the node's RAM through @backend
 *
 * A GPU addresses EGM by the offset into the host's region. So byte n of
 * @backend has to be byte n of the region, shared and writable.
 *
 * A backend that obeys this rule but is not an EGM device at all is good enough
 * for tests: that gives a warning.
 *
 * Returns: true when guest RAM in @backend may be described as EGM.
 */
bool egm_backend_check(HostMemoryBackend *backend, Error **errp);

/**
 * egm_backend_check_gpu:
 * @backend: a memory backend that egm_backend_check() has accepted
 * @pdev: a PCI device of the guest
 * @errp: set when @pdev is a host device of another socket than @backend
 *
 * Returns: true when @pdev is a GPU of the region, or when nobody can tell.
 */
bool egm_backend_check_gpu(HostMemoryBackend *backend, PCIDevice *pdev,
                           Error **errp);

#endif
