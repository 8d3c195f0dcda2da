# SPDX-License-Identifier: GPL-2.0-or-later
"""A running QEMU: its objects, its PCI functions, its RAM.

QEMU can be another user's, in another mount namespace: it is given a descriptor to write
guest memory to, not the name of a file.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator

from . import smbios, tables

MIB = 1 << 20
# Seconds for which a socket can be silent before somebody else is taken to use it
_PATIENCE = 5
# Seconds for a command; it can be to copy 64 MiB of guest memory
_LIMIT = 60


class Monitor:
    """QMP. Errors are RuntimeError, and name the VM."""

    name: str           # of the socket or domain

    def _ask(self, request: dict, descriptor: int | None) -> dict:
        """Send a request, give the answer."""
        raise NotImplementedError

    def command(self, name: str, descriptor: int | None = None, **arguments: object):
        """Run a command and give what it returns; descriptor: passed along."""
        answer = self._ask({'execute': name, 'arguments': arguments}, descriptor)
        if 'error' in answer:
            raise RuntimeError(f"{self.name}: {name}: {answer['error']['desc']}")
        return answer['return']


class Socket(Monitor):
    """QMP through a UNIX socket, which takes one client at a time.

    connected: a socket whose other end QEMU serves, or will serve when it has started
    """

    def __init__(self, path: str, connected: socket.socket | None = None):
        self.name = path
        self.socket = connected or socket.socket(socket.AF_UNIX)
        self.rest = b''
        try:
            if not connected:
                self.socket.settimeout(_PATIENCE)
                self.socket.connect(path)
        except OSError as error:
            raise RuntimeError(f'{path}: {error.strerror or error}') from error
        if 'QMP' not in self._receive(
                f'no answer for {_PATIENCE} s: is another program connected to this socket?'):
            raise RuntimeError(f'{path} is not a QMP socket')
        if not connected:
            self.socket.settimeout(_LIMIT)
        # A QEMU that is starting answers when vfio has mapped all memory, which takes minutes.
        self.command('qmp_capabilities')
        self.socket.settimeout(_LIMIT)

    def _lost(self) -> RuntimeError:
        """QEMU has ended, or does not want to be asked."""
        return RuntimeError(f'{self.name}: QEMU closed the connection')

    def _receive(self, late: str) -> dict:
        """The next message; late: what it means if there is none."""
        try:
            while b'\n' not in self.rest:
                data = self.socket.recv(65536)
                if not data:
                    raise self._lost()
                self.rest += data
        except socket.timeout as error:
            raise RuntimeError(f'{self.name}: {late}') from error
        except OSError as error:
            raise self._lost() from error
        line, _, self.rest = self.rest.partition(b'\n')
        return _parse(self.name, line)

    def _ask(self, request: dict, descriptor: int | None) -> dict:
        more = [] if descriptor is None else [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [descriptor]))]
        try:
            self.socket.sendmsg([json.dumps(request).encode() + b'\n'], more)
        except OSError as error:
            raise self._lost() from error
        while True:
            answer = self._receive(f'no answer for {_LIMIT} s')
            if 'event' not in answer:
                return answer


class Domain(Monitor):
    """QMP of a domain of libvirt, which has the socket."""

    def __init__(self, domain: str):
        self.name = domain

    def _ask(self, request: dict, descriptor: int | None) -> dict:
        passed = [] if descriptor is None else ['--pass-fds', str(descriptor)]
        try:
            run = subprocess.run(
                ['virsh', 'qemu-monitor-command', '--domain', self.name, *passed,
                 json.dumps(request)], check=False, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=_LIMIT,
                pass_fds=[] if descriptor is None else [descriptor])
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f'{self.name}: no answer for {_LIMIT} s') from error
        except OSError as error:
            raise RuntimeError(f'virsh: {error.strerror}') from error
        if run.returncode:
            text = run.stderr.decode('utf-8', 'replace').strip()
            raise RuntimeError(f'{self.name}: virsh: {text.removeprefix("error: ")}')
        return _parse(self.name, run.stdout)


def _parse(name: str, text: bytes) -> dict:
    """A message of QEMU."""
    try:
        message = json.loads(text)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise RuntimeError(f'{name}: QEMU\'s answer is not valid')
    return message


class Memory:
    """Guest RAM without its holes, where QEMU does not read. A
    context manager; holes: (base, size)"""

    def __init__(self, monitor: Monitor, holes: set[tuple[int, int]]):
        self.monitor = monitor
        self.holes = sorted(holes)
        self.end = tables.RAM_BASE + \
            monitor.command('query-memory-size-summary')['base-memory']

    def __enter__(self) -> Memory:
        # QEMU writes to a descriptor of a set only if it was opened for nothing else.
        self.file = os.memfd_create('egm-report')
        self.theirs = os.open(f'/proc/self/fd/{self.file}', os.O_WRONLY)
        try:
            self.set = self.monitor.command('add-fd', self.theirs)['fdset-id']
        except BaseException:
            self._close()
            raise
        return self

    def _close(self) -> None:
        os.close(self.theirs)
        os.close(self.file)

    def __exit__(self, *exc: object) -> None:
        self._close()
        with contextlib.suppress(RuntimeError):
            self.monitor.command('remove-fd', **{'fdset-id': self.set})

    def read(self, address: int, length: int) -> bytes:
        """Bytes at a guest-physical address."""
        end = address + length
        if address < tables.RAM_BASE or end > self.end:
            raise ValueError(f'{address:#x} is not in RAM')
        if any(base < end and address < base + size
               for base, size in self.holes):
            raise ValueError(f'{address:#x} is in a hole of guest RAM')
        os.lseek(self.theirs, 0, os.SEEK_SET)
        self.monitor.command('pmemsave', val=address, size=length,
                             filename=f'/dev/fdset/{self.set}')
        data = os.pread(self.file, length, 0)
        if len(data) != length:
            raise RuntimeError(f'{self.monitor.name}: QEMU did not write guest memory')
        return data

    def first_node(self) -> dict[str, str]:
        """Its sizes in MiB, as text: of RAM, and of what is plugged of it; empty
        on a VM without NUMA nodes."""
        numa = self.monitor.command('human-monitor-command',
                                    **{'command-line': 'info numa'})
        return dict(re.findall(r'^node 0 (size|plugged): (\d+) MB', numa, re.M))

    def first_piece(self) -> int:
        """The end of the RAM that UEFI starts with: up to the end of the first
        node, or the first hole in it."""
        sizes = self.first_node()
        end = self.end
        if sizes:
            end = tables.RAM_BASE + MIB * (int(sizes['size']) -
                                           int(sizes.get('plugged', 0)))
        return min([end, *(base for base, _ in self.holes)])


def _read_end(memory: Memory) -> tuple[int, bytes]:
    """UEFI keeps its tables at the end of the RAM that it starts with, so no more than
    that is looked at: its address, and what is there."""
    end = memory.first_piece()
    start = max(tables.RAM_BASE, end - 64 * MIB)
    return start, memory.read(start, end - start)


def _read_tables_of_uefi(memory: Memory, start: int, data: bytes) -> tables.Tables:
    """The tables of the first RSDP that leads to some."""
    for offset in tables.find(data):
        with contextlib.suppress(ValueError):
            return tables.read(memory.read, start + offset)
    raise RuntimeError(
        f'there is no ACPI RSDP in {start:#x}-{start + len(data) - 1:#x}, where UEFI puts '
        'it: the firmware has not installed its tables yet, or is not UEFI; in a Linux '
        'guest, /sys/firmware/efi/systab has the address for --rsdp')


def read_tables(memory: Memory, rsdp: int | None = None) -> \
        tuple[tables.Tables, bool | None]:
    """The ACPI tables that the RSDP leads to, without one, those of UEFI; and whether
    SMBIOS says that this is a VM, None: it is not found."""
    start, data = 0, b''
    try:
        start, data = _read_end(memory)
    except ValueError:
        if rsdp is None:
            raise
    found = tables.read(memory.read, rsdp) if rsdp is not None else \
        _read_tables_of_uefi(memory, start, data)
    # Firmware installs one table after the other, while the VM runs.
    if 'SRAT' not in found and memory.first_node():
        raise RuntimeError('the VM has NUMA nodes and its ACPI tables have no SRAT: '
                           'the firmware has not installed its tables yet, or is not UEFI')
    return found, smbios.find_in_memory(data, memory.read)


def plugged(monitor: Monitor) -> Iterator[tuple[str, int, int, int | None]]:
    """RAM that was plugged, at start or later: (name, base, size, node)."""
    for device in monitor.command('query-memory-devices'):
        data = device['data']
        yield (f"{device['type']} {data.get('id', '')}".strip(),
               data.get('addr', data.get('memaddr', 0)), data.get('size', 0),
               data.get('node'))
