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
#include "qapi/qapi-commands-egm.h"
#include "qapi/visitor.h"
#include "qobject/qnull.h"
#include "qemu/error-report.h"
#include "qom/object_interfaces.h"
#include "hw/acpi/egm-memory.h"
#include "hw/acpi/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/qdev-core.h"
#include "hw/ram-holes.h"
#include "system/egm.h"
#include "system/numa.h"
#include "trace.h"

OBJECT_DECLARE_SIMPLE_TYPE(AcpiEgmMemory, ACPI_EGM_MEMORY)

struct AcpiEgmMemory {
    /* private */
    Object parent;
    const char *id;     /* set when complete; QOM takes linear time for it */

    /*
     * Settled by acpi_egm_memory_resolve(). @path leads to the PCI function:
     * the number of the root bus, which is fixed by configuration, then a devfn
     * per bus. The numbers of other buses are the firmware's choice and not
     * used. @devices are those with which the function would go away: they have
     * @unplug_blocker, until a guest powers off their slot. @pdev is the
     * function itself, for queries; then it is NULL.
     */
    GByteArray *path;
    PCIDevice *pdev;
    uint64_t base;
    uint64_t size;
    GPtrArray *devices;
    Error *unplug_blocker;

    /* public */
    char *pci_dev;
    uint32_t node;
};

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(AcpiEgmMemory, acpi_egm_memory,
                                          ACPI_EGM_MEMORY, OBJECT,
                                          { TYPE_USER_CREATABLE },
                                          { NULL })

/* The objects, sorted by @compare so that nothing depends on QOM's hashing */

static int egm_collect_one(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_ACPI_EGM_MEMORY)) {
        g_ptr_array_add(opaque, obj);
    }
    return 0;
}

static GPtrArray *egm_collect(GCompareFunc compare)
{
    GPtrArray *objects = g_ptr_array_new();

    object_child_foreach(object_get_objects_root(), egm_collect_one, objects);
    g_ptr_array_sort(objects, compare);
    return objects;
}

static int egm_compare_id(gconstpointer a, gconstpointer b)
{
    const AcpiEgmMemory *const *x = a, *const *y = b;

    return strcmp((*x)->id, (*y)->id);
}

static int egm_compare_path(gconstpointer a, gconstpointer b)
{
    const GByteArray *x = (*(const AcpiEgmMemory *const *)a)->path;
    const GByteArray *y = (*(const AcpiEgmMemory *const *)b)->path;
    int order = memcmp(x->data, y->data, MIN(x->len, y->len));

    return order ?: (int)x->len - (int)y->len;
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

static bool egm_check_node(const AcpiEgmMemory *egm, MachineState *ms,
                           Error **errp)
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
    return true;
}

/* A Generic Initiator that names the GPU means: memory of the GPU itself. */
static bool egm_check_initiators(const AcpiEgmMemory *egm,
                                 const NumaState *numa, const PCIDevice *pdev,
                                 Error **errp)
{
    ERRP_GUARD();

    for (unsigned i = 0; i < numa->num_nodes; i++) {
        if (numa->nodes[i].has_gi && numa->nodes[i].node_mem &&
            acpi_generic_initiator_names(i, pdev)) {
            error_setg(errp, "pci-dev=%s: an acpi-generic-initiator ties it to "
                       "node=%u, which has memory", egm->pci_dev, i);
            error_append_hint(errp, "The guest would take that RAM for memory "
                              "of the GPU. Use nodes without memory for "
                              "acpi-generic-initiator.\n");
            return false;
        }
    }
    return true;
}

/*
 * Keep all functions of a slot from being unplugged: they go together. Slots
 * that several objects need have a blocker of each.
 */
static void egm_hold_slot(AcpiEgmMemory *egm, PCIBus *bus, int devfn)
{
    for (int f = 0; f < PCI_FUNC_MAX; f++) {
        PCIDevice *pdev = bus->devices[PCI_DEVFN(PCI_SLOT(devfn), f)];

        if (pdev) {
            qdev_add_unplug_blocker(DEVICE(pdev), egm->unplug_blocker);
            g_ptr_array_add(egm->devices, pdev);
        }
    }
}

static int egm_hold_neighbour(Object *obj, void *opaque)
{
    AcpiEgmMemory *egm = (AcpiEgmMemory *)
        object_dynamic_cast(obj, TYPE_ACPI_EGM_MEMORY);
    PCIDevice *pdev = opaque;

    /* At first, the listener is told about all that is there already. */
    if (!egm || g_ptr_array_find(egm->devices, pdev, NULL)) {
        return 0;
    }
    for (unsigned i = 0; i < egm->devices->len; i++) {
        PCIDevice *held = g_ptr_array_index(egm->devices, i);

        if (pci_get_bus(held) == pci_get_bus(pdev) &&
            PCI_SLOT(held->devfn) == PCI_SLOT(pdev->devfn)) {
            qdev_add_unplug_blocker(DEVICE(pdev), egm->unplug_blocker);
            g_ptr_array_add(egm->devices, pdev);
            break;
        }
    }
    return 0;
}

/* Unplugging a function that was plugged in later takes the others along. */
static void egm_device_realized(DeviceListener *listener, DeviceState *dev)
{
    if (object_dynamic_cast(OBJECT(dev), TYPE_PCI_DEVICE)) {
        object_child_foreach(object_get_objects_root(), egm_hold_neighbour,
                             dev);
    }
}

static int egm_forget_device(Object *obj, void *dev)
{
    AcpiEgmMemory *egm = (AcpiEgmMemory *)
        object_dynamic_cast(obj, TYPE_ACPI_EGM_MEMORY);

    if (egm && g_ptr_array_remove(egm->devices, dev)) {
        qdev_del_unplug_blocker(dev, egm->unplug_blocker);
        if (dev == (void *)egm->pdev) {
            egm->pdev = NULL;
        }
    }
    return 0;
}

/* Blockers don't stop a guest that powers off a slot. Forget what is gone. */
static void egm_device_unrealized(DeviceListener *listener, DeviceState *dev)
{
    object_child_foreach(object_get_objects_root(), egm_forget_device, dev);
}

static DeviceListener egm_listener = {
    .realize = egm_device_realized,
    .unrealize = egm_device_unrealized,
};

/* Walk up to the root bus; the only place that looks at the PCI tree. */
static void egm_settle_path(AcpiEgmMemory *egm, PCIDevice *pdev)
{
    PCIBus *bus = pci_get_bus(pdev);
    uint8_t step;

    error_setg(&egm->unplug_blocker, "Device is in use by %s '%s': the guest's "
               "ACPI tables describe it", TYPE_ACPI_EGM_MEMORY, egm->id);
    egm->devices = g_ptr_array_new();
    egm->path = g_byte_array_new();
    egm->pdev = pdev;

    while (true) {
        egm_hold_slot(egm, bus, pdev->devfn);
        step = pdev->devfn;
        g_byte_array_prepend(egm->path, &step, 1);
        if (pci_bus_is_root(bus)) {
            break;
        }
        pdev = pci_bridge_get_device(bus);
        bus = pci_get_bus(pdev);
    }
    step = pci_bus_num(bus);
    g_byte_array_prepend(egm->path, &step, 1);
}

/*
 * @pci_devs: the devices of the objects before this one
 * @backends: the memory backends already checked
 */
static bool egm_resolve_one(AcpiEgmMemory *egm, MachineState *ms,
                            hwaddr ram_base, GHashTable *pci_devs,
                            GHashTable *backends, Error **errp)
{
    ERRP_GUARD();
    HostMemoryBackend *backend;
    AcpiEgmMemory *other;
    PCIDevice *pdev;

    if (!egm_check_node(egm, ms, errp)) {
        return false;
    }
    backend = ms->numa_state->nodes[egm->node].node_memdev;
    if (!g_hash_table_contains(backends, backend)) {
        if (!egm_backend_check(backend, errp)) {
            error_prepend(errp, "node=%u: ", egm->node);
            return false;
        }
        g_hash_table_add(backends, backend);
    }

    pdev = egm_find_pci_dev(egm->pci_dev, errp);
    if (!pdev) {
        return false;
    }
    if (!egm_backend_check_gpu(backend, pdev, errp)) {
        error_prepend(errp, "pci-dev=%s, node=%u: ", egm->pci_dev, egm->node);
        return false;
    }
    other = g_hash_table_lookup(pci_devs, pdev);
    if (other) {
        error_setg(errp, "pci-dev=%s already belongs to %s '%s'", egm->pci_dev,
                   TYPE_ACPI_EGM_MEMORY, other->id);
        error_append_hint(errp, "A GPU has one EGM region; use one object for "
                          "each GPU.\n");
        return false;
    }
    g_hash_table_insert(pci_devs, pdev, egm);

    if (!egm_check_initiators(egm, ms->numa_state, pdev, errp)) {
        return false;
    }
    if (pdev->devfn) {
        warn_report("%s '%s': pci-dev=%s is device %d function %d of its bus; "
                    "the guest's driver finds a GPU's own memory nodes only at "
                    "device 0 function 0", TYPE_ACPI_EGM_MEMORY, egm->id,
                    egm->pci_dev, PCI_SLOT(pdev->devfn), PCI_FUNC(pdev->devfn));
    }

    egm_settle_path(egm, pdev);
    numa_node_range(ms, egm->node, ram_base, &egm->base, &egm->size);
    trace_acpi_egm_memory_resolve(egm->id, egm->pci_dev, egm->node,
                                  egm->base, egm->size);
    return true;
}

bool acpi_egm_memory_resolve(MachineState *ms, hwaddr ram_base, bool acpi,
                             Error **errp)
{
    ERRP_GUARD();
    g_autoptr(GPtrArray) objects = egm_collect(egm_compare_id);
    g_autoptr(GHashTable) pci_devs = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) backends = g_hash_table_new(NULL, NULL);

    for (unsigned i = 0; i < objects->len; i++) {
        AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        bool ok = acpi;

        if (!acpi) {
            error_setg(errp, "machine option acpi=off: the guest is told about "
                       "EGM by ACPI tables");
            error_append_hint(errp, "Use -machine acpi=on.\n");
        } else {
            ok = egm_resolve_one(egm, ms, ram_base, pci_devs, backends, errp);
        }
        if (!ok) {
            error_prepend(errp, "%s '%s': ", TYPE_ACPI_EGM_MEMORY, egm->id);
            return false;
        }
    }
    if (objects->len) {
        device_listener_register(&egm_listener);
    }
    return true;
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

/*
 * What stands for one step of a path: first the scope of the host bridge, which
 * is declared elsewhere under these names, then a Device for each bus, or its
 * scope if it is @declared elsewhere as well.
 */
static Aml *egm_open_step(unsigned depth, uint8_t step, bool declared)
{
    Aml *dev;

    if (depth == 0) {
        return step ? aml_scope("\\_SB.PC%.02X", step)
                    : aml_scope("\\_SB.PCI0");
    }
    if (declared) {
        return aml_scope("S%.02X", step);
    }
    dev = aml_device("S%.02X", step);
    /* ACPI 6.5, 6.1.1 _ADR, Table 6.2: PCI device in the high word */
    aml_append(dev, aml_name_decl("_ADR", aml_int(PCI_SLOT(step) << 16 |
                                                  PCI_FUNC(step))));
    return dev;
}

/*
 * @objects from @begin up to @end, sorted by path, have the first @depth steps
 * of their paths in common. Append what stands for each different next step.
 */
static void egm_append_steps(Aml *parent, AcpiEgmMemory **begin,
                             AcpiEgmMemory **end, unsigned depth,
                             bool pci0_declared)
{
    while (begin < end) {
        const uint8_t *path = (*begin)->path->data;
        uint8_t step = path[depth];
        Aml *aml = egm_open_step(depth, step, pci0_declared && !path[0]);
        AcpiEgmMemory **next = begin;

        while (next < end && (*next)->path->data[depth] == step) {
            next++;
        }
        if ((*begin)->path->len == depth + 1) {
            aml_append(aml, egm_dsd(*begin));
            begin++;
        }
        egm_append_steps(aml, begin, next, depth + 1, pci0_declared);
        aml_append(parent, aml);
        begin = next;
    }
}

void acpi_egm_memory_build_dsdt(Aml *dsdt, bool pci0_declared)
{
    g_autoptr(GPtrArray) objects = egm_collect(egm_compare_path);
    AcpiEgmMemory **begin = (AcpiEgmMemory **)objects->pdata;
    unsigned count = 0;

    /* What follows in a slot that the guest powered off is another device. */
    for (unsigned i = 0; i < objects->len; i++) {
        if (begin[i]->pdev) {
            begin[count++] = begin[i];
        }
    }
    egm_append_steps(dsdt, begin, begin + count, 0, pci0_declared);
    trace_acpi_egm_memory_build_dsdt(count);
}

/* Queries */

/* Until the firmware numbers the buses, those behind a bridge are 0. */
static StrOrNull *egm_query_pci_address(const PCIDevice *pdev)
{
    StrOrNull *address = g_new0(StrOrNull, 1);
    PCIBus *bus = pdev ? pci_get_bus(pdev) : NULL;

    if (!bus || (!pci_bus_is_root(bus) && !pci_bus_num(bus))) {
        address->type = QTYPE_QNULL;
        address->u.n = qnull();
    } else {
        address->type = QTYPE_QSTRING;
        address->u.s = g_strdup_printf("0000:%02x:%02x.%x", pci_bus_num(bus),
                                       PCI_SLOT(pdev->devfn),
                                       PCI_FUNC(pdev->devfn));
    }
    return address;
}

/* The names that egm_open_step() gives */
static char *egm_query_acpi_path(const GByteArray *steps)
{
    GString *path = g_string_new("\\_SB");

    for (unsigned i = 0; i < steps->len; i++) {
        if (i) {
            g_string_append_printf(path, ".S%.02X", steps->data[i]);
        } else if (steps->data[i]) {
            g_string_append_printf(path, ".PC%.02X", steps->data[i]);
        } else {
            g_string_append(path, ".PCI0");
        }
    }
    return g_string_free(path, false);
}

static EgmMemoryRangeList *egm_query_withheld(const AcpiEgmMemory *egm,
                                              const GArray *holes)
{
    EgmMemoryRangeList *list = NULL, **tail = &list;
    uint64_t base, size, ram_base;

    numa_node_range(MACHINE(qdev_get_machine()), egm->node, 0, &base, &size);
    ram_base = egm->base - base;
    for (unsigned i = 0; holes && i < holes->len; i++) {
        const RamBadRange *hole = &g_array_index(holes, RamBadRange, i);
        uint64_t start = MAX(ram_base + hole->offset, egm->base);
        uint64_t end = MIN(ram_base + hole->offset + hole->size,
                           egm->base + egm->size);

        if (start < end) {
            EgmMemoryRange *range = g_new0(EgmMemoryRange, 1);

            range->base = start;
            range->size = end - start;
            QAPI_LIST_APPEND(tail, range);
        }
    }
    return list;
}

static EgmRegionInfo *egm_query_region(const EgmRegion *region)
{
    EgmRegionInfo *info = g_new0(EgmRegionInfo, 1);
    strList **tail = &info->gpus;

    info->name = g_strdup(region->name);
    info->has_size = region->size;
    info->size = region->size;
    info->has_gpus = region->gpus;
    for (char **gpu = region->gpus; gpu && *gpu; gpu++) {
        QAPI_LIST_APPEND(tail, g_strdup(*gpu));
    }
    return info;
}

static AcpiEgmMemoryInfo *egm_query_one(const AcpiEgmMemory *egm,
                                        const MachineState *ms)
{
    HostMemoryBackend *backend = ms->numa_state->nodes[egm->node].node_memdev;
    AcpiEgmMemoryInfo *info = g_new0(AcpiEgmMemoryInfo, 1);
    g_autoptr(EgmRegion) region = NULL;

    info->id = g_strdup(egm->id);
    info->pci_dev = g_strdup(egm->pci_dev);
    info->host_address = egm->pdev ? egm_host_address(egm->pdev) : NULL;
    info->pci_address = egm_query_pci_address(egm->pdev);
    info->acpi_path = egm_query_acpi_path(egm->path);
    info->node = egm->node;
    info->base = egm->base;
    info->size = egm->size;
    info->withheld = egm_query_withheld(egm, ms->ram_holes);
    info->memdev = g_strdup(
        object_get_canonical_path_component(OBJECT(backend)));
    info->mem_path = object_property_get_str(OBJECT(backend), "mem-path",
                                             &error_abort);
    region = egm_region_of_backend(backend);
    if (region) {
        info->egm_device = egm_query_region(region);
    }
    return info;
}

AcpiEgmMemoryInfoList *qmp_query_acpi_egm_memory(Error **errp)
{
    g_autoptr(GPtrArray) objects = egm_collect(egm_compare_id);
    AcpiEgmMemoryInfoList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < objects->len; i++) {
        QAPI_LIST_APPEND(tail, egm_query_one(g_ptr_array_index(objects, i),
                                             MACHINE(qdev_get_machine())));
    }
    return list;
}

/* The QOM object */

static bool egm_check_new(const AcpiEgmMemory *egm, Error **errp)
{
    ERRP_GUARD();
    MachineClass *mc = MACHINE_GET_CLASS(qdev_get_machine());

    if (!mc->acpi_egm_memory_supported) {
        error_setg(errp, "not supported by machine '%s'", mc->name);
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
    if (!egm->pci_dev) {
        error_setg(errp, "pci-dev is not set");
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

    if (egm_check_new(egm, errp)) {
        egm->id = id;
    } else {
        error_prepend(errp, "%s '%s': ", TYPE_ACPI_EGM_MEMORY, id);
    }
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

    if (egm->devices) {
        for (unsigned i = 0; i < egm->devices->len; i++) {
            qdev_del_unplug_blocker(g_ptr_array_index(egm->devices, i),
                                    egm->unplug_blocker);
        }
        g_ptr_array_unref(egm->devices);
    }
    g_clear_pointer(&egm->path, g_byte_array_unref);
    error_free(egm->unplug_blocker);
    g_free(egm->pci_dev);
}

static void acpi_egm_memory_class_init(ObjectClass *oc, void *data)
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
