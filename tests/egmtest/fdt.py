# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM in a flattened device tree (devicetree specification, chapter 5)."""

import struct


def _nodes(blob):
    """(path, {property: bytes}) of each node."""
    _, _, at, strings = struct.unpack_from('>4I', blob)
    path, props = [], []
    while True:
        token, = struct.unpack_from('>I', blob, at)
        at += 4
        if token == 1:                                  # begin node
            end = blob.index(b'\0', at)
            path.append(blob[at:end].decode())
            props.append({})
            at = end + 4 & ~3
        elif token == 2:                                # end node
            yield '/'.join(path), props.pop()
            path.pop()
        elif token == 3:                                # property
            length, name = struct.unpack_from('>2I', blob, at)
            end = blob.index(b'\0', strings + name)
            props[-1][blob[strings + name:end].decode()] = \
                blob[at + 8:at + 8 + length]
            at = at + 8 + length + 3 & ~3
        elif token == 9:                                # end
            return


def memory(blob):
    """The RAM that a guest is told about: sorted (base, size, NUMA node)."""
    result = []
    for path, props in _nodes(blob):
        if path.startswith('/memory@'):
            base, size = struct.unpack('>2Q', props['reg'])
            node = props.get('numa-node-id')
            assert path == f'/memory@{base:x}', path
            result.append((base, size,
                           int.from_bytes(node, 'big') if node else None))
    return sorted(result)
