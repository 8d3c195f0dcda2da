/*
 * acpi-egm-memory: report to the guest which RAM is Extended GPU Memory (EGM)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest's GPU driver reads base, size and proximity domain of its EGM from
 * the _DSD of the GPU's ACPI companion. For Linux, the companion is the ACPI
 * Device that is reached from the host bridge by the same chain of device and
 * function numbers as the GPU. So the bridges need Devices as well.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qom/object_interfaces.h"
#include "hw/acpi/egm-memory.h"
#include "hw/acpi/pci.h"
#include "hw/mem/memory-device.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "trace.h"

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(AcpiEgmMemory, acpi_egm_memory,
                                          ACPI_EGM_MEMORY, OBJECT,
                                          { TYPE_USER_CREATABLE },
                                          { NULL })

static int acpi_egm_memory_collect(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_ACPI_EGM_MEMORY)) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

static int acpi_egm_memory_compare(gconstpointer a, gconstpointer b)
{
    return strcmp((*(AcpiEgmMemory * const *)a)->id,
                  (*(AcpiEgmMemory * const *)b)->id);
}

GPtrArray *acpi_egm_memory_list(void)
{
    GPtrArray *objects = g_ptr_array_new();

    object_child_foreach(object_get_objects_root(), acpi_egm_memory_collect,
                         objects);
    g_ptr_array_sort(objects, acpi_egm_memory_compare);
    return objects;
}

PCIDevice *acpi_egm_memory_device(const AcpiEgmMemory *egm)
{
    PCIDevice *pdev = acpi_find_pci_device(egm->pci_dev, NULL);

    return pdev && qdev_is_realized(DEVICE(pdev)) &&
           !DEVICE(pdev)->hotplugged ? pdev : NULL;
}

/* Memory devices */

/* The object that reserves @node, for EGM or for memory of the GPU itself */
static const AcpiEgmMemory *acpi_egm_memory_of_node(const GPtrArray *objects,
                                                    unsigned node)
{
    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);

        if (node == egm->node ||
            (node < MAX_NODES && test_bit(node, egm->own_nodes))) {
            return egm;
        }
    }
    return NULL;
}

static bool acpi_egm_memory_node_in_use(const MachineState *ms, unsigned node)
{
    for (unsigned i = 0; i < ms->possible_cpus->len; i++) {
        if (ms->possible_cpus->cpus[i].props.node_id == node) {
            return true;
        }
    }
    return ms->numa_state->nodes[node].node_mem;
}

int acpi_egm_memory_plug_node(const MachineState *ms)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    int node = ms->numa_state->num_nodes - 1;

    while (objects->len && node >= 0 &&
           (acpi_egm_memory_of_node(objects, node) ||
            !acpi_egm_memory_node_in_use(ms, node))) {
        node--;
    }
    return node;
}

bool acpi_egm_memory_pre_plug(const MachineState *ms, DeviceState *dev,
                              Error **errp)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();

    if (!objects->len ||
        !object_dynamic_cast(OBJECT(dev), TYPE_MEMORY_DEVICE)) {
        return true;
    }
    if (object_property_find(OBJECT(dev), "node")) {
        unsigned node = object_property_get_uint(OBJECT(dev), "node",
                                                 &error_abort);
        const AcpiEgmMemory *egm = acpi_egm_memory_of_node(objects, node);

        if (egm) {
            error_setg(errp, "cannot plug memory into NUMA node %u: all memory "
                       "of this node belongs to '%s' (%s '%s'); use another "
                       "node=", node, egm->pci_dev, TYPE_ACPI_EGM_MEMORY,
                       egm->id);
            return false;
        }
    }
    if (acpi_egm_memory_plug_node(ms) < 0) {
        error_setg(errp, "cannot plug memory: each NUMA node with CPUs or "
                   "memory is reserved by %s", TYPE_ACPI_EGM_MEMORY);
        return false;
    }
    return true;
}

/* Tables */

static Aml *acpi_egm_memory_property(const char *name, uint64_t value)
{
    Aml *pkg = aml_package(2);

    aml_append(pkg, aml_string("%s", name));
    aml_append(pkg, aml_int(value));
    return pkg;
}

/* ACPI 6.5, 6.2.5 _DSD; UUID and format: _DSD Device Properties, 2.1 and 2.3 */
static Aml *acpi_egm_memory_dsd(const AcpiEgmMemory *egm)
{
    Aml *dsd = aml_package(2);
    Aml *properties = aml_package(3);

    aml_append(properties,
               acpi_egm_memory_property("nvidia,egm-base-pa", egm->base));
    aml_append(properties,
               acpi_egm_memory_property("nvidia,egm-size", egm->size));
    aml_append(properties,
               acpi_egm_memory_property("nvidia,egm-pxm", egm->node));

    aml_append(dsd, aml_touuid("DAFFD814-6EBA-4D8C-8A91-BC9BBF4AA301"));
    aml_append(dsd, properties);
    return aml_name_decl("_DSD", dsd);
}

/*
 * Append to @parent each function of @bus that has EGM or leads to it: a
 * Device, or the scope of the Device if the table has @declared it already.
 * @functions: the functions with EGM, each with its _DSD, which aml_append()
 *     copies
 */
static bool acpi_egm_memory_append_bus(Aml *parent, PCIBus *bus,
                                       GHashTable *functions, bool declared)
{
    bool any = false;

    for (unsigned devfn = 0; devfn < PCI_DEVFN_MAX; devfn++) {
        PCIDevice *pdev = bus->devices[devfn];
        Aml *dsd = pdev ? g_hash_table_lookup(functions, pdev) : NULL;
        bool found = dsd;
        Aml *dev;

        if (!pdev || (!dsd && !IS_PCI_BRIDGE(pdev))) {
            continue;
        }
        if (declared) {
            dev = aml_scope("S%.02X", devfn);
        } else {
            dev = aml_device("S%.02X", devfn);
            /* ACPI 6.5, 6.1.1 _ADR, Table 6.2: PCI device in the high word */
            aml_append(dev, aml_name_decl("_ADR",
                                          aml_int(PCI_SLOT(devfn) << 16 |
                                                  PCI_FUNC(devfn))));
        }
        if (dsd) {
            aml_append(dev, dsd);
        } else {
            found = acpi_egm_memory_append_bus(
                dev, pci_bridge_get_sec_bus(PCI_BRIDGE(pdev)), functions,
                declared);
        }
        if (found) {
            aml_append(parent, dev);
        }
        any |= found;
    }
    return any;
}

void acpi_egm_memory_build_dsdt(Aml *dsdt)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    g_autoptr(GHashTable) functions = g_hash_table_new(NULL, NULL);
    /*
     * In the order of the host bridges' bus numbers, which the configuration
     * fixes; the firmware chooses the numbers of the other buses.
     */
    const AcpiEgmMemory *bridges[PCI_BUS_MAX] = { };
    Aml *dsd[MAX_NODES] = { };  /* the same for all GPUs of a node */

    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        PCIDevice *pdev = acpi_egm_memory_device(egm);

        if (pdev) {
            dsd[egm->node] = dsd[egm->node] ?: acpi_egm_memory_dsd(egm);
            g_hash_table_insert(functions, pdev, dsd[egm->node]);
            bridges[pci_bus_num(pci_device_root_bus(pdev))] = egm;
        }
    }
    for (unsigned nr = 0; nr < PCI_BUS_MAX; nr++) {
        PCIBus *bus;
        Aml *scope;

        if (!bridges[nr]) {
            continue;
        }
        bus = pci_device_root_bus(acpi_egm_memory_device(bridges[nr]));
        scope = nr ? aml_scope("\\_SB.PC%.02X", nr) : aml_scope("\\_SB.PCI0");
        if (pci_bus_numa_node(bus) == NUMA_NODE_UNASSIGNED) {
            /* ACPI 6.5, 6.2.15 _PXM (Proximity) */
            aml_append(scope, aml_name_decl("_PXM",
                                            aml_int(bridges[nr]->node)));
        }
        /* QEMU declares all functions below PCI0. */
        acpi_egm_memory_append_bus(scope, bus, functions, !nr);
        aml_append(dsdt, scope);
    }
    trace_acpi_egm_memory_build_dsdt(g_hash_table_size(functions));
}

/* The QOM object */

static void acpi_egm_memory_complete(UserCreatable *uc, Error **errp)
{
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(uc);
    Object *machine = qdev_get_machine();

    egm->id = object_get_canonical_path_component(OBJECT(uc));
    /* The machine has to call the functions of egm-memory.h. */
    if (!object_dynamic_cast(machine, MACHINE_TYPE_NAME("virt"))) {
        error_setg(errp, "%s '%s': machine '%s' does not support it; use "
                   "-machine virt", TYPE_ACPI_EGM_MEMORY, egm->id,
                   MACHINE_GET_CLASS(machine)->name);
    }
}

static bool acpi_egm_memory_can_be_deleted(UserCreatable *uc)
{
    return !phase_check(PHASE_MACHINE_INITIALIZED);
}

static char *acpi_egm_memory_get_pci_dev(Object *obj, Error **errp)
{
    return g_strdup(ACPI_EGM_MEMORY(obj)->pci_dev);
}

static void acpi_egm_memory_set_pci_dev(Object *obj, const char *value,
                                        Error **errp)
{
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(obj);

    if (acpi_check_settable(obj, errp)) {
        g_free(egm->pci_dev);
        egm->pci_dev = g_strdup(value);
    }
}

static void acpi_egm_memory_get_node(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &ACPI_EGM_MEMORY(obj)->node, errp);
}

static void acpi_egm_memory_set_node(Object *obj, Visitor *v, const char *name,
                                     void *opaque, Error **errp)
{
    if (acpi_check_settable(obj, errp)) {
        visit_type_uint32(v, name, &ACPI_EGM_MEMORY(obj)->node, errp);
    }
}

static void acpi_egm_memory_init(Object *obj)
{
}

static void acpi_egm_memory_finalize(Object *obj)
{
    g_free(ACPI_EGM_MEMORY(obj)->pci_dev);
}

static void acpi_egm_memory_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = acpi_egm_memory_complete;
    ucc->can_be_deleted = acpi_egm_memory_can_be_deleted;

    object_class_property_add_str(oc, "pci-dev", acpi_egm_memory_get_pci_dev,
                                  acpi_egm_memory_set_pci_dev);
    object_class_property_set_description(oc, "pci-dev",
        "id or QOM path of the PCI device (GPU) that the EGM belongs to");
    object_class_property_add(oc, "node", "uint32", acpi_egm_memory_get_node,
                              acpi_egm_memory_set_node, NULL, NULL);
    object_class_property_set_description(oc, "node",
        "guest NUMA node whose RAM is the EGM region");
}
