/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A process that the tests keep for its open files or its identity. */

#ifndef STAY_H
#define STAY_H

#include <stdio.h>
#include <unistd.h>

/* Run until killed, with closed output, so that no reader waits for it. */
static inline _Noreturn void stay(void)
{
    fclose(stdin);
    fclose(stdout);
    fclose(stderr);
    for (;;) {
        pause();
    }
}

#endif
