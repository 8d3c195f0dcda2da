# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that reports the data that a driver gets from firmware and kernel."""

import base64
import dataclasses
import gzip
import mmap
import re

from lib import BUILD, console, machine
from lib.made import made

BLOCK = 64 << 10     # the least hole
BAD_LOG = re.compile(r'ACPI Error|AE_|Firmware Bug|Faking a node')


@dataclasses.dataclass
class Egm:
    """The data that the driver of one PCI function finds."""
    base: int
    size: int
    pxm: int
    node: int           # Linux' number, -1: the domain is not in SRAT
    path: str           # of the ACPI companion


@dataclasses.dataclass
class Report:
    """Everything that a guest reported in one boot."""
    kernel: str = ''
    page_size: int = 0
    egm: dict = dataclasses.field(default_factory=dict)     # by PCI address
    paths: dict = dataclasses.field(default_factory=dict)   # by PCI address
    nodes: dict = dataclasses.field(default_factory=dict)   # by PCI address
    iommus: dict = dataclasses.field(default_factory=dict)  # by PCI address
    distances: dict = dataclasses.field(default_factory=dict)   # node: list
    memory: dict = dataclasses.field(default_factory=dict)  # node: bytes
    srat: dict = dataclasses.field(default_factory=dict)    # (node, pxm): ranges
    log: list = dataclasses.field(default_factory=list)

    def part(self, addresses):
        """The report, with only these PCI functions."""
        return dataclasses.replace(self, **{
            name: {address: value for address, value in getattr(self, name).items()
                   if address in addresses} for name in ('egm', 'paths', 'nodes')})

    def same(self, other):
        """Whether two boots of one machine reported the same."""
        return (self.egm, self.paths, self.nodes, self.srat) == \
            (other.egm, other.paths, other.nodes, other.srat)


@dataclasses.dataclass
class Ram:
    """RAM as a guest sees it."""
    iomem: list     # (first, last) of System RAM
    efi: list       # (first, last) in the memory map of UEFI
    total: int      # memory that Linux can use, in bytes
    free: int       # memory that is not in use, in bytes

    @staticmethod
    def parse(lines):
        """Parse the output of the command `ram`."""
        def ranges(kind):
            return [tuple(int(x, 16) for x in match.groups()) for match in
                    (re.match(rf'{kind} (?:0x)?([0-9a-f]+)-(?:0x)?([0-9a-f]+)',
                              line) for line in lines) if match]

        def size(kind):
            return next(int(line.split()[1]) * 1024 for line in lines
                        if line.startswith(kind))

        return Ram(ranges('iomem'), ranges('efi'), size('Total'), size('Free'))

    def touches(self, block):
        """The ranges that overlap a block."""
        return [r for r in self.iomem + self.efi
                if r[0] < block + BLOCK and r[1] >= block]


def _parse(lines):
    report = Report()
    for line in lines:
        kind, _, rest = line.partition(' ')
        if kind == 'kernel':
            report.kernel = rest
        elif kind == 'page_size':
            report.page_size = int(rest)
        elif kind == 'device':
            match = re.fullmatch(r'(\S+) errors (\S+) (\S+) (\S+) base (\S+) '
                                 r'size (\S+) pxm (\d+) node (-?\d+)', rest)
            if match.group(2, 3, 4) != ('0', '0', '0'):
                raise AssertionError(f'a property is missing: {rest}')
            report.egm[match.group(1)] = Egm(
                int(match.group(5), 16), int(match.group(6), 16),
                int(match.group(7)), int(match.group(8)), '')
        elif kind == 'pci':
            address, _, node = rest.split()
            report.nodes[address] = int(node)
        elif kind == 'distance':
            node, *distances = map(int, rest.split())
            report.distances[node] = distances
        elif kind == 'path':
            address, _, path = rest.partition(' ')
            if path:
                report.paths[address] = path
        elif kind == 'iommu':
            address, iommu = rest.split()
            report.iommus[address] = iommu
        elif kind == 'memory':
            node, size = rest.split()
            report.memory[int(node)] = int(size) * 1024
        elif kind == 'log':
            report.log.append(rest)
            match = re.search(r'SRAT: Node (\d+) PXM (\d+) \[mem '
                              r'0x([0-9a-f]+)-0x([0-9a-f]+)\]', rest)
            if match:
                first, last = (int(x, 16) for x in match.group(3, 4))
                report.srat.setdefault(
                    (int(match.group(1)), int(match.group(2))), []).append(
                        (first, last - first + 1))
        elif kind == 'failed':
            raise AssertionError(f'the guest failed: {rest}')
    for address, egm in report.egm.items():
        egm.path = report.paths.get(address, '')
    return report


class Commands:
    """Commands for the guest, over a console.Terminal."""

    def command(self, text):
        """Run a command in the guest; return its lines."""
        _, output = self.run(text)
        return [line[4:].rstrip() for line in output.splitlines()
                if line.startswith('EGM ')]

    def report(self):
        """The report of this boot. Bad lines of the kernel's log are an error."""
        result = _parse(self.command('report'))
        bad = [line for line in result.log if BAD_LOG.search(line)]
        if bad:
            raise AssertionError(f'the kernel complains: {bad[0]}')
        return result

    def tables(self):
        """DSDT, SRAT and IORT of this boot, by name."""
        result = {}
        for line in self.command('tables'):
            _, name, data = line.split()
            result[name] = gzip.decompress(base64.b64decode(data))
            (self.keep / f'{name.lower()}.aml').write_bytes(result[name])
        return result

    def ram(self):
        """The RAM that this boot found."""
        return Ram.parse(self.command('ram'))

    def page(self, node):
        """Fill a page of NODE with the pattern; return its physical address."""
        line, = self.command(f'page {node}')
        return int(re.match(r'page (0x[0-9a-f]+) ', line).group(1), 16)


class Guest(Commands, console.Console):
    """A virt machine booting UEFI, then Linux; a context manager.

    args: QEMU options in addition to firmware, kernel and console. append: words
    in addition to those on the kernel's command line. The console and the tables
    are kept in `keep`. The CPU is the smallest that supports the kernel's page
    size, because it is the fastest to emulate.
    """

    def __init__(self, kernel, args, keep, *, uefi=True, append='', environment=None):
        initrd = made(BUILD, f'egm/tests/images/{kernel}.initrd')
        flash = ['-drive', 'if=pflash,format=raw,readonly=on,file='
                 f'{BUILD}/pc-bios/edk2-aarch64-code.fd']
        super().__init__(machine.Machine([
            '-cpu', 'neoverse-n1' if kernel.endswith('16k') else 'cortex-a57',
            *(flash if uefi else []),
            '-kernel', str(initrd.with_suffix('.vmlinuz')), '-initrd', str(initrd),
            # Without these options, Linux' warnings about a busy machine would be amid
            # the output that the tests read.
            '-append', 'console=ttyAMA0 quiet loglevel=1 watchdog_thresh=60 '
            'log_buf_len=4M panic=-1 efi=debug ' + append,
            *args], environment=environment), keep)


def pattern(size):
    """The data that the guest writes into a page of SIZE bytes."""
    return b''.join((0x45474d2070616765 + i).to_bytes(8, 'little')
                    for i in range(size // 8))


def read_file(path, offset, length):
    """Bytes of a backing file, while QEMU has it mapped."""
    with open(path, 'rb') as file, \
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        return memory[offset:offset + length]
