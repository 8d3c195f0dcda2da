# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the files that QEMU offers to the firmware of a virt machine (docs/specs/fw_cfg)."""

import struct

# virt's memory map
_DMA = 0x09020010
_SCRATCH = 0x40000000

_SELECT, _READ = 8, 2
_FILE_DIR = 0x19


def _transfer(qtest, selector, length):
    """LENGTH bytes of an item, by DMA to the start of guest RAM."""
    data = _SCRATCH + 16
    qtest.write(_SCRATCH, struct.pack('>IIQ', selector << 16 | _SELECT | _READ,
                                      length, data))
    qtest.write(_DMA, struct.pack('>Q', _SCRATCH))
    return qtest.read(data, length)


def read_file(qtest, name):
    """The content of a file. This overwrites the start of guest RAM."""
    count, = struct.unpack('>I', _transfer(qtest, _FILE_DIR, 4))
    directory = _transfer(qtest, _FILE_DIR, 4 + 64 * count)
    for size, selector, _, entry in struct.iter_unpack('>IHH56s', directory[4:]):
        if entry.rstrip(b'\0').decode() == name:
            return _transfer(qtest, selector, size)
    raise KeyError(name)


def tables(qtest):
    """The ACPI tables that QEMU built, by name. Pointers are not filled in; checksums are
    filled in, as by the firmware.
    """
    blob = read_file(qtest, 'etc/acpi/tables')
    result, at = {}, 0
    while len(blob) - at >= 36 and blob[at]:
        name, length = struct.unpack_from('<4sI', blob, at)
        table = bytearray(blob[at:at + length])
        table[9] = (table[9] - sum(table)) & 0xff
        result.setdefault(name.decode(), bytes(table))
        at += length
    return result
