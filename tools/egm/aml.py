# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the Devices of a DSDT or SSDT, as far as PCI and EGM are concerned.

A reader of AML (ACPI 6.5, chapter 20) that knows the declarations and skips the
code. What it does not know ends the scope that it is in; that is noted. Each byte is
read once: nothing reaches past the end of what it is in.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

_SEGMENT = re.compile(rb'[A-Z_][A-Z0-9_]{3}')
_INTEGERS = {0x0a: 1, 0x0b: 2, 0x0c: 4, 0x0e: 8}    # Byte-, Word-, DWord-, QWordConst
_CONSTANTS = {0x00: 0, 0x01: 1, 0xff: 2 ** 64 - 1}  # ZeroOp, OneOp, OnesOp
_ROOT, _PARENT, _NULL, _DUAL, _MULTI = 0x5c, 0x5e, 0x00, 0x2e, 0x2f
_STRING, _BUFFER, _PACKAGE, _VAR_PACKAGE = 0x0d, 0x11, 0x12, 0x13
_EXT = 0x5b             # prefix: the byte after it selects the opcode
_REVISION = 0x30
# More than any real table nests
_MOST_NESTED = 64
Path = list[str]


class Unknown(Exception):
    """A part that is damaged, or that this reader does not know."""


@dataclasses.dataclass
class Device:
    """A Device, with the names declared in it that have a plain value."""
    path: str           # \\_SB.PC20.S00.S00
    names: dict[str, object] = dataclasses.field(default_factory=dict)


class _Reader:
    """One walk over the AML of a table."""

    def __init__(self, data: bytes, devices: dict[str, Device]):
        self.data = data
        self.devices = devices
        self.notes: list[str] = []
        self.depth = 0

    def byte(self, at: int, end: int) -> int:
        """The byte at a place."""
        if at >= end:
            raise Unknown(f'the end of what is at offset {at:#x}')
        return self.data[at]

    def length(self, at: int, end: int) -> tuple[int, int]:
        """PkgLength (20.2.4): (end of what it holds, where that begins)."""
        lead = self.byte(at, end)
        extra = lead >> 6
        value = lead & (0x0f if extra else 0x3f)
        for i in range(extra):
            value |= self.byte(at + 1 + i, end) << (4 + 8 * i)
        if value < 1 + extra or at + value > end:
            raise Unknown(f'a length at offset {at:#x}')
        return at + value, at + 1 + extra

    def name(self, at: int, end: int, scope: Path) -> tuple[Path, int]:
        """NameString (20.2.2): (absolute path, what follows). Paths are not searched."""
        segments = list(scope)
        if self.byte(at, end) == _ROOT:
            segments, at = [], at + 1
        while self.byte(at, end) == _PARENT:
            segments, at = segments[:-1], at + 1
        lead, count = self.byte(at, end), 1
        if lead == _NULL:
            return segments, at + 1
        if lead == _DUAL:
            count, at = 2, at + 1
        elif lead == _MULTI:
            count, at = self.byte(at + 1, end), at + 2
        if len(segments) + count > _MOST_NESTED:
            raise Unknown(f'a long name at offset {at:#x}')
        for _ in range(count):
            segment = self.data[at:min(at + 4, end)]
            if not _SEGMENT.fullmatch(segment):
                raise Unknown(f'a name at offset {at:#x}')
            segments.append(segment.decode('ascii'))
            at += 4
        return segments, at

    def value(self, at: int, end: int, scope: Path) -> tuple[object, int]:
        """A constant (20.2.3): (its value, what follows)."""
        op = self.byte(at, end)
        if op in _CONSTANTS:
            return _CONSTANTS[op], at + 1
        if op in _INTEGERS:
            last = at + 1 + _INTEGERS[op]
            if last > end:
                raise Unknown(f'a number at offset {at:#x}')
            return int.from_bytes(self.data[at + 1:last], 'little'), last
        if op == _STRING:
            last = self.data.find(b'\0', at, end)
            if last < 0:
                raise Unknown(f'a string at offset {at:#x}')
            return self.data[at + 1:last].decode('ascii', 'replace'), last + 1
        if op == _BUFFER:
            last, inside = self.length(at + 1, end)
            _, inside = self.value(inside, last, scope)
            return self.data[inside:last], last
        if op in (_PACKAGE, _VAR_PACKAGE):
            return self.package(at, end, scope)
        if op == _EXT and self.byte(at + 1, end) == _REVISION:
            return None, at + 2
        segments, at = self.name(at, end, scope)
        return '.'.join(segments), at

    def package(self, at: int, end: int, scope: Path) -> tuple[list, int]:
        """A package (20.2.5.4)."""
        last, inside = self.length(at + 1, end)
        if self.data[at] == _PACKAGE:
            self.byte(inside, last)     # how many, which the length says as well
            inside += 1
        else:
            inside = self.value(inside, last, scope)[1]
        self.depth += 1
        if self.depth > _MOST_NESTED:
            raise Unknown(f'a package nested too deep at offset {at:#x}')
        items = []
        while inside < last:
            item, inside = self.value(inside, last, scope)
            items.append(item)
        self.depth -= 1
        return items, last

    def terms(self, at: int, end: int, scope: Path) -> None:
        """The declarations of a scope."""
        depth, self.depth = self.depth, self.depth + 1
        try:
            if self.depth > _MOST_NESTED:
                raise Unknown(f'a scope nested too deep at offset {at:#x}')
            while at < end:
                at = self.term(at, end, scope)
            if at > end:
                raise Unknown(f'the part that ends at offset {at:#x}')
        except Unknown as error:
            self.notes.append(f'cannot read all of \\{show_path(scope)}: {error}')
        self.depth = depth

    def term(self, at: int, end: int, scope: Path) -> int:
        """One declaration; gives what follows."""
        op, inside = self.byte(at, end), at + 1
        if op == _EXT:
            op, inside = _EXT << 8 | self.byte(inside, end), inside + 1
        reader = _TERMS.get(op)
        if not reader:
            raise Unknown(f'opcode {op:#x} at offset {at:#x}')
        return reader(self, inside, end, scope)

    # The kinds of declarations, behind the opcode. Each gives what follows.

    def skip(self, at: int, end: int, _scope: Path) -> int:
        """Skip a part that has a length and no relevant content."""
        return self.length(at, end)[0]

    def scope(self, at: int, end: int, scope: Path) -> int:
        """Scope: a name, and declarations."""
        last, inside = self.length(at, end)
        inner, inside = self.name(inside, last, scope)
        self.terms(inside, last, inner)
        return last

    def device(self, at: int, end: int, scope: Path) -> int:
        """Device: as Scope, and there is a new Device."""
        last, inside = self.length(at, end)
        inner, inside = self.name(inside, last, scope)
        self.devices.setdefault('.'.join(inner), Device('\\' + show_path(inner)))
        self.terms(inside, last, inner)
        return last

    def declaration(self, at: int, end: int, scope: Path) -> int:
        """Name: a name and its value."""
        segments, at = self.name(at, end, scope)
        value, at = self.value(at, end, scope)
        device = self.devices.get('.'.join(segments[:-1]))
        if device and segments:
            device.names[segments[-1]] = value
        return at

    def alias(self, at: int, end: int, scope: Path) -> int:
        """Two names."""
        return self.name(self.name(at, end, scope)[1], end, scope)[1]

    def external(self, at: int, end: int, scope: Path) -> int:
        """A name, and two bytes about it."""
        return self.name(at, end, scope)[1] + 2

    def field(self, at: int, end: int, scope: Path) -> int:
        """CreateXField: a buffer, a place in it, and a name."""
        at = self.value(self.value(at, end, scope)[1], end, scope)[1]
        return self.name(at, end, scope)[1]

    def region(self, at: int, end: int, scope: Path) -> int:
        """OperationRegion: a name, a space, offset and length."""
        at = self.name(at, end, scope)[1] + 1
        return self.value(self.value(at, end, scope)[1], end, scope)[1]

    def mutex(self, at: int, end: int, scope: Path) -> int:
        """A name, and a byte about it."""
        return self.name(at, end, scope)[1] + 1

    def event(self, at: int, end: int, scope: Path) -> int:
        """A name."""
        return self.name(at, end, scope)[1]


_TERMS: dict[int, Callable[[_Reader, int, int, Path], int]] = {
    0x06: _Reader.alias,            # AliasOp
    0x08: _Reader.declaration,      # NameOp
    0x10: _Reader.scope,            # ScopeOp
    0x14: _Reader.skip,             # MethodOp
    0x15: _Reader.external,         # ExternalOp
    0x8a: _Reader.field,            # CreateDWordFieldOp
    0x8b: _Reader.field,            # CreateWordFieldOp
    0x8c: _Reader.field,            # CreateByteFieldOp
    0x8d: _Reader.field,            # CreateBitFieldOp
    0x8f: _Reader.field,            # CreateQWordFieldOp
    0xa0: _Reader.skip,             # IfOp
    0xa1: _Reader.skip,             # ElseOp
    0xa2: _Reader.skip,             # WhileOp
    0x5b01: _Reader.mutex,          # MutexOp
    0x5b02: _Reader.event,          # EventOp
    0x5b80: _Reader.region,         # OpRegionOp
    0x5b81: _Reader.skip,           # FieldOp
    0x5b82: _Reader.device,         # DeviceOp
    0x5b83: _Reader.skip,           # ProcessorOp
    0x5b84: _Reader.skip,           # PowerResOp
    0x5b85: _Reader.skip,           # ThermalZoneOp
    0x5b86: _Reader.skip,           # IndexFieldOp
    0x5b87: _Reader.skip,           # BankFieldOp
}


def show_path(segments: Path) -> str:
    """A path in readable form: _SB.PC20.S00"""
    return '.'.join(segment.rstrip('_') for segment in segments)


def read(*tables: bytes) -> tuple[list[Device], list[str]]:
    """The Devices of DSDT and SSDTs, in order, and notes about what was not read."""
    devices: dict[str, Device] = {}
    notes = []
    for table in tables:
        reader = _Reader(table, devices)
        reader.terms(36, len(table), [])
        notes += reader.notes
    return list(devices.values()), notes
