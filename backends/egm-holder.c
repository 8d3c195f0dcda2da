/*
 * Extended GPU Memory (EGM): who uses a region?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Some drivers let everybody open and map a region, and a lock is on one of the
 * device's nodes, while a container has nodes of its own. So look for who has
 * the device, by its number.
 */

#include "qemu/osdep.h"
#include <sys/sysmacros.h>
#include "backends/egm-internal.h"

/*
 * The device that a file is: 0 if it is none. Asks for no more than the kernel
 * knows, as the server of a process's file system can be gone.
 *
 * Returns: whether the file can be looked at
 */
static bool egm_device_of(const char *path, dev_t *dev)
{
    struct statx st;

    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE,
              &st) < 0) {
        return false;
    }
    *dev = S_ISCHR(st.stx_mode) ?
           makedev(st.stx_rdev_major, st.stx_rdev_minor) : 0;
    return true;
}

/* The number, in this base, that follows the text in a file of procfs. */
static bool egm_read_number(const char *process, const char *file,
                            const char *before, int base, uint64_t *number)
{
    g_autofree char *path = g_build_filename(process, file, NULL);
    g_autofree char *text = NULL;
    const char *found;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    found = strstr(text, before);
    if (found) {
        *number = g_ascii_strtoull(found + strlen(before), NULL, base);
    }
    return found;
}

/*
 * A file that is open by O_PATH needs no permission, and keeps nobody from the
 * device. It counts if it is of a process that could be another QEMU, which is
 * about to open the device.
 */
static bool egm_is_open(const char *process, const char *fd)
{
    g_autofree char *info = g_build_filename("fdinfo", fd, NULL);
    uint64_t flags, uid;

    return !egm_read_number(process, info, "\nflags:", 8, &flags) ||
           !(flags & O_PATH) ||
           !egm_read_number(process, "status", "\nUid:", 10, &uid) ||
           uid == 0 || uid == getuid();
}

/* proc_pid_fd(5) */
static bool egm_has_open(const char *process, dev_t dev)
{
    g_autofree char *path = g_build_filename(process, "fd", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    dev_t found;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        if (egm_device_of(file, &found) && found == dev &&
            egm_is_open(process, name)) {
            return true;
        }
    }
    return false;
}

/*
 * Is the device mapped there? The file itself only the privileged may look at.
 * Others go by its path, as either process sees it.
 */
static bool egm_is_mapped(const char *process, uint64_t start, uint64_t end,
                          const char *path, dev_t dev)
{
    g_autofree char *file = g_strdup_printf(
        "%s/map_files/%" PRIx64 "-%" PRIx64, process, start, end);
    g_autofree char *theirs = g_build_filename(process, "root", path, NULL);
    dev_t found;

    if (egm_device_of(file, &found)) {
        return found == dev;
    }
    return (egm_device_of(theirs, &found) && found == dev) ||
           (egm_device_of(path, &found) && found == dev);
}

/*
 * proc_pid_maps(5): "7f00-7f01 rw-s 00000000 00:05 9 /dev/egm4". Numbers are of
 * the file system and the node. Of what is not shared ("s") nothing can be the
 * RAM of a VM.
 */
static bool egm_has_mapped(const char *process, dev_t dev)
{
    g_autofree char *path = g_build_filename(process, "maps", NULL);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *mapped = strchr(*line, '/');
        uint64_t start, end;
        char shared;

        if (mapped && sscanf(*line, "%" SCNx64 "-%" SCNx64 " %*3c%c", &start,
                             &end, &shared) == 3 && shared == 's' &&
            egm_is_mapped(process, start, end, mapped, dev)) {
            return true;
        }
    }
    return false;
}

pid_t egm_find_holder(const char *proc, dev_t dev)
{
    g_autofree char *self = g_build_filename(proc, "self", NULL);
    g_autofree char *own = g_file_read_link(self, NULL);
    g_autofree char *pid = g_strdup_printf("%d", (int)getpid());
    g_autoptr(GDir) dir = g_dir_open(proc, 0, NULL);
    const char *name;

    /* In another namespace's procfs, numbers are other processes. */
    if (g_strcmp0(own, pid)) {
        return 0;
    }
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *process = g_build_filename(proc, name, NULL);

        if (g_ascii_isdigit(*name) && strcmp(name, pid) &&
            (egm_has_open(process, dev) || egm_has_mapped(process, dev))) {
            return atoi(name);
        }
    }
    return 0;
}
