/*
 * Extended GPU Memory (EGM): a memory-backend-file on an EGM device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "hw/acpi/egm-memory-backend.h"
#include "system/egm.h"
#include "trace.h"
#include <sys/file.h>

/* KVM on Arm maps RAM in blocks of at most this size. */
#define ALIGN_MAX (1 * GiB)

static EgmRegion *egm_region_of(const struct stat *st)
{
    return S_ISCHR(st->st_mode) ? egm_region_probe("/sys", st->st_rdev) : NULL;
}

static EgmRegion *egm_region_of_fd(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? NULL : egm_region_of(&st);
}

static int egm_open_path(const char *mem_path, uint32_t ram_flags)
{
    int flags = ram_flags & RAM_READONLY_FD ? O_RDONLY : O_RDWR;

    return RETRY_ON_EINTR(qemu_open(mem_path, flags, NULL));
}

/* Do not open the device to identify it: opening it clears the region. */
static EgmRegion *egm_region_of_path(const char *mem_path, uint32_t ram_flags)
{
    EgmRegion *region = NULL;
    struct stat st;
    int fd;

    if (!strstart(mem_path, "/dev/fdset/", NULL)) {
        return stat(mem_path, &st) < 0 ? NULL : egm_region_of(&st);
    }
    fd = egm_open_path(mem_path, ram_flags);
    if (fd >= 0) {
        region = egm_region_of_fd(fd);
        qemu_close(fd);
    }
    return region;
}

EgmRegion *egm_region_of_backend(HostMemoryBackend *backend)
{
    MemoryRegion *mr = host_memory_backend_get_memory(backend);

    return mr ? egm_region_of_fd(memory_region_get_fd(mr)) : NULL;
}

/* Only the driver uses such names, so the user means one of its devices. */
static bool egm_is_device_name(const char *mem_path)
{
    const char *number;

    return strstart(mem_path, "/dev/egm", &number) && *number &&
           !number[strspn(number, "0123456789")];
}

bool egm_backend_is_device(const char *mem_path, uint32_t ram_flags)
{
    g_autoptr(EgmRegion) region = egm_region_of_path(mem_path, ram_flags);

    return region || egm_is_device_name(mem_path);
}

/*
 * Some versions of the driver also map memory past the end of the region, and
 * some damage the host's kernel if the device is closed without a mapping. So
 * everything that would make mmap() fail is found before the device is opened.
 */
static bool egm_check_region(const EgmRegion *region, uint64_t size,
                             uint64_t align, Error **errp)
{
    if (align && (!is_power_of_2(align) ||
                  align < qemu_real_host_page_size())) {
        error_setg(errp, "align=%" PRIu64 " is not a power of 2 that is at "
                   "least the page size, %zu", align,
                   (size_t)qemu_real_host_page_size());
        return false;
    }
    if (region->is_host_ram) {
        error_setg(errp, "the host uses this memory itself, so opening the "
                   "device would clear it: the host's NUMA node of the same "
                   "number has memory and CPUs");
        return false;
    }
    if (!region->size) {
        error_setg(errp, "the host does not report the size of the region "
                   "(attribute egm_size), so size=%" PRIu64 " may exceed it",
                   size);
        return false;
    }
    if (size > region->size) {
        error_setg(errp, "size=%" PRIu64 " is larger than the region of %"
                   PRIu64 " bytes", size, region->size);
        return false;
    }
    return true;
}

static void egm_set_busy_error(Error **errp)
{
    error_setg(errp, "the region is in use by another process");
}

static int egm_find_user(Object *obj, void *opaque)
{
    HostMemoryBackend *other = (HostMemoryBackend *)
        object_dynamic_cast(obj, TYPE_MEMORY_BACKEND);
    const EgmRegion *region = opaque;
    g_autoptr(EgmRegion) used = other ? egm_region_of_backend(other) : NULL;

    return used && used->dev == region->dev;
}

/*
 * The lock does not stop two backends that have duplicates of the same open
 * file, which they get from an fd set.
 */
static bool egm_check_unused(const EgmRegion *region, Error **errp)
{
    if (object_child_foreach(object_get_objects_root(), egm_find_user,
                             (void *)region)) {
        error_setg(errp, "the region is in use by another memory backend");
        return false;
    }
    return true;
}

/*
 * Open and lock the device. The lock belongs to the open file, so it exists
 * until no process can reach the memory through this file any more: also while
 * a vhost-user back-end that outlives QEMU has a duplicate of the descriptor.
 *
 * Returns: the open file, or -1
 */
static int egm_open(const char *mem_path, const EgmRegion *region, Error **errp)
{
    struct stat st;
    int fd;

    /* The memory of a backend that was deleted just now is unmapped by RCU. */
    drain_call_rcu();
    trace_egm_open(region->name, mem_path);
    fd = egm_open_path(mem_path, 0);
    if (fd < 0) {
        if (errno == EBUSY) {
            egm_set_busy_error(errp);
        } else {
            error_setg_errno(errp, errno, "cannot open it");
        }
        return -1;
    }
    if (fstat(fd, &st) < 0 || st.st_rdev != region->dev) {
        error_setg(errp, "the file was replaced while it was opened");
    } else if (RETRY_ON_EINTR(flock(fd, LOCK_EX | LOCK_NB)) == 0) {
        return fd;
    } else if (errno == EWOULDBLOCK) {
        egm_set_busy_error(errp);
    } else {
        error_setg_errno(errp, errno, "cannot lock it");
    }
    qemu_close(fd);
    return -1;
}

/*
 * Map the open device. With some versions of the driver, a second open file of
 * the device cannot be mapped: if the size fits, EINVAL means this.
 */
static bool egm_map(HostMemoryBackend *backend, const char *name,
                    uint64_t align, uint32_t ram_flags, int fd, Error **errp)
{
    Error *err = NULL;

    /* To map RAM in blocks, KVM needs the same alignment in host and guest. */
    align = align ?: MIN(pow2ceil(backend->size), ALIGN_MAX);
    errno = 0;
    if (memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                       backend->size, align,
                                       ram_flags | RAM_DEVICE_MEMORY, fd, 0,
                                       &err)) {
        return true;
    }
    if (errno == EINVAL || errno == EBUSY) {
        error_free(err);
        egm_set_busy_error(errp);
    } else {
        error_propagate(errp, err);
    }
    return false;
}

bool egm_backend_alloc(HostMemoryBackend *backend, const char *name,
                       const char *mem_path, uint64_t align,
                       uint32_t ram_flags, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(EgmRegion) region = egm_region_of_path(mem_path, ram_flags);
    const char *id = object_get_canonical_path_component(OBJECT(backend));
    int fd;

    if (!acpi_egm_memory_check_backend(backend, errp)) {
        return false;
    }
    if (!region) {
        error_setg(errp, "memory backend '%s': mem-path=%s: the host does not "
                   "have this EGM device, which the driver nvgrace-egm creates",
                   id, mem_path);
        return false;
    }
    fd = egm_check_region(region, backend->size, align, errp) &&
         egm_check_unused(region, errp) ?
         egm_open(mem_path, region, errp) : -1;
    if (fd < 0 || !egm_map(backend, name, align, ram_flags, fd, errp)) {
        error_prepend(errp, "memory backend '%s': cannot use EGM region %s, "
                      "mem-path=%s: ", id, region->name, mem_path);
        if (fd >= 0) {
            qemu_close(fd);
        }
        return false;
    }
    trace_egm_backend_alloc(region->name, region->size,
                            region->gpus ? g_strv_length(region->gpus) : 0,
                            memory_region_get_ram_ptr(&backend->mr),
                            backend->size);
    return true;
}
