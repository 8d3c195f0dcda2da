/*
 * acpi-egm-memory: stubs for targets that do not have it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-egm.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"

AcpiEgmMemoryInfoList *qmp_query_acpi_egm_memory(Error **errp)
{
    return NULL;
}

void hmp_info_egm(Monitor *mon, const QDict *qdict)
{
    monitor_printf(mon, "No acpi-egm-memory objects\n");
}
