/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process does that the tests need for what it has, or is. */

#ifndef STAY_H
#define STAY_H

#include <stdio.h>
#include <unistd.h>

/* Live until killed; nobody waits for the end of its output. */
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
