# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether SMBIOS says that this is a virtual machine (DMTF DSP0134)."""

from __future__ import annotations

import struct
from collections.abc import Callable

_ANCHOR = b'_SM3_'
# Type 0, BIOS Information (7.1): Characteristics Extension Byte 2, and its bit
_BIOS, _EXTENSION, _VIRTUAL = 0, 0x13, 1 << 4
_END = 127
_LARGEST = 1 << 20
_MOST = 16              # entry points; a guest could have any number


def find_virtual(structures: bytes) -> bool | None:
    """Whether the first structure of type 0 has the bit; None: there is none."""
    at = 0
    while at + 4 <= len(structures):
        kind, length = structures[at], structures[at + 1]
        if length < 4 or kind == _END:
            return None
        if kind == _BIOS:
            return length > _EXTENSION and at + _EXTENSION < len(structures) and \
                bool(structures[at + _EXTENSION] & _VIRTUAL)
        # Strings follow, up to two bytes of 0.
        end = structures.find(b'\0\0', at + length)
        if end < 0:
            return None
        at = end + 2
    return None


def find_in_memory(memory: bytes, read_memory: Callable[[int, int], bytes]) -> bool | None:
    """The same of a VM; None: its SMBIOS is not found.

    memory: a piece of guest memory with the 64-bit entry point (5.2.2)
    read_memory(address, length) gives guest memory; ValueError: there is none
    """
    count, at = 0, memory.find(_ANCHOR)
    while at >= 0 and count < _MOST:
        entry = memory[at:at + 24]
        if len(entry) == 24 and entry[6] == 24 and not sum(entry) & 0xff:
            count += 1
            length, address = struct.unpack_from('<IQ', entry, 12)
            try:
                found = find_virtual(read_memory(address, min(length, _LARGEST)))
            except ValueError:
                found = None
            if found is not None:
                return found
        at = memory.find(_ANCHOR, at + 1)
    return None
