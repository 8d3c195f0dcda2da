/*
 * Extended GPU Memory (EGM): hosts other than Linux have none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/egm.h"

bool egm_backend_prepare(HostMemoryBackend *backend, const char *mem_path,
                         Error **errp)
{
    return true;
}

bool egm_backend_claim(HostMemoryBackend *backend, Error **errp)
{
    return true;
}

void egm_backend_explain_map(HostMemoryBackend *backend, const char *mem_path,
                             Error **errp)
{
}

void egm_backend_release(HostMemoryBackend *backend)
{
}

bool egm_region_has_gpu(const EgmRegion *region, const char *address)
{
    g_assert_not_reached();
}

char *egm_host_pci_address(const char *sysfsdev)
{
    g_assert_not_reached();
}

int egm_replay_good(const MemoryRegionSection *section, EgmSectionFn *fn,
                    void *opaque)
{
    MemoryRegionSection all = *section;

    return fn(&all, opaque);
}

GArray *egm_withhold(const MachineState *ms, hwaddr ram_base,
                     const GArray *last)
{
    return NULL;
}
