/*
 * acpi-egm-memory: tell the guest which RAM is Extended GPU Memory (EGM)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See docs/specs/acpi_egm_memory.rst.
 */

#ifndef HW_ACPI_EGM_MEMORY_H
#define HW_ACPI_EGM_MEMORY_H

#include "hw/acpi/aml-build.h"
#include "hw/boards.h"
#include "system/hostmem.h"

#define TYPE_ACPI_EGM_MEMORY "acpi-egm-memory"

/**
 * acpi_egm_memory_resolve:
 * @ms: the machine, with all its devices and NUMA nodes in place
 * @ram_base: guest physical address of the first NUMA node's RAM, in bytes; the
 *     other nodes follow without gaps
 * @acpi: whether the guest gets ACPI tables
 * @errp: set to the first mistake found
 *
 * Check every acpi-egm-memory object and settle what it tells the guest. To be
 * called once, before the first ACPI table is built. From then on the devices
 * that the objects name, and the bridges above them, can't be unplugged.
 *
 * Returns: true when all objects are good, or when there are none.
 */
bool acpi_egm_memory_resolve(MachineState *ms, hwaddr ram_base, bool acpi,
                             Error **errp);

/**
 * acpi_egm_memory_build_dsdt:
 * @dsdt: the table, in which the PCI host bridges are already declared
 * @pci0_declared: whether it also has a Device for everything below PCI0, with
 *     names made of "S" and the devfn in hexadecimal
 *
 * Append the device properties of each PCI function that has EGM, inside
 * Devices for the function and the bridges that lead to it (ACPI 6.5, 6.1.1
 * _ADR and 6.2.5 _DSD); where they are declared, inside their scopes. Cannot
 * fail, and appends the same bytes each time for the same devices.
 */
void acpi_egm_memory_build_dsdt(Aml *dsdt, bool pci0_declared);

bool egm_backend_check(HostMemoryBackend *backend, Error **errp);
bool egm_backend_check_gpu(HostMemoryBackend *backend, PCIDevice *pdev,
                           Error **errp);
char *egm_host_address(PCIDevice *pdev);

#endif
