/*
 * A stand-in for sysfs and the ioctl of an EGM device, for VMs on any machine:
 * to a program that preloads this library, /dev/zero is an EGM device of 1 TiB.
 * The environment variable EGM_RETIRED names a file with its retired pages, one
 * "offset size" per line, which is read at each call. Without the file, the
 * ioctl fails; without the variable, the driver does not implement the ioctl.
 * With EGM_GUARD in the environment, the program is killed if it touches a page
 * that was reported to it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RETIRED_PAGES_LIST ('E' << 8 | 100)

/* Fills in as many pages as fit; returns the number of pages. */
static uint32_t read_pages(FILE *file, uint64_t *pages, uint32_t room)
{
    unsigned long long offset, size;
    uint32_t count = 0;

    while (fscanf(file, "%llx %llx", &offset, &size) == 2) {
        if (count < room) {
            pages[2 * count] = offset;
            pages[2 * count + 1] = size;
        }
        count++;
    }
    return count;
}

/* Find the addresses at which the device is mapped; 0 if it is not. */
static void find_mapping(unsigned long *base, unsigned long *top)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long low, high;
    char line[4096];

    *base = *top = 0;
    /* Earlier guards have split the mapping into several. */
    while (maps && fgets(line, sizeof(line), maps)) {
        if (sscanf(line, "%lx-%lx", &low, &high) == 2 &&
            strstr(line, " /dev/zero") && (!*base || low == *top)) {
            *base = *base ? *base : low;
            *top = high;
        }
    }
    if (maps) {
        fclose(maps);
    }
}

/* Make the pages inaccessible in the mapping of the device, if there is one. */
static void guard_pages(const uint64_t *pages, uint32_t count)
{
    unsigned long base, top;

    find_mapping(&base, &top);
    for (uint32_t i = 0; i < count; i++) {
        /* Firmware retires 64 KiB blocks, even if the driver reports less. */
        uint64_t first = pages[2 * i] & ~65535ull;
        uint64_t end = (pages[2 * i] + pages[2 * i + 1] + 65535) & ~65535ull;

        end = end < top - base ? end : top - base;
        if (end > first &&
            mprotect((void *)(base + first), end - first, PROT_NONE)) {
            perror("EGM_GUARD");        /* vm.max_map_count */
            abort();
        }
    }
}

static int retired_pages_list(uint32_t *list)
{
    uint32_t room = (list[0] - 8) / 16;
    const char *name = getenv("EGM_RETIRED");
    FILE *file = name ? fopen(name, "r") : NULL;
    uint32_t count;

    if (!file) {
        errno = name ? EIO : EINVAL;
        return -1;
    }
    count = read_pages(file, (uint64_t *)(list + 2), room);
    fclose(file);
    list[0] = 8 + 16 * count;
    list[1] = count <= room ? count : 0;
    if (getenv("EGM_GUARD")) {
        guard_pages((uint64_t *)(list + 2), list[1]);
    }
    return 0;
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

/* The region is larger than any VM of the tests. */
static int open_size(void)
{
    static const char size[] = "0x10000000000\n";
    int fd = syscall(SYS_memfd_create, "egm_size", 0);

    if (fd >= 0 && (write(fd, size, sizeof(size) - 1) < 0 ||
                    lseek(fd, 0, SEEK_SET) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if (flags & O_CREAT) {
        mode = va_arg(args, int);
    }
    va_end(args);
    if (!strcmp(path, "/sys/dev/char/1:5/egm_size")) {
        return open_size();
    }
    return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t readlink(const char *restrict path, char *restrict buf, size_t size)
{
    static const char class[] = "../../../../class/egm";

    if (!strcmp(path, "/sys/dev/char/1:5/subsystem")) {
        size = size < sizeof(class) - 1 ? size : sizeof(class) - 1;
        memcpy(buf, class, size);
        return size;
    }
    return syscall(SYS_readlinkat, AT_FDCWD, path, buf, size);
}
