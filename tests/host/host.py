# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux host with an IOMMU, vfio-pci and a stand-in for the EGM driver.

It is a VM under TCG. Its GPUs are QEMU's `edu`, a device with DMA. QEMU, the one
that was built here, runs in it.
"""

import contextlib
import dataclasses
import os
import re
import shlex
import socket

from lib import BUILD, LIMIT, MIB, console, machine, process
from lib.made import made
from lib.qtest import Qtest
from guest.guest import Commands
# lib.machine has put these into the path.
from qemu.machine.qtest import QEMUQtestProtocol
from qemu.qmp.legacy import QEMUMonitorProtocol

# QEMU 11 prints it for each vfio device if the kernel is older than 6.19.
_DMA_BUF = re.compile('^.*: warning: VFIO dma-buf not supported in kernel: .*\n', re.M)
# Two regions, as of two sockets: sizes, by proximity domain.
REGIONS = {4: 1024 * MIB, 5: 256 * MIB}


@dataclasses.dataclass(frozen=True)
class Platform:
    """A machine that can be the host."""
    name: str           # that of its kernel and initramfs
    cpu: str            # of the QEMU that is the machine
    args: tuple         # of that
    inner: str          # the QEMU that runs in it, in the build directory
    cmdline: str        # of its kernel, which leaves {size} bytes at {base} alone
    reserved: int       # where these are
    guest: tuple        # our QEMU's machine
    kvm: tuple          # the same, to run guests
    # PCI addresses: two GPUs of each socket; a device with SR-IOV, and its virtual function
    gpus: tuple = ('0000:01:00.0', '0000:02:00.0', '0000:03:00.0', '0000:05:00.0')
    function: tuple = ('0000:04:00.0', '0000:04:00.1')
    nic: str = '0000:06:00.0'

    def machine(self):
        """Options of the QEMU that is the machine, without kernel and console."""
        return ['-cpu', self.cpu, *self.args]

    def append(self):
        """The command line of its kernel, whose messages only dmesg shows. A busy machine
        can stop this one for longer than 20 s.
        """
        return 'quiet loglevel=1 panic=-1 watchdog_thresh=60 ' + self.cmdline.format(
            base=self.reserved, size=sum(REGIONS.values()))

    def base(self, pxm):
        """The address of a region."""
        return self.reserved + sum(size for other, size in REGIONS.items() if other < pxm)

    def standin(self, **parameters):
        """Parameters of the stand-in, as words of a shell; each region has two GPUs."""
        gpus = self.gpus
        values = {'base': ','.join(f'{self.base(pxm):#x}' for pxm in REGIONS),
                  'size': ','.join(f'{size:#x}' for size in REGIONS.values()),
                  'pxm': ','.join(map(str, REGIONS)),
                  'gpus': f'{gpus[0]}+{gpus[1]},{gpus[2]}+{gpus[3]}', **parameters}
        return ' '.join(f'{k}={shlex.quote(str(v))}' for k, v in values.items())


def _devices(*devices):
    """Each behind a root port of its own."""
    for number, device in enumerate(devices, 1):
        yield from ('-device', f'pcie-root-port,id=rp{number},chassis={number}',
                    '-device', f'{device},bus=rp{number}')


_EDU = 'edu,dma_mask=0xffffffffffffffff'
# QEMU's devices with SR-IOV are few.
_NVME = ('nvme,serial=egm,subsys=nvme,max_ioqpairs=4,msix_qsize=5,'
         'sriov_max_vfs=1,sriov_vq_flexible=2,sriov_vi_flexible=1')
_DEVICES = ('-device', 'nvme-subsys,id=nvme',
            *_devices(_EDU, _EDU, _EDU, _NVME, _EDU, 'e1000e,romfile='))


# Without LPA2, as Grace: when a VM ends, KVM walks all addresses that there can be, and
# with 52 bits of them and pages of 16 KiB that is a minute on an emulated CPU.
ARM64 = Platform(
    name='arm64', cpu='max,pauth=off,sve=off,lpa2=off',
    args=('-machine', 'virt,virtualization=on,gic-version=3,iommu=smmuv3',
          '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '4G', *_DEVICES),
    inner='qemu-system-aarch64' if os.uname().machine == 'aarch64' else
          'arm64/qemu-system-aarch64',
    # Root ports isolate what is behind them, which old kernels leave undone.
    cmdline='console=ttyAMA0 mem=2G pci=config_acs=0011101@pci:1b36:c',
    reserved=0xc0000000,
    guest=('-machine', 'virt,highmem=off', '-accel', 'qtest'),
    kvm=('-machine', 'virt,gic-version=3', '-accel', 'kvm', '-cpu', 'host'))
PLATFORMS = {name: dataclasses.replace(ARM64, name=name)
             for name in ('arm64', 'arm64-16k', 'arm64-6.12')}


class Host(console.Console):
    """The host; a context manager."""

    def __init__(self, platform, keep):
        self.platform = platform
        initrd = made(BUILD, f'egm/tests/images/{platform.name}.initrd')
        vm = machine.Machine([
            '-kernel', str(initrd.with_suffix('.vmlinuz')), '-initrd', str(initrd),
            '-append', platform.append(), *platform.machine()])
        # The far ends of /dev/vport0p1 and so on, for our QEMU's monitors, and its
        # guest's console
        self.ports = [f'{vm.temp_dir}/port{number}' for number in (1, 2, 3)]
        vm.add_args('-device', 'virtio-serial-pci')
        for number, path in enumerate(self.ports):
            vm.add_args('-chardev', f'socket,id=port{number},path={path},server=on,wait=off',
                        '-device', f'virtserialport,chardev=port{number}')
        super().__init__(vm, keep)

    def check(self, line):
        """Run a line of shell that must succeed; give what it printed."""
        status, text = self.run(line)
        if status:
            raise AssertionError(f'{line}: status {status}\n{text}')
        return text

    @contextlib.contextmanager
    def standin(self, **parameters):
        """Load the stand-in; region 4 has GPUs 0 and 1, region 5 has GPU 2."""
        gpus = self.platform.gpus
        parameters.setdefault('gpus', f'{gpus[0]}+{gpus[1]},{gpus[2]}')
        self.check(f'insmod /modules/egm_standin.ko {self.platform.standin(**parameters)}')
        try:
            yield
        finally:
            left, text = self.run('rmmod egm_standin')
            if left:
                self.run('kill -KILL -1; while ! rmmod egm_standin; do '
                         'sleep 0.1; done')
        if left:
            raise AssertionError(text)

    @contextlib.contextmanager
    def pfnmap(self):
        """As with NVIDIA's kernels, iommufd maps memory without struct page."""
        parameter = '/sys/module/iommufd/parameters/pfnmap'
        self.check(f'echo Y > {parameter}')
        try:
            yield
        finally:
            self.check(f'echo N > {parameter}')

    def region(self, pxm, offset, length):
        """Part of a region, read from outside of the host."""
        return self.vm.memory(self.platform.base(pxm) + offset, length)

    def command(self, args, machine_args=None):
        """Our QEMU's command line."""
        return shlex.join([
            'qemu-system-aarch64', *(machine_args or self.platform.guest),
            '-nodefaults', '-display', 'none', *args])

    def start(self, args, user='root', prefix='', machine_args=None):
        """Start QEMU and end it as soon as it is up: exit status and stderr.

        A user other than root may lock 64 KiB of memory, as usual. `prefix` are
        words before the command line.
        """
        line = f'{prefix} {self.command(args, machine_args)} -monitor stdio'
        if user != 'root':
            line = f'su {user} -c {shlex.quote("ulimit -l 64; exec " + line)}'
        status, text = self.run(f'echo quit | {line} 2> /tmp/stderr > /dev/null; s=$?; '
                                'cat /tmp/stderr; rm -f /tmp/stderr; (exit $s)')
        return status, _DMA_BUF.sub('', text)

    @contextlib.contextmanager
    def probe(self, function):
        """Watch a function of our QEMU: gives one that tells how often it ran."""
        tracing = '/sys/kernel/tracing'
        offset = file_offset(BUILD / self.platform.inner, function)
        self.check(f'echo p:egm/probe /bin/qemu-system-aarch64:{offset:#x} > '
                   f'{tracing}/uprobe_events; '
                   f'echo 1 > {tracing}/events/egm/probe/enable')
        try:
            yield lambda: int(self.check(
                f'grep -c probe: {tracing}/trace || true'))
        finally:
            self.check(f'echo 0 > {tracing}/events/egm/probe/enable; '
                       f'echo > {tracing}/uprobe_events; echo > {tracing}/trace')


def file_offset(path, function):
    """Where in a program's file a function is."""
    def lines(*command):
        return (line.split() for line in process.output(*command, path).splitlines())

    address, = (int(line[0], 16) for line in lines('nm')
                if line[1:] == ['T', function])
    for line in lines('readelf', '-lW'):
        if line[:1] == ['LOAD']:
            offset, start, _, size = (int(word, 16) for word in line[1:5])
            if start <= address < start + size:
                return address - start + offset
    raise AssertionError(f'{path}: {function} is in no segment')


class Qemu(Qtest):
    """Our QEMU on the host, for as long as the `with` block runs.

    text: what it said until it was up
    pid: on the host
    """

    def __init__(self, host, args, machine_args=None):
        super().__init__(None)      # connected by __enter__()
        self.host = host
        self.line = (f'{host.command(args, machine_args)} '
                     '-chardev pipe,id=qt,path=/dev/vport0p1 '
                     '-qtest chardev:qt -qtest-log /dev/null '
                     '-chardev pipe,id=qmp,path=/dev/vport0p2 '
                     '-mon chardev=qmp,mode=control '
                     '-daemonize -pidfile /tmp/pid')

    def __enter__(self):
        # Before QEMU opens its ends, which are dead while ours are closed.
        self.sockets = []
        for path in self.host.ports:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            self.sockets.append(connection)
        self.serial = self.sockets[2]
        self.sockets[0].settimeout(LIMIT)
        self.protocol = QEMUQtestProtocol(sock=self.sockets[0])
        self.protocol.connect()
        try:
            self.text = _DMA_BUF.sub('', self.host.check(f'{self.line} 2>&1'))
        except AssertionError:
            self._close()
            self.serial.shutdown(socket.SHUT_RDWR)
            raise
        self.pid = int(self.host.check('cat /tmp/pid'))
        # The far ends do not notice its end: they get this in place of an answer. It
        # has no files even before somebody waits for it. Once this writes, it also ends.
        self.watcher = self.host.check(
            f'(while [ -e /proc/{self.pid}/exe ]; do sleep 1; done; '
            'trap "" TERM; echo gone | tee /dev/vport0p1 > /dev/vport0p2) > /dev/null 2>&1 & '
            'echo $!').strip()
        self.qmp = QEMUMonitorProtocol(self.sockets[1])
        self.qmp.settimeout(LIMIT)
        self.qmp.connect()
        return self

    def __exit__(self, *exc):
        self.host.run(f'kill {self.watcher}; wait {self.watcher}')
        with contextlib.suppress(Exception):
            self.qmp.close()
        self._close()
        self.end('TERM')
        self.serial.shutdown(socket.SHUT_RDWR)

    def _close(self):
        self.protocol.close()
        self.sockets[1].close()

    def cmd(self, name, **arguments):
        """Run a QMP command and give what it returns."""
        return self.qmp.cmd(name, **arguments)

    def hmp(self, line):
        """Run a command of the human monitor and give what it prints."""
        return self.cmd('human-monitor-command', **{'command-line': line})

    def end(self, signal):
        """Send a signal that ends it, and wait until it is gone."""
        self.host.check(f'kill -{signal} {self.pid} 2> /dev/null; '
                        f'while [ -e /proc/{self.pid} ]; do sleep 0.1; done')


class Guest(Commands, console.Terminal):
    """A guest of KVM on the host, with UEFI and Linux; a context manager."""

    def __init__(self, host, args, keep):
        super().__init__(keep)
        self.qemu = Qemu(host, [
            *args, '-bios', '/guest/uefi', '-kernel', '/guest/vmlinuz',
            '-initrd', '/guest/initrd',
            '-append', 'console=ttyAMA0 quiet loglevel=1 panic=-1 efi=debug '
            'watchdog_thresh=60 nokaslr',
            '-chardev', 'pipe,id=serial,path=/dev/vport0p3',
            '-serial', 'chardev:serial'], host.platform.kvm)

    def __enter__(self):
        self.qemu.__enter__()
        self.attach(self.qemu.serial)
        return self

    def __exit__(self, *exc):
        self.qemu.__exit__(*exc)


class Dma:
    """The DMA engine of a GPU at device 0 behind the root port at device 1."""

    BUFFER = 0x40000                        # seen from the engine

    def __init__(self, qemu, ecam=None):
        """ecam: where configuration space is, if firmware has set the device up."""
        self.qemu = qemu
        device = (ecam or 0x3f000000) + (1 << 20)       # that of virt,highmem=off
        if not ecam:
            # What firmware would do: numbers for the buses, a window, a BAR.
            port = 0x3f000000 + (1 << 15)
            qemu.writel(port + 0x18, 0x010100)
            qemu.writel(port + 0x20, (0x10000000 >> 16) * 0x10001)
            qemu.writel(port + 0x04, 6)
            qemu.writel(device + 0x10, 0x10000000)
        qemu.writel(device + 0x04, 6)
        self.window = int.from_bytes(qemu.read(device + 0x10, 4), 'little')

    def _run(self, source, target, length, direction):
        for offset, value in ((0x80, source), (0x88, target), (0x90, length),
                              (0x98, direction | 1)):
            self.qemu.writel(self.window + offset, value)
        self.qemu.host.vm.until('end of the DMA', lambda: not self.qemu.read(
            self.window + 0x98, 4)[0] & 1)

    def copy(self, source, target, length):
        """Copy guest memory, less than 4096 bytes, by guest physical address."""
        self._run(source, self.BUFFER, length, 0)
        self._run(self.BUFFER, target, length, 2)
