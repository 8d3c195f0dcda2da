/*
 * A stand-in for an EGM device, for VMs on any machine: to the program that
 * preloads this library, /dev/zero is an EGM device. Its retired pages are in
 * the file that the environment variable EGM_RETIRED names, one "offset size" a
 * line, read at each call. Without the file, the ioctl fails. With EGM_GUARD in
 * the environment, the program dies when it touches a page that it was told of.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define RETIRED_PAGES_LIST ('E' << 8 | 100)

/* Fills in as many pages as there is room for; returns how many there are. */
static uint32_t read_pages(FILE *file, uint64_t *pages, uint32_t room)
{
    unsigned long long offset, size;
    uint32_t count = 0;

    while (fscanf(file, "%lli %lli", &offset, &size) == 2) {
        if (count < room) {
            pages[2 * count] = offset;
            pages[2 * count + 1] = size;
        }
        count++;
    }
    return count;
}

/* Take the rights to a page in the mapping of the device, if it is there. */
static void guard_page(uint64_t offset, uint64_t size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    uint64_t first = offset & ~4095ull, end = (offset + size + 4095) & ~4095ull;
    unsigned long low, high, base = 0, top = 0;
    char line[4096];

    /* What was guarded before has split the mapping into several. */
    while (maps && fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%lx-%lx", &low, &high) == 2 &&
            strstr(line, " /dev/zero") && (!base || low == top)) {
            base = base ? base : low;
            top = high;
        }
    }
    if (maps) {
        fclose(maps);
    }
    if (end > first && end <= top - base) {
        mprotect((void *)(base + first), end - first, PROT_NONE);
    }
}

static int retired_pages_list(uint32_t *list)
{
    uint32_t room = (list[0] - 8) / 16;
    FILE *file = fopen(getenv("EGM_RETIRED"), "r");
    uint32_t count;

    if (!file) {
        errno = EIO;
        return -1;
    }
    count = read_pages(file, (uint64_t *)(list + 2), room);
    fclose(file);
    list[0] = 8 + 16 * count;
    list[1] = count <= room ? count : 0;
    for (uint32_t i = 0; getenv("EGM_GUARD") && i < list[1] && i < 64; i++) {
        uint64_t *page = (uint64_t *)(list + 2) + 2 * i;

        guard_page(page[0], page[1]);
    }
    return 0;
}

/* Each process has a /dev/zero of its own: nobody else can have it. */
int flock(int fd, int operation)
{
    struct stat st;

    if (!fstat(fd, &st) && st.st_rdev == makedev(1, 5)) {
        return 0;
    }
    return syscall(SYS_flock, fd, operation);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    void *arg;

    va_start(args, request);
    arg = va_arg(args, void *);
    va_end(args);
    if (request == RETIRED_PAGES_LIST) {
        return retired_pages_list(arg);
    }
    return syscall(SYS_ioctl, fd, request, arg);
}

/* A machine for tests can be without sysfs. */
int access(const char *path, int mode)
{
    if (!strcmp(path, "/sys/dev/char")) {
        return 0;
    }
    return syscall(SYS_faccessat, -100 /* AT_FDCWD */, path, mode);
}

ssize_t readlink(const char *restrict path, char *restrict buf, size_t size)
{
    static const char class[] = "../../../../class/egm";

    if (!strcmp(path, "/sys/dev/char/1:5/subsystem")) {
        size = size < sizeof(class) - 1 ? size : sizeof(class) - 1;
        memcpy(buf, class, size);
        return size;
    }
    return syscall(SYS_readlinkat, -100 /* AT_FDCWD */, path, buf, size);
}
