/*
 * Extended GPU Memory (EGM): the list of retired pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * DRAM with uncorrectable errors is retired. The driver knows where, from the
 * firmware and from errors at run time, and leaves it to user space to keep a
 * VM away from there.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "system/egm.h"
#include <linux/ioctl.h>

#define EGM_RETIRED_PAGES_LIST _IO('E', 100)

/*
 * With an @argsz too small for the list, the driver sets it to what it needs,
 * and @count to 0.
 */
typedef struct EgmRetiredPages {
    uint32_t argsz;
    uint32_t count;
    EgmRange pages[];
} EgmRetiredPages;

/* Drivers list up to 65536 pages; a list that is much longer is not one. */
#define ARGSZ_MAX (16 * MiB)

/* The list can grow between two calls: room for that, and how often to try. */
#define SPARE (64 * sizeof(EgmRange))
#define TRIES 16

GArray *egm_read_retired(int fd, EgmIoctl *ioctl_fn)
{
    g_autofree EgmRetiredPages *list = NULL;
    uint32_t argsz = sizeof(*list);

    for (int i = 0; i < TRIES; i++) {
        list = g_realloc(list, argsz);
        memset(list, 0, argsz);
        list->argsz = argsz;
        if (RETRY_ON_EINTR(ioctl_fn(fd, EGM_RETIRED_PAGES_LIST, list)) < 0) {
            return NULL;
        }
        if (list->argsz <= argsz) {
            GArray *ranges;

            if (list->count > (argsz - sizeof(*list)) / sizeof(EgmRange)) {
                return NULL;
            }
            ranges = g_array_new(false, false, sizeof(EgmRange));
            return g_array_append_vals(ranges, list->pages, list->count);
        }
        if (list->argsz > ARGSZ_MAX) {
            return NULL;
        }
        argsz = list->argsz + SPARE;
    }
    return NULL;
}
