// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Keep a duplicate of another process's file, as a vhost-user back-end does.
 *
 * usage: keep_fd PID FD [DIRECTORY]
 *                            prints the number of the process that keeps it. With
 *                            DIRECTORY it keeps a mapping only, and has that as
 *                            its root.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "stay.h"

int main(int argc, char **argv)
{
    int process, fd;
    pid_t child;

    if (argc < 3) {
        return 2;
    }
    process = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
    fd = syscall(SYS_pidfd_getfd, process, atoi(argv[2]), 0);
    if (fd < 0) {
        perror("keep_fd");
        return 1;
    }
    if (argc > 3 && (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ||
                     close(fd) < 0 || chroot(argv[3]) < 0)) {
        perror("keep_fd");
        return 1;
    }
    child = fork();
    if (child) {
        printf("%d\n", child);
        return child < 0;
    }
    stay();
}
