# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux host with an IOMMU, vfio-pci and a stand-in for the EGM driver.

It is an x86-64 VM under TCG. Its GPUs are QEMU's `edu`, a device with DMA. QEMU,
the one that was built here, runs in it.
"""

import contextlib
import pathlib
import shlex
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'tests'))
# pylint: disable=wrong-import-position
from egmtest import console, machine  # noqa: E402
from egmtest.made import made  # noqa: E402

MIB = 1 << 20
GPUS = 3
# RAM that the host's kernel leaves alone: two regions, as of two sockets.
RESERVED = 0x30000000
REGIONS = {4: (RESERVED, 1024 * MIB), 5: (RESERVED + 1024 * MIB, 256 * MIB)}


def gpu(number):
    """The host's PCI address of a GPU, 0 to GPUS - 1."""
    return f'0000:{number + 1:02x}:00.0'


class Host(console.Console):
    """The host; a context manager."""

    def __init__(self, build, keep):
        initrd = made(build, 'egm/tests/host/host.initrd')
        args = ['-machine', 'q35', '-accel', 'tcg', '-cpu', 'max', '-smp', '2',
                '-m', '2560M', '-device', 'intel-iommu',
                '-kernel', str(initrd.with_suffix('.vmlinuz')),
                '-initrd', str(initrd),
                '-append', 'console=ttyS0 quiet panic=-1 intel_iommu=on '
                f'memmap={sum(size for _, size in REGIONS.values())}'
                f'${RESERVED:#x}']
        for number in range(GPUS):
            args += ['-device', f'pcie-root-port,id=rp{number},'
                     f'chassis={number + 1}', '-device',
                     f'edu,bus=rp{number},dma_mask=0xffffffffffffffff']
        vm = machine.Machine(build, args, '/usr/bin/qemu-system-x86_64')
        self.qtest = str(pathlib.Path(vm.directory.name) / 'qtest')
        vm.args += ['-device', 'virtio-serial-pci',
                    '-chardev', f'socket,id=qt,path={self.qtest},server=on,'
                    'wait=off', '-device', 'virtserialport,chardev=qt']
        super().__init__(vm, keep)

    def run(self, line, seconds=60):
        """Run a line of shell; give its exit status and what it printed."""
        self.send(line)
        text = self.expect('EGM done ', seconds)
        status = self.expect('\n', seconds)
        return int(status), text.replace('\r', '').lstrip('\n')

    def check(self, line):
        """Run a line of shell that must succeed; give what it printed."""
        status, text = self.run(line)
        if status:
            raise AssertionError(f'{line}: status {status}\n{text}')
        return text

    @contextlib.contextmanager
    def standin(self, **parameters):
        """Load the stand-in; region 4 has GPUs 0 and 1, region 5 has GPU 2."""
        values = {'base': ','.join(f'{base:#x}' for base, _ in REGIONS.values()),
                  'size': ','.join(f'{size:#x}' for _, size in REGIONS.values()),
                  'pxm': ','.join(map(str, REGIONS)),
                  'gpus': f'{gpu(0)}+{gpu(1)},{gpu(2)}', **parameters}
        words = ' '.join(f'{k}={shlex.quote(str(v))}' for k, v in values.items())
        self.check(f'insmod /modules/egm_standin.ko {words}')
        try:
            yield
        finally:
            self.check('rmmod egm_standin')

    def region(self, pxm, offset, length):
        """Part of a region, read from outside of the host."""
        return self.vm.memory(REGIONS[pxm][0] + offset, length)

    def start(self, args, user='root'):
        """Start QEMU and end it as soon as it is up: exit status and stderr.

        A user other than root may lock 64 KiB of memory, as usual.
        """
        line = f'{command(args)} -monitor stdio'
        if user != 'root':
            line = f'su {user} -c {shlex.quote("ulimit -l 64; exec " + line)}'
        return self.run(f'echo quit | {line} 2> /tmp/stderr > /dev/null; s=$?; '
                        'cat /tmp/stderr; rm -f /tmp/stderr; (exit $s)')


def command(args):
    """Our QEMU's command line."""
    return shlex.join(['qemu-system-aarch64', '-machine', 'virt,highmem=off',
                       '-accel', 'qtest', '-nodefaults', '-display', 'none',
                       *args])


class Qemu:
    """Our QEMU on the host, for as long as the `with` block runs.

    text: what it said until it was up
    pid: on the host
    """

    def __init__(self, host, args):
        self.host = host
        self.line = (f'{command(args)} -chardev pipe,id=qt,path=/dev/vport0p1 '
                     '-qtest chardev:qt '
                     '-qtest-log /dev/null -daemonize -pidfile /tmp/pid')

    def __enter__(self):
        # Its package is in the path since a Machine has been started.
        # pylint: disable=import-outside-toplevel,import-error
        from qemu.machine.qtest import QEMUQtestProtocol
        # Before QEMU opens its end, which is dead while ours is closed.
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.host.qtest)
        self.qtest = QEMUQtestProtocol(sock=connection)
        self.qtest.connect()
        try:
            self.text = self.host.check(f'{self.line} 2>&1')
        except AssertionError:
            self.qtest.close()
            raise
        self.pid = int(self.host.check('cat /tmp/pid'))
        return self

    def __exit__(self, *exc):
        self.qtest.close()
        self.end('TERM')

    def end(self, signal):
        """Send a signal that ends it, and wait until it is gone."""
        self.host.check(f'kill -{signal} {self.pid} 2> /dev/null; '
                        f'while [ -e /proc/{self.pid} ]; do sleep 0.1; done')

    def _command(self, text):
        answer = self.qtest.cmd(text).split()
        if answer[:1] != ['OK']:
            raise AssertionError(f'{text}: {answer}')
        return answer[1:]

    def read(self, address, length):
        """Guest memory, by guest physical address."""
        return bytes.fromhex(self._command(f'read {address:#x} {length:#x}')[0][2:])

    def write(self, address, data):
        """Guest memory or a device, by guest physical address."""
        self._command(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def writel(self, address, value):
        """A register of 32 bits."""
        self.write(address, struct.pack('<I', value))


class Dma:
    """The DMA engine of a GPU at device 0 behind the root port at device 1."""

    ECAM, WINDOW = 0x3f000000, 0x10000000   # of virt,highmem=off
    BUFFER = 0x40000                        # seen from the engine

    def __init__(self, qemu):
        self.qemu = qemu
        port, device = self.ECAM + (1 << 15), self.ECAM + (1 << 20)
        # What firmware would do: numbers for the buses, a window, a BAR.
        qemu.writel(port + 0x18, 0x010100)
        qemu.writel(port + 0x20, (self.WINDOW >> 16) * 0x10001)
        qemu.writel(port + 0x04, 6)
        qemu.writel(device + 0x10, self.WINDOW)
        qemu.writel(device + 0x04, 6)

    def _run(self, source, target, length, direction):
        for offset, value in ((0x80, source), (0x88, target), (0x90, length),
                              (0x98, direction | 1)):
            self.qemu.writel(self.WINDOW + offset, value)
        end = time.monotonic() + 20
        while self.qemu.read(self.WINDOW + 0x98, 4)[0] & 1:
            assert time.monotonic() < end, 'the DMA does not end'
            time.sleep(0.05)

    def copy(self, source, target, length):
        """Copy guest memory, less than 4096 bytes, by guest physical address."""
        self._run(source, self.BUFFER, length, 0)
        self._run(self.BUFFER, target, length, 2)
