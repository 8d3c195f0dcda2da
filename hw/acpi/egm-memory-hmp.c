/*
 * acpi-egm-memory: info egm
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-egm.h"
#include "qemu/cutils.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"

/* Two lines for each object: the memory, then the GPU that it belongs to */
#define MEMORY_ROW "%-8s %4s  %-24s %8s %9s  %s\n"
#define DEVICE_ROW "  %-12s  %-12s  %-12s  %s\n"

static char *egm_withheld_text(const EgmMemoryRangeList *ranges)
{
    uint64_t size = 0;

    for (; ranges; ranges = ranges->next) {
        size += ranges->value->size;
    }
    return size ? size_to_str(size) : g_strdup("-");
}

void hmp_info_egm(Monitor *mon, const QDict *qdict)
{
    g_autoptr(AcpiEgmMemoryInfoList) list =
        qmp_query_acpi_egm_memory(&error_abort);

    if (!list) {
        monitor_printf(mon, "No acpi-egm-memory objects\n");
        return;
    }
    monitor_printf(mon, MEMORY_ROW, "Id", "Node", "Guest memory", "Size",
                   "Withheld", "Memory backend");
    monitor_printf(mon, DEVICE_ROW, "Device", "Guest", "Host", "ACPI path");

    for (AcpiEgmMemoryInfoList *item = list; item; item = item->next) {
        const AcpiEgmMemoryInfo *info = item->value;
        g_autofree char *node = g_strdup_printf("%u", info->node);
        g_autofree char *range =
            g_strdup_printf("0x%" PRIx64 "-0x%" PRIx64, info->base,
                            info->base + info->size - 1);
        g_autofree char *size = size_to_str(info->size);
        g_autofree char *withheld = egm_withheld_text(info->withheld);
        g_autofree char *memory =
            g_strdup_printf("%s: %s%s", info->memdev, info->mem_path,
                            info->egm_device ? "" : " (not EGM)");
        const char *guest = info->pci_address->type == QTYPE_QSTRING ?
                            info->pci_address->u.s : "-";

        monitor_printf(mon, MEMORY_ROW, info->id, node, range, size, withheld,
                       memory);
        monitor_printf(mon, DEVICE_ROW, info->pci_dev, guest,
                       info->host_address ?: "-", info->acpi_path);
    }
}
