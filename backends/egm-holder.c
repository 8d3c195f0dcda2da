/*
 * Extended GPU Memory (EGM): who uses a region?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The driver only says that somebody does, and a lock's entry in /proc/locks
 * names the process that took it, which may have ended and left a duplicate of
 * the open file to another one. So look for who has it.
 */

#include "qemu/osdep.h"
#include "backends/egm-internal.h"
#include <sys/sysmacros.h>

/* proc_pid_fd(5) */
static bool egm_has_open(const char *process, dev_t dev)
{
    g_autofree char *path = g_build_filename(process, "fd", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        struct stat st;

        if (!stat(file, &st) && S_ISCHR(st.st_mode) && st.st_rdev == dev) {
            return true;
        }
    }
    return false;
}

/* proc_pid_maps(5): "start-end perms offset major:minor inode path" */
static bool egm_has_mapped(const char *process, const struct stat *file)
{
    g_autofree char *path = g_build_filename(process, "maps", NULL);
    g_autofree char *text = NULL;
    g_autofree char *wanted = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    wanted = g_strdup_printf(" %02x:%02x %llu ", major(file->st_dev),
                             minor(file->st_dev),
                             (unsigned long long)file->st_ino);
    return strstr(text, wanted);
}

pid_t egm_find_holder(const char *proc, const struct stat *st)
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
            (egm_has_open(process, st->st_rdev) ||
             egm_has_mapped(process, st))) {
            return atoi(name);
        }
    }
    return 0;
}
