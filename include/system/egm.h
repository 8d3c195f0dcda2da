/*
 * Extended GPU Memory (EGM): the host side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * On NVIDIA Grace hosts the firmware withholds part of a socket's DRAM from the
 * host kernel. A character device hands it out, to be used as a VM's RAM.
 * Everything that QEMU knows about that device is behind this interface.
 */

#ifndef SYSTEM_EGM_H
#define SYSTEM_EGM_H

#include "system/hostmem.h"

/**
 * egm_backend_check:
 * @backend: the memory backend of a guest NUMA node, already mapped
 * @errp: set when a GPU could not address the node's RAM through @backend
 *
 * A GPU addresses EGM by the offset into the host's region. So byte n of
 * @backend has to be byte n of the region, shared and writable.
 *
 * A backend that obeys this rule but is not an EGM device at all is good enough
 * for tests: that gives a warning.
 *
 * Returns: true when guest RAM in @backend may be described as EGM.
 */
bool egm_backend_check(HostMemoryBackend *backend, Error **errp);

#endif
