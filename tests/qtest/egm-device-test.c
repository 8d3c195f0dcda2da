/*
 * memory-backend-file: names of files that are not EGM devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "libqtest.h"

static QDict *add_backend(QTestState *qts, const char *path)
{
    return qtest_qmp(qts, "{'execute': 'object-add', 'arguments': {'id': 'm0',"
                     " 'qom-type': 'memory-backend-file', 'size': 1048576,"
                     " 'mem-path': %s, 'share': true}}", path);
}

/* The driver is not loaded: QEMU does not create a file in its place. */
static void test_missing(void)
{
    g_autofree char *path = g_strdup_printf("/dev/egm%d", getpid());
    QTestState *qts = qtest_init("-machine none");
    QDict *response = add_backend(qts, path);
    const char *desc = qdict_get_str(qdict_get_qdict(response, "error"),
                                     "desc");

    g_test_message("%s", desc);
    g_assert_nonnull(strstr(desc, "the host does not have this EGM device"));
    g_assert_cmpint(access(path, F_OK), <, 0);
    qobject_unref(response);
    qtest_quit(qts);
}

/*
 * Names that are only similar are names of files. Their directories do not
 * exist, so that the error shows it, and no file is created in /dev.
 */
static void test_other_names(void)
{
    static const char *const formats[] = {
        "/dev/egm%dx/m0", "/dev/egm%d/m0", "/dev/egm-%d/m0",
        "/dev/guestram%d/m0",
    };
    QTestState *qts = qtest_init("-machine none");

    for (int i = 0; i < ARRAY_SIZE(formats); i++) {
        g_autofree char *path = g_strdup_printf(formats[i], getpid());
        QDict *response = add_backend(qts, path);
        const char *desc = qdict_get_str(qdict_get_qdict(response, "error"),
                                         "desc");

        g_test_message("%s", desc);
        g_assert_null(strstr(desc, "EGM"));
        g_assert_nonnull(strstr(desc, g_strerror(ENOENT)));
        qobject_unref(response);
    }
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("egm-device/missing", test_missing);
    qtest_add_func("egm-device/other-names", test_other_names);
    return g_test_run();
}
