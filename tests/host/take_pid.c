// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Be the process that gets the number of one that is gone.
 *
 * usage: take_pid PID
 */

#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "stay.h"

int main(int argc, char **argv)
{
    pid_t number = argc > 1 ? atoi(argv[1]) : 0;
    /* clone(2): the number of the child */
    struct clone_args args = {
        .exit_signal = SIGCHLD,
        .set_tid = (uintptr_t)&number,
        .set_tid_size = 1,
    };
    long child = syscall(SYS_clone3, &args, sizeof(args));

    if (child) {
        if (child < 0) {
            perror("take_pid");
        }
        return child < 0;
    }
    stay();
}
