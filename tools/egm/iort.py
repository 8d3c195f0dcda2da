# SPDX-License-Identifier: GPL-2.0-or-later
"""Read IORT, which says what SMMU a PCI function is behind (Arm DEN 0049, IO Remapping
Table)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

_ROOT_COMPLEX, _SMMUV3 = 2, 4
_ATS = 1                # of the ATS attribute of a root complex: supported
_NODES = 36             # where their number and their offset are
_NODE, _MAPPING = 16, 20    # lengths: of what all nodes have, of an ID mapping
# QEMU writes fewer: one for each SMMU, and five more; one mapping for each SMMU.
_MOST = 4096


@dataclasses.dataclass
class Mapping:
    """Requester IDs of a root complex, and the node that they go to."""
    first: int          # bus << 8 | device << 3 | function
    last: int
    target: int         # offset of the node


@dataclasses.dataclass
class RootComplex:
    """A root complex node."""
    segment: int
    ats: bool
    mappings: list[Mapping]


class Iort:
    """The content of an IORT; empty if there is none. damage: why not all of it could be
    read"""

    def __init__(self, table: bytes | None):
        self.damage = ''
        self.roots: list[RootComplex] = []
        self.smmus: set[int] = set()        # offsets of the SMMUv3 nodes
        try:
            for at, kind, node in _split(table or b''):
                if kind == _SMMUV3:
                    self.smmus.add(at)
                elif kind == _ROOT_COMPLEX:
                    ats, segment = struct.unpack_from('<II', node, 24)
                    self.roots.append(RootComplex(segment, bool(ats & _ATS),
                                                  list(_mappings(node))))
        except ValueError as error:
            self.damage = str(error)
        except struct.error:
            self.damage = 'it is cut off'

    def root(self, segment: int) -> RootComplex | None:
        """The root complex of a PCI segment; Linux takes the first one."""
        return next((r for r in self.roots if r.segment == segment), None)

    def has_smmu(self, segment: int, requester: int) -> bool:
        """Whether a requester ID of a segment is behind an SMMUv3."""
        root = self.root(segment)
        return root is not None and any(
            m.first <= requester <= m.last and m.target in self.smmus
            for m in root.mappings)

    def has_ats(self, segment: int) -> bool:
        """Whether the root complex of a segment supports ATS."""
        root = self.root(segment)
        return root is not None and root.ats


def _split(table: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Offset, kind and bytes of each node."""
    if not table:
        return
    count, at = struct.unpack_from('<II', table, _NODES)
    if count > _MOST:
        raise ValueError(f'it has more than {_MOST} nodes')
    for index in range(count):
        kind, length = struct.unpack_from('<BH', table, at)
        if length < _NODE or at + length > len(table):
            raise ValueError(f'node #{index}, at offset {at:#x}, has a wrong length')
        yield at, kind, table[at:at + length]
        at += length


def _mappings(node: bytes) -> Iterator[Mapping]:
    """The ID mappings of a node."""
    count, at = struct.unpack_from('<II', node, 8)
    if count > _MOST:
        raise ValueError(f'a node has more than {_MOST} ID mappings')
    for place in range(at, at + count * _MAPPING, _MAPPING):
        first, more, _, target = struct.unpack_from('<IIII', node, place)
        yield Mapping(first, first + more, target)
