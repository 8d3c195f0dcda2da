/*
 * Extended GPU Memory (EGM): a memory-backend-file on an EGM device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "backends/egm-internal.h"
#include "system/kvm.h"
#include "trace.h"
#include <sys/file.h>
#include <sys/ioctl.h>

/* Beyond this block size of stage 2 there is nothing to gain by alignment. */
#define ALIGN_MAX (1 * GiB)

static bool egm_in_dev(const char *mem_path)
{
    g_autofree char *dir = g_path_get_dirname(mem_path);
    struct stat parent, dev;

    return !stat(dir, &parent) && !stat("/dev", &dev) &&
           parent.st_dev == dev.st_dev && parent.st_ino == dev.st_ino;
}

static EgmRegion *egm_region_of_path(const char *mem_path)
{
    struct stat st;

    return stat(mem_path, &st) == 0 && S_ISCHR(st.st_mode) ?
           egm_region_probe("/sys", st.st_rdev) : NULL;
}

EgmRegion *egm_region_of_backend(HostMemoryBackend *backend)
{
    MemoryRegion *mr = host_memory_backend_get_memory(backend);
    struct stat st;

    if (!mr || fstat(memory_region_get_fd(mr), &st) < 0 ||
        !S_ISCHR(st.st_mode)) {
        return NULL;
    }
    return egm_region_probe("/sys", st.st_rdev);
}

/* What does not exist is created; not in /dev, where it is a missing device. */
bool egm_backend_owns(const char *mem_path)
{
    g_autoptr(EgmRegion) region = egm_region_of_path(mem_path);

    return region || (access(mem_path, F_OK) < 0 && errno == ENOENT &&
                      egm_in_dev(mem_path));
}

/*
 * A GPU addresses its EGM by the offset into the region: byte n of guest RAM
 * has to be byte n of the region, shared and writable.
 */
static bool egm_check_linear(HostMemoryBackend *backend, uint32_t ram_flags,
                             Error **errp)
{
    ERRP_GUARD();
    uint64_t offset = object_property_get_uint(OBJECT(backend), "offset",
                                               &error_abort);

    if (!(ram_flags & RAM_SHARED)) {
        error_setg(errp, "share=off: the guest would run on a private copy "
                   "that no GPU can reach");
        error_append_hint(errp, "Use share=on.\n");
        return false;
    }
    if (ram_flags & (RAM_READONLY | RAM_READONLY_FD)) {
        error_setg(errp, "readonly=on: guest RAM must be writable");
        error_append_hint(errp, "Remove readonly=on and rom=on.\n");
        return false;
    }
    if (offset) {
        error_setg(errp, "offset=%" PRIu64 ": a GPU counts from the start of "
                   "the EGM region", offset);
        error_append_hint(errp, "Use offset=0.\n");
        return false;
    }
    return true;
}

/* Some drivers map whatever is behind the region. */
static bool egm_check_size(const EgmRegion *region, uint64_t size, Error **errp)
{
    ERRP_GUARD();

    if (!region->size) {
        error_setg(errp, "the host does not tell the size of the region, so "
                   "size=%" PRIu64 " could reach beyond it", size);
        error_append_hint(errp, "The attribute egm_size of the device is "
                          "needed.\n");
        return false;
    }
    if (size > region->size) {
        error_setg(errp, "size=%" PRIu64 " is larger than the region of %"
                   PRIu64 " bytes", size, region->size);
        error_append_hint(errp, "Use size=%" PRIu64 " or less.\n",
                          region->size);
        return false;
    }
    return true;
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
 * Look for a process that has the region, or is about to open it. Give it time,
 * in case it is just ending. Two that start together find each other; one waits
 * longer, until the other has given up.
 */
static pid_t egm_wait_for_holder(dev_t dev)
{
    pid_t holder;

    for (int i = 1; (holder = egm_find_holder("/proc", dev)) &&
                    i < (holder > getpid() ? 20 : 10); i++) {
        g_usleep(G_USEC_PER_SEC / 10);
    }
    return holder;
}

/*
 * Where drivers let everybody open the device, but only the first open file
 * works, mapping another can crash the host. Other drivers know no ioctl.
 */
static bool egm_is_first(int fd)
{
    uint32_t list[2] = { sizeof(list), 0 };

    return ioctl(fd, EGM_RETIRED_PAGES_LIST, list) == 0 || errno != EINVAL;
}

static void egm_set_busy_error(Error **errp, const char *who)
{
    ERRP_GUARD();

    error_setg(errp, "the region is in use by %s", who);
    error_append_hint(errp, "An EGM region can be the RAM of one VM at a time, "
                      "through one memory backend.\n");
}

static void egm_set_errno(Error **errp, int err, const char *what)
{
    if (err == EBUSY || err == EWOULDBLOCK) {
        egm_set_busy_error(errp, "another process");
    } else {
        error_setg_errno(errp, err, "cannot %s it", what);
    }
}

/*
 * Open and lock the device. The lock is on the open file that the RAM block
 * gets, so it lives as long as anybody can reach the memory by it.
 *
 * Returns: the open file, or -1
 */
static int egm_open(const char *mem_path, const EgmRegion *region, Error **errp)
{
    struct stat st;
    int fd;

    /* This clears the region, which takes minutes. */
    trace_egm_open(region->name, mem_path);
    fd = RETRY_ON_EINTR(open(mem_path, O_RDWR | O_CLOEXEC));
    if (fd < 0) {
        egm_set_errno(errp, errno, "open");
        return -1;
    }
    trace_egm_opened(region->name, fd);
    if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) ||
        st.st_rdev != region->dev) {
        error_setg(errp, "the file was replaced while it was opened");
    } else if (RETRY_ON_EINTR(flock(fd, LOCK_EX | LOCK_NB)) < 0) {
        egm_set_errno(errp, errno, "lock");
    } else if (!egm_is_first(fd)) {
        egm_set_busy_error(errp, "another process");
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

/* Returns: the open file, or -1 */
static int egm_open_exclusively(const char *mem_path, const EgmRegion *region,
                                Error **errp)
{
    pid_t holder;

    /* A backend that was deleted just now unmaps its memory with RCU. */
    drain_call_rcu();
    holder = egm_wait_for_holder(region->dev);
    if (holder) {
        g_autofree char *who = g_strdup_printf("process %d", (int)holder);

        egm_set_busy_error(errp, who);
        return -1;
    }
    return egm_open(mem_path, region, errp);
}

/*
 * The region has no struct page. Without the capability, NVIDIA's kernels older
 * than 6.17 work; with others the guest dies, or they refuse the memory.
 */
static void egm_warn_kvm(const char *id, const char *name)
{
    if (kvm_enabled() && !kvm_arm_supports_cacheable_pfnmap()) {
        warn_report("memory backend '%s': this host's KVM does not say that it "
                    "maps EGM region %s as ordinary memory "
                    "(KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED, which needs "
                    "Linux 6.17 and a CPU with FWB and DIC): it may refuse it "
                    "as an invalid argument, or the guest may die at its first "
                    "instruction", id, name);
    }
}

static bool egm_map(HostMemoryBackend *backend, const char *name,
                    const char *mem_path, const EgmRegion *region,
                    uint64_t align, uint32_t ram_flags, Error **errp)
{
    int node, fd;

    if (!egm_check_linear(backend, ram_flags, errp) ||
        !egm_check_size(region, backend->size, errp)) {
        return false;
    }
    if (object_child_foreach(object_get_objects_root(), egm_find_user,
                             (void *)region)) {
        egm_set_busy_error(errp, "another memory backend");
        return false;
    }
    /*
     * KVM uses large blocks where host virtual and guest physical addresses
     * agree modulo their size; guest RAM starts at a multiple of 1 GiB.
     */
    align = align ?: MIN(pow2ceil(backend->size), ALIGN_MAX);
    ram_flags |= RAM_POPULATED | RAM_UNDISCARDABLE | RAM_TRANSIENT;
    /* Be seen from here on: who is still inside of open() has no file yet. */
    node = open(mem_path, O_PATH | O_CLOEXEC);
    fd = egm_open_exclusively(mem_path, region, errp);
    if (fd >= 0 &&
        !memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, align, ram_flags, fd, 0,
                                        errp)) {
        close(fd);
        fd = -1;
    }
    if (node >= 0) {
        close(node);
    }
    if (fd < 0) {
        return false;
    }
    trace_egm_backend_alloc(region->name, region->size,
                            region->gpus ? g_strv_length(region->gpus) : 0,
                            memory_region_get_ram_ptr(&backend->mr),
                            backend->size);
    return true;
}

bool egm_backend_alloc(HostMemoryBackend *backend, const char *name,
                       const char *mem_path, uint64_t align,
                       uint32_t ram_flags, Error **errp)
{
    ERRP_GUARD();
    g_autoptr(EgmRegion) region = egm_region_of_path(mem_path);
    const char *id = object_get_canonical_path_component(OBJECT(backend));

    if (!region) {
        error_setg(errp, "memory backend '%s': mem-path=%s: there is no such "
                   "device", id, mem_path);
        error_append_hint(errp, "Is its driver loaded? /dev/egmX is created by "
                          "nvgrace-egm.\n");
        return false;
    }
    if (!egm_map(backend, name, mem_path, region, align, ram_flags, errp)) {
        error_prepend(errp, "memory backend '%s': cannot use EGM region %s, "
                      "mem-path=%s: ", id, region->name, mem_path);
        return false;
    }
    egm_warn_kvm(id, region->name);
    return true;
}
