/*
 * Extended GPU Memory (EGM): retired pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * DRAM with uncorrectable errors is retired. The driver learns of it from the
 * firmware and from errors at run time, but does not hide the pages from VMs.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/range.h"
#include "qemu/units.h"
#include "system/egm-retired-pages.h"
#include "system/ram-bad-ranges.h"
#include <sys/ioctl.h>

typedef struct EgmRetiredPage {
    uint64_t offset;
    uint64_t size;
} EgmRetiredPage;

/*
 * The driver's list: @argsz is the size of the list in bytes. If it is too
 * small, the driver sets it to the size needed, and @count to 0.
 */
typedef struct EgmRetiredPages {
    uint32_t argsz;
    uint32_t count;
    EgmRetiredPage pages[];
} EgmRetiredPages;

#define EGM_RETIRED_PAGES_LIST _IO('E', 100)

/* Drivers list up to 65536 pages; a much longer list is invalid. */
#define ARGSZ_MAX (16 * MiB)

/* The list can grow between two calls: reserve space for more pages. */
#define SPARE (64 * sizeof(EgmRetiredPage))

/* Number of attempts to read a list that keeps growing */
#define TRIES 16

/* The firmware retires such blocks; some drivers list their first page only. */
#define RETIRED_BLOCK (64 * KiB)

/* Returns: the list; NULL, with errno set, if the driver does not report it */
static EgmRetiredPages *egm_list_retired_pages(int fd)
{
    g_autofree EgmRetiredPages *list = NULL;
    uint32_t argsz = sizeof(*list);

    for (int i = 0; i < TRIES && argsz <= ARGSZ_MAX; i++) {
        list = g_realloc(list, argsz);
        memset(list, 0, argsz);
        list->argsz = argsz;
        if (RETRY_ON_EINTR(ioctl(fd, EGM_RETIRED_PAGES_LIST, list)) < 0) {
            return NULL;
        }
        if (list->argsz > argsz) {
            argsz = MIN(list->argsz, ARGSZ_MAX) + SPARE;
        } else if (list->count > (argsz - sizeof(*list)) /
                                 sizeof(EgmRetiredPage)) {
            break;
        } else {
            return g_steal_pointer(&list);
        }
    }
    errno = EPROTO;
    return NULL;
}

static int egm_compare_pages(const void *a, const void *b)
{
    const EgmRetiredPage *x = a, *y = b;

    return x->offset < y->offset ? 1 : x->offset > y->offset ? -1 : 0;
}

/* Returns: the blocks of @size bytes of memory that the pages are in */
static GList *egm_retired_blocks(EgmRetiredPages *list, uint64_t size)
{
    GList *blocks = NULL;

    /* In descending order, each is inserted at the head of the list. */
    qsort(list->pages, list->count, sizeof(list->pages[0]), egm_compare_pages);
    for (uint32_t i = 0; i < list->count; i++) {
        const EgmRetiredPage *page = &list->pages[i];
        Range *block;
        uint64_t end;

        if (page->size && page->offset < size) {
            end = page->offset + MIN(page->size, size - page->offset);
            block = g_new(Range, 1);
            range_set_bounds(block,
                             QEMU_ALIGN_DOWN(page->offset, RETIRED_BLOCK),
                             MIN(QEMU_ALIGN_UP(end, RETIRED_BLOCK), size) - 1);
            blocks = range_list_insert(blocks, block);
        }
    }
    return blocks;
}

static void egm_warn_unreadable(const MemoryRegion *mr)
{
    warn_report("memory backend '%s': cannot read the list of retired pages: "
                "%s", memory_region_name(mr), strerror(errno));
}

/* RamReadBadRanges */
static GList *egm_read_bad_ranges(MemoryRegion *mr)
{
    g_autofree EgmRetiredPages *list =
        egm_list_retired_pages(memory_region_get_fd(mr));

    if (!list) {
        egm_warn_unreadable(mr);
        return NULL;
    }
    return egm_retired_blocks(list, memory_region_size(mr));
}

bool egm_track_retired_pages(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    g_autofree EgmRetiredPages *list =
        egm_list_retired_pages(memory_region_get_fd(&backend->mr));

    if (!list) {
        egm_warn_unreadable(&backend->mr);
        return true;
    }
    if (!ram_block_track_bad_ranges(backend->mr.ram_block, egm_read_bad_ranges,
                                    errp)) {
        error_prepend(errp, "memory backend '%s': ",
                      object_get_canonical_path_component(OBJECT(backend)));
        return false;
    }
    return true;
}
