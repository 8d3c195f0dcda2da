# SPDX-License-Identifier: GPL-2.0-or-later
"""Find a VM's ACPI tables in its memory, and its PCI functions in query-pci."""

import struct

# Where RAM begins on the virt machine
RAM_BASE = 0x40000000

# A table that is larger is none.
_TABLE_MAX = 16 << 20

# What the boot medium of QEMU's tests leaves at a multiple of 1 MiB, followed
# by the addresses of the RSDP of ACPI 1.0 and 2.0.
_MARK = bytes.fromhex('b1a687ab3420a0bd71bd375007757785')


def _valid(data):
    """Whether this is an RSDP of ACPI 2.0 (ACPI 6.5, 5.2.5.3)."""
    return len(data) >= 36 and data[:8] == b'RSD PTR ' and data[15] >= 2 and \
        sum(data[:20]) & 0xff == 0 and sum(data[:36]) & 0xff == 0


def find(memory):
    """The offsets of RSDPs in a piece of guest memory. There can be an older one
    that leads nowhere, as firmware frees what it has read from QEMU."""
    at = memory.find(b'RSD PTR ')
    while at >= 0:
        if _valid(memory[at:at + 36]):
            yield at
        at = memory.find(b'RSD PTR ', at + 1)


def marked(read, start, length):
    """Address of the RSDP, or None while the boot medium has not run.

    read(address, length) gives guest memory as bytes.
    """
    for address in range(start, start + length, 1 << 20):
        if read(address, 16) == _MARK:
            rsdp10, rsdp20 = struct.unpack('<QQ', read(address + 16, 16))
            return rsdp20 or rsdp10 or None
    return None


def read(memory, rsdp):
    """Tables that the RSDP leads to, by signature; SSDT: a list.

    memory(address, length) gives guest memory.
    """
    def table(address, name=None):
        length, = struct.unpack('<I', memory(address + 4, 4))
        data = memory(address, length) if 36 <= length <= _TABLE_MAX else b'?'
        if sum(data) & 0xff or name not in (None, data[:4]):
            raise ValueError(f'there is no ACPI table at {address:#x}')
        return data

    xsdt = table(struct.unpack('<Q', memory(rsdp + 24, 8))[0], b'XSDT')
    if len(xsdt) % 8 != 36 % 8:
        raise ValueError('the XSDT ends within an address')
    found = {}
    for address, in struct.iter_unpack('<Q', xsdt[36:]):
        data = table(address)
        name = data[:4].decode('ascii', 'replace')
        if name == 'SSDT':
            found.setdefault(name, []).append(data)
        else:
            found[name] = data
    fadt = found.get('FACP', b'')
    if len(fadt) < 148:
        raise ValueError('the XSDT names no FADT of ACPI 2.0')
    dsdt, = struct.unpack('<Q', fadt[140:148])
    found['DSDT'] = table(dsdt or struct.unpack('<I', fadt[40:44])[0], b'DSDT')
    return found


def pci_functions(query_pci):
    """Flatten query-pci: (qdev id, root bus, chain of _ADR, PCI address)."""
    def walk(devices, root, chain):
        for dev in devices:
            here = chain + (dev['slot'] << 16 | dev['function'],)
            yield (dev['qdev_id'], root, here,
                   f"0000:{dev['bus']:02x}:{dev['slot']:02x}."
                   f"{dev['function']}")
            bridge = dev.get('pci_bridge', {})
            yield from walk(bridge.get('devices', []), root, here)

    for bus in query_pci:
        yield from walk(bus['devices'], bus['bus'], ())
