# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI tables: their headers, where a VM has them, and its PCI functions."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

# Where RAM begins on the virt machine
RAM_BASE = 0x40000000

# The tables that are relevant for EGM; there can be several SSDT.
WANTED = ('DSDT', 'SSDT', 'SRAT', 'SLIT', 'IORT')
_HEADER = 36
# Larger than any that QEMU makes. Firmware adds a few; a guest could add any number.
_LARGEST, _LARGEST_SUM, _MOST = 4 << 20, 32 << 20, 256
_MOST_RSDP = 16
Tables = dict[str, list[bytes]]

# The boot medium of QEMU's tests writes this at a multiple of 1 MiB, followed
# by the addresses of the RSDP of ACPI 1.0 and 2.0.
_MARK = bytes.fromhex('b1a687ab3420a0bd71bd375007757785')


def check(data: bytes) -> str:
    """The problem with a table as a whole (ACPI 6.5, 5.2.6); empty: none."""
    if len(data) < _HEADER:
        return 'this is not an ACPI table'
    signature, length = struct.unpack_from('<4sI', data)
    name = signature.decode('latin-1')
    if length == len(data) <= _LARGEST and not sum(data) & 0xff:
        return ''
    if name not in WANTED:
        return 'this is not an ACPI table'
    if length != len(data):
        return f'{name} has {len(data)} bytes, and its header says {length}'
    if length > _LARGEST:
        return f'{name} is larger than {_LARGEST} bytes'
    return f'{name} has a wrong checksum'


def add(tables: Tables, data: bytes) -> None:
    """Keep a table if it is wanted; ValueError: the same kind was already found."""
    name = data[:4].decode('latin-1')
    if name in WANTED:
        found = tables.setdefault(name, [])
        if found and name != 'SSDT':
            raise ValueError(f'there are two {name}')
        found.append(data)


def _is_rsdp(data: bytes) -> bool:
    """Whether this is an RSDP of ACPI 2.0 (ACPI 6.5, 5.2.5.3)."""
    return len(data) >= 36 and data[:8] == b'RSD PTR ' and data[15] >= 2 and \
        sum(data[:20]) & 0xff == 0 and sum(data[:36]) & 0xff == 0


def find(memory: bytes) -> Iterator[int]:
    """The offsets of RSDPs in a piece of guest memory. There can be an older one
    that leads nowhere, as firmware frees what it has read from QEMU."""
    count, at = 0, memory.find(b'RSD PTR ')
    while at >= 0 and count < _MOST_RSDP:
        if _is_rsdp(memory[at:at + 36]):
            yield at
            count += 1
        at = memory.find(b'RSD PTR ', at + 1)


def marked(read_memory: Callable[[int, int], bytes], start: int, length: int) -> int | None:
    """Address of the RSDP, or None while the boot medium has not run.

    read_memory(address, length) gives guest memory as bytes.
    """
    for address in range(start, start + length, 1 << 20):
        if read_memory(address, 16) == _MARK:
            rsdp10, rsdp20 = struct.unpack('<QQ', read_memory(address + 16, 16))
            return rsdp20 or rsdp10 or None
    return None


def read(read_memory: Callable[[int, int], bytes], rsdp: int) -> Tables:
    """The tables that an RSDP leads to, by signature.

    read_memory(address, length) gives guest memory.
    ValueError: they are not all there, or not right.
    """
    total = 0

    def read_table(address: int, name: bytes | None = None) -> bytes:
        nonlocal total
        signature, length = struct.unpack('<4sI', read_memory(address, 8))
        if name in (None, signature) and _HEADER <= length <= _LARGEST:
            total += length
            if total > _LARGEST_SUM:
                raise ValueError(f'the ACPI tables are larger than {_LARGEST_SUM} bytes')
            data = read_memory(address, length)
            if not sum(data) & 0xff:
                return data
        raise ValueError(f'there is no ACPI table at {address:#x}')

    xsdt = read_table(struct.unpack('<Q', read_memory(rsdp + 24, 8))[0], b'XSDT')
    if len(xsdt) % 8 != _HEADER % 8:
        raise ValueError('the XSDT ends within an address')
    if len(xsdt) > _HEADER + 8 * _MOST:
        raise ValueError(f'the XSDT names more than {_MOST} tables')
    found: Tables = {}
    fadt = b''
    for address, in struct.iter_unpack('<Q', xsdt[_HEADER:]):
        data = read_table(address)
        if data[:4] == b'FACP':
            fadt = data
        elif data[:4] != b'DSDT':       # FADT has its address
            add(found, data)
    if len(fadt) < 148:
        raise ValueError('the XSDT names no FADT of ACPI 2.0')
    dsdt, = struct.unpack('<Q', fadt[140:148])
    add(found, read_table(dsdt or struct.unpack('<I', fadt[40:44])[0], b'DSDT'))
    return found


def pci_functions(query_pci: list[dict]) -> Iterator[tuple[str, int, tuple, str]]:
    """Flatten query-pci: (qdev id, root bus, chain of _ADR, PCI address)."""
    def walk(devices: list[dict], root: int, chain: tuple) -> Iterator:
        for dev in devices:
            here = chain + (dev['slot'] << 16 | dev['function'],)
            yield (dev['qdev_id'], root, here,
                   f"0000:{dev['bus']:02x}:{dev['slot']:02x}."
                   f"{dev['function']}")
            bridge = dev.get('pci_bridge', {})
            yield from walk(bridge.get('devices', []), root, here)

    for bus in query_pci:
        yield from walk(bus['devices'], bus['bus'], ())
