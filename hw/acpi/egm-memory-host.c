/*
 * acpi-egm-memory: checks against the EGM devices of the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A value that the host does not report is unknown, not wrong: QEMU warns.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/acpi/egm-memory-host.h"
#include "system/egm.h"
#include "system/numa.h"

/*
 * vfio devices have this property for each way to name the device: host=,
 * sysfsdev= or fd=.
 */
static char *egm_host_sysfs_path(PCIDevice *pdev)
{
    g_autofree char *path = object_property_get_str(OBJECT(pdev), "sysfsdev",
                                                    NULL);

    return path ? realpath(path, NULL) : NULL;
}

char *acpi_egm_memory_host_address(PCIDevice *pdev)
{
    g_autofree char *path = egm_host_sysfs_path(pdev);
    g_autofree char *name = path ? g_path_get_basename(path) : NULL;

    /* The directory of a mediated device is named by a UUID instead. */
    return name && g_pattern_match_simple("*:??:??.?", name) ?
           g_steal_pointer(&name) : NULL;
}

/* For a virtual function, the driver reports the physical function. */
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
    g_autofree char *mem_path = object_property_get_str(
        OBJECT(backend), "mem-path", &error_abort);
    struct stat st;

    if (region && !region->gpus) {
        warn_report("memory backend '%s': the host does not report which GPUs "
                    "belong to EGM region %s", id, region->name);
    } else if (!region && !fstat(memory_region_get_fd(&backend->mr), &st) &&
               S_ISCHR(st.st_mode)) {
        warn_report("memory backend '%s': the host does not report mem-path=%s "
                    "as an EGM device; this works for tests, but a GPU can "
                    "reach EGM only", id, mem_path);
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
        warn_report("%s '%s': pci-dev=%s, node=%u: the host does not report "
                    "the PCI address of the device, so it may not be attached "
                    "to the socket of EGM region %s", TYPE_ACPI_EGM_MEMORY,
                    egm->id, egm->pci_dev, egm->node, region->name);
        return true;
    }
    if (g_strv_contains((const char *const *)region->gpus, address)) {
        return true;
    }
    gpus = g_strjoinv(", ", region->gpus);
    error_setg(errp, "%s '%s': pci-dev=%s, node=%u: host device %s is not "
               "attached to the socket of EGM region %s", TYPE_ACPI_EGM_MEMORY,
               egm->id, egm->pci_dev, egm->node, address, region->name);
    error_append_hint(errp, "The GPUs of %s are: %s.\n", region->name, gpus);
    return false;
}

bool acpi_egm_memory_check_host(const MachineState *ms, Error **errp)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    DECLARE_BITMAP(warned, MAX_NODES) = {};

    for (unsigned i = 0; i < objects->len; i++) {
        const AcpiEgmMemory *egm = g_ptr_array_index(objects, i);
        HostMemoryBackend *backend =
            ms->numa_state->nodes[egm->node].node_memdev;
        g_autoptr(EgmRegion) region = egm_region_of_backend(backend);

        /* Once for each backend, not for each GPU */
        if (!test_and_set_bit(egm->node, warned)) {
            egm_warn_unknown(backend, region);
        }
        if (!egm_check_gpu(egm, region, errp)) {
            return false;
        }
    }
    return true;
}
