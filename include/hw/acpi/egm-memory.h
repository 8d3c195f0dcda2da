/*
 * acpi-egm-memory: report to the guest which RAM is Extended GPU Memory (EGM)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * See docs/specs/acpi_egm_memory.rst.
 */

#ifndef HW_ACPI_EGM_MEMORY_H
#define HW_ACPI_EGM_MEMORY_H

#include "qemu/bitmap.h"
#include "hw/acpi/aml-build.h"
#include "hw/boards.h"
#include "hw/pci/pci.h"
#include "qom/object.h"
#include "system/numa.h"

#define TYPE_ACPI_EGM_MEMORY "acpi-egm-memory"
OBJECT_DECLARE_SIMPLE_TYPE(AcpiEgmMemory, ACPI_EGM_MEMORY)

/**
 * AcpiEgmMemory:
 * @id: id of the object, NULL until it is complete
 * @pci_dev: id or QOM path of the PCI device
 * @node: NUMA node of the EGM, which is its proximity domain
 * @base: guest physical address of the EGM, set by acpi_egm_memory_check()
 * @size: size of the EGM in bytes, set by acpi_egm_memory_check()
 * @own_nodes: NUMA nodes for memory of the PCI device itself: the nodes of its
 *     acpi-generic-initiator objects; set by acpi_egm_memory_check()
 */
struct AcpiEgmMemory {
    /* private */
    Object parent;

    /* public */
    const char *id;
    char *pci_dev;
    uint32_t node;
    uint64_t base;
    uint64_t size;
    DECLARE_BITMAP(own_nodes, MAX_NODES);
};

/* Functions that the machine calls */

/**
 * acpi_egm_memory_check:
 * @ms: the machine, with all its devices and NUMA nodes in place
 * @ram_base: guest physical address of the first NUMA node's RAM, in bytes; the
 *     other nodes follow without gaps
 * @bus_count: number of PCI buses that fit into the ECAM window
 * @acpi: whether the guest has ACPI tables
 * @errp: set to the first mistake found
 *
 * Check every acpi-egm-memory object, and set the values for the tables. Call
 * this function once, before the first ACPI table is built.
 *
 * Returns: true if all objects are valid, or if there are none.
 */
bool acpi_egm_memory_check(MachineState *ms, hwaddr ram_base,
                           unsigned bus_count, bool acpi, Error **errp);

/**
 * acpi_egm_memory_build_dsdt:
 * @dsdt: the table, in which the PCI host bridges are already declared
 *
 * Append the device properties of each PCI function that has EGM, inside
 * Devices for the function and the bridges that lead to it (ACPI 6.5, 6.1.1
 * _ADR and 6.2.5 _DSD). If the table already has these Devices, append inside
 * their scopes. Host bridges without a NUMA node get the node of the EGM below
 * them (6.2.15 _PXM).
 *
 * Cannot fail: devices that acpi_egm_memory_device() does not find are omitted.
 * Appends the same bytes each time for the same devices.
 */
void acpi_egm_memory_build_dsdt(Aml *dsdt);

/**
 * acpi_egm_memory_plug_node:
 * @ms: a machine with NUMA nodes
 *
 * Returns: the NUMA node of SRAT's window for memory devices (ACPI 6.5,
 * 5.2.16.2): the last node. With acpi-egm-memory objects, the last node with
 * CPUs or memory that is neither an EGM node nor a node for a GPU's own memory;
 * -1 if there is none, and then there must not be such a window.
 */
int acpi_egm_memory_plug_node(const MachineState *ms);

/**
 * acpi_egm_memory_pre_plug:
 * @ms: the machine
 * @dev: a device that is about to be plugged, cold or hot
 * @errp: set if it is a memory device, and the guest would treat its memory as
 *     EGM or as memory of a GPU
 *
 * A device that is plugged before the machine is complete is checked again by
 * acpi_egm_memory_check().
 *
 * Returns: true if @dev can be plugged.
 */
bool acpi_egm_memory_pre_plug(const MachineState *ms, DeviceState *dev,
                              Error **errp);

/* Functions for the other parts of acpi-egm-memory */

/* Returns: the objects, sorted by id, because QOM has them in no fixed order */
GPtrArray *acpi_egm_memory_list(void);

/**
 * acpi_egm_memory_device:
 * @egm: an object that acpi_egm_memory_check() has accepted
 *
 * Returns: the PCI function that the tables describe; NULL if it is gone,
 * because its slot was powered off, or it or a bridge above it was unplugged. A
 * device that is plugged in later under the same name was never checked, and
 * counts as gone.
 */
PCIDevice *acpi_egm_memory_device(const AcpiEgmMemory *egm);

#endif
