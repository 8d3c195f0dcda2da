/*
 * acpi-egm-memory: query-acpi-egm-memory and "info egm"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-egm.h"
#include "qemu/cutils.h"
#include "qemu/range.h"
#include "hw/acpi/egm-memory-host.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "system/egm.h"
#include "system/numa.h"

/* Until the firmware numbers the buses, each bus behind a bridge is bus 0. */
static char *egm_query_pci_address(const PCIDevice *pdev)
{
    PCIBus *bus = pci_get_bus(pdev);

    if (!pci_bus_is_root(bus) && !pci_bus_num(bus)) {
        return NULL;
    }
    return g_strdup_printf("0000:%02x:%02x.%x", pci_bus_num(bus),
                           PCI_SLOT(pdev->devfn), PCI_FUNC(pdev->devfn));
}

/* The same names as in acpi_egm_memory_build_dsdt() */
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

static EgmMemoryRangeList *egm_query_holes(const AcpiEgmMemory *egm,
                                           GList *holes)
{
    EgmMemoryRangeList *list = NULL, **tail = &list;

    for (; holes; holes = holes->next) {
        uint64_t start = MAX(range_lob(holes->data), egm->base);
        uint64_t end = MIN(range_upb(holes->data) + 1, egm->base + egm->size);

        if (start < end) {
            EgmMemoryRange *range = g_new0(EgmMemoryRange, 1);

            range->base = start;
            range->size = end - start;
            QAPI_LIST_APPEND(tail, range);
        }
    }
    return list;
}

static EgmRegionInfo *egm_query_region(HostMemoryBackend *backend)
{
#ifdef CONFIG_LINUX
    g_autoptr(EgmRegion) region = egm_region_of_backend(backend);
    EgmRegionInfo *info;
    strList **tail;

    if (!region) {
        return NULL;
    }
    info = g_new0(EgmRegionInfo, 1);
    tail = &info->gpus;
    info->name = g_strdup(region->name);
    info->has_size = region->size;
    info->size = region->size;
    info->has_gpus = region->gpus;
    for (char **gpu = region->gpus; gpu && *gpu; gpu++) {
        QAPI_LIST_APPEND(tail, g_strdup(*gpu));
    }
    return info;
#else
    return NULL;
#endif
}

static AcpiEgmMemoryInfo *egm_query_one(const AcpiEgmMemory *egm,
                                        const MachineState *ms)
{
    PCIDevice *pdev = acpi_egm_memory_device(egm);
    AcpiEgmMemoryInfo *info = g_new0(AcpiEgmMemoryInfo, 1);

    info->id = g_strdup(egm->id);
    info->base = egm->base;
    info->size = egm->size;
    info->holes = egm_query_holes(egm, ms->ram_holes);
    if (pdev) {
        info->pci_address = egm_query_pci_address(pdev);
        info->acpi_path = egm_query_acpi_path(pdev);
        info->host_address = acpi_egm_memory_host_address(pdev);
    }
    info->region =
        egm_query_region(ms->numa_state->nodes[egm->node].node_memdev);
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

void hmp_info_egm(Monitor *mon, const QDict *qdict)
{
    g_autoptr(AcpiEgmMemoryInfoList) list =
        qmp_query_acpi_egm_memory(&error_abort);

    if (!list) {
        monitor_printf(mon, "No acpi-egm-memory objects\n");
    }
    for (AcpiEgmMemoryInfoList *item = list; item; item = item->next) {
        const AcpiEgmMemoryInfo *info = item->value;
        g_autofree char *size = size_to_str(info->size);

        monitor_printf(mon, "%s: 0x%" PRIx64 "-0x%" PRIx64 ", %s, on %s\n",
                       info->id, info->base, info->base + info->size - 1, size,
                       info->region ? info->region->name : "no EGM region");
        monitor_printf(mon, "    guest %s, host %s, ACPI %s\n",
                       info->pci_address ?: "-", info->host_address ?: "-",
                       info->acpi_path ?: "-");
        for (const EgmMemoryRangeList *r = info->holes; r; r = r->next) {
            monitor_printf(mon, "    hole 0x%" PRIx64 "-0x%" PRIx64 "\n",
                           r->value->base, r->value->base + r->value->size - 1);
        }
    }
}
