/*
 * acpi-egm-memory: checks against the EGM devices of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the host does not tell is unknown, not wrong: that gives warnings.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/acpi/egm-memory-host.h"
#include "system/egm.h"
#include "system/numa.h"

/* Only vfio-pci has these properties, however the user named the device. */
static char *egm_host_sysfs_path(PCIDevice *pdev)
{
    Object *obj = OBJECT(pdev);
    g_autofree char *path = NULL, *address = NULL;

    if (!object_property_find(obj, "sysfsdev")) {
        return NULL;
    }
    path = object_property_get_str(obj, "sysfsdev", NULL);
    if (!path || !*path) {
        /* With fd= there is no more than host=, if even that. */
        address = object_property_get_str(obj, "host", NULL);
        g_free(path);
        path = g_strdup_printf("/sys/bus/pci/devices/%s", address ?: "");
    }
    return realpath(path, NULL);
}

char *acpi_egm_memory_host_address(PCIDevice *pdev)
{
    g_autofree char *path = egm_host_sysfs_path(pdev);
    g_autofree char *name = path ? g_path_get_basename(path) : NULL;

    /* A mediated device has a UUID instead. */
    return name && g_pattern_match_simple("*:??:??.?", name) ?
           g_steal_pointer(&name) : NULL;
}

/* The driver knows physical functions: a virtual one counts as its own. */
static char *egm_host_physical_address(PCIDevice *pdev)
{
    g_autofree char *path = egm_host_sysfs_path(pdev);
    g_autofree char *link = g_strdup_printf("%s/physfn", path ?: "");
    g_autofree char *physical = realpath(link, NULL);

    return physical ? g_path_get_basename(physical) :
           acpi_egm_memory_host_address(pdev);
}

static void egm_warn_unknown(HostMemoryBackend *backend,
                             const EgmRegion *region)
{
    const char *id = object_get_canonical_path_component(OBJECT(backend));
    struct stat st;

    if (!region) {
        int fd = memory_region_get_fd(&backend->mr);

        if (!fstat(fd, &st) && S_ISCHR(st.st_mode)) {
            g_autofree char *mem_path = object_property_get_str(
                OBJECT(backend), "mem-path", &error_abort);

            warn_report("memory backend '%s': mem-path=%s is not an EGM "
                        "device; no GPU can reach it", id, mem_path);
        }
    }
    if (region && !region->gpus) {
        warn_report("memory backend '%s': the host does not tell the GPUs of "
                    "EGM region %s", id, region->name);
    }
}

static bool egm_check_gpu(const AcpiEgmMemory *egm, const EgmRegion *region,
                          Error **errp)
{
    ERRP_GUARD();
    g_autofree char *address = NULL, *gpus = NULL;
    PCIDevice *pdev;

    if (!region || !region->gpus) {
        return true;
    }
    pdev = acpi_egm_memory_device(egm);
    if (!object_property_find(OBJECT(pdev), "sysfsdev")) {
        return true;
    }
    address = egm_host_physical_address(pdev);
    if (!address) {
        warn_report("%s '%s': pci-dev=%s, node=%u: the host does not tell "
                    "whether the device is attached to the socket of EGM "
                    "region %s", TYPE_ACPI_EGM_MEMORY, egm->id, egm->pci_dev,
                    egm->node, region->name);
        return true;
    }
    if (egm_region_has_gpu(region, address)) {
        return true;
    }
    gpus = g_strjoinv(", ", region->gpus);
    error_setg(errp, "%s '%s': pci-dev=%s, node=%u: host device %s is not "
               "attached to the socket of EGM region %s", TYPE_ACPI_EGM_MEMORY,
               egm->id, egm->pci_dev, egm->node, address, region->name);
    error_append_hint(errp, "The GPUs of %s are: %s.\n", region->name, gpus);
    return false;
}

/* What is said of a backend is said once. */
static const EgmRegion *egm_look_up_region(GHashTable *regions,
                                           HostMemoryBackend *backend)
{
    gpointer region;

    if (!g_hash_table_lookup_extended(regions, backend, NULL, &region)) {
        region = egm_region_of_backend(backend);
        egm_warn_unknown(backend, region);
        g_hash_table_insert(regions, backend, region);
    }
    return region;
}

bool acpi_egm_memory_check_host(const MachineState *ms, Error **errp)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    g_autoptr(GHashTable) regions = g_hash_table_new_full(
        NULL, NULL, NULL, (GDestroyNotify)egm_region_free);

    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        HostMemoryBackend *backend =
            ms->numa_state->nodes[egm->node].node_memdev;

        if (!egm_check_gpu(egm, egm_look_up_region(regions, backend), errp)) {
            return false;
        }
    }
    return true;
}
