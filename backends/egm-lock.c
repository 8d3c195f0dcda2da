/*
 * Extended GPU Memory (EGM): one user at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The driver lets everybody map a region. flock() is what the kernel offers
 * that also sees a second user in this process, dies with the process and works
 * on a device. It belongs to the inode: who has made a device node of their own
 * is not seen.
 */

#include "qemu/osdep.h"
#include "system/egm.h"
#include <sys/file.h>
#include <sys/sysmacros.h>

/* proc_locks(5); a line for somebody who waits has an arrow, and no match. */
static pid_t egm_lock_holder(int fd)
{
    g_autofree char *text = NULL, *file = NULL;
    g_auto(GStrv) lines = NULL;
    struct stat st;

    if (fstat(fd, &st) < 0 ||
        !g_file_get_contents("/proc/locks", &text, NULL, NULL)) {
        return 0;
    }
    file = g_strdup_printf("%02x:%02x:%llu", major(st.st_dev),
                           minor(st.st_dev), (unsigned long long)st.st_ino);
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        char kind[16], where[64];
        int pid;

        if (sscanf(*line, "%*d: %15s %*s %*s %d %63s", kind, &pid, where) == 3
            && g_str_equal(kind, "FLOCK") && g_str_equal(where, file)) {
            /* A child of a process that has ended can have its lock. */
            return pid > 0 && (!kill(pid, 0) || errno == EPERM) ? pid : 0;
        }
    }
    return 0;
}

int egm_lock(int fd, pid_t *holder)
{
    int ret;

    *holder = 0;
    ret = RETRY_ON_EINTR(flock(fd, LOCK_EX | LOCK_NB)) < 0 ? -errno : 0;
    if (ret == -EWOULDBLOCK) {
        *holder = egm_lock_holder(fd);
    }
    return ret;
}
