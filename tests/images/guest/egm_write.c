/*
 * egm_write DEVICE SIZE OFFSET...: map SIZE bytes of an EGM device, as QEMU does,
 * and fill the page at each offset with the pattern of egm_probe.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    size_t size, page = sysconf(_SC_PAGESIZE);
    char *memory;
    int fd;

    if (argc < 4) {
        errx(2, "usage: egm_write DEVICE SIZE OFFSET...");
    }
    fd = open(argv[1], O_RDWR);
    if (fd < 0) {
        err(1, "open %s", argv[1]);
    }
    size = strtoull(argv[2], NULL, 0);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        err(1, "mmap %s", argv[1]);
    }
    for (int i = 3; i < argc; i++) {
        uint64_t *word = (void *)(memory + strtoull(argv[i], NULL, 0));

        for (size_t k = 0; k < page / sizeof(*word); k++) {
            if (word[k]) {
                errx(1, "%s: %" PRIx64 ", not cleared", argv[i], word[k]);
            }
            word[k] = 0x45474d2070616765ULL + k;
        }
        printf("written %s\n", argv[i]);
    }
    return 0;
}
