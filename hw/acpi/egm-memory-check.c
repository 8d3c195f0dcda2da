/*
 * acpi-egm-memory: checks when the machine is complete
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "hw/acpi/egm-memory-backend.h"
#include "hw/acpi/egm-memory.h"
#include "hw/acpi/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "system/numa.h"
#include "trace.h"

static bool acpi_egm_memory_check_node(const AcpiEgmMemory *egm,
                                       const NumaState *numa, Error **errp)
{
    if (egm->node >= numa->num_nodes) {
        error_setg(errp, "node=%u: there is no such NUMA node; use -numa node,"
                   "nodeid=...,memdev=...", egm->node);
    } else if (!numa->nodes[egm->node].node_mem) {
        error_setg(errp, "node=%u: this NUMA node has no memory; use the node "
                   "whose memdev is the EGM region", egm->node);
    } else if (!numa->nodes[egm->node].node_memdev) {
        error_setg(errp, "node=%u: the memory of this NUMA node has no memdev; "
                   "use -numa node,nodeid=%u,memdev=...", egm->node, egm->node);
    } else {
        return true;
    }
    return false;
}

/* Check the memory of a node, once for all objects with this node. */
static bool acpi_egm_memory_check_memory(const AcpiEgmMemory *egm,
                                         HostMemoryBackend *backend,
                                         Error **errp)
{
    ERRP_GUARD();
    g_autofree char *mem_path = NULL;
    struct stat st;

    if (!acpi_egm_memory_check_backend(backend, errp)) {
        error_prepend(errp, "node=%u: ", egm->node);
        return false;
    }
    mem_path = object_property_get_str(OBJECT(backend), "mem-path",
                                       &error_abort);
    if (!fstat(memory_region_get_fd(&backend->mr), &st) &&
        S_ISREG(st.st_mode)) {
        warn_report("memory backend '%s': mem-path=%s is a regular file, not "
                    "an EGM device; this works for tests, but no GPU can reach "
                    "it",
                    object_get_canonical_path_component(OBJECT(backend)),
                    mem_path);
    }
    return true;
}

/*
 * The guest's driver assumes that the GPU's NUMA node is the node of its EGM.
 * Linux takes the GPU's node from the host bridge.
 * @other: an object below the same host bridge, or NULL
 */
static bool acpi_egm_memory_check_host_bridge(const AcpiEgmMemory *egm,
                                              PCIBus *root,
                                              const AcpiEgmMemory *other,
                                              Error **errp)
{
    unsigned node = pci_bus_numa_node(root);

    if (node != NUMA_NODE_UNASSIGNED && node != egm->node) {
        error_setg(errp, "pci-dev=%s, node=%u: host bridge '%s' of the device "
                   "has numa_node=%u, and the GPU would treat that node's "
                   "memory as its EGM", egm->pci_dev, egm->node,
                   BUS(root)->name, node);
        return false;
    }
    if (other && other->node != egm->node) {
        error_setg(errp, "pci-dev=%s, node=%u: %s '%s' has node=%u for %s, "
                   "below the same host bridge '%s'; use a pxb-pcie with "
                   "numa_node= for each node", egm->pci_dev, egm->node,
                   TYPE_ACPI_EGM_MEMORY, other->id, other->node, other->pci_dev,
                   BUS(root)->name);
        return false;
    }
    return true;
}

/*
 * Returns: the number of bus numbers that firmware needs for @bus and the buses
 * below it. For each bridge, it reserves those of the bridge's bus-reserve=.
 */
static unsigned acpi_egm_memory_count_buses(PCIBus *bus)
{
    Object *bridge = OBJECT(bus->parent_dev);
    unsigned below = 0, reserve;
    PCIBus *child;

    QLIST_FOREACH(child, &bus->child, sibling) {
        if (!pci_bus_is_root(child)) {
            below += acpi_egm_memory_count_buses(child);
        }
    }
    if (bridge && object_property_find(bridge, "bus-reserve")) {
        reserve = object_property_get_uint(bridge, "bus-reserve", &error_abort);
        if (reserve != UINT32_MAX) {    /* the property is set */
            below = MAX(below, MIN(reserve, PCI_BUS_MAX));
        }
    }
    return 1 + below;
}

/* Returns: the host bridge with the next higher bus number, or NULL */
static PCIBus *acpi_egm_memory_next_root(PCIBus *root)
{
    PCIBus *main_bus = root->parent_dev ? pci_get_bus(root->parent_dev) : root;
    PCIBus *next = root != main_bus && !pci_bus_num(root) ? main_bus : NULL;
    PCIBus *bus;

    QLIST_FOREACH(bus, &main_bus->child, sibling) {
        if (bus != root && pci_bus_is_root(bus) &&
            pci_bus_num(bus) >= pci_bus_num(root) &&
            (!next || pci_bus_num(bus) < pci_bus_num(next))) {
            next = bus;
        }
    }
    return next;
}

/* If the bus numbers are too few, firmware gives up the whole host bridge. */
static bool acpi_egm_memory_check_bus_numbers(const AcpiEgmMemory *egm,
                                              PCIBus *root, unsigned bus_count,
                                              Error **errp)
{
    PCIBus *next = acpi_egm_memory_next_root(root);
    unsigned first = pci_bus_num(root);
    unsigned end = next ? MIN(pci_bus_num(next), bus_count) : bus_count;
    unsigned needed = acpi_egm_memory_count_buses(root);

    if (first + needed > end) {
        error_setg(errp, "pci-dev=%s: host bridge '%s' at bus %u needs %u bus "
                   "numbers for all bridges below it and their bus-reserve=, "
                   "but %s%s leaves %u; use other values of bus_nr=",
                   egm->pci_dev, BUS(root)->name, first, needed,
                   end < bus_count ? "host bridge " : "the ECAM window",
                   end < bus_count ? BUS(next)->name : "",
                   MAX(first, end) - first);
        return false;
    }
    return true;
}

static bool acpi_egm_memory_check_device(const AcpiEgmMemory *egm,
                                         PCIDevice *pdev,
                                         const AcpiEgmMemory *other,
                                         Error **errp)
{
    if (other) {
        error_setg(errp, "pci-dev=%s already belongs to %s '%s'; use one "
                   "object for each GPU", egm->pci_dev, TYPE_ACPI_EGM_MEMORY,
                   other->id);
        return false;
    }
    if (pci_get_byte(pdev->config + PCI_CLASS_DEVICE + 1) ==
        PCI_BASE_CLASS_BRIDGE) {
        error_setg(errp, "pci-dev=%s is a bridge (%s); use the GPU behind it",
                   egm->pci_dev, object_get_typename(OBJECT(pdev)));
        return false;
    }
    if (pdev->devfn) {
        warn_report("%s '%s': pci-dev=%s is device %d function %d of its bus; "
                    "the guest's driver finds a GPU's own memory nodes only at "
                    "device 0 function 0", TYPE_ACPI_EGM_MEMORY, egm->id,
                    egm->pci_dev, PCI_SLOT(pdev->devfn), PCI_FUNC(pdev->devfn));
    }
    return true;
}

static bool acpi_egm_memory_check_base(const AcpiEgmMemory *egm, Error **errp)
{
    if (!QEMU_IS_ALIGNED(egm->base, 2 * MiB)) {
        error_setg(errp, "node=%u: its RAM starts at 0x%" PRIx64 ", which is "
                   "not a multiple of 2 MiB: the GPU could not use large "
                   "pages; change the sizes of the nodes before it", egm->node,
                   egm->base);
        return false;
    }
    return true;
}

/* @opaque: the functions with EGM, as in AcpiEgmMemorySeen */
static void acpi_egm_memory_add_own_node(PCIDevice *pdev, uint32_t node,
                                         void *opaque)
{
    AcpiEgmMemory *egm = g_hash_table_lookup(opaque, pdev);

    if (egm) {
        set_bit(node, egm->own_nodes);
    }
}

/* A node that has the GPU as initiator is for memory of the GPU itself. */
static bool acpi_egm_memory_check_own_nodes(const AcpiEgmMemory *egm,
                                            const NumaState *numa, Error **errp)
{
    for (unsigned node = 0; node < numa->num_nodes; node++) {
        if (test_bit(node, egm->own_nodes) && numa->nodes[node].node_mem) {
            error_setg(errp, "%s '%s': pci-dev=%s: an acpi-generic-initiator "
                       "ties it to node=%u, and the guest would treat the "
                       "memory of this node as the GPU's own; use a node "
                       "without memory", TYPE_ACPI_EGM_MEMORY, egm->id,
                       egm->pci_dev, node);
            return false;
        }
    }
    return true;
}

static int acpi_egm_memory_check_plugged(Object *obj, void *opaque)
{
    DeviceState *dev = (DeviceState *)object_dynamic_cast(obj, TYPE_DEVICE);

    return dev &&
           !acpi_egm_memory_pre_plug(MACHINE(qdev_get_machine()), dev,
                                     opaque);
}

/* Functions and host bridges of the objects that were checked before */
typedef struct AcpiEgmMemorySeen {
    DECLARE_BITMAP(nodes, MAX_NODES);
    GHashTable *functions;      /* PCIDevice: AcpiEgmMemory */
    const AcpiEgmMemory *bridges[PCI_BUS_MAX];  /* by bus number */
} AcpiEgmMemorySeen;

static PCIDevice *acpi_egm_memory_check_one(const AcpiEgmMemory *egm,
                                            const NumaState *numa,
                                            unsigned bus_count,
                                            const AcpiEgmMemorySeen *seen,
                                            Error **errp)
{
    PCIDevice *pdev;
    PCIBus *root;

    if (!acpi_egm_memory_check_node(egm, numa, errp) ||
        (!test_bit(egm->node, seen->nodes) &&
         !acpi_egm_memory_check_memory(
             egm, numa->nodes[egm->node].node_memdev, errp))) {
        return NULL;
    }
    pdev = acpi_find_pci_device(egm->pci_dev, errp);
    if (!pdev || !acpi_egm_memory_check_device(
                     egm, pdev, g_hash_table_lookup(seen->functions, pdev),
                     errp)) {
        return NULL;
    }
    root = pci_device_root_bus(pdev);
    return acpi_egm_memory_check_bus_numbers(egm, root, bus_count, errp) &&
           acpi_egm_memory_check_host_bridge(
               egm, root, seen->bridges[pci_bus_num(root)], errp) ? pdev : NULL;
}

bool acpi_egm_memory_check(MachineState *ms, hwaddr ram_base,
                           unsigned bus_count, bool acpi, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    g_autoptr(GHashTable) functions = g_hash_table_new(NULL, NULL);
    const NumaState *numa = ms->numa_state;
    AcpiEgmMemorySeen seen = { .functions = functions };

    for (unsigned i = 0; i < objects->len; i++) {
        AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        PCIDevice *pdev = NULL;

        if (acpi) {
            pdev = acpi_egm_memory_check_one(egm, numa, bus_count, &seen, errp);
        } else {
            error_setg(errp, "the guest has no ACPI tables; use acpi=on, and "
                       "UEFI firmware instead of -kernel alone");
        }
        if (pdev) {
            numa_node_range(ms, egm->node, ram_base, &egm->base, &egm->size);
        }
        if (!pdev || !acpi_egm_memory_check_base(egm, errp)) {
            error_prepend(errp, "%s '%s': ", TYPE_ACPI_EGM_MEMORY, egm->id);
            return false;
        }
        seen.bridges[pci_bus_num(pci_device_root_bus(pdev))] = egm;
        set_bit(egm->node, seen.nodes);
        g_hash_table_insert(functions, pdev, egm);
        trace_acpi_egm_memory_check(egm->id, egm->pci_dev, egm->node, egm->base,
                                    egm->size);
    }
    acpi_generic_initiator_foreach(acpi_egm_memory_add_own_node, functions);
    for (unsigned i = 0; i < objects->len; i++) {
        if (!acpi_egm_memory_check_own_nodes(g_ptr_array_index(objects, i),
                                             numa, errp)) {
            return false;
        }
    }
    /* Memory devices that were plugged before the machine was complete */
    return !objects->len || !ms->device_memory ||
           !object_child_foreach_recursive(OBJECT(ms),
                                           acpi_egm_memory_check_plugged, errp);
}
