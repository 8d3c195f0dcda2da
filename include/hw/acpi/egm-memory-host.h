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
 * @errp: set when a device is attached to another socket of the host than the
 *     EGM region that its guest RAM is on
 *
 * Warns about what nobody can tell.
 *
 * Returns: true when no object is wrong, as far as the host tells.
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
 * Returns: its PCI address on the host, e.g. "0009:01:00.0"; NULL if it is no
 * vfio device, or if nobody can tell. To be freed with g_free().
 */
char *acpi_egm_memory_host_address(PCIDevice *pdev);

#endif
