/*
 * acpi-egm-memory: checks against the EGM devices of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ACPI_EGM_MEMORY_HOST_H
#define HW_ACPI_EGM_MEMORY_HOST_H

#include "hw/acpi/egm-memory.h"

/**
 * acpi_egm_memory_check_host:
 * @ms: a machine whose objects acpi_egm_memory_check() has accepted
 * @errp: set if a device is not attached to the socket of the EGM region that
 *     the object assigns to it
 *
 * Warns if the host does not report the GPUs of a region, or the address of a
 * device.
 *
 * Returns: true if no object is wrong, as far as the host reports.
 */
#ifdef CONFIG_LINUX
bool acpi_egm_memory_check_host(const MachineState *ms, Error **errp);
#else
static inline bool acpi_egm_memory_check_host(const MachineState *ms,
                                              Error **errp)
{
    return true;
}
#endif

/**
 * acpi_egm_memory_host_address:
 * @pdev: a PCI device of the guest
 *
 * Returns: the PCI address of the device on the host, e.g. "0009:01:00.0"; NULL
 * if it is not a vfio device, or if the host does not report the address. The
 * caller frees it with g_free().
 */
#ifdef CONFIG_LINUX
char *acpi_egm_memory_host_address(PCIDevice *pdev);
#else
static inline char *acpi_egm_memory_host_address(PCIDevice *pdev)
{
    return NULL;
}
#endif

#endif
