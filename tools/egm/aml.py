# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the Devices of a DSDT or SSDT, as far as PCI and EGM are concerned.

A reader of AML (ACPI 6.5, chapter 20) that knows the declarations and skips the
code. What it does not know ends the scope that it is in; that is noted.
"""

import dataclasses

# One-byte opcodes with a size: what they hold is skipped.
_SIZED = {0x14: 'Method', 0xa0: 'If', 0xa1: 'Else', 0xa2: 'While'}
# The same behind 0x5b, ExtOpPrefix.
_EXT_SIZED = {0x81: 'Field', 0x83: 'Processor', 0x84: 'PowerRes',
              0x85: 'ThermalZone', 0x86: 'IndexField', 0x87: 'BankField'}
_INTEGERS = {0x0a: 1, 0x0b: 2, 0x0c: 4, 0x0e: 8}
_CONSTANTS = {0x00: 0, 0x01: 1, 0xff: 2 ** 64 - 1}


class Unknown(Exception):
    """Something that this reader does not know."""


@dataclasses.dataclass
class Device:
    """A Device, with the names declared in it that have a plain value."""
    path: str           # \\_SB.PC20.S00.S00
    names: dict = dataclasses.field(default_factory=dict)


class _Reader:
    """One walk over the AML of a table."""

    def __init__(self, data):
        self.data = data
        self.devices = {}
        self.notes = []

    def length(self, at):
        """PkgLength: (end of what it holds, where that begins)."""
        lead = self.data[at]
        extra = lead >> 6
        value = lead & 0x3f if extra == 0 else lead & 0x0f
        for i in range(extra):
            value |= self.data[at + 1 + i] << (4 + 8 * i)
        return at + value, at + 1 + extra

    def name(self, at, scope):
        """NameString: (absolute path, what follows). Paths are not searched."""
        data, segments = self.data, list(scope)
        if data[at] == 0x5c:            # root
            segments, at = [], at + 1
        while data[at] == 0x5e:         # parent
            segments, at = segments[:-1], at + 1
        if data[at] == 0x00:
            return segments, at + 1
        count = 1
        if data[at] == 0x2e:
            count, at = 2, at + 1
        elif data[at] == 0x2f:
            count, at = data[at + 1], at + 2
        for _ in range(count):
            segment = data[at:at + 4].decode('ascii', 'replace')
            if len(segment) < 4 or not segment[0].isalpha() and segment[0] != '_':
                raise Unknown(f'a name at offset {at:#x}')
            segments = segments + [segment]
            at += 4
        return segments, at

    def value(self, at, scope):
        """A constant: (its value, what follows)."""
        data, op = self.data, self.data[at]
        if op in _CONSTANTS:
            return _CONSTANTS[op], at + 1
        if op in _INTEGERS:
            end = at + 1 + _INTEGERS[op]
            return int.from_bytes(data[at + 1:end], 'little'), end
        if op == 0x0d:                  # string
            end = data.index(b'\0', at)
            return data[at + 1:end].decode('ascii', 'replace'), end + 1
        if op == 0x11:                  # buffer
            end, inside = self.length(at + 1)
            _, inside = self.value(inside, scope)
            return data[inside:end], end
        if op in (0x12, 0x13):          # package
            end, inside = self.length(at + 1)
            inside = inside + 1 if op == 0x12 else self.value(inside, scope)[1]
            items = []
            while inside < end:
                item, inside = self.value(inside, scope)
                items.append(item)
            return items, end
        if op == 0x5b and data[at + 1] == 0x30:     # revision
            return None, at + 2
        segments, end = self.name(at, scope)
        return '.'.join(segments), end

    def terms(self, at, end, scope):
        """The declarations of a scope."""
        try:
            while at < end:
                at = self.term(at, scope)
        except (Unknown, IndexError, ValueError) as error:
            self.notes.append(f'cannot read all of \\{".".join(scope)}: {error}')

    def term(self, at, scope):
        """One declaration; gives what follows."""
        data, op = self.data, self.data[at]
        if op == 0x10:                  # Scope
            end, inside = self.length(at + 1)
            inner, inside = self.name(inside, scope)
            self.terms(inside, end, inner)
            return end
        if op == 0x08:                  # Name
            segments, at = self.name(at + 1, scope)
            value, at = self.value(at, scope)
            device = self.devices.get('.'.join(segments[:-1]))
            if device:
                device.names[segments[-1]] = value
            return at
        if op == 0x06:                  # Alias
            return self.name(self.name(at + 1, scope)[1], scope)[1]
        if op == 0x15:                  # External
            return self.name(at + 1, scope)[1] + 2
        if op in _SIZED:
            return self.length(at + 1)[0]
        if op in (0x8a, 0x8b, 0x8c, 0x8d, 0x8f):    # CreateXField
            return self.name(self.value(self.value(at + 1, scope)[1],
                                        scope)[1], scope)[1]
        if op == 0x5b:
            op = data[at + 1]
            if op == 0x82:              # Device
                end, inside = self.length(at + 2)
                inner, inside = self.name(inside, scope)
                path = '.'.join(inner)
                shown = '.'.join(s.rstrip('_') for s in inner)
                self.devices.setdefault(path, Device('\\' + shown))
                self.terms(inside, end, inner)
                return end
            if op in _EXT_SIZED:
                return self.length(at + 2)[0]
            if op == 0x80:              # OperationRegion
                at = self.name(at + 2, scope)[1] + 1
                return self.value(self.value(at, scope)[1], scope)[1]
            if op == 0x01:              # Mutex
                return self.name(at + 2, scope)[1] + 1
            if op == 0x02:              # Event
                return self.name(at + 2, scope)[1]
            op |= 0x5b00
        raise Unknown(f'opcode {op:#x} at offset {at:#x}')


def read(*tables):
    """The Devices of DSDT and SSDTs, in order, and notes about the reading."""
    devices, notes = {}, []
    for table in tables:
        reader = _Reader(table)
        reader.devices = devices
        reader.terms(36, len(table), [])
        notes += reader.notes
    return list(devices.values()), notes
