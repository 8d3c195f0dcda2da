/*
 * Extended GPU Memory (EGM): what may be described to a guest as such
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/acpi/egm-memory.h"
#include "system/egm.h"

static bool egm_check_linear(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    Object *obj = OBJECT(backend);
    const char *id = object_get_canonical_path_component(obj);
    uint64_t offset;

    if (!object_property_get_bool(obj, "share", &error_abort)) {
        error_setg(errp, "memory backend '%s' has share=off: the guest would "
                   "run on a private copy that no GPU can reach", id);
        error_append_hint(errp, "Use -object memory-backend-file,share=on,"
                          "...\n");
        return false;
    }
    if (object_property_get_bool(obj, "readonly", &error_abort)) {
        error_setg(errp, "memory backend '%s' has readonly=on: guest RAM must "
                   "be writable", id);
        error_append_hint(errp, "Remove readonly=on and rom=on.\n");
        return false;
    }
    offset = object_property_get_uint(obj, "offset", &error_abort);
    if (offset) {
        error_setg(errp, "memory backend '%s' has offset=%" PRIu64 ": a GPU "
                   "counts from the start of the EGM region", id, offset);
        error_append_hint(errp, "Use offset=0.\n");
        return false;
    }
    return true;
}

/*
 * Is the open file @fd directly in /dev, where a device node should be? Its own
 * name is asked for: @mem_path can be relative, a link, or a directory in which
 * QEMU has made a file.
 */
static bool egm_is_in_dev(int fd, const char *mem_path)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *name = g_file_read_link(link, NULL);
    g_autofree char *dir = g_path_get_dirname(name ?: mem_path);
    struct stat a, b;

    return !stat(dir, &a) && !stat("/dev", &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Not an error: drivers differ in what they tell. */
static void egm_warn_unknown(const char *id, const EgmRegion *region)
{
    const struct {
        bool unknown;
        const char *what;
    } facts[] = {
        { !region->gpus, "GPUs" },
    };

    for (int i = 0; i < ARRAY_SIZE(facts); i++) {
        if (facts[i].unknown) {
            warn_report("memory backend '%s': the host does not tell the %s of "
                        "EGM region %s", id, facts[i].what, region->name);
        }
    }
}

bool egm_backend_check(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    Object *obj = OBJECT(backend);
    const char *id = object_get_canonical_path_component(obj);
    g_autoptr(EgmRegion) region = NULL;
    g_autofree char *mem_path = NULL;
    struct stat st;
    int fd;

    if (!id) {
        error_setg(errp, "its memory backend has been deleted");
        return false;
    }
    if (!object_dynamic_cast(obj, TYPE_MEMORY_BACKEND_FILE)) {
        error_setg(errp, "memory backend '%s' is a %s, not a %s", id,
                   object_get_typename(obj), TYPE_MEMORY_BACKEND_FILE);
        error_append_hint(errp, "Use -object %s,id=%s,mem-path=/dev/egmX,"
                          "share=on,size=...\n", TYPE_MEMORY_BACKEND_FILE, id);
        return false;
    }
    if (!egm_check_linear(backend, errp)) {
        return false;
    }
    region = egm_region_of_backend(backend);
    if (region) {
        egm_warn_unknown(id, region);
        return true;
    }

    mem_path = object_property_get_str(obj, "mem-path", &error_abort);
    fd = memory_region_get_fd(&backend->mr);
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "memory backend '%s': cannot inspect "
                         "mem-path=%s", id, mem_path);
        return false;
    }
    if (S_ISCHR(st.st_mode)) {
        warn_report("memory backend '%s': mem-path=%s is not an EGM device; no "
                    "GPU can reach it", id, mem_path);
    }
    if (S_ISREG(st.st_mode)) {
        if (egm_is_in_dev(fd, mem_path)) {
            error_setg(errp, "memory backend '%s': mem-path=%s is a regular "
                       "file where a device should be", id, mem_path);
            error_append_hint(errp, "Remove the file, and load the nvgrace-egm "
                              "driver, which creates the device.\n");
            return false;
        }
        warn_report("memory backend '%s': mem-path=%s is a regular file, not "
                    "an EGM device; good for tests, but no GPU can reach it",
                    id, mem_path);
    }
    return true;
}

char *egm_host_address(PCIDevice *pdev)
{
    g_autofree char *sysfsdev = NULL, *real = NULL;

    /* Only vfio-pci has this property, however the user named the device. */
    if (object_property_find(OBJECT(pdev), "sysfsdev")) {
        sysfsdev = object_property_get_str(OBJECT(pdev), "sysfsdev", NULL);
    }
    real = sysfsdev ? realpath(sysfsdev, NULL) : NULL;
    return real ? g_path_get_basename(real) : NULL;
}

bool egm_backend_check_gpu(HostMemoryBackend *backend, PCIDevice *pdev,
                           Error **errp)
{
    ERRP_GUARD();
    g_autofree char *host = NULL, *gpus = NULL;
    g_autoptr(EgmRegion) region = egm_region_of_backend(backend);

    if (!region || !region->gpus) {
        return true;
    }
    host = egm_host_address(pdev);
    if (!host || egm_region_has_gpu(region, host)) {
        return true;
    }
    gpus = g_strjoinv(", ", region->gpus);
    error_setg(errp, "host device %s is not attached to the socket of EGM "
               "region %s", host, region->name);
    error_append_hint(errp, "The GPUs of %s are: %s.\n", region->name, gpus);
    return false;
}
