/*
 * ARM mach-virt: holes in guest RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest learns what is RAM from the memory nodes of the device tree: UEFI
 * builds its memory map from them, and Linux takes that, or the device tree. So
 * retired pages are left out there. SRAT keeps describing the whole node.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/arm/boot.h"
#include "hw/arm/virt.h"
#include "hw/loader.h"
#include "hw/ram-holes.h"
#include "system/egm.h"
#include "system/reset.h"

/* Most UEFI builds for this machine refuse to run in less, from its start. */
#define FIRMWARE_RAM (128 * MiB)

static bool virt_check_ram_holes(VirtMachineState *vms, Error **errp)
{
    ERRP_GUARD();
    const struct arm_boot_info *info = &vms->bootinfo;
    const GArray *holes = info->ram_holes;
    const RamHole *hole;

    /* More than what is in the file: the kernel clears its BSS at once. */
    hole = ram_holes_find(holes, info->kernel_start, info->kernel_size);
    if (hole) {
        error_setg(errp, "guest RAM has a retired page at 0x%" HWADDR_PRIx
                   ", in the memory of kernel '%s'", hole->base,
                   info->kernel_filename);
        return false;
    }
    for (unsigned i = 0; i < holes->len; i++) {
        const char *name;

        hole = &g_array_index(holes, RamHole, i);
        name = rom_name_in_range(hole->base, hole->size);
        if (name) {
            error_setg(errp, "guest RAM has a retired page at 0x%" HWADDR_PRIx
                       ", where '%s' has to be loaded", hole->base, name);
            return false;
        }
    }
    hole = ram_holes_find(holes, info->loader_start, FIRMWARE_RAM);
    if (info->firmware_loaded && hole) {
        error_setg(errp, "guest RAM has a retired page at 0x%" HWADDR_PRIx
                   ", but the firmware needs the first %" PRIu64 " MiB in one "
                   "piece", hole->base, (uint64_t)(FIRMWARE_RAM / MiB));
        error_append_hint(errp, "The VM can boot a kernel without firmware, "
                          "or use another EGM region.\n");
        return false;
    }
    return true;
}

static void virt_set_ram_holes(VirtMachineState *vms, const GArray *holes)
{
    vms->bootinfo.ram_holes = holes;
    MACHINE(vms)->ram_holes = holes;
}

/* More pages can have gone bad since the last boot. */
static void virt_reset_ram_holes(void *opaque)
{
    VirtMachineState *vms = opaque;
    struct arm_boot_info *info = &vms->bootinfo;
    GArray *old = (GArray *)info->ram_holes;
    GArray *holes = egm_withhold(MACHINE(vms), info->loader_start, old);
    Error *err = NULL;

    virt_set_ram_holes(vms, holes);
    if (!ram_holes_equal(holes, old)) {
        arm_update_memory_nodes(info, arm_boot_address_space(
                                    ARM_CPU(first_cpu), info), MACHINE(vms));
        if (!virt_check_ram_holes(vms, &err)) {
            /* What is loaded next would be written to the page. */
            error_report_err(err);
            exit(EXIT_FAILURE);
        }
    }
    g_array_unref(old);
}

void virt_init_ram_holes(VirtMachineState *vms)
{
    const struct arm_boot_info *info = &vms->bootinfo;

    virt_set_ram_holes(vms, egm_withhold(MACHINE(vms), info->loader_start,
                                         NULL));
}

bool virt_complete_ram_holes(VirtMachineState *vms, Error **errp)
{
    if (!vms->bootinfo.ram_holes) {
        return true;
    }
    /* Before the ROM blobs, one of which is the device tree */
    qemu_register_reset_nosnapshotload(virt_reset_ram_holes, vms);
    return virt_check_ram_holes(vms, errp);
}
