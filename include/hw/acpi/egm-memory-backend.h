/*
 * acpi-egm-memory: requirements for the memory backend of an EGM node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ACPI_EGM_MEMORY_BACKEND_H
#define HW_ACPI_EGM_MEMORY_BACKEND_H

#include "system/hostmem.h"

/**
 * acpi_egm_memory_check_backend:
 * @backend: a memory backend; its memory need not be allocated yet, because
 *     only its type and properties are checked
 * @errp: set to the first property that breaks the linear mapping, with the id
 *     of the backend, the value, and the correct value
 *
 * A GPU addresses Extended GPU Memory by the offset into the region: byte n of
 * guest RAM has to be byte n of the file. So the backend has to be a
 * memory-backend-file with share=on, readonly=off, rom=off and offset=0.
 *
 * Returns: true if it is.
 */
bool acpi_egm_memory_check_backend(HostMemoryBackend *backend, Error **errp);

#endif
