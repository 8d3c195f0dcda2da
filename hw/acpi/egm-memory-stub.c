/*
 * acpi-egm-memory: targets without it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-egm.h"

AcpiEgmMemoryInfoList *qmp_query_acpi_egm_memory(Error **errp)
{
    error_setg(errp, "Extended GPU Memory is not available on this target");
    return NULL;
}
