/*
 * viregm.c: regions of Extended GPU Memory of the host
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

#include <sys/stat.h>
#ifdef __linux__
# include <sys/sysmacros.h>
#endif

#include "viregm.h"
#include "virerror.h"
#include "virfile.h"
#include "virlog.h"
#include "virstring.h"

#define VIR_FROM_THIS VIR_FROM_NONE

VIR_LOG_INIT("util.egm");

/* The driver has a directory for each region here, with the name of its device
 * node in /dev. It contains the region's size, and the addresses of the GPUs of
 * the region's socket: as links, or as lines of a file. */
#define SYSFS_EGM "/sys/class/egm"


/* Whether @gpu belongs to the socket of @region. Absent if none of its GPUs is
 * known. */
static virTristateBool
virEGMHasGPU(const char *region,
             const virPCIDeviceAddress *gpu)
{
    g_autofree char *name = virPCIDeviceAddressAsString(gpu);
    g_autofree char *device = g_strdup_printf("/sys/bus/pci/devices/%s", name);
    g_autofree char *path = g_strdup_printf(SYSFS_EGM "/%s", region);
    g_autofree char *list = g_strdup_printf(SYSFS_EGM "/%s/gpu_devices", region);
    g_autofree char *text = NULL;
    g_autofree virPCIDeviceAddress *pf = NULL;
    g_autofree char *pfName = NULL;
    g_auto(GStrv) names = NULL;
    bool known = false;
    size_t i;

    if (virFileExists(list) &&
        virFileReadAllQuiet(list, 64 * 1024, &text) >= 0) {
        names = g_strsplit_set(text, " \n", 0);
    } else {
        g_autoptr(DIR) dir = NULL;
        struct dirent *entry;
        size_t n = 0;

        if (virDirOpenQuiet(&dir, path) < 0)
            return VIR_TRISTATE_BOOL_ABSENT;

        names = g_new0(char *, 1);
        while (virDirRead(dir, &entry, NULL) > 0) {
            names = g_renew(char *, names, n + 2);
            names[n++] = g_strdup(entry->d_name);
            names[n] = NULL;
        }
    }

    /* The list has the physical function of a virtual function. */
    if (virFileExists(device) &&
        virPCIGetPhysicalFunction(device, &pf) == 0 && pf)
        pfName = virPCIDeviceAddressAsString(pf);

    for (i = 0; names[i]; i++) {
        if (STREQ(names[i], name) || STREQ_NULLABLE(names[i], pfName))
            return VIR_TRISTATE_BOOL_YES;

        if (strchr(names[i], ':'))
            known = true;
    }

    return known ? VIR_TRISTATE_BOOL_NO : VIR_TRISTATE_BOOL_ABSENT;
}


/**
 * virEGMFindDevice:
 * @gpu: address of a GPU of the host
 *
 * Finds the region of Extended GPU Memory of the socket of @gpu.
 *
 * Returns the path of the region's device node; NULL on error (with an error
 *         reported) if no region, or more than one, has that GPU.
 */
char *
virEGMFindDevice(const virPCIDeviceAddress *gpu)
{
    g_autofree char *name = virPCIDeviceAddressAsString(gpu);
    g_autofree char *ret = NULL;
    g_autoptr(DIR) dir = NULL;
    struct dirent *entry;
    int rc;

    if (virDirOpenIfExists(&dir, SYSFS_EGM) < 0)
        return NULL;

    if (!dir) {
        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("cannot find the Extended GPU Memory of GPU %1$s: this host has no %2$s"),
                       name, SYSFS_EGM);
        return NULL;
    }

    while ((rc = virDirRead(dir, &entry, SYSFS_EGM)) > 0) {
        if (virEGMHasGPU(entry->d_name, gpu) != VIR_TRISTATE_BOOL_YES)
            continue;

        if (ret) {
            virReportError(VIR_ERR_INTERNAL_ERROR,
                           _("GPU %1$s has two regions of Extended GPU Memory: %2$s and /dev/%3$s"),
                           name, ret, entry->d_name);
            return NULL;
        }

        ret = g_strdup_printf("/dev/%s", entry->d_name);
    }

    if (rc < 0)
        return NULL;

    if (!ret) {
        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("no region of Extended GPU Memory in %1$s has the GPU %2$s"),
                       SYSFS_EGM, name);
        return NULL;
    }

    VIR_DEBUG("GPU %s has %s", name, ret);
    return g_steal_pointer(&ret);
}


/* The name of the region whose device node is @path, with number @rdev. In a
 * container, the node can have any name. */
static char *
virEGMGetRegion(const char *path,
                dev_t rdev G_GNUC_UNUSED)
{
#ifdef __linux__
    g_autofree char *sysfs = g_strdup_printf("/sys/dev/char/%u:%u",
                                             major(rdev), minor(rdev));
    g_autofree char *device = NULL;

    if (virFileResolveLink(sysfs, &device) == 0)
        return g_path_get_basename(device);
#endif /* __linux__ */

    return g_path_get_basename(path);
}


/**
 * virEGMCheckDevice:
 * @path: device node of a region of Extended GPU Memory
 * @gpu: address of a GPU of the host that uses it
 * @size: size of the guest's memory in bytes
 *
 * Checks that the region exists, belongs to the socket of @gpu, and has @size
 * bytes.
 * Facts that the host does not report about the region are left to the
 * hypervisor to check. Regular files, and devices of another kind, are accepted
 * with a warning in the log: domains can be tested with them, although no GPU
 * reaches that memory.
 *
 * Returns 0 on success, -1 on error (with an error reported).
 */
int
virEGMCheckDevice(const char *path,
                  const virPCIDeviceAddress *gpu,
                  unsigned long long size)
{
    g_autofree char *region = NULL;
    g_autofree char *dir = NULL;
    g_autofree char *file = NULL;
    g_autofree char *text = NULL;
    unsigned long long have;
    struct stat sb;

    if (stat(path, &sb) < 0) {
        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("this host has no region of Extended GPU Memory '%1$s'"),
                       path);
        return -1;
    }

    if (!S_ISCHR(sb.st_mode) && !S_ISREG(sb.st_mode)) {
        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("'%1$s' can't be Extended GPU Memory: it is neither a character device nor a regular file"),
                       path);
        return -1;
    }

    if (S_ISCHR(sb.st_mode)) {
        region = virEGMGetRegion(path, sb.st_rdev);
        dir = g_strdup_printf(SYSFS_EGM "/%s", region);
    }

    if (!dir || !virFileExists(dir)) {
        VIR_WARN("'%s' is not Extended GPU Memory, no GPU reaches it", path);
        return 0;
    }

    file = g_strdup_printf("%s/egm_size", dir);

    if (virEGMHasGPU(region, gpu) == VIR_TRISTATE_BOOL_NO) {
        g_autofree char *name = virPCIDeviceAddressAsString(gpu);

        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("Extended GPU Memory '%1$s' is not of the socket of GPU %2$s"),
                       path, name);
        return -1;
    }

    if (!virFileExists(file) ||
        virFileReadAllQuiet(file, 64, &text) < 0)
        return 0;

    virStringTrimOptionalNewline(text);
    if (virStrToLong_ullp(text, NULL, 0, &have) < 0) {
        VIR_WARN("'%s' is not a size: '%s'", file, text);
        return 0;
    }

    if (size > have) {
        virReportError(VIR_ERR_OPERATION_UNSUPPORTED,
                       _("Extended GPU Memory '%1$s' has %2$llu bytes, guest memory of %3$llu bytes does not fit"),
                       path, have, size);
        return -1;
    }

    return 0;
}
