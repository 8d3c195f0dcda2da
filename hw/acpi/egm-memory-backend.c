/*
 * acpi-egm-memory: requirements for the memory backend of an EGM node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/acpi/egm-memory-backend.h"

bool acpi_egm_memory_check_backend(HostMemoryBackend *backend, Error **errp)
{
    Object *obj = OBJECT(backend);
    const char *id = object_get_canonical_path_component(obj);
    uint64_t offset;

    if (!id) {
        error_setg(errp, "the memory backend has been deleted");
        return false;
    }
    if (!object_dynamic_cast(obj, TYPE_MEMORY_BACKEND_FILE)) {
        error_setg(errp, "memory backend '%s' is a %s: use a %s on the EGM "
                   "device", id, object_get_typename(obj),
                   TYPE_MEMORY_BACKEND_FILE);
        return false;
    }
    if (!object_property_get_bool(obj, "share", &error_abort)) {
        error_setg(errp, "memory backend '%s' has share=off: use share=on, as "
                   "a GPU cannot reach a private copy of the region", id);
        return false;
    }
    /* rom=on implies readonly=on. */
    if (object_property_get_bool(obj, "readonly", &error_abort)) {
        error_setg(errp, "memory backend '%s' has readonly=on: use "
                   "readonly=off, as guest RAM must be writable", id);
        return false;
    }
    offset = object_property_get_uint(obj, "offset", &error_abort);
    if (offset) {
        error_setg(errp, "memory backend '%s' has offset=%" PRIu64 ": use "
                   "offset=0, as GPUs address the region from its start", id,
                   offset);
        return false;
    }
    return true;
}
