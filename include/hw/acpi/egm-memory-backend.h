/*
 * acpi-egm-memory: what a memory backend of Extended GPU Memory has to be
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ACPI_EGM_MEMORY_BACKEND_H
#define HW_ACPI_EGM_MEMORY_BACKEND_H

#include "system/hostmem.h"

/**
 * acpi_egm_memory_check_backend:
 * @backend: a memory backend; its memory need not be allocated yet, as only its
 *     type and properties are looked at
 * @errp: set to the first property that breaks the linear mapping, with the id
 *     of the backend, the value, and the value that is right
 *
 * A GPU addresses Extended GPU Memory by the offset into the region: byte n of
 * guest RAM has to be byte n of the file. So the backend has to be a
 * memory-backend-file with share=on, readonly=off, rom=off and offset=0.
 *
 * Returns: true if it is.
 */
bool acpi_egm_memory_check_backend(HostMemoryBackend *backend, Error **errp);

#endif
