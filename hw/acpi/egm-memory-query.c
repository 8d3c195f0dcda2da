/*
 * acpi-egm-memory: query-acpi-egm-memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-egm.h"
#include "hw/acpi/egm-memory-host.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/ram-holes.h"
#include "system/egm.h"
#include "system/numa.h"

/* Until the firmware numbers the buses, those behind a bridge are 0. */
static char *egm_query_pci_address(const PCIDevice *pdev)
{
    PCIBus *bus = pci_get_bus(pdev);

    if (!pci_bus_is_root(bus) && !pci_bus_num(bus)) {
        return NULL;
    }
    return g_strdup_printf("0000:%02x:%02x.%x", pci_bus_num(bus),
                           PCI_SLOT(pdev->devfn), PCI_FUNC(pdev->devfn));
}

/* The names that acpi_egm_memory_build_dsdt() gives */
static char *egm_query_acpi_path(const PCIDevice *pdev)
{
    g_autofree char *below = g_strdup_printf(".S%02X", pdev->devfn);
    PCIBus *bus = pci_get_bus(pdev);

    while (!pci_bus_is_root(bus)) {
        char *path;

        pdev = pci_bridge_get_device(bus);
        bus = pci_get_bus(pdev);
        path = g_strdup_printf(".S%02X%s", pdev->devfn, below);
        g_free(below);
        below = path;
    }
    return pci_bus_num(bus) ?
           g_strdup_printf("\\_SB.PC%02X%s", pci_bus_num(bus), below) :
           g_strdup_printf("\\_SB.PCI0%s", below);
}

static EgmMemoryRangeList *egm_query_withheld(const AcpiEgmMemory *egm,
                                              const GArray *holes)
{
    EgmMemoryRangeList *list = NULL, **tail = &list;
    uint64_t base, size, ram_base;

    /* Holes are counted from the start of RAM. */
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
    PCIDevice *pdev = acpi_egm_memory_device(egm);
    AcpiEgmMemoryInfo *info = g_new0(AcpiEgmMemoryInfo, 1);
    g_autoptr(EgmRegion) region = egm_region_of_backend(backend);

    info->id = g_strdup(egm->id);
    info->pci_dev = g_strdup(egm->pci_dev);
    if (pdev) {
        info->host_address = acpi_egm_memory_host_address(pdev);
        info->pci_address = egm_query_pci_address(pdev);
        info->acpi_path = egm_query_acpi_path(pdev);
    }
    info->node = egm->node;
    info->base = egm->base;
    info->size = egm->size;
    info->withheld = egm_query_withheld(egm, ms->ram_holes);
    info->memdev = g_strdup(
        object_get_canonical_path_component(OBJECT(backend)));
    info->mem_path = object_property_get_str(OBJECT(backend), "mem-path",
                                             &error_abort);
    if (region) {
        info->egm_device = egm_query_region(region);
    }
    return info;
}

AcpiEgmMemoryInfoList *qmp_query_acpi_egm_memory(Error **errp)
{
    g_autoptr(GPtrArray) objects = acpi_egm_memory_list();
    AcpiEgmMemoryInfoList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < objects->len; i++) {
        QAPI_LIST_APPEND(tail, egm_query_one(g_ptr_array_index(objects, i),
                                             MACHINE(qdev_get_machine())));
    }
    return list;
}
