/*
 * Extended GPU Memory (EGM): hosts other than Linux have none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/egm.h"

EgmRegion *egm_region_probe(const char *sysfs, dev_t dev)
{
    return NULL;
}

void egm_region_free(EgmRegion *region)
{
    g_assert_not_reached();
}

bool egm_region_has_gpu(const EgmRegion *region, const char *address)
{
    g_assert_not_reached();
}

char *egm_host_pci_address(const char *sysfsdev)
{
    return NULL;
}
