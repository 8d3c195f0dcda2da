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
 * EgmRange: part of a region
 * @offset: of its first byte in the region
 * @size: in bytes
 */
typedef struct EgmRange {
    uint64_t offset;
    uint64_t size;
} EgmRange;

/**
 * EgmRegion: what the host tells about the EGM region of one socket
 * @name: the name of the device, e.g. "egm4"
 * @dev: the number of the device
 * @fd: the open device, which is locked; -1 if it is not open
 * @size: in bytes, 0 when unknown
 * @gpus: PCI addresses of the socket's GPUs, e.g. "0009:01:00.0", sorted; NULL
 *     when unknown
 * @retired: EgmRange for each block of bad memory, as the driver orders them;
 *     NULL when unknown
 * @migration_blocker: set when there are retired pages
 */
typedef struct EgmRegion {
    char *name;
    dev_t dev;
    int fd;
    uint64_t size;
    GStrv gpus;
    GArray *retired;
    Error *migration_blocker;
} EgmRegion;

/* What memory-backend-file asks, with or without acpi-egm-memory. */

/**
 * egm_backend_prepare:
 * @backend: a memory-backend-file that is about to open its file
 * @mem_path: the file
 * @errp: set when @mem_path is an EGM device that cannot be used in the way
 *     that the properties of @backend ask for, or that somebody else uses
 *
 * Sets @backend->egm if @mem_path is an EGM device, and takes it for this
 * process, until egm_backend_release() or the end of the process.
 *
 * Returns: true when @mem_path may be opened.
 */
bool egm_backend_prepare(HostMemoryBackend *backend, const char *mem_path,
                         Error **errp);

/**
 * egm_backend_claim:
 * @backend: a memory-backend-file that has mapped its file
 * @errp: set when that is not the file which was prepared
 *
 * If it is an EGM device, learns from it what sysfs does not tell.
 *
 * Returns: true when the mapping may be used.
 */
bool egm_backend_claim(HostMemoryBackend *backend, Error **errp);

/* To be called when a memory-backend-file goes away. */
void egm_backend_release(HostMemoryBackend *backend);

/**
 * egm_backend_explain_map:
 * @backend: a memory-backend-file that could not open or map its file
 * @mem_path: the file
 * @errp: the error, to which is added what it means for an EGM device
 */
void egm_backend_explain_map(HostMemoryBackend *backend, const char *mem_path,
                             Error **errp);

typedef int EgmSectionFn(MemoryRegionSection *section, void *opaque);

/**
 * egm_replay_good:
 * @section: part of a memory region
 * @fn: called for each part of it that has no retired pages, in order
 * @opaque: for @fn
 *
 * Returns: what @fn returned, if that was not 0; else 0
 */
int egm_replay_good(const MemoryRegionSection *section, EgmSectionFn *fn,
                    void *opaque);

/* What machines ask. */

/**
 * egm_withhold:
 * @ms: a machine whose RAM is complete
 * @ram_base: guest physical address of its RAM
 * @last: what this function returned the last time, or NULL
 *
 * Asks the drivers for retired pages in guest RAM, on EGM devices. Their list
 * grows while the VM runs, so it is to be asked for at each reset. Warns about
 * what is withheld if that is not the same as @last.
 *
 * Returns: an array of RamHole, as ram_holes_merge() leaves it; NULL if the
 * machine has no EGM
 */
GArray *egm_withhold(const MachineState *ms, hwaddr ram_base,
                     const GArray *last);

/* What acpi-egm-memory asks. */

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

/**
 * egm_host_address:
 * @pdev: a PCI device of the guest
 *
 * Returns: its PCI address on the host if it is a vfio device, else NULL.
 */
char *egm_host_address(PCIDevice *pdev);

/* The parts of it, for each other and for tests. */

/**
 * egm_backend_add_holes:
 * @backend: a memory backend that is an EGM device
 * @holes: an array of ram_holes_new(), which gets a hole for each retired page
 * @node: NUMA node of the memory
 * @base: guest physical address of the backend's first byte
 * @size: bytes of the backend that are guest RAM
 */
void egm_backend_add_holes(const HostMemoryBackend *backend, GArray *holes,
                           unsigned node, hwaddr base, uint64_t size);

/**
 * egm_backend_read_retired:
 * @backend: a memory backend on an EGM device
 *
 * Reads the list of retired pages, once more. What the driver has told before
 * is kept if it does not tell any more.
 */
void egm_backend_read_retired(HostMemoryBackend *backend);

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
 * egm_check_linear:
 * @backend: a memory-backend-file
 * @errp: set when its properties make guest RAM something else than the file
 *     from its start: a copy, read-only, or shifted
 *
 * Returns: true when byte n of the backend is byte n of the file.
 */
bool egm_check_linear(HostMemoryBackend *backend, Error **errp);

typedef int EgmIoctl(int fd, unsigned long request, void *arg);

/**
 * egm_read_retired:
 * @fd: an EGM device
 * @ioctl_fn: ioctl(), or a test's stand-in for it
 *
 * Returns: an array of EgmRange, or NULL when the driver does not tell.
 */
GArray *egm_read_retired(int fd, EgmIoctl *ioctl_fn);

/**
 * egm_lock:
 * @fd: a file
 * @holder: set to the id of the process that has it, 0 when that is unknown
 *
 * Locks the file for as long as @fd, or a duplicate of it, is open.
 *
 * Returns: 0, or a negative errno; -EWOULDBLOCK when another one has it, be it
 * in this process or not.
 */
int egm_lock(int fd, pid_t *holder);

#endif
