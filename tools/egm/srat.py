# SPDX-License-Identifier: GPL-2.0-or-later
"""Read SRAT, the table of proximity domains (ACPI 6.5, 5.2.16)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator

_MEMORY, _GICC, _INITIATOR = 1, 3, 5
_ENABLED, _HOT_PLUGGABLE = 1, 2
# Of each kind that is read, the least length
_LENGTHS = {_MEMORY: 40, _GICC: 18, _INITIATOR: 32}
_ENTRIES = 48           # where they begin
# QEMU writes fewer: one for each CPU, range of memory and initiator.
_MOST = 4096


@dataclasses.dataclass
class Affinity:
    """A Memory Affinity Structure (5.2.16.2)."""
    index: int          # its place among the entries of SRAT
    base: int
    size: int
    pxm: int
    enabled: bool
    hot_pluggable: bool = False     # RAM can be plugged there; there may be none yet

    @property
    def end(self) -> int:
        """The address after the last one."""
        return self.base + self.size


@dataclasses.dataclass
class Initiator:
    """A Generic Initiator Affinity Structure (5.2.16.6)."""
    index: int
    pxm: int
    enabled: bool
    address: str = ''   # of a PCI function, 0000:21:00.0


@dataclasses.dataclass
class Srat:
    """The content of an SRAT."""
    affinities: list[Affinity] = dataclasses.field(default_factory=list)
    initiators: list[Initiator] = dataclasses.field(default_factory=list)
    processors: list[int] = dataclasses.field(default_factory=list)   # their domains
    domains: set[int] = dataclasses.field(default_factory=set)  # those with a node
    damage: str = ''    # the reason why a part could not be read


def _read_initiator(index: int, entry: bytes) -> Initiator:
    """The address of the PCI function in an initiator; empty: it names no PCI function."""
    kind, pxm, handle, flags = struct.unpack_from('<BI16sI', entry, 3)
    address = ''
    if kind == 1:       # PCI
        segment, bus, devfn = struct.unpack_from('<HBB', handle)
        address = f'{segment:04x}:{bus:02x}:{devfn >> 3:02x}.{devfn & 7}'
    return Initiator(index, pxm, bool(flags & _ENABLED), address)


def _split(srat: Srat, table: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Index, kind, and bytes of each entry; ends at one that is damaged."""
    at, index = _ENTRIES, 0
    while at < len(table):
        kind, length = table[at], table[at + 1] if at + 1 < len(table) else 0
        if length < 2 or at + length > len(table) or length < _LENGTHS.get(kind, 2):
            srat.damage = f'entry #{index}, at offset {at:#x}, has a wrong length'
            return
        if index == _MOST:
            srat.damage = f'there are more than {_MOST} entries'
            return
        yield index, kind, table[at:at + length]
        at, index = at + length, index + 1


def read(table: bytes | None) -> Srat:
    """The content of an SRAT; nothing if there is none."""
    srat = Srat()
    for index, kind, entry in _split(srat, table or b''):
        pxm, enabled = None, False
        if kind == _MEMORY:
            pxm, base, size, flags = struct.unpack_from('<I2xQQ4xI', entry, 2)
            enabled = bool(flags & _ENABLED)
            srat.affinities.append(Affinity(index, base, size, pxm, enabled,
                                            bool(flags & _HOT_PLUGGABLE)))
        elif kind == _INITIATOR:
            srat.initiators.append(_read_initiator(index, entry))
            pxm, enabled = srat.initiators[-1].pxm, srat.initiators[-1].enabled
        elif kind == _GICC:
            pxm, flags = struct.unpack_from('<I4xI', entry, 2)
            enabled = bool(flags & _ENABLED)
            if enabled and pxm not in srat.processors:
                srat.processors.append(pxm)
        if enabled:
            srat.domains.add(pxm)
    return srat
