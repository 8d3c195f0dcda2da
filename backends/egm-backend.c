/*
 * Extended GPU Memory (EGM): a memory-backend-file on an EGM device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/egm.h"
#include "trace.h"
#include <sys/ioctl.h>

#define SYSFS "/sys"

static bool egm_check_size(HostMemoryBackend *backend, const char *mem_path,
                           Error **errp)
{
    ERRP_GUARD();
    const EgmRegion *region = backend->egm;

    if (region->size && backend->size > region->size) {
        error_setg(errp, "memory backend '%s': size=%" PRIu64 " is larger than "
                   "EGM region %s, mem-path=%s, of %" PRIu64 " bytes",
                   object_get_canonical_path_component(OBJECT(backend)),
                   backend->size, region->name, mem_path, region->size);
        error_append_hint(errp, "Use size=%" PRIu64 " or less.\n",
                          region->size);
        return false;
    }
    return true;
}

bool egm_backend_prepare(HostMemoryBackend *backend, const char *mem_path,
                         Error **errp)
{
    struct stat st;

    if (stat(mem_path, &st) < 0 || !S_ISCHR(st.st_mode)) {
        return true;
    }
    backend->egm = egm_region_probe(SYSFS, st.st_rdev);
    return !backend->egm || (egm_check_linear(backend, errp) &&
                             egm_check_size(backend, mem_path, errp));
}

/* Most drivers can't seek; some answer 0 to everything. */
static uint64_t egm_seek_size(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);

    return MAX(size, 0);
}

static int egm_ioctl(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, request, arg);
}

/* Who else has the region? The kernel does not tell everybody. */
static void egm_set_busy_error(Error **errp, const char *id, const char *name,
                               pid_t holder)
{
    ERRP_GUARD();

    if (holder == getpid()) {
        error_setg(errp, "memory backend '%s': EGM region %s is in use by "
                   "another memory backend", id, name);
    } else if (holder) {
        error_setg(errp, "memory backend '%s': EGM region %s is in use by "
                   "process %d", id, name, (int)holder);
    } else {
        error_setg(errp, "memory backend '%s': EGM region %s is in use by "
                   "another process", id, name);
    }
    error_append_hint(errp, "An EGM region can be the RAM of one VM at a time, "
                      "through one memory backend.\n");
}

bool egm_backend_claim(HostMemoryBackend *backend, Error **errp)
{
    const char *id = object_get_canonical_path_component(OBJECT(backend));
    EgmRegion *region = backend->egm;
    struct stat st;
    pid_t holder;
    int fd, ret;

    if (!region) {
        return true;
    }
    fd = memory_region_get_fd(&backend->mr);
    if (fstat(fd, &st) < 0 || st.st_rdev != region->dev) {
        error_setg(errp, "memory backend '%s': mem-path was replaced while it "
                   "was opened", id);
        return false;
    }

    /* A child that lives longer than QEMU must not keep the lock. */
    qemu_set_cloexec(fd);
    ret = egm_lock(fd, &holder);
    if (ret == -EWOULDBLOCK) {
        egm_set_busy_error(errp, id, region->name, holder);
        return false;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "memory backend '%s': cannot lock EGM "
                         "region %s", id, region->name);
        return false;
    }

    region->size = region->size ?: egm_seek_size(fd);
    region->retired = egm_read_retired(fd, egm_ioctl);
    trace_egm_backend_claim(id, region->name, region->size,
                            region->gpus ? g_strv_length(region->gpus) : 0,
                            region->retired ? region->retired->len : 0);
    return true;
}

void egm_backend_explain_map(HostMemoryBackend *backend, const char *mem_path,
                             Error **errp)
{
    ERRP_GUARD();
    const EgmRegion *region = backend->egm;

    if (!region) {
        return;
    }
    error_prepend(errp, "memory backend '%s': cannot use EGM region %s, "
                  "mem-path=%s: ",
                  object_get_canonical_path_component(OBJECT(backend)),
                  region->name, mem_path);
    if (!region->size) {
        error_append_hint(errp, "The host does not tell the size of the "
                          "region; size=%" PRIu64 " may be too large.\n",
                          backend->size);
    }
}

void egm_explain_dma_map(const MemoryRegion *mr, Error *const *errp)
{
    HostMemoryBackend *backend = (HostMemoryBackend *)
        object_dynamic_cast(memory_region_owner((MemoryRegion *)mr),
                            TYPE_MEMORY_BACKEND);

    if (!backend || !backend->egm) {
        return;
    }
    error_append_hint(errp, "This RAM is EGM region %s. VFIO type1 can map it "
                      "for DMA, iommufd cannot: use a vfio-pci device without "
                      "iommufd=..., or a kernel and driver that export the "
                      "region as a dma-buf.\n", backend->egm->name);
}
