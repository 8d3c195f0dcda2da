/*
 * ARM mach-virt: holes in guest RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest finds its RAM in the memory nodes of the device tree: UEFI builds
 * its memory map from them, and Linux uses this map, or the device tree. So the
 * memory nodes omit bad ranges. SRAT still describes the whole node.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/range.h"
#include "qemu/units.h"
#include "exec/ramlist.h"
#include "hw/arm/boot.h"
#include "hw/arm/virt.h"
#include "hw/loader.h"
#include "migration/misc.h"
#include "system/ram-bad-ranges.h"
#include "system/ramblock.h"
#include "system/reset.h"
#include "trace.h"

/* The largest page size of guests: any guest can use all RAM around a hole. */
#define HOLE_BLOCK (64 * KiB)

/* Most UEFI builds for this machine need this much RAM from its start. */
#define FIRMWARE_RAM (128 * MiB)

/* Number of holes that a warning lists; each hole has a trace event. */
#define LISTED 4

/* The bad ranges of a RAM block as blocks of guest-physical memory */
static GList *virt_add_ram_holes(GList *holes, const RAMBlock *rb, hwaddr base)
{
    /* In descending order, each is inserted at the head of the list. */
    for (GList *item = g_list_last(rb->bad_ranges); item; item = item->prev) {
        Range *hole = g_new(Range, 1);

        range_set_bounds(hole,
                         QEMU_ALIGN_DOWN(base + range_lob(item->data),
                                         HOLE_BLOCK),
                         QEMU_ALIGN_UP(base + range_upb(item->data) + 1,
                                       HOLE_BLOCK) - 1);
        holes = range_list_insert(holes, hole);
    }
    return holes;
}

static GList *virt_find_ram_holes(const MachineState *ms, Error **errp)
{
    GList *holes = NULL;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        bool main_memory = false;
        hwaddr base = 0;

        if (!rb->bad_ranges) {
            continue;
        }
        for (MemoryRegion *mr = rb->mr; mr; mr = mr->container) {
            main_memory |= mr == ms->ram;
            base += mr->addr;
        }
        if (!main_memory) {
            error_setg(errp, "RAM block '%s' has bad ranges, which can be left "
                       "out only of the machine's main memory",
                       memory_region_name(rb->mr));
            break;
        }
        holes = virt_add_ram_holes(holes, rb, base);
    }
    if (g_list_length(holes) > ARM_BOOT_MAX_RAM_HOLES) {
        error_setg(errp, "guest RAM would have %u holes because of bad ranges, "
                   "and a guest can have at most %u", g_list_length(holes),
                   ARM_BOOT_MAX_RAM_HOLES);
    }
    return holes;
}

static bool virt_holes_equal(const GList *a, const GList *b)
{
    while (a && b && !memcmp(a->data, b->data, sizeof(Range))) {
        a = a->next;
        b = b->next;
    }
    return !a && !b;
}

static void virt_warn_ram_holes(GList *holes)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *size = NULL;
    unsigned n = 0;
    uint64_t sum = 0;

    for (GList *item = holes; item; item = item->next) {
        Range *hole = item->data;

        trace_virt_ram_hole(range_lob(hole), range_size(hole));
        sum += range_size(hole);
        if (n++ < LISTED) {
            g_string_append_printf(text, "%s0x%" PRIx64 "-0x%" PRIx64,
                                   text->len ? ", " : "", range_lob(hole),
                                   range_upb(hole));
        }
    }
    if (n > LISTED) {
        g_string_append_printf(text, " and %u more", n - LISTED);
    }
    size = size_to_str(sum);
    warn_report("guest RAM has holes of %s because of bad ranges: %s", size,
                text->str);
}

bool virt_update_ram_holes(MachineState *ms)
{
    GList *holes = virt_find_ram_holes(ms, &error_fatal);

    if (virt_holes_equal(ms->ram_holes, holes)) {
        g_list_free_full(holes, g_free);
        return false;
    }
    virt_warn_ram_holes(holes);
    g_list_free_full(ms->ram_holes, g_free);
    ms->ram_holes = holes;
    return true;
}

void virt_check_ram_holes(const VirtMachineState *vms, Error **errp)
{
    const struct arm_boot_info *info = &vms->bootinfo;

    for (GList *item = MACHINE(vms)->ram_holes; item; item = item->next) {
        hwaddr base = range_lob(item->data), size = range_size(item->data);
        const char *name = rom_name_in_range(base, size);

        /* The kernel's file is smaller than its memory: it clears its BSS. */
        if (!name && info->kernel_size &&
            ranges_overlap(base, size, info->kernel_start, info->kernel_size)) {
            name = info->kernel_filename;
        }
        if (name) {
            error_setg(errp, "guest RAM has a hole at 0x%" HWADDR_PRIx
                       ", where '%s' has to be loaded", base, name);
            return;
        }
        if (info->firmware_loaded && base < info->loader_start + FIRMWARE_RAM) {
            error_setg(errp, "guest RAM has a hole at 0x%" HWADDR_PRIx
                       ", but the firmware needs the first %" PRIu64 " MiB in "
                       "one piece; put a NUMA node of that size with ordinary "
                       "memory before the others", base,
                       (uint64_t)(FIRMWARE_RAM / MiB));
            return;
        }
    }
}

void virt_machine_reset(MachineState *ms, ResetType type)
{
    VirtMachineState *vms = VIRT_MACHINE(ms);
    const struct arm_boot_info *info = &vms->bootinfo;
    Error *err = NULL;

    ram_update_bad_ranges();
    if (virt_update_ram_holes(ms)) {
        if (migration_is_running()) {
            qmp_migrate_cancel(&err);
            if (err) {
                error_reportf_err(err, "the migration, which will read bad "
                                  "ranges, cannot be cancelled: ");
            } else {
                warn_report("the migration is cancelled: it would read bad "
                            "ranges");
            }
        }
        arm_update_memory_nodes(info, arm_boot_address_space(ARM_CPU(first_cpu),
                                                             info), ms);
        virt_check_ram_holes(vms, &error_fatal);
    }
    qemu_devices_reset(type);
}
