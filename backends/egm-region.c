/*
 * Extended GPU Memory (EGM): read a region's attributes in sysfs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "system/egm.h"
#include <sys/sysmacros.h>

/* The kernel limits attributes to a page; larger files are not attributes. */
#define ATTRIBUTE_MAX 65536

/* Returns: the text of attribute @name without space around it, or NULL */
static char *egm_read_attribute(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *text = NULL;
    gsize len;

    if (!g_file_get_contents(path, &text, &len, NULL) || len > ATTRIBUTE_MAX ||
        strlen(text) != len) {
        return NULL;
    }
    return g_strdup(g_strstrip(text));
}

/* Returns: the last component of the target of symlink @name, or NULL */
static char *egm_read_link(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *target = g_file_read_link(path, NULL);

    return target ? g_path_get_basename(target) : NULL;
}

static uint64_t egm_probe_size(const char *dir)
{
    g_autofree char *text = egm_read_attribute(dir, "egm_size");
    uint64_t size;

    if (!text || strchr(text, '-') || qemu_strtou64(text, NULL, 0, &size) < 0) {
        return 0;
    }
    return size;
}

/*
 * In a firmware mode that is not for VMs, regions are in the nodes of the
 * host's own memory, and have their numbers. A node without CPUs can be the
 * memory of a GPU, and can have that number by chance.
 */
static bool egm_probe_host_ram(const char *sysfs, const char *name)
{
    g_autofree char *dir = NULL, *cpus = NULL, *memory = NULL;
    const char *total;

    if (!g_str_has_prefix(name, "egm")) {
        return false;
    }
    dir = g_strdup_printf("%s/devices/system/node/node%s", sysfs,
                          name + strlen("egm"));
    cpus = egm_read_attribute(dir, "cpulist");
    memory = egm_read_attribute(dir, "meminfo");
    total = memory ? strstr(memory, "MemTotal:") : NULL;
    return cpus && *cpus && total &&
           g_ascii_strtoull(total + strlen("MemTotal:"), NULL, 10);
}

static bool egm_is_pci_address(const char *name)
{
    return g_regex_match_simple("^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}"
                                "\\.[0-7]$", name, 0, 0);
}

static int egm_compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void egm_add_gpu(GPtrArray *gpus, const char *name)
{
    if (egm_is_pci_address(name) &&
        !g_ptr_array_find_with_equal_func(gpus, name, g_str_equal, NULL)) {
        g_ptr_array_add(gpus, g_strdup(name));
    }
}

/* Drivers have links named by PCI address, a file of addresses, or both. */
static GStrv egm_probe_gpus(const char *dir)
{
    g_autoptr(GPtrArray) gpus = g_ptr_array_new();
    g_autofree char *text = egm_read_attribute(dir, "gpu_devices");
    g_auto(GStrv) words = g_strsplit_set(text ?: "", " \t\n", -1);
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;

    while (entries && (name = g_dir_read_name(entries))) {
        egm_add_gpu(gpus, name);
    }
    for (char **word = words; *word; word++) {
        egm_add_gpu(gpus, *word);
    }
    if (!gpus->len) {
        return NULL;
    }
    g_ptr_array_sort(gpus, egm_compare_names);
    g_ptr_array_add(gpus, NULL);
    return (GStrv)g_ptr_array_free(g_steal_pointer(&gpus), false);
}

EgmRegion *egm_region_probe(const char *sysfs, dev_t dev)
{
    g_autofree char *dir = g_strdup_printf("%s/dev/char/%u:%u", sysfs,
                                           major(dev), minor(dev));
    g_autofree char *class = egm_read_link(dir, "subsystem");
    g_autofree char *real = NULL;
    EgmRegion *region;

    if (g_strcmp0(class, "egm")) {
        return NULL;
    }
    region = g_new0(EgmRegion, 1);
    real = realpath(dir, NULL);
    region->name = g_path_get_basename(real ?: dir);
    region->dev = dev;
    region->size = egm_probe_size(dir);
    region->is_host_ram = egm_probe_host_ram(sysfs, region->name);
    region->gpus = egm_probe_gpus(dir);
    return region;
}

void egm_region_free(EgmRegion *region)
{
    if (region) {
        g_free(region->name);
        g_strfreev(region->gpus);
        g_free(region);
    }
}
