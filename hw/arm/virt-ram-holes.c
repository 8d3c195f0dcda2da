/*
 * ARM mach-virt: holes in guest RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest learns what is RAM from the memory nodes of the device tree: UEFI
 * builds its memory map from them, and Linux takes that, or the device tree. So
 * bad pages are left out there. SRAT keeps describing the whole node.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "hw/arm/boot.h"
#include "hw/arm/virt.h"
#include "hw/loader.h"
#include "hw/ram-holes.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "trace.h"

/* Most UEFI builds for this machine refuse to run in less, from its start. */
#define FIRMWARE_RAM (128 * MiB)

/* How many holes a warning lists; trace events tell all. */
#define LISTED 4

static void virt_warn_ram_holes(const GArray *holes, hwaddr ram_base,
                                uint64_t lost)
{
    g_autoptr(GString) list = g_string_new(NULL);
    g_autofree char *withheld = NULL, *good = size_to_str(lost);
    uint64_t sum = 0;

    for (unsigned i = 0; i < holes->len; i++) {
        const RamBadRange *hole = &g_array_index(holes, RamBadRange, i);
        hwaddr base = ram_base + hole->offset;

        trace_virt_ram_hole(base, hole->size);
        sum += hole->size;
        if (i < LISTED) {
            g_string_append_printf(list, "%s0x%" PRIx64 "-0x%" PRIx64,
                                   i ? ", " : "", base, base + hole->size - 1);
        }
    }
    if (holes->len > LISTED) {
        g_string_append_printf(list, " and %u more", holes->len - LISTED);
    }
    withheld = size_to_str(sum);
    warn_report("%s of guest RAM are withheld from the guest, for bad pages: "
                "%s", withheld, list->str);
    if (lost) {
        warn_report("%s of that are good memory, between bad pages: a guest "
                    "can do with %u holes in its RAM", good, RAM_HOLES_MAX);
    }
    if (holes->len > RAM_HOLES_MAX_OLD) {
        warn_report("with %u holes in its RAM, a guest with Linux before 6.0 "
                    "loses memory without a word", holes->len);
    }
}

/* The kernel's file is smaller than its memory: it clears its BSS at once. */
static bool virt_check_ram_holes(VirtMachineState *vms, const GArray *holes,
                                 Error **errp)
{
    ERRP_GUARD();
    const struct arm_boot_info *info = &vms->bootinfo;
    const RamBadRange *hole;

    hole = ram_holes_find(holes, info->kernel_start - info->loader_start,
                          info->kernel_size);
    if (hole) {
        error_setg(errp, "guest RAM has a bad page at 0x%" HWADDR_PRIx ", in "
                   "the memory of kernel '%s'",
                   info->loader_start + hole->offset, info->kernel_filename);
        return false;
    }
    for (unsigned i = 0; i < holes->len; i++) {
        const char *name;

        hole = &g_array_index(holes, RamBadRange, i);
        name = rom_name_in_range(info->loader_start + hole->offset,
                                 hole->size);
        if (name) {
            error_setg(errp, "guest RAM has a bad page at 0x%" HWADDR_PRIx
                       ", where '%s' has to be loaded",
                       info->loader_start + hole->offset, name);
            return false;
        }
    }
    hole = ram_holes_find(holes, 0, FIRMWARE_RAM);
    if (info->firmware_loaded && hole) {
        error_setg(errp, "guest RAM has a bad page at 0x%" HWADDR_PRIx ", but "
                   "the firmware needs the first %" PRIu64 " MiB in one piece",
                   info->loader_start + hole->offset,
                   (uint64_t)(FIRMWARE_RAM / MiB));
        return false;
    }
    return true;
}

/* Replace the holes, if they have changed. */
static bool virt_update_ram_holes(VirtMachineState *vms)
{
    MachineState *ms = MACHINE(vms);
    hwaddr ram_base = vms->memmap[VIRT_MEM].base;
    g_autoptr(GArray) holes = ram_holes_of_machine(ms);
    uint64_t lost;

    if (!holes) {
        return false;
    }
    lost = ram_holes_limit(holes, RAM_HOLES_MAX);
    if (ms->ram_holes && ram_holes_equal(holes, ms->ram_holes)) {
        return false;
    }
    if (holes->len) {
        virt_warn_ram_holes(holes, ram_base, lost);
    }
    g_clear_pointer(&ms->ram_holes, g_array_unref);
    ms->ram_holes = g_steal_pointer(&holes);
    return true;
}

void virt_init_ram_holes(VirtMachineState *vms)
{
    virt_update_ram_holes(vms);
}

bool virt_complete_ram_holes(VirtMachineState *vms, Error **errp)
{
    GArray *holes = MACHINE(vms)->ram_holes;

    return !holes || virt_check_ram_holes(vms, holes, errp);
}

/* More pages can have gone bad since the last boot. */
void virt_machine_reset(MachineState *ms, ResetType type)
{
    VirtMachineState *vms = VIRT_MACHINE(ms);
    const struct arm_boot_info *info = &vms->bootinfo;
    Error *err = NULL;

    if (ms->ram_holes && type != RESET_TYPE_SNAPSHOT_LOAD) {
        ram_update_bad_ranges();
        if (virt_update_ram_holes(vms)) {
            arm_update_memory_nodes(info, arm_boot_address_space(
                                        ARM_CPU(first_cpu), info), ms);
        }
        if (!virt_check_ram_holes(vms, ms->ram_holes, &err)) {
            /* What is loaded next would be written to the page. */
            error_report_err(err);
            qemu_system_vmstop_request_prepare();
            qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
            return;
        }
    }
    qemu_devices_reset(type);
}
