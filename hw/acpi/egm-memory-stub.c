/*
 * acpi-egm-memory: targets without it have no objects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-commands-egm.h"

AcpiEgmMemoryInfoList *qmp_query_acpi_egm_memory(Error **errp)
{
    return NULL;
}
