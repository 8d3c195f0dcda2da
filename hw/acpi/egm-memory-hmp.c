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

void hmp_info_egm(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;
    g_autoptr(AcpiEgmMemoryInfoList) list = qmp_query_acpi_egm_memory(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_printf(mon, "No acpi-egm-memory objects\n");
    }
    for (AcpiEgmMemoryInfoList *item = list; item; item = item->next) {
        const AcpiEgmMemoryInfo *info = item->value;
        g_autofree char *size = size_to_str(info->size);
        uint64_t withheld = 0;

        monitor_printf(mon, "%s: node %u, 0x%" PRIx64 "-0x%" PRIx64 ", %s",
                       info->id, info->node, info->base,
                       info->base + info->size - 1, size);
        for (const EgmMemoryRangeList *r = info->withheld; r; r = r->next) {
            withheld += r->value->size;
        }
        if (withheld) {
            g_autofree char *text = size_to_str(withheld);

            monitor_printf(mon, ", %s withheld", text);
        }
        monitor_printf(mon, "\n    device: %s", info->pci_dev);
        if (!info->acpi_path) {
            monitor_printf(mon, ", gone");
        }
        if (info->pci_address) {
            monitor_printf(mon, ", guest %s", info->pci_address);
        }
        if (info->host_address) {
            monitor_printf(mon, ", host %s", info->host_address);
        }
        if (info->acpi_path) {
            monitor_printf(mon, ", ACPI %s", info->acpi_path);
        }
        monitor_printf(mon, "\n    memory: %s, %s%s\n", info->memdev,
                       info->mem_path, info->egm_device ? "" : " (not EGM)");
    }
}
