# SPDX-License-Identifier: GPL-2.0-or-later
"""Read SRAT, the table of proximity domains (ACPI 6.5, 5.2.16)."""

import dataclasses
import struct

_MEMORY, _GICC, _INITIATOR = 1, 3, 5
_ENABLED, _HOT_PLUGGABLE = 1, 2


@dataclasses.dataclass
class Affinity:
    """A Memory Affinity Structure (5.2.16.2)."""
    index: int          # its place among the entries of SRAT
    base: int
    size: int
    pxm: int
    enabled: bool
    hot_pluggable: bool = False     # where RAM can come, not where it is

    @property
    def end(self):
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
    """What an SRAT says."""
    affinities: list
    initiators: list
    domains: set        # those that get a node


def _initiator(index, entry):
    kind, pxm, handle, flags = struct.unpack_from('<BI16sI', entry, 3)
    address = ''
    if kind == 1:       # PCI
        segment, bus, devfn = struct.unpack_from('<HBB', handle)
        address = f'{segment:04x}:{bus:02x}:{devfn >> 3:02x}.{devfn & 7}'
    return Initiator(index, pxm, bool(flags & _ENABLED), address)


def _entries(table):
    """(kind, bytes) of each whole entry."""
    at = 48
    while at + 2 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 2 or at + length > len(table):
            return
        yield kind, table[at:at + length]
        at += length


def read(table):
    """The SRAT; an empty one of None."""
    srat = Srat([], [], set())
    for index, (kind, entry) in enumerate(_entries(table or b'')):
        pxm, enabled = None, False
        if kind == _MEMORY and len(entry) >= 40:
            pxm, base, size, flags = struct.unpack_from('<I2xQQ4xI', entry, 2)
            enabled = bool(flags & _ENABLED)
            srat.affinities.append(Affinity(index, base, size, pxm, enabled,
                                            bool(flags & _HOT_PLUGGABLE)))
        elif kind == _INITIATOR and len(entry) >= 32:
            srat.initiators.append(_initiator(index, entry))
            pxm, enabled = srat.initiators[-1].pxm, srat.initiators[-1].enabled
        elif kind == _GICC and len(entry) >= 18:
            pxm, flags = struct.unpack_from('<I4xI', entry, 2)
            enabled = bool(flags & _ENABLED)
        if enabled:
            srat.domains.add(pxm)
    return srat
