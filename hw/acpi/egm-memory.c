/*
 * acpi-egm-memory: tell the guest which RAM is Extended GPU Memory (EGM)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest's GPU driver reads base, size and proximity domain of its EGM from
 * the _DSD of the GPU's ACPI companion. Linux takes as companion the ACPI
 * Device that is reached from the host bridge by the same chain of device and
 * function numbers as the GPU, hence the Devices for the bridges.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/notify.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"
#include "hw/acpi/egm-memory.h"
#include "hw/acpi/pci.h"
#include "hw/mem/memory-device.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/qdev-core.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "trace.h"

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(AcpiEgmMemory, acpi_egm_memory,
                                          ACPI_EGM_MEMORY, OBJECT,
                                          { TYPE_USER_CREATABLE },
                                          { NULL })

static const TypeInfo egm_types[] = {
    { .name = TYPE_ACPI_EGM_MEMORY_MACHINE, .parent = TYPE_INTERFACE },
};

DEFINE_TYPES(egm_types)

static int egm_collect_one(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_ACPI_EGM_MEMORY)) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

static int egm_compare_id(gconstpointer a, gconstpointer b)
{
    return strcmp((*(AcpiEgmMemory * const *)a)->id,
                  (*(AcpiEgmMemory * const *)b)->id);
}

GPtrArray *acpi_egm_memory_list(void)
{
    GPtrArray *objects = g_ptr_array_new();

    object_child_foreach(object_get_objects_root(), egm_collect_one, objects);
    g_ptr_array_sort(objects, egm_compare_id);
    return objects;
}

/* Checks */

static PCIDevice *egm_find_pci_dev(const char *name, Error **errp)
{
    ERRP_GUARD();
    Object *obj = NULL;
    PCIDevice *pdev;
    bool ambiguous = false;

    /* An id is unique, whatever else in the QOM tree has the same name. */
    if (*name) {
        obj = object_resolve_path_component(machine_get_container("peripheral"),
                                            name);
        obj = obj ?: object_resolve_path_type(name, TYPE_PCI_DEVICE,
                                              &ambiguous);
        obj = obj ?: object_resolve_path(name, NULL);
    }

    if (ambiguous) {
        error_setg(errp, "pci-dev=%s is ambiguous: it is the path of several "
                   "PCI devices", name);
        error_append_hint(errp, "Use the id of the device, or its full QOM "
                          "path.\n");
        return NULL;
    }
    if (!obj) {
        error_setg(errp, "pci-dev=%s: there is no such device", name);
        error_append_hint(errp, "Use the id of a PCI device that the machine "
                          "starts with.\n");
        return NULL;
    }
    if (!object_dynamic_cast(obj, TYPE_PCI_DEVICE)) {
        error_setg(errp, "pci-dev=%s is a %s, not a PCI device", name,
                   object_get_typename(obj));
        error_append_hint(errp, "Use the id of the GPU's -device option.\n");
        return NULL;
    }
    pdev = PCI_DEVICE(obj);
    if (pci_get_byte(pdev->config + PCI_CLASS_DEVICE + 1) ==
        PCI_BASE_CLASS_BRIDGE) {
        error_setg(errp, "pci-dev=%s is a PCI bridge (%s), not a GPU", name,
                   object_get_typename(obj));
        error_append_hint(errp, "Use the id of the device behind it.\n");
        return NULL;
    }
    return pdev;
}

PCIDevice *acpi_egm_memory_device(const AcpiEgmMemory *egm)
{
    PCIDevice *pdev = egm_find_pci_dev(egm->pci_dev, NULL);

    return pdev && qdev_is_realized(DEVICE(pdev)) &&
           !DEVICE(pdev)->hotplugged ? pdev : NULL;
}

static bool egm_check_node(AcpiEgmMemory *egm, const MachineState *ms,
                           hwaddr ram_base, Error **errp)
{
    ERRP_GUARD();
    const NumaState *numa = ms->numa_state;
    const NodeInfo *info = &numa->nodes[egm->node];

    if (egm->node >= numa->num_nodes) {
        error_setg(errp, "node=%u: there is no such NUMA node", egm->node);
        error_append_hint(errp, "Use -numa node,nodeid=%u,memdev=...\n",
                          egm->node);
        return false;
    }
    if (!info->node_mem) {
        error_setg(errp, "node=%u: NUMA node %u has no memory", egm->node,
                   egm->node);
        error_append_hint(errp, "Name the node whose memdev is the EGM region, "
                          "not one for the GPU's own memory.\n");
        return false;
    }
    if (!info->node_memdev) {
        error_setg(errp, "node=%u: the memory of NUMA node %u has no memdev",
                   egm->node, egm->node);
        error_append_hint(errp, "Use -numa node,nodeid=%u,memdev=... with a "
                          "%s.\n", egm->node, TYPE_MEMORY_BACKEND_FILE);
        return false;
    }
    numa_node_range(ms, egm->node, ram_base, &egm->base, &egm->size);
    if (!QEMU_IS_ALIGNED(egm->base, 2 * MiB)) {
        error_setg(errp, "node=%u: its RAM begins at 0x%" PRIx64 ", which is "
                   "no multiple of 2 MiB: the GPU's large pages would break",
                   egm->node, egm->base);
        error_append_hint(errp, "Use multiples of 2 MiB as sizes of the nodes "
                          "before it, better of 512 MiB.\n");
        return false;
    }
    return true;
}

/*
 * A GPU addresses EGM by the offset into the host's region: byte n of the
 * backend has to be byte n of the file.
 */
static bool egm_check_linear(Object *backend, const char *id, Error **errp)
{
    ERRP_GUARD();
    uint64_t offset;

    if (!object_property_get_bool(backend, "share", &error_abort)) {
        error_setg(errp, "memory backend '%s' has share=off: the guest would "
                   "run on a private copy that no GPU can reach", id);
        error_append_hint(errp, "Use share=on.\n");
        return false;
    }
    if (object_property_get_bool(backend, "readonly", &error_abort)) {
        error_setg(errp, "memory backend '%s' has readonly=on: guest RAM must "
                   "be writable", id);
        error_append_hint(errp, "Remove readonly=on and rom=on.\n");
        return false;
    }
    offset = object_property_get_uint(backend, "offset", &error_abort);
    if (offset) {
        error_setg(errp, "memory backend '%s' has offset=%" PRIu64 ": a GPU "
                   "counts from the start of the EGM region", id, offset);
        error_append_hint(errp, "Use offset=0.\n");
        return false;
    }
    return true;
}

/*
 * Is the open file @fd directly in /dev, where a device node should be? Its own
 * name is asked for: @mem_path can be relative, a link, or a directory in which
 * QEMU has made a file.
 */
static bool egm_is_in_dev(int fd, const char *mem_path)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *name = g_file_read_link(link, NULL);
    g_autofree char *dir = g_path_get_dirname(name ?: mem_path);
    struct stat a, b;

    return !stat(dir, &a) && !stat("/dev", &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static bool egm_check_file(HostMemoryBackend *backend, const char *id,
                           Error **errp)
{
    ERRP_GUARD();
    g_autofree char *mem_path =
        object_property_get_str(OBJECT(backend), "mem-path", &error_abort);
    int fd = memory_region_get_fd(&backend->mr);
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "memory backend '%s': cannot inspect "
                         "mem-path=%s", id, mem_path);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        return true;
    }
    if (egm_is_in_dev(fd, mem_path)) {
        error_setg(errp, "memory backend '%s': mem-path=%s is a regular file "
                   "where a device should be", id, mem_path);
        error_append_hint(errp, "Remove the file, and load the nvgrace-egm "
                          "driver, which creates the device.\n");
        return false;
    }
    warn_report("memory backend '%s': mem-path=%s is a regular file, not an "
                "EGM device; good for tests, but no GPU can reach it", id,
                mem_path);
    return true;
}

static bool egm_check_backend(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    const char *id = object_get_canonical_path_component(OBJECT(backend));

    if (!id) {
        error_setg(errp, "its memory backend has been deleted");
        return false;
    }
    if (!object_dynamic_cast(OBJECT(backend), TYPE_MEMORY_BACKEND_FILE)) {
        error_setg(errp, "memory backend '%s' is a %s, not a %s", id,
                   object_get_typename(OBJECT(backend)),
                   TYPE_MEMORY_BACKEND_FILE);
        error_append_hint(errp, "Use -object %s,id=%s,mem-path=/dev/egmX,"
                          "share=on,size=...\n", TYPE_MEMORY_BACKEND_FILE, id);
        return false;
    }
    return egm_check_linear(OBJECT(backend), id, errp) &&
           egm_check_file(backend, id, errp);
}

/*
 * The guest's driver takes the NUMA node of the GPU for that of its EGM. Linux
 * takes it from the host bridge.
 * @bridges: by bus number, the first object below each host bridge
 */
static bool egm_check_host_bridge(AcpiEgmMemory *egm, PCIDevice *pdev,
                                  AcpiEgmMemory **bridges, Error **errp)
{
    ERRP_GUARD();
    PCIBus *root = pci_device_root_bus(pdev);
    AcpiEgmMemory **first = &bridges[pci_bus_num(root)];
    unsigned node = pci_bus_numa_node(root);

    if (root->parent_dev && !pci_bus_num(root)) {
        error_setg(errp, "pci-dev=%s: the host bridge '%s' of the device has "
                   "bus_nr=0, as the machine's own has", egm->pci_dev,
                   BUS(root)->name);
        error_append_hint(errp, "Use bus_nr=... for the host bridge.\n");
        return false;
    }
    if (node != NUMA_NODE_UNASSIGNED && node != egm->node) {
        error_setg(errp, "pci-dev=%s, node=%u: the host bridge '%s' of the "
                   "device has numa_node=%u: the GPU would take the memory of "
                   "that node for its EGM", egm->pci_dev, egm->node,
                   BUS(root)->name, node);
        error_append_hint(errp, "Use numa_node=%u, or another host bridge for "
                          "the GPU.\n", egm->node);
        return false;
    }
    if (*first && (*first)->node != egm->node) {
        error_setg(errp, "pci-dev=%s, node=%u: %s '%s' has node=%u for %s, "
                   "below the same host bridge '%s'", egm->pci_dev, egm->node,
                   TYPE_ACPI_EGM_MEMORY, (*first)->id, (*first)->node,
                   (*first)->pci_dev, BUS(root)->name);
        error_append_hint(errp, "A host bridge has one NUMA node. Use a "
                          "pxb-pcie with numa_node=... for each node.\n");
        return false;
    }
    *first = *first ?: egm;
    return true;
}

/* A Generic Initiator that names the GPU means: memory of the GPU itself. */
static int egm_check_initiator(NotifierWithReturn *notifier, void *data,
                               Error **errp)
{
    ERRP_GUARD();
    const AcpiGenericInitiatorLink *link = data;
    MachineState *ms = MACHINE(qdev_get_machine());
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    const NodeInfo *node = &ms->numa_state->nodes[link->node];
    Error *blocker = NULL;

    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);

        if (acpi_egm_memory_device(egm) != link->pdev) {
            continue;
        }
        if (node->node_mem || memory_devices_in_node(ms, link->node)) {
            error_setg(errp, "%s '%s': pci-dev=%s: acpi-generic-initiator '%s' "
                       "ties it to node=%u, which has memory",
                       TYPE_ACPI_EGM_MEMORY, egm->id, egm->pci_dev, link->id,
                       link->node);
            error_append_hint(errp, "The guest would take that RAM for memory "
                              "of the GPU. Use nodes without memory for "
                              "acpi-generic-initiator.\n");
            return -EINVAL;
        }
        /* Nor can it get some, for as long as QEMU runs. */
        if (!node->memory_blockers) {
            error_setg(&blocker, "the guest has been told that the memory of "
                       "node %u is that of '%s' itself", link->node,
                       egm->pci_dev);
            numa_add_memory_blocker(ms, link->node, blocker);
        }
        return 0;
    }
    return 0;
}

static NotifierWithReturn egm_initiator_check = {
    .notify = egm_check_initiator,
};

/* What has been seen of the objects before this one */
typedef struct EgmSeen {
    GHashTable *pci_devs;       /* PCIDevice: AcpiEgmMemory */
    GHashTable *backends;       /* HostMemoryBackend */
    AcpiEgmMemory *bridges[PCI_BUS_MAX];
} EgmSeen;

static bool egm_check_one(AcpiEgmMemory *egm, MachineState *ms,
                          hwaddr ram_base, EgmSeen *seen, Error **errp)
{
    ERRP_GUARD();
    HostMemoryBackend *backend;
    const AcpiEgmMemory *other;
    PCIDevice *pdev;

    if (!egm_check_node(egm, ms, ram_base, errp)) {
        return false;
    }
    backend = ms->numa_state->nodes[egm->node].node_memdev;
    if (g_hash_table_add(seen->backends, backend) &&
        !egm_check_backend(backend, errp)) {
        error_prepend(errp, "node=%u: ", egm->node);
        return false;
    }

    pdev = egm_find_pci_dev(egm->pci_dev, errp);
    if (!pdev) {
        return false;
    }
    other = g_hash_table_lookup(seen->pci_devs, pdev);
    if (other) {
        error_setg(errp, "pci-dev=%s already belongs to %s '%s'", egm->pci_dev,
                   TYPE_ACPI_EGM_MEMORY, other->id);
        error_append_hint(errp, "A GPU has one EGM region; use one object for "
                          "each GPU.\n");
        return false;
    }
    g_hash_table_insert(seen->pci_devs, pdev, egm);

    if (!egm_check_host_bridge(egm, pdev, seen->bridges, errp)) {
        return false;
    }
    if (pdev->devfn) {
        warn_report_once("%s '%s': pci-dev=%s is device %d function %d of its "
                         "bus; the guest's driver finds a GPU's own memory "
                         "nodes only at device 0 function 0",
                         TYPE_ACPI_EGM_MEMORY, egm->id, egm->pci_dev,
                         PCI_SLOT(pdev->devfn), PCI_FUNC(pdev->devfn));
    }

    qdev_add_unplug_blocker(DEVICE(pdev), egm->blocker);
    trace_acpi_egm_memory_check(egm->id, egm->pci_dev, egm->node, egm->base,
                                egm->size);
    return true;
}

bool acpi_egm_memory_check(MachineState *ms, hwaddr ram_base,
                           const char *no_acpi, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    g_autoptr(GHashTable) pci_devs = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) backends = g_hash_table_new(NULL, NULL);
    EgmSeen seen = { .pci_devs = pci_devs, .backends = backends };

    for (unsigned i = 0; i < objects->len; i++) {
        AcpiEgmMemory *egm = g_ptr_array_index(objects, i);

        if (no_acpi) {
            error_setg(errp, "%s: the guest is told about EGM by ACPI tables",
                       no_acpi);
        }
        if (*errp || !egm_check_one(egm, ms, ram_base, &seen, errp)) {
            error_prepend(errp, "%s '%s': ", TYPE_ACPI_EGM_MEMORY, egm->id);
            return false;
        }
    }
    return !objects->len ||
           acpi_generic_initiator_add_check(&egm_initiator_check, errp);
}

/* Tables */

static Aml *egm_property(const char *name, uint64_t value)
{
    Aml *pkg = aml_package(2);

    aml_append(pkg, aml_string("%s", name));
    aml_append(pkg, aml_int(value));
    return pkg;
}

/* ACPI 6.5, 6.2.5 _DSD; UUID and format: _DSD Device Properties, 2.1 and 2.3 */
static Aml *egm_dsd(const AcpiEgmMemory *egm)
{
    Aml *dsd = aml_package(2);
    Aml *properties = aml_package(3);

    aml_append(properties, egm_property("nvidia,egm-base-pa", egm->base));
    aml_append(properties, egm_property("nvidia,egm-size", egm->size));
    aml_append(properties, egm_property("nvidia,egm-pxm", egm->node));

    aml_append(dsd, aml_touuid("DAFFD814-6EBA-4D8C-8A91-BC9BBF4AA301"));
    aml_append(dsd, properties);
    return aml_name_decl("_DSD", dsd);
}

/* ACPI 6.5, 6.1.1 _ADR, Table 6.2: PCI device in the high word */
static Aml *egm_adr(unsigned devfn)
{
    return aml_name_decl("_ADR", aml_int(PCI_SLOT(devfn) << 16 |
                                         PCI_FUNC(devfn)));
}

/*
 * What leads to EGM
 * @on_way: functions with EGM with their _DSD, bridges with NULL
 * @adr: _ADR, by devfn; the same on all buses
 * @bridges: host bridges, by bus number, which is fixed by configuration; the
 *     numbers of other buses are the firmware's choice and not used
 */
typedef struct EgmTree {
    GHashTable *on_way;
    Aml *adr[PCI_DEVFN_MAX];
    struct {
        PCIBus *bus;
        uint32_t node;
    } bridges[PCI_BUS_MAX];
} EgmTree;

static void egm_tree_add(EgmTree *tree, PCIDevice *pdev, uint32_t node,
                         Aml *dsd)
{
    PCIBus *bus = pci_get_bus(pdev);

    g_hash_table_insert(tree->on_way, pdev, dsd);
    while (!pci_bus_is_root(bus)) {
        pdev = pci_bridge_get_device(bus);
        if (!g_hash_table_insert(tree->on_way, pdev, NULL)) {
            return;
        }
        bus = pci_get_bus(pdev);
    }
    tree->bridges[pci_bus_num(bus)].bus = bus;
    tree->bridges[pci_bus_num(bus)].node = node;
}

/* Append to @parent what stands for each function of @bus that is @on_way. */
static void egm_append_bus(Aml *parent, PCIBus *bus, EgmTree *tree,
                           bool declared)
{
    for (unsigned devfn = 0; devfn < PCI_DEVFN_MAX; devfn++) {
        PCIDevice *pdev = bus->devices[devfn];
        gpointer dsd;
        Aml *dev;

        if (!pdev ||
            !g_hash_table_lookup_extended(tree->on_way, pdev, NULL, &dsd)) {
            continue;
        }
        if (declared) {
            dev = aml_scope("S%.02X", devfn);
        } else {
            dev = aml_device("S%.02X", devfn);
            tree->adr[devfn] = tree->adr[devfn] ?: egm_adr(devfn);
            aml_append(dev, tree->adr[devfn]);
        }
        if (dsd) {
            aml_append(dev, dsd);
        } else {
            egm_append_bus(dev, pci_bridge_get_sec_bus(PCI_BRIDGE(pdev)),
                           tree, declared);
        }
        aml_append(parent, dev);
    }
}

void acpi_egm_memory_build_dsdt(Aml *dsdt, bool pci0_declared)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    g_autoptr(GHashTable) on_way = g_hash_table_new(NULL, NULL);
    EgmTree tree = { .on_way = on_way };
    Aml *dsd[MAX_NODES] = { };  /* the same for all GPUs of a node */

    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        PCIDevice *pdev = acpi_egm_memory_device(egm);

        if (pdev) {
            dsd[egm->node] = dsd[egm->node] ?: egm_dsd(egm);
            egm_tree_add(&tree, pdev, egm->node, dsd[egm->node]);
        }
    }
    for (unsigned nr = 0; nr < PCI_BUS_MAX; nr++) {
        PCIBus *bus = tree.bridges[nr].bus;
        Aml *scope;

        if (!bus) {
            continue;
        }
        scope = nr ? aml_scope("\\_SB.PC%.02X", nr) : aml_scope("\\_SB.PCI0");
        if (pci_bus_numa_node(bus) == NUMA_NODE_UNASSIGNED) {
            /* ACPI 6.5, 6.2.15 _PXM (Proximity) */
            aml_append(scope, aml_name_decl("_PXM",
                                            aml_int(tree.bridges[nr].node)));
        }
        egm_append_bus(scope, bus, &tree, pci0_declared && !nr);
        aml_append(dsdt, scope);
    }
    trace_acpi_egm_memory_build_dsdt(g_hash_table_size(on_way));
}

/* The QOM object */

static bool egm_check_new(const AcpiEgmMemory *egm, Error **errp)
{
    ERRP_GUARD();
    Object *machine = qdev_get_machine();

    if (!object_dynamic_cast(machine, TYPE_ACPI_EGM_MEMORY_MACHINE)) {
        error_setg(errp, "not supported by machine '%s'",
                   MACHINE_GET_CLASS(machine)->name);
        error_append_hint(errp, "Use -machine virt.\n");
        return false;
    }
    if (phase_check(PHASE_MACHINE_INITIALIZED)) {
        error_setg(errp, "too late: it must be created before the machine, as "
                   "ACPI tables describe hardware that is present at boot");
        error_append_hint(errp, "Use -object on the command line, or start "
                          "with --preconfig.\n");
        return false;
    }
    if (egm->node >= MAX_NODES) {
        error_setg(errp, "node=%u is out of range; use 0 to %d", egm->node,
                   MAX_NODES - 1);
        return false;
    }
    return true;
}

static void acpi_egm_memory_complete(UserCreatable *uc, Error **errp)
{
    ERRP_GUARD();
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(uc);
    const char *id = object_get_canonical_path_component(OBJECT(uc));

    if (!egm_check_new(egm, errp)) {
        error_prepend(errp, "%s '%s': ", TYPE_ACPI_EGM_MEMORY, id);
        return;
    }
    egm->id = id;

    /* The guest's driver takes all memory of the node for EGM. */
    error_setg(&egm->blocker, "%s '%s' tells the guest that the memory of node "
               "%u is the EGM of '%s'", TYPE_ACPI_EGM_MEMORY, id, egm->node,
               egm->pci_dev);
    numa_add_memory_blocker(MACHINE(qdev_get_machine()), egm->node,
                            egm->blocker);
}

static bool acpi_egm_memory_can_be_deleted(UserCreatable *uc)
{
    return !phase_check(PHASE_MACHINE_INITIALIZED);
}

static bool egm_check_settable(AcpiEgmMemory *egm, const char *name,
                               Error **errp)
{
    if (egm->id) {
        error_setg(errp, "property '%s' of %s '%s' cannot be changed", name,
                   TYPE_ACPI_EGM_MEMORY, egm->id);
        return false;
    }
    return true;
}

static char *acpi_egm_memory_get_pci_dev(Object *obj, Error **errp)
{
    return g_strdup(ACPI_EGM_MEMORY(obj)->pci_dev);
}

static void acpi_egm_memory_set_pci_dev(Object *obj, const char *value,
                                        Error **errp)
{
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(obj);

    if (egm_check_settable(egm, "pci-dev", errp)) {
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
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(obj);
    uint32_t node;

    if (visit_type_uint32(v, name, &node, errp) &&
        egm_check_settable(egm, name, errp)) {
        egm->node = node;
    }
}

static void acpi_egm_memory_init(Object *obj)
{
    ACPI_EGM_MEMORY(obj)->node = MAX_NODES;
}

static void acpi_egm_memory_finalize(Object *obj)
{
    AcpiEgmMemory *egm = ACPI_EGM_MEMORY(obj);

    /* The device has it until QEMU ends: that is when the object may go. */
    if (egm->blocker) {
        numa_del_memory_blocker(MACHINE(qdev_get_machine()), egm->node,
                                egm->blocker);
        error_free(egm->blocker);
    }
    g_free(egm->pci_dev);
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
