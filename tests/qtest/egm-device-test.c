/*
 * memory-backend-file on what is, or should be, an EGM device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What needs the device itself is tested elsewhere.
 */

#include "qemu/osdep.h"
#include "libqtest.h"

/*
 * Start QEMU with 128 MiB of RAM in @mem_path, and more of @args. End it by
 * "quit" on its monitor, if it gets that far.
 * Returns the exit status; *text is what it wrote to stderr.
 */
static int run(const char *mem_path, const char *args, char **text)
{
    g_autofree char *line = g_strdup_printf(
        "echo quit | exec %s -machine virt -accel qtest -display none"
        " -nodefaults -monitor stdio -m 128M -numa node,nodeid=0,memdev=m0"
        " -object memory-backend-file,id=m0,mem-path=%s,size=128M,share=on %s",
        g_getenv("QTEST_QEMU_BINARY"), mem_path, args);
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    g_autofree char *out = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out,
                               text, &status, NULL));
    g_test_message("%s", *text);
    g_assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The driver is not loaded: nothing appears in its device's place. */
static void test_missing(void)
{
    g_autofree char *path = g_strdup_printf("/dev/egm-test-%d", getpid());
    g_autofree char *indirect = g_strconcat("/dev/..", path, NULL);
    g_autofree char *text = NULL;
    int status = run(indirect, "", &text);

    g_assert_nonnull(strstr(text, "there is no such device"));
    g_assert_nonnull(strstr(text, "nvgrace-egm"));
    g_assert_cmpint(status, ==, 1);
    g_assert_cmpint(access(path, F_OK), <, 0);
}

/* It may be RAM, but not EGM. */
static void test_other_device(void)
{
    g_autofree char *text = NULL, *with_object = NULL;

    g_assert_cmpint(run("/dev/zero", "", &text), ==, 0);
    g_assert_cmpstr(text, ==, "");

    g_assert_cmpint(run("/dev/zero", "-device pci-testdev,id=dev0,addr=1 "
                        "-object acpi-egm-memory,id=egm0,pci-dev=dev0,node=0",
                        &with_object), ==, 0);
    g_assert_nonnull(strstr(with_object, "warning: memory backend 'm0': "
                            "mem-path=/dev/zero is not an EGM device; no GPU "
                            "can reach it\n"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("egm-device/missing", test_missing);
    qtest_add_func("egm-device/other-device", test_other_device);
    return g_test_run();
}
