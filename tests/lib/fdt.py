# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM in a flattened device tree."""

import struct

import libfdt


def memory(blob):
    """The RAM that the device tree reports: sorted (base, size, NUMA node)."""
    tree = libfdt.FdtRo(blob)
    result = []
    node = tree.first_subnode(0)
    while node >= 0:
        name = tree.get_name(node)
        if name.startswith('memory@'):
            base, size = struct.unpack('>2Q', tree.getprop(node, 'reg'))
            assert name == f'memory@{base:x}', name
            numa = tree.getprop(node, 'numa-node-id', [libfdt.NOTFOUND])
            result.append((base, size, None if numa == -libfdt.NOTFOUND
                           else numa.as_uint32()))
        node = tree.next_subnode(node, [libfdt.NOTFOUND])
    return sorted(result)
