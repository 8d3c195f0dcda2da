/*
 * viregmtest.c: finding and checking regions of Extended GPU Memory
 *
 * This library is free software; you can redistribute it and/or
 * modify it under the terms of the GNU Lesser General Public
 * License as published by the Free Software Foundation; either
 * version 2.1 of the License, or (at your option) any later version.
 *
 * This library is distributed in the hope that it will be useful,
 * but WITHOUT ANY WARRANTY; without even the implied warranty of
 * MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
 * Lesser General Public License for more details.
 *
 * You should have received a copy of the GNU Lesser General Public
 * License along with this library.  If not, see
 * <http://www.gnu.org/licenses/>.
 */

#include <config.h>

#include "testutils.h"

#ifdef __linux__

# include "viregm.h"
# include "virerror.h"
# include "virfile.h"
# include "virfilewrapper.h"

# define VIR_FROM_THIS VIR_FROM_NONE

static char *root;

struct testData {
    unsigned int domain; /* of the GPU 0 of the domain's bus 1 */
    const char *path;
    unsigned long long size;
    const char *error; /* part of the message; NULL for success */
};


static int
testOutcome(const char *error,
            bool failed)
{
    g_autofree char *message = g_strdup(virGetLastErrorMessage());

    virResetLastError();

    if (!error) {
        if (failed) {
            fprintf(stderr, "unexpected error: %s\n", message);
            return -1;
        }
        return 0;
    }

    if (!failed || !strstr(message, error)) {
        fprintf(stderr, "expected error: %s, got: %s\n", error,
                failed ? message : "none");
        return -1;
    }

    return 0;
}


static int
testFind(const void *opaque)
{
    const struct testData *data = opaque;
    virPCIDeviceAddress gpu = { .domain = data->domain, .bus = 1 };
    g_autofree char *path = NULL;
    unsigned long long size;

    if (testOutcome(data->error, virEGMFindRegion(&gpu, &path, &size) < 0) < 0)
        return -1;

    if (!data->error && (STRNEQ_NULLABLE(path, data->path) || size != data->size)) {
        fprintf(stderr, "expected %s, %llu bytes; got %s, %llu\n",
                NULLSTR(data->path), data->size, NULLSTR(path), size);
        return -1;
    }

    return 0;
}


static int
testCheck(const void *opaque)
{
    const struct testData *data = opaque;

    return testOutcome(data->error, virEGMCheckDevice(data->path) < 0);
}


static int
testNoClass(const void *opaque)
{
    g_autofree char *none = g_strdup_printf("%s/none", root);
    int ret;

    virFileWrapperClearPrefixes();
    virFileWrapperAddPrefix("/sys/class/egm", none);
    ret = testFind(opaque);
    virFileWrapperClearPrefixes();
    virFileWrapperAddPrefix("/sys/class/egm", root);

    return ret;
}


static void
addFile(const char *region,
        const char *name,
        const char *text)
{
    g_autofree char *dir = g_strdup_printf("%s/%s", root, region);
    g_autofree char *path = g_strdup_printf("%s/%s", dir, name);

    if (g_mkdir_with_parents(dir, 0755) < 0 ||
        virFileWriteStr(path, text, 0644) < 0)
        abort();
}


static int
mymain(void)
{
    g_autofree char *file = NULL;
    int ret = 0;

    root = g_strdup_printf("%s/viregmtest.XXXXXX", abs_builddir);
    if (!g_mkdtemp(root))
        return EXIT_FAILURE;

    /* GPUs as links */
    addFile("egm4", "0009:01:00.0", "");
    addFile("egm4", "000a:01:00.0", "");
    addFile("egm4", "dev", "240:0\n");
    addFile("egm4", "egm_size", "0x40000000\n");
    /* GPUs as lines of a file */
    addFile("egm5", "gpu_devices", "0019:01:00.0\n001a:01:00.0\n");
    addFile("egm5", "egm_size", "1073741824\n");
    /* A GPU that is of two regions */
    addFile("egm6", "0029:01:00.0", "");
    addFile("egm7", "0029:01:00.0", "");
    /* A driver that reports nothing else, and one with a mistake */
    addFile("egm8", "0039:01:00.0", "");
    addFile("egm9", "0049:01:00.0", "");
    addFile("egm9", "egm_size", "large\n");
    addFile("files", "file", "");

    virFileWrapperAddPrefix("/sys/class/egm", root);

# define FIND(name, ...) \
    do { \
        const struct testData data = { __VA_ARGS__ }; \
        if (virTestRun("Find " name, testFind, &data) < 0) \
            ret = -1; \
    } while (0)

# define CHECK(name, ...) \
    do { \
        const struct testData data = { __VA_ARGS__ }; \
        if (virTestRun("Check " name, testCheck, &data) < 0) \
            ret = -1; \
    } while (0)

    FIND("by link", .domain = 0x9, .path = "/dev/egm4", .size = 0x40000000);
    FIND("by second link", .domain = 0xa, .path = "/dev/egm4", .size = 0x40000000);
    FIND("by file", .domain = 0x19, .path = "/dev/egm5", .size = 1073741824);
    FIND("by second line", .domain = 0x1a, .path = "/dev/egm5", .size = 1073741824);
    FIND("no region", .domain = 0x1);
    FIND("two regions", .domain = 0x29, .error = "GPU 0029:01:00.0 has two regions");
    FIND("no size", .domain = 0x39, .path = "/dev/egm8");
    FIND("bad size", .domain = 0x49, .path = "/dev/egm9");

    CHECK("device", .path = "/dev/null");
    file = g_strdup_printf("%s/files/file", root);
    CHECK("file", .path = file);
    CHECK("no region", .path = "/dev/egm9",
          .error = "this host has no region of Extended GPU Memory '/dev/egm9'");
    CHECK("directory", .path = root,
          .error = "it is neither a character device nor a regular file");

    if (virTestRun("Find without class", testNoClass,
                   &(struct testData) { .domain = 0x9 }) < 0)
        ret = -1;

    virFileWrapperClearPrefixes();
    if (!g_getenv("LIBVIRT_SKIP_CLEANUP"))
        virFileDeleteTree(root);
    g_free(root);

    return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

VIR_TEST_MAIN(mymain)

#else /* !__linux__ */

int
main(void)
{
    return EXIT_AM_SKIP;
}

#endif /* !__linux__ */
