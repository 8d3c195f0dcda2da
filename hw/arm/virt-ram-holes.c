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
#include "qemu/range.h"
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

bool virt_check_ram_holes(VirtMachineState *vms, Error **errp)
{
    const GArray *holes = MACHINE(vms)->ram_holes;
    const struct arm_boot_info *info = &vms->bootinfo;

    for (unsigned i = 0; holes && i < holes->len; i++) {
        const RamBadRange *hole = &g_array_index(holes, RamBadRange, i);
        hwaddr base = info->loader_start + hole->offset;
        const char *name = rom_name_in_range(base, hole->size);

        /* The kernel's file is smaller than its memory: it clears its BSS. */
        if (!name && info->kernel_size &&
            ranges_overlap(base, hole->size, info->kernel_start,
                           info->kernel_size)) {
            name = info->kernel_filename;
        }
        if (name) {
            error_setg(errp, "guest RAM has a bad page at 0x%" HWADDR_PRIx
                       ", where '%s' has to be loaded", base, name);
            return false;
        }
        if (info->firmware_loaded && hole->offset < FIRMWARE_RAM) {
            error_setg(errp, "guest RAM has a bad page at 0x%" HWADDR_PRIx
                       ", but the firmware needs the first %" PRIu64 " MiB in "
                       "one piece", base, (uint64_t)(FIRMWARE_RAM / MiB));
            return false;
        }
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
    if (ram_bad_ranges_equal(ms->ram_holes, holes)) {
        return false;
    }
    if (holes->len) {
        virt_warn_ram_holes(holes, ram_base, lost);
    }
    g_clear_pointer(&ms->ram_holes, g_array_unref);
    ms->ram_holes = g_steal_pointer(&holes);
    return true;
}

/*
 * What is loaded by a reset would be written to the page. The main loop stops
 * the VM; until then it runs on as it was before the reset.
 */
static void virt_stop_unreset(void)
{
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/* A request is lost on a VM that is stopped. */
static void virt_vm_state_change(void *opaque, bool running, RunState state)
{
    VirtMachineState *vms = opaque;

    if (running && vms->reset_refused) {
        virt_stop_unreset();
    }
}

void virt_init_ram_holes(VirtMachineState *vms)
{
    if (virt_update_ram_holes(vms)) {
        qemu_add_vm_change_state_handler(virt_vm_state_change, vms);
    }
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
        vms->reset_refused = !virt_check_ram_holes(vms, &err);
        if (vms->reset_refused) {
            error_report_err(err);
            virt_stop_unreset();
            return;
        }
    }
    qemu_devices_reset(type);
}
