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
#include "hw/pci/pci.h"
#include "qom/object.h"

#define TYPE_ACPI_EGM_MEMORY "acpi-egm-memory"
OBJECT_DECLARE_SIMPLE_TYPE(AcpiEgmMemory, ACPI_EGM_MEMORY)

/* Interface of machines that do what is below */
#define TYPE_ACPI_EGM_MEMORY_MACHINE "acpi-egm-memory-machine"

/**
 * AcpiEgmMemory:
 * @id: id of the object, NULL until it is complete
 * @pci_dev: id or QOM path of the PCI device
 * @node: NUMA node of the EGM, which is its proximity domain
 * @base: guest physical address of the EGM, once it is checked
 * @size: of the EGM, in bytes
 */
struct AcpiEgmMemory {
    /* private */
    Object parent;
    Error *blocker;     /* of memory in the node, and of the device's unplug */

    /* public */
    const char *id;
    char *pci_dev;
    uint32_t node;
    uint64_t base;
    uint64_t size;
};

/* What machines call */

/**
 * acpi_egm_memory_check:
 * @ms: the machine, with all its devices and NUMA nodes in place
 * @ram_base: guest physical address of the first NUMA node's RAM, in bytes; the
 *     other nodes follow without gaps
 * @no_acpi: what leaves the guest without ACPI tables, for the user; or NULL
 * @errp: set to the first mistake found
 *
 * Check every acpi-egm-memory object. To be called once, before the first ACPI
 * table is built.
 *
 * Returns: true when all objects are good, or when there are none.
 */
bool acpi_egm_memory_check(MachineState *ms, hwaddr ram_base,
                           const char *no_acpi, Error **errp);

/**
 * acpi_egm_memory_build_dsdt:
 * @dsdt: the table, in which the PCI host bridges are already declared
 * @pci0_declared: whether it also has a Device for everything below PCI0, with
 *     names made of "S" and the devfn in hexadecimal
 *
 * Append the device properties of each PCI function that has EGM, inside
 * Devices for the function and the bridges that lead to it (ACPI 6.5, 6.1.1
 * _ADR and 6.2.5 _DSD); where they are declared, inside their scopes. Host
 * bridges without a NUMA node get that of the EGM below them (6.2.15 _PXM).
 *
 * Cannot fail: what acpi_egm_memory_device() does not find is left out. Appends
 * the same bytes each time for the same devices.
 */
void acpi_egm_memory_build_dsdt(Aml *dsdt, bool pci0_declared);

/* For the other parts of it */

/* The objects, sorted by id, so that nothing depends on QOM's hashing */
GPtrArray *acpi_egm_memory_list(void);

/**
 * acpi_egm_memory_device:
 * @egm: an object that is checked
 *
 * Returns: the PCI function that the tables describe; NULL when it is gone, as
 * its slot was powered off or a bridge above it was unplugged. A device that is
 * plugged in later under the same name was never checked, and is not it.
 */
PCIDevice *acpi_egm_memory_device(const AcpiEgmMemory *egm);

#endif
