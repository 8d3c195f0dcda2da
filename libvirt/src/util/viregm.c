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


/* Whether @gpu belongs to the socket of @region */
static bool
virEGMHasGPU(const char *region,
             const virPCIDeviceAddress *gpu)
{
    g_autofree char *name = virPCIDeviceAddressAsString(gpu);
    g_autofree char *device = g_strdup_printf("/sys/bus/pci/devices/%s", name);
    g_autofree char *link = NULL;
    g_autofree char *list = g_strdup_printf(SYSFS_EGM "/%s/gpu_devices", region);
    g_autofree char *text = NULL;
    g_autofree virPCIDeviceAddress *pf = NULL;
    g_auto(GStrv) names = NULL;

    /* The list has the physical function of a virtual function. */
    if (virFileExists(device) &&
        virPCIGetPhysicalFunction(device, &pf) == 0 && pf) {
        g_free(name);
        name = virPCIDeviceAddressAsString(pf);
    }

    link = g_strdup_printf(SYSFS_EGM "/%s/%s", region, name);
    if (virFileExists(link))
        return true;

    if (!virFileExists(list) ||
        virFileReadAllQuiet(list, 64 * 1024, &text) < 0)
        return false;

    names = g_strsplit_set(text, " \n", 0);
    return g_strv_contains((const char *const *) names, name);
}


/* Size of a region in bytes; 0 if it is unknown */
static unsigned long long
virEGMGetSize(const char *region)
{
    g_autofree char *file = g_strdup_printf(SYSFS_EGM "/%s/egm_size", region);
    g_autofree char *text = NULL;
    unsigned long long size;

    if (!virFileExists(file) ||
        virFileReadAllQuiet(file, 64, &text) < 0)
        return 0;

    virStringTrimOptionalNewline(text);
    if (virStrToLong_ullp(text, NULL, 0, &size) < 0) {
        VIR_WARN("'%s' is not a size: '%s'", file, text);
        return 0;
    }

    return size;
}


/**
 * virEGMFindRegion:
 * @gpu: address of a PCI device of the host
 * @path: the region's device node; NULL if the device has no region
 * @size: size of the region in bytes, 0 if it is unknown
 *
 * Finds the region of Extended GPU Memory of the socket of @gpu. The driver can
 * make it when the GPU is bound to VFIO.
 *
 * Returns 0 on success, also if there is no region; -1 on error (with an error
 *         reported), such as two regions that have the GPU.
 */
int
virEGMFindRegion(const virPCIDeviceAddress *gpu,
                 char **path,
                 unsigned long long *size)
{
    g_autofree char *found = NULL;
    g_autoptr(DIR) dir = NULL;
    struct dirent *entry;
    int rc = 0;

    *path = NULL;
    *size = 0;

    if (virDirOpenIfExists(&dir, SYSFS_EGM) < 0)
        return -1;

    while (dir && (rc = virDirRead(dir, &entry, SYSFS_EGM)) > 0) {
        if (!virEGMHasGPU(entry->d_name, gpu))
            continue;

        if (found) {
            g_autofree char *name = virPCIDeviceAddressAsString(gpu);

            virReportError(VIR_ERR_INTERNAL_ERROR,
                           _("GPU %1$s has two regions of Extended GPU Memory: %2$s and /dev/%3$s"),
                           name, found, entry->d_name);
            return -1;
        }

        found = g_strdup_printf("/dev/%s", entry->d_name);
        *size = virEGMGetSize(entry->d_name);
    }

    if (rc < 0)
        return -1;

    *path = g_steal_pointer(&found);
    return 0;
}


/**
 * virEGMCheckDevice:
 * @path: what a domain uses as a region of Extended GPU Memory
 *
 * Checks that @path is something that QEMU does not take for something else: it
 * would make a file of its own in a directory, and a new file of a path that
 * doesn't exist. A regular file is accepted, as domains can be tested with it. QEMU
 * checks the rest.
 *
 * Returns 0 on success, -1 on error (with an error reported).
 */
int
virEGMCheckDevice(const char *path)
{
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

    return 0;
}
