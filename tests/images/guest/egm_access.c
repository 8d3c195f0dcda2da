/*
 * egm_access FIRST LAST: allocate a page between these physical addresses, print its
 * address, and read it on the next line of input
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile uint64_t *page;

static void failed(int number, siginfo_t *info, void *context)
{
    /* Not safe in a signal handler in general; nothing else prints here. */
    printf("EGM SIGBUS %d %s\n", info->si_code,
           info->si_addr == page ? "there" : "elsewhere");
    exit(0);
}

/* Give a new page in *P, and where it is. */
static uint64_t get(int pagemap, volatile uint64_t **p)
{
    size_t size = sysconf(_SC_PAGESIZE);
    uint64_t entry;

    *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (*p == MAP_FAILED) {
        err(1, "mmap");
    }
    if (pread(pagemap, &entry, sizeof(entry),
              (uintptr_t)*p / size * sizeof(entry)) != sizeof(entry)) {
        err(1, "pagemap");
    }
    return (entry & ((1ULL << 55) - 1)) * size;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_sigaction = failed, .sa_flags = SA_SIGINFO };
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    uint64_t first, last, address;

    if (argc != 3) {
        errx(2, "usage: egm_access FIRST LAST");
    }
    first = strtoull(argv[1], NULL, 0);
    last = strtoull(argv[2], NULL, 0);
    do {
        address = get(pagemap, &page);
    } while (address < first || address > last);
    page[0] = 0x45474d2070616765ULL;
    sigaction(SIGBUS, &action, NULL);
    printf("EGM page 0x%" PRIx64 "\n", address);
    fflush(stdout);
    while (getchar() != '\n') {
    }
    printf("EGM read 0x%" PRIx64 "\n", page[0]);
    return 0;
}
