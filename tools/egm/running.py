# SPDX-License-Identifier: GPL-2.0-or-later
"""A running QEMU, asked over QMP: its objects, its PCI functions, its RAM."""

import contextlib
import json
import pathlib
import re
import socket
import tempfile

from . import tables

MIB = 1 << 20


class Qmp:
    """The least that is needed to talk to a running QEMU."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile('r')
        self.file.readline()
        self.cmd('qmp_capabilities')

    def cmd(self, name, **arguments):
        """Run a command and give what it returns."""
        self.socket.sendall(json.dumps(
            {'execute': name, 'arguments': arguments}).encode() + b'\n')
        while True:
            line = self.file.readline()
            if not line:
                raise RuntimeError('QEMU closed the connection; is somebody else '
                                   'using this socket?')
            answer = json.loads(line)
            if 'error' in answer:
                raise RuntimeError(f"{name}: {answer['error']['desc']}")
            if 'return' in answer:
                return answer['return']


class Memory:
    """Guest RAM, but for what is withheld from the guest: to touch a bad page
    would end QEMU. withheld: (base, size)"""

    def __init__(self, qmp, withheld):
        self.qmp = qmp
        self.withheld = sorted(withheld)
        self.end = tables.RAM_BASE + \
            qmp.cmd('query-memory-size-summary')['base-memory']

    def read(self, address, length):
        """Bytes at a guest-physical address."""
        end = address + length
        if address < tables.RAM_BASE or end > self.end:
            raise ValueError(f'{address:#x} is not in RAM')
        if any(base < end and address < base + size
               for base, size in self.withheld):
            raise ValueError(f'{address:#x} is withheld from the guest')
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            file = pathlib.Path(directory) / 'memory'
            self.qmp.cmd('pmemsave', val=address, size=length, filename=str(file))
            return file.read_bytes()

    def first_node(self):
        """Its sizes in MiB, as text: of RAM, and of what is plugged of it; empty
        on a VM without NUMA nodes."""
        numa = self.qmp.cmd('human-monitor-command',
                            **{'command-line': 'info numa'})
        return dict(re.findall(r'^node 0 (size|plugged): (\d+) MB', numa, re.M))

    def first_piece(self):
        """The end of the RAM that UEFI starts with: up to the end of the first
        node, or what is withheld of it."""
        sizes = self.first_node()
        end = self.end
        if sizes:
            end = tables.RAM_BASE + MIB * (int(sizes['size']) -
                                           int(sizes.get('plugged', 0)))
        return min([end, *(base for base, _ in self.withheld)])


def read_tables(memory, rsdp=None):
    """The ACPI tables that the RSDP leads to; without one, those of UEFI."""
    found = tables.read(memory.read, rsdp) if rsdp else _read_tables_of_uefi(memory)
    # Firmware installs one table after the other, while the VM runs.
    if 'SRAT' not in found and memory.first_node():
        raise RuntimeError('the VM has NUMA nodes and its ACPI tables have no SRAT: '
                           'the firmware has not come that far, or is another one')
    return found


def _read_tables_of_uefi(memory):
    """UEFI keeps them at the end of the RAM that it starts with, so no more than
    that is looked at."""
    end = memory.first_piece()
    start = max(tables.RAM_BASE, end - 64 * MIB)
    for offset in tables.find(memory.read(start, end - start)):
        with contextlib.suppress(ValueError):
            return tables.read(memory.read, start + offset)
    raise RuntimeError(
        f'there is no ACPI RSDP in {start:#x}-{end - 1:#x}, where UEFI puts it: '
        'the firmware has not come that far, or is another one; in a Linux '
        'guest, /sys/firmware/efi/systab tells the address for --rsdp')


def plugged(qmp):
    """RAM that was plugged, at start or later: (name, base, size, node)."""
    for device in qmp.cmd('query-memory-devices'):
        data = device['data']
        yield (f"{device['type']} {data.get('id', '')}".strip(),
               data.get('addr', data.get('memaddr', 0)), data.get('size', 0),
               data.get('node'))
