/*
 * Extended GPU Memory (EGM): bad pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * DRAM with uncorrectable errors is retired. The driver knows where, from the
 * firmware and from errors at run time, and leaves it to user space to keep a
 * VM away from there.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "system/egm-bad-pages.h"
#include "system/ram-bad-ranges.h"
#include <sys/ioctl.h>

/*
 * The list of retired pages: argsz, the size of the list in bytes, and count,
 * 32 bits each, then offset and size of each page, 64 bits each. If argsz is
 * too small, the driver sets it to the size needed, and count to 0.
 */
#define EGM_RETIRED_PAGES_LIST _IO('E', 100)

typedef struct EgmRetiredPages {
    uint32_t argsz;
    uint32_t count;
    RamBadRange pages[];
} EgmRetiredPages;

/* Drivers list up to 65536 pages; a list that is much longer is not one. */
#define ARGSZ_MAX (16 * MiB)

/* The list can grow between two calls: leave room for as many more pages. */
#define SPARE (64 * sizeof(RamBadRange))

/* How often to ask for a list that has outgrown the room */
#define TRIES 16

/* The firmware retires such blocks; some drivers list their first page only. */
#define RETIRED_BLOCK (64 * KiB)

GArray *egm_read_bad_pages(int fd, EgmIoctl *ioctl_fn)
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

            if (list->count > (argsz - sizeof(*list)) / sizeof(RamBadRange)) {
                break;
            }
            ranges = g_array_new(false, false, sizeof(RamBadRange));
            return g_array_append_vals(ranges, list->pages, list->count);
        }
        if (list->argsz > ARGSZ_MAX) {
            break;
        }
        argsz = list->argsz + SPARE;
    }
    errno = EPROTO;
    return NULL;
}

static int egm_ioctl(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, request, arg);
}

/* RamReadBadRanges */
static GArray *egm_bad_blocks(int fd)
{
    GArray *ranges = egm_read_bad_pages(fd, egm_ioctl);

    if (ranges) {
        ram_bad_ranges_normalize(ranges, INT64_MAX, RETIRED_BLOCK);
    } else {
        warn_report_once("an EGM device does not tell its bad pages: %s",
                         strerror(errno));
    }
    return ranges;
}

bool egm_track_bad_pages(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();

    if (!ram_block_track_bad_ranges(backend->mr.ram_block, egm_bad_blocks,
                                    errp)) {
        error_prepend(errp, "memory backend '%s': ",
                      object_get_canonical_path_component(OBJECT(backend)));
        return false;
    }
    return true;
}
