/*
 * Extended GPU Memory (EGM): a memory-backend-file on an EGM device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/ram-holes.h"
#include "migration/blocker.h"
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

static int egm_find_user(Object *obj, void *opaque)
{
    HostMemoryBackend *other = (HostMemoryBackend *)
        object_dynamic_cast(obj, TYPE_MEMORY_BACKEND);
    const HostMemoryBackend *backend = opaque;

    return other && other != backend && other->egm &&
           other->egm->dev == backend->egm->dev &&
           host_memory_backend_mr_inited(other);
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

/*
 * Open and lock the device before its memory is mapped: what was opened while
 * somebody else had it has not been zeroed for us.
 */
static bool egm_take(HostMemoryBackend *backend, const char *mem_path,
                     Error **errp)
{
    const char *id = object_get_canonical_path_component(OBJECT(backend));
    EgmRegion *region = backend->egm;
    struct stat st;
    pid_t holder;
    int ret;

    /* A lock is the device node's, and there can be several of those. */
    if (object_child_foreach(object_get_objects_root(), egm_find_user,
                             backend)) {
        egm_set_busy_error(errp, id, region->name, getpid());
        return false;
    }
    /* A backend that was deleted just now closes its file with RCU. */
    drain_call_rcu();

    region->fd = RETRY_ON_EINTR(open(mem_path, O_RDWR | O_CLOEXEC));
    if (region->fd < 0 || fstat(region->fd, &st) < 0) {
        error_setg_errno(errp, errno, "memory backend '%s': cannot use EGM "
                         "region %s, mem-path=%s", id, region->name, mem_path);
        return false;
    }
    if (!S_ISCHR(st.st_mode) || st.st_rdev != region->dev) {
        error_setg(errp, "memory backend '%s': mem-path=%s was replaced while "
                   "it was opened", id, mem_path);
        return false;
    }
    ret = egm_lock(region->fd, &holder);
    if (ret == -EWOULDBLOCK) {
        egm_set_busy_error(errp, id, region->name, holder);
        return false;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "memory backend '%s': cannot lock EGM "
                         "region %s", id, region->name);
        return false;
    }
    region->size = region->size ?: egm_seek_size(region->fd);
    return true;
}

bool egm_backend_prepare(HostMemoryBackend *backend, const char *mem_path,
                         Error **errp)
{
    struct stat st;

    if (stat(mem_path, &st) < 0 || !S_ISCHR(st.st_mode)) {
        return true;
    }
    if (access(SYSFS "/dev/char", F_OK) < 0) {
        warn_report("memory backend '%s': cannot tell whether mem-path=%s is "
                    "an EGM device: there is no %s/dev/char",
                    object_get_canonical_path_component(OBJECT(backend)),
                    mem_path, SYSFS);
    }
    backend->egm = egm_region_probe(SYSFS, st.st_rdev);
    return !backend->egm || (egm_check_linear(backend, errp) &&
                             egm_check_size(backend, mem_path, errp) &&
                             egm_take(backend, mem_path, errp) &&
                             egm_check_size(backend, mem_path, errp));
}

/*
 * Migration reads all of guest RAM; a retired page would end QEMU. At start-up
 * -only-migratable is obeyed; later, VMs with bad pages have to go on.
 */
static bool egm_block_migration(EgmRegion *region, bool start, Error **errp)
{
    if (region->migration_blocker || !region->retired ||
        !region->retired->len) {
        return true;
    }
    error_setg(&region->migration_blocker,
               "EGM region %s has retired pages, which must not be read",
               region->name);
    if (start) {
        return migrate_add_blocker(&region->migration_blocker, errp) >= 0;
    }
    return migrate_add_blocker_internal(&region->migration_blocker, errp) >= 0;
}

/* What is beyond the part that the VM uses does not matter. */
static void egm_warn_outside(const EgmRegion *region, const GArray *retired)
{
    for (unsigned i = 0; region->size && i < retired->len; i++) {
        const EgmRange *range = &g_array_index(retired, EgmRange, i);

        if (range->offset >= region->size ||
            range->size > region->size - range->offset) {
            warn_report("EGM region %s: retired page at offset 0x%" PRIx64
                        " of 0x%" PRIx64 " bytes is not in the region of 0x%"
                        PRIx64 " bytes", region->name, range->offset,
                        range->size, region->size);
        }
    }
}

static bool egm_same_ranges(const GArray *a, const GArray *b)
{
    return a && b && a->len == b->len &&
           (!a->len || !memcmp(a->data, b->data, a->len * sizeof(EgmRange)));
}

static void egm_update_retired(EgmRegion *region)
{
    g_autoptr(GArray) retired = egm_read_retired(region->fd, egm_ioctl);

    if (retired && !egm_same_ranges(retired, region->retired)) {
        egm_warn_outside(region, retired);
        g_clear_pointer(&region->retired, g_array_unref);
        region->retired = g_steal_pointer(&retired);
    }
}

void egm_backend_read_retired(HostMemoryBackend *backend)
{
    Error *err = NULL;

    egm_update_retired(backend->egm);
    if (!egm_block_migration(backend->egm, false, &err)) {
        warn_report_err(err);       /* there is one going on */
    }
}

void egm_backend_release(HostMemoryBackend *backend)
{
    if (backend->egm) {
        migrate_del_blocker(&backend->egm->migration_blocker);
    }
    g_clear_pointer(&backend->egm, egm_region_free);
}

bool egm_backend_claim(HostMemoryBackend *backend, Error **errp)
{
    const char *id = object_get_canonical_path_component(OBJECT(backend));
    EgmRegion *region = backend->egm;
    struct stat st;
    int fd;

    if (!region) {
        return true;
    }
    fd = memory_region_get_fd(&backend->mr);
    if (fstat(fd, &st) < 0 || st.st_rdev != region->dev) {
        error_setg(errp, "memory backend '%s': mem-path was replaced while it "
                   "was opened", id);
        return false;
    }
    /* A child that lives longer than QEMU must not keep the device open. */
    qemu_set_cloexec(fd);

    egm_update_retired(region);
    if (!egm_block_migration(region, true, errp)) {
        return false;
    }
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

/* The backend if @mr is an EGM region, else NULL */
static HostMemoryBackend *egm_find_backend(const MemoryRegion *mr)
{
    HostMemoryBackend *backend = (HostMemoryBackend *)
        object_dynamic_cast(memory_region_owner((MemoryRegion *)mr),
                            TYPE_MEMORY_BACKEND);

    return backend && backend->egm ? backend : NULL;
}

int egm_replay_good(const MemoryRegionSection *section, EgmSectionFn *fn,
                    void *opaque)
{
    const HostMemoryBackend *backend = egm_find_backend(section->mr);
    g_autoptr(GArray) holes = ram_holes_new();
    hwaddr start = section->offset_within_address_space;
    hwaddr end = start + int128_get64(section->size);
    hwaddr base = start - section->offset_within_region;
    int ret = 0;

    if (backend) {
        egm_backend_add_holes(backend, holes, 0, base, backend->size);
    }
    ram_holes_merge(holes, UINT_MAX);

    while (start < end && !ret) {
        const RamHole *hole = ram_holes_find(holes, start, end - start);
        hwaddr next = hole ? MAX(hole->base, start) : end;
        MemoryRegionSection part = *section;

        part.offset_within_address_space = start;
        part.offset_within_region = start - base;
        part.size = int128_make64(next - start);
        ret = next > start ? fn(&part, opaque) : 0;
        start = hole ? hole->base + hole->size : end;
    }
    return ret;
}
