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
#include "backends/egm-internal.h"

static bool egm_is_device(const char *path, dev_t dev)
{
    struct stat st;

    return !stat(path, &st) && S_ISCHR(st.st_mode) && st.st_rdev == dev;
}

/* proc_pid_fd(5) */
static bool egm_has_open(const char *process, dev_t dev)
{
    g_autofree char *path = g_build_filename(process, "fd", NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        if (egm_is_device(file, dev)) {
            return true;
        }
    }
    return false;
}

/*
 * proc_pid_maps(5): "7f00-7f01 rw-s 00000000 00:05 9 /dev/egm4". Numbers are of
 * the file system and the node; the path is as the process sees it. Of what is
 * not shared ("s") nothing can be the RAM of a VM.
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
        const char *mapped = strstr(*line, "s ") ? strchr(*line, '/') : NULL;
        g_autofree char *file = g_build_filename(process, "root", mapped, NULL);

        if (mapped && egm_is_device(file, dev)) {
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
