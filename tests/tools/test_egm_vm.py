# SPDX-License-Identifier: GPL-2.0-or-later
"""egm-vm on made-up hosts: what it finds, what it refuses, what it writes."""

import ast
import configparser
import contextlib
import errno
import fcntl
import json
import mmap
import multiprocessing
import os
import pathlib
import pty
import re
import resource
import select
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
import xml.etree.ElementTree as ET

import pexpect

from egm import (checks, cmdline, domain, emulator, hostinfo, hostview, opening, options,
                 pinning, plan)
from lib import BUILD, MIB, TOP, grace, machine, process, standin
from tools import acpi_made, fuzz

QEMU = BUILD / 'qemu-system-aarch64'
# What `-device arm-smmuv3,help` prints, without descriptions, and the options that
# egm-vm makes of it
SMMUS = {
    '11.1': ('''  accel=<bool>           -  (default: off)
  ats=<OnOffAuto>        -  (default: auto)
  cmdqv=<OnOffAuto>      -  (default: auto)
  oas=<OasMode>          -  (default: auto)
  primary-bus=<link<PCI>>
  ril=<OnOffAuto>        -  (default: auto)
  ssidsize=<SsidSizeMode> -  (default: auto)
''', 'accel=on,ats=on'),
    '11.0': ('''  accel=<bool>           -  (default: off)
  ats=<bool>             -  (default: off)
  oas=<uint8>            -  (default: 44)
  primary-bus=<link<PCI>>
  ril=<bool>             -  (default: on)
  ssidsize=<uint8>       -  (default: 0)
''', 'accel=on,ats=on,ril=off,ssidsize=20,oas=48'),
    'nvidia': ('''  accel=<bool>           - on/off (default: off)
  ats=<bool>             - on/off (default: off)
  cmdqv=<bool>           - on/off (default: off)
  oas=<uint8>            -  (default: 44)
  pasid=<bool>           - on/off (default: off)
  primary-bus=<link<PCI>>
  ril=<bool>             - on/off (default: on)
''', 'accel=on,ats=on,ril=off,pasid=on,oas=48'),
    '10.2': ('''  bus_num=<uint8>        -  (default: 0)
  primary-bus=<link<PCI>>
''', ''),
}
EXAMPLE = {'sockets': 2, 'gpus': 2}     # of the README
WORDS = {'problem': 'problem', 'note': 'note'}      # levels that are shown
FIRMWARE = BUILD / 'pc-bios/edk2-aarch64-code.fd'
REAL_STAT = os.stat


class Case(unittest.TestCase):
    """Each case has a directory for its host, and a QEMU 11.1 as far as egm-vm asks it
    about its SMMU; otherwise it is that of this build."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix='egm-vm-qemu-')
        cls.addClassCleanup(directory.cleanup)
        cls.bin = pathlib.Path(directory.name)
        (cls.bin / 'pc-bios').symlink_to(FIRMWARE.parent)
        for version, (text, _) in SMMUS.items():
            grace.write(cls.bin / version, '#!/bin/sh\n'
                        f'[ "$*" = "-device arm-smmuv3,help" ] || exec {QEMU} "$@"\n'
                        f"cat <<'END'\narm-smmuv3 options:\n{text}END\n").chmod(0o755)
        cls.qemu = cls.bin / '11.1'

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-vm-')
        self.addCleanup(self.tmp.cleanup)
        self.root = pathlib.Path(self.tmp.name)
        self.root.chmod(0o755)
        self.notes = []

    def run_it(self, what=None, *args, **keywords):
        """egm-vm on this host: exit status, output."""
        qemu = () if what == 'svg' or '--qemu' in args else ('--qemu', self.qemu)
        run = subprocess.run(
            [TOP / 'tools/egm-vm', *([what] if what else []), '--root', self.root, *qemu,
             *args], text=True, check=False, timeout=machine.LIMIT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, **keywords)
        self.assertNotIn('Traceback', run.stdout)
        return run.returncode, run.stdout

    def succeeds(self, *args, **keywords):
        """The output, without notes, which are kept."""
        status, text = self.run_it(*args, **keywords)
        self.assertEqual(status, 0, text)
        lines = text.splitlines(keepends=True)
        self.notes = [] if not args else \
            [line for line in lines if line.startswith(('note: ', '    Hint: '))]
        return ''.join(line for line in lines if line not in self.notes)

    def refused(self, *messages, args=('qemu',)):
        """Just these errors."""
        status, text = self.run_it(*args)
        self.assertEqual(status, 1, text)
        lines = text.splitlines()
        self.assertEqual(len(lines), len(messages), text)
        for line, message in zip(lines, messages):
            self.assertTrue(line.startswith('error: '), line)
            self.assertIn(message, line)

    def findings(self, **keywords):
        """The findings on this host, independent of this machine's KVM."""
        machine_ = hostinfo.read(str(self.root))
        with unittest.mock.patch('fcntl.ioctl', return_value=1):
            return machine_, checks.find(machine_, emulator.Emulator(
                str(self.qemu), **keywords))

    def found(self, *expected):
        """Exactly these findings: (level, id, text, command or hint)."""
        machine_, found = self.findings()
        text = '\n'.join(hostview.host_lines(machine_, found))
        self.assertEqual([(f.level, f.id) for f in found if f.level in WORDS],
                         [e[:2] for e in expected], text)
        for finding, (level, _, message, action) in zip(
                (f for f in found if f.level in WORDS), expected):
            self.assertIn(message, finding.text)
            self.assertIn(action, f'{finding.hint} {finding.command}')
            self.assertIn(f'{WORDS[level]}: {finding.text}', text)
            self.assertIn(finding.command, text)
        return found


class Findings(Case):
    """What a host has and lacks."""

    def test_hosts(self):
        """Nothing to complain about: a line for each GPU."""
        for sockets, gpus in ((1, 1), (2, 2), (4, 1)):
            for links in (True, False):
                with self.subTest(sockets=sockets, gpus=gpus, links=links), \
                        tempfile.TemporaryDirectory() as directory:
                    made = grace.Host(directory, sockets, gpus, links=links)
                    self.root = pathlib.Path(directory)
                    self.found()
                    lines = self.succeeds().splitlines()
                    self.assertEqual(len(lines), 1 + sockets * gpus, lines)
                    for s, addresses in made.gpus.items():
                        for address in addresses:
                            self.assertRegex('\n'.join(lines), (
                                rf'egm{4 + s} .* {address}  10de:2941  '
                                r'nvgrace_gpu_vfio_pci  \d +vfio\d\n?'))

    def test_no_egm(self):
        """GPUs are bound first, then the driver is loaded, then the firmware has to
        set memory aside."""
        made = grace.Host(self.root, 0)
        device = made.pci('0008:01:00.0', 0, 'nvidia', 0)
        self.found(('problem', 'regions', 'some drivers create one only when its GPUs have '
                    'a vfio driver; 0008:01:00.0 have none',
                    'driverctl set-override 0008:01:00.0 nvgrace_gpu_vfio_pci'))
        made.bind('0008:01:00.0', 'nvgrace_gpu_vfio_pci')
        self.found(('problem', 'regions', 'the driver is not loaded',
                    'for m in nvgrace-egm egm; do modprobe $m'))
        made.file('/sys/module/nvgrace_egm').mkdir(parents=True)
        self.found(('problem', 'regions', 'the firmware has set no memory aside',
                    '"EGM Hypervisor reserved memory per socket"'))
        (device / 'class').write_text('0x068000\n')
        made.bind('0008:01:00.0', 'nvidia')
        self.found(('problem', 'regions', 'the firmware has set', ''))
        self.assertEqual(self.run_it()[0], 1)
        self.refused('this host has no EGM region')
        self.refused('this host has no EGM region', args=('svg', '--host'))
        made.region(4, 64 * MIB, [])
        self.refused('no EGM region of this host has a GPU')

    def test_unbound(self):
        """A GPU that a host driver has, and one that none has. The command lasts, and
        takes no GPU away from a program."""
        made = grace.Host(self.root, 1, 2)
        for address, driver in zip(made.gpus[0], ('nvidia', None)):
            made.bind(address, driver)
        first, second = made.gpus[0]
        self.found(
            ('problem', 'gpu-driver', f'GPU {first} is not bound to a vfio driver but to '
             'nvidia', f'driverctl set-override {first} nvgrace_gpu_vfio_pci'),
            ('problem', 'gpu-driver', f'GPU {second} is not bound to a vfio driver but to '
             'none', f'driverctl set-override {second} nvgrace_gpu_vfio_pci'))
        self.refused(f'GPU {first} is not bound', f'GPU {second} is not bound')
        made.user('/dev/nvidia0', command='nvidia-persiste')
        found = self.findings()[1]
        finding, = (f for f in found if f.subject == first and f.level == 'problem')
        self.assertEqual(finding.command, '')
        self.assertIn('end the users of the driver first: nvidia-persiste (4711)',
                      finding.hint)
        made.bind(second, 'vfio-pci')
        self.found(('problem', 'gpu-driver', f'GPU {first} is not bound', 'end the users'),
                   ('note', 'gpu-driver', f"GPU {second} is bound to vfio-pci, which does not "
                    "give a VM the GPU's own memory",
                    f'driverctl set-override {second} nvgrace_gpu_vfio_pci'))
        self.succeeds('qemu', '--gpus', second)

    def test_loose(self):
        """GPUs that no region lists: not bound, bound later than the driver was loaded; a VM
        with all GPUs does not have them."""
        made = grace.Host(self.root)
        made.pci('0009:01:00.0', 0, 'nvidia', 7)
        made.pci('000a:01:00.0', 0, 'nvgrace_gpu_vfio_pci', 8)
        made.pci('000b:01:00.0', 0, 'nvidia', 9)
        made.mediated('000b:01:00.0')
        self.found(('note', 'gpu-region', 'no region lists GPU 0009:01:00.0: some drivers',
                    'driverctl set-override 0009:01:00.0 nvgrace_gpu_vfio_pci'),
                   ('note', 'gpu-region', 'no region lists GPU 000a:01:00.0', 'were loaded'))
        for args, notes in ((), 2), (('--gpus', '8:1:0.0'), 0), (('--socket', '0'), 0):
            self.assertEqual(self.run_it('qemu', *args)[1].count('no region lists'), notes)

    def test_vgpu(self):
        """A GPU whose driver has virtual GPUs stays with it, and is not a problem."""
        made = grace.Host(self.root, 1, 3)
        first, second, third = made.gpus[0]
        made.bind(first, 'nvidia')
        name = made.mediated(first)
        made.bind(second, 'nvidia')
        part, = made.virtual(second, 1, 'nvidia')
        self.found()
        text = self.succeeds()
        self.assertNotIn('set-override', text)
        self.assertEqual(text.count('vGPU'), 2)
        self.refused(f'GPU {first} has mediated devices (vGPU): {name}',
                     f'GPU {part} is a virtual function (vGPU) of the driver nvidia',
                     f'free: {third} on egm4 (--socket 0)')
        self.refused(f'GPU {first} has mediated devices (vGPU): {name}',
                     args=('libvirt', '--gpus', first))
        self.assertIn(f'host={third}', self.succeeds('qemu', '--gpus', 'free'))
        # The driver of newer vGPUs is a driver of vfio.
        made.file(f'/sys/bus/pci/devices/{part}/vfio-dev/vfio9').mkdir(parents=True)
        self.assertIn(f'host={part}', self.succeeds('qemu', '--gpus', 'free'))

    def test_size(self):
        """A region without a size, with one that makes no sense, or an odd one."""
        made = grace.Host(self.root)
        size = made.file('/sys/class/egm/egm4/egm_size')
        size.unlink()
        self.found(('problem', 'region-size', 'does not report the size of the region',
                    'newer version'))
        self.refused('the size of the region is not known')
        self.refused('does not report the size', args=('qemu', '--memory', '64M'))
        self.assertIn('size=64M', self.succeeds('qemu', '--memory', '64M', '--no-check'))
        for text in ('-1', '0', '0x100000', 'x', '1' * 5000, '0x' + 'f' * 16):
            size.write_text(text + '\n')
            self.found(('problem', 'region-size', 'egm_size is ' + text[:40], ''))
            self.refused('the size of the region is not known or less than 2 MiB')
        size.write_text('0x4100000\n')
        self.found(('note', 'region-size', '65 MiB (0x4100000) is not a multiple of 2 '
                    'MiB', ''))
        self.assertIn('size=64M', self.succeeds('qemu'))

    def test_names(self):
        """Other names in the class are not regions."""
        made = grace.Host(self.root)
        made.file('/sys/class/egm/egmfoo').mkdir()
        self.found(('note', 'region-name', '/sys/class/egm/egmfoo does not have the name', ''))
        self.assertNotIn('egmfoo', self.succeeds('qemu'))

    def test_memory_of_host(self):
        """A region of a node that has CPUs and memory is the host's own RAM; a node of
        GPU memory with that number proves nothing."""
        made = grace.Host(self.root)
        made.region(0, 447 << 30, made.gpus[0])
        made.file('/sys/class/egm/egm4').unlink()
        self.found(('problem', 'region-memory', 'egm0 is RAM of this host (NUMA node 0 has '
                    'CPUs and memory): opening /dev/egm0 would clear it',
                    'do not open it'))
        for what in 'qemu', 'libvirt':
            self.refused('egm0 is RAM of this host', args=(what,))
        for name, text in (('cpulist', '\n'), ('meminfo', 'Node 0 MemTotal: 0 kB\n')):
            path = made.file(f'/sys/devices/system/node/node0/{name}')
            before = path.read_text()
            path.write_text(text)
            self.found()
            path.write_text(before)

    def test_virtual(self):
        """Virtual functions take the place of their GPU."""
        made = grace.Host(self.root)
        address, = made.gpus[0]
        first, second = made.virtual(address, 2, 'vfio-pci')
        self.found()
        text = self.succeeds('qemu', '--gpus', second)
        self.assertIn(f'host={second}', text)
        self.assertNotIn(f'host={first}', text)
        self.assertEqual(self.succeeds('qemu').count('pci-nohotplug'), 2)
        self.refused('has virtual functions: name some of them: '
                     f'{first}, {second}', args=('qemu', '--gpus', address))

    def test_long_domain(self):
        """PCI domains can have more than four digits."""
        made = grace.Host(self.root, 0)
        for links, pxm in ((True, 4), (False, 5)):
            made.links = links
            address = f'1000{pxm}:01:00.0'
            made.pci(address, 0, 'nvgrace_gpu_vfio_pci', pxm)
            made.region(pxm, 64 * MIB, [address])
        self.found()
        text = self.succeeds('qemu')
        for pxm in (4, 5):
            self.assertIn(f'host=1000{pxm}:01:00.0', text)

    def test_in_use(self):
        """By a descriptor, a mapping, or a lock: shown, and not a problem."""
        who = 'in use by qemu-system-aar (4711)'
        for kind in ('descriptor', 'mapping', 'lock'):
            with self.subTest(kind=kind), \
                    tempfile.TemporaryDirectory() as directory:
                self.root = pathlib.Path(directory)
                made = grace.Host(self.root, 1, 2)
                made.user('/dev/egm4' if kind == 'descriptor' else '/dev/null')
                if kind == 'mapping':
                    made.file('/proc/4711/maps').write_text(
                        '7f0000000000-7f0004000000 rw-s 00000000 00:05 9  '
                        '                        /dev/egm4\n')
                if kind == 'lock':
                    node = made.file('/dev/egm4').stat()
                    grace.write(made.file('/proc/locks'),
                                '1: FLOCK  ADVISORY  WRITE 4711 '
                                f'{os.major(node.st_dev):02x}:'
                                f'{os.minor(node.st_dev):02x}:{node.st_ino} 0 EOF\n')
                self.found()
                self.assertIn('447 GiB  0     qemu-system-aar (4711)  0008',
                              self.succeeds())
                self.assertRegex(self.succeeds('check'),
                                 'PASS  region-use +egm4 is ' + re.escape(who))
                # Another GPU of that socket for another VM
                second = made.gpus[0][1]
                self.refused(f'egm4 is {who}: a region belongs to one VM',
                             args=('qemu', '--gpus', second))
                self.refused('no GPU is free', args=('qemu', '--gpus', 'free'))
                # What is only drawn or defined does not need it yet.
                self.succeeds('svg')
                self.succeeds('libvirt')

    def test_free(self):
        """With one socket in use, the other one can be had."""
        made = grace.Host(self.root, 2, 2)
        made.user('/dev/egm4')
        self.refused('egm4 is in use by qemu-system-aar (4711): a region belongs to one VM',
                     'free: 0018:01:00.0, 0019:01:00.0 on egm5 (--socket 1); --gpus free')
        for option in (('--gpus', 'free'), ('--socket', '1')):
            text = self.succeeds('qemu', *option)
            self.assertEqual(re.findall('host=(.*?),', text), made.gpus[1])
        self.refused('egm4 is in use', 'free: ', args=('qemu', '--socket', '0'))
        self.refused('--socket 7: no EGM region is on node 7; there are 0, 1',
                     args=('qemu', '--socket', '7'))
        self.refused('0008:01:00.0 is not a GPU of an EGM region; there are 0018',
                     args=('qemu', '--socket', '1', '--gpus', '8:1:0.0'))

    def test_in_use_by_a_busy_one(self):
        """A descriptor that is closed meanwhile does not hide the others."""
        made = grace.Host(self.root)
        made.user('/dev/egm4')
        for number in range(100, 120):
            # What is no link cannot be read either.
            made.file(f'/proc/4711/fd/{number}').touch()
        self.assertIn('qemu-system-aar (4711)', self.succeeds())

    @unittest.skipUnless(os.getuid() == 0, 'only root can make device nodes')
    def test_number(self):
        """Another node of the device counts, a disk of the same number does not."""
        made = grace.Host(self.root)
        for name, kind in ('node', stat.S_IFCHR), ('disk', stat.S_IFBLK):
            os.mknod(made.file(f'/dev/{name}'), kind, os.makedev(511, 4))
        made.user('/dev/disk', pid=4710)
        self.assertNotIn('qemu', self.succeeds())
        made.user('/dev/node')
        self.assertIn(' qemu-system-aar (4711)', self.succeeds())

    def test_elsewhere(self):
        """Files of other processes are not looked at: their server can be dead."""
        made = grace.Host(self.root)
        grace.write(made.file('/mnt/dead/egm4'))
        for pid, name in ((4710, '/mnt/dead/egm4'), (4711, '/dev/shm/x/y'),
                          (4712, '/dev/egm4')):
            made.user(name, pid=pid)
        looked = []
        sys.addaudithook(lambda event, args: looked.append(str(args[0]))
                         if event == 'open' else None)
        with unittest.mock.patch('os.stat', side_effect=lambda path, **_: (
                looked.append(str(path)), REAL_STAT(path))[1]):
            machine_ = hostinfo.read(str(self.root))
        self.assertEqual(str(machine_.regions[0].users[0]), 'qemu-system-aar (4712)')
        self.assertTrue(looked)
        for path in looked:
            self.assertNotRegex(path.removeprefix(str(self.root)),
                                r'/mnt/|/shm/x|/proc/\d+/(fd/\d|root|cwd)')

    def test_path_descriptor(self):
        """An O_PATH descriptor, which needs no permission, does not count, nor does a
        file of that name in a user namespace."""
        made = grace.Host(self.root)
        made.user('/dev/egm4', flags='012000000')
        self.assertNotIn('4711', self.succeeds())
        made.user('/dev/egm4')
        for pid, name in (('self', 'user:[1]'), ('4711', 'user:[2]')):
            grace.link(made.file(f'/proc/{pid}/ns/user'), name)
        info = made.file('/proc/4711/fdinfo/12')
        for inode, counts in ((made.file('/dev/egm4').stat().st_ino, True), (1, False)):
            info.write_text(f'flags:\t0100002\nino:\t{inode}\n')
            self.assertEqual('4711' in self.succeeds(), counts)

    def test_control_characters(self):
        """Names of processes, drivers and interfaces cannot write to the terminal."""
        made = grace.Host(self.root)
        made.user('/dev/egm4', command='\x1b[31mx\nnote: ok')
        evil = made.file('/sys/bus/pci/drivers/\x1b[2Jx')
        evil.mkdir(parents=True)
        made.bind('0008:01:00.0', '\x1b[2Jx')
        made.file('/sys/class/egm/egm\x1b').mkdir()
        status, text = self.run_it()
        self.assertEqual(status, 1)
        self.assertNotIn('\x1b', text)
        self.assertNotIn('\nnote: ok', text)
        self.assertIn('?[31mx?note: ok (4711)', text)

    def test_gpu_in_use(self):
        """A VM without EGM can have a GPU, too."""
        made = grace.Host(self.root)
        for device in ('/dev/vfio/0', '/dev/vfio/devices/vfio0'):
            made.user(device)
            self.found()
            self.assertRegex(self.succeeds(), r'0 +qemu-system-aar \(4711\) +0008:01:00.0')
            self.refused('GPU 0008:01:00.0 is in use by qemu-system-aar (4711)')

    @unittest.skipUnless(os.getuid() == 0, 'only root can become somebody else')
    def test_permissions(self):
        """A user without access to devices gets a command, also a user without
        a name; what was printed for others is not said of a domain of libvirt."""
        self.addCleanup(os.umask, os.umask(0o022))
        made = grace.Host(self.root)
        names = {'egm4': 'SUBSYSTEM=="egm"', 'iommu': 'KERNEL=="iommu"',
                 'vfio/devices/vfio0': 'SUBSYSTEM=="vfio-dev"'}
        for name in (*names, 'kvm'):
            made.file(f'/dev/{name}').chmod(0o600)
        # Copies, as the checkout can be root's alone.
        with open(self.root / 'firmware', 'wb') as file:
            file.truncate(64 * MIB)
        subprocess.run(['cp', '-r', TOP / 'tools', QEMU, self.root], check=True)

        def run(what, user):
            return subprocess.run(
                [self.root / 'tools/egm-vm', what, '--root', self.root, '--qemu',
                 self.root / QEMU.name, '--firmware', self.root / 'firmware'],
                text=True, check=False, stdout=subprocess.PIPE, user=user,
                stderr=subprocess.STDOUT)
        for user in 'nobody', 54321:
            status, text = (run_ := run('host', user)).returncode, run_.stdout
            self.assertEqual(status, 1, text)
            self.assertNotIn('Traceback', text)
            for name, rule in names.items():
                self.assertIn(f'problem: user {user}: no access to /dev/{name}\n', text)
                self.assertRegex(text, rf"echo '{rule}, OWNER=\"{user}\"' > "
                                 r'/etc/udev/rules.d/70-egm-[a-z-]+\.rules; udevadm')
            self.assertIn(f'usermod -a -G kvm {user}\n', text)
        self.assertIn('<domain', run('libvirt', 'nobody').stdout)
        made.file('/sys/class/egm').chmod(0o700)
        again = run('host', 'nobody')
        self.assertEqual(again.returncode, 2, again.stdout)
        self.assertIn('error: [Errno 13] Permission denied', again.stdout)

    def test_kernel(self):
        """iommufd, pages, KVM and its capability."""
        made = grace.Host(self.root, iommufd=False)
        made.pages(4)
        made.file('/dev/kvm').unlink()
        self.found(('note', 'iommufd', 'no iommufd: VMs use the type1 container',
                    'echo iommufd > /etc/modules-load.d/iommufd.conf'),
                   ('note', 'page-size', 'pages of 4 KiB', ''),
                   ('problem', 'kvm', 'there is no /dev/kvm', ''))
        self.refused('there is no /dev/kvm')
        text = self.succeeds('qemu', '--accel', 'tcg')
        self.assertNotIn('iommufd', text)
        self.assertIn('accel=tcg', text)
        self.refused('--iommufd: no iommufd: VMs use the type1 container',
                     args=('qemu', '--accel', 'tcg', '--iommufd'))
        self.assertIn('iommufd=iommufd0', self.succeeds('qemu', '--iommufd', '--no-check'))

    def test_iommufd(self):
        """One GPU that cannot be used with it, and a kernel whose iommufd may not map
        EGM."""
        made = grace.Host(self.root, 1, 2)
        place = made.file('/sys/bus/pci/devices/0009:01:00.0/vfio-dev')
        for name in place.iterdir():
            name.rmdir()
        self.found(('note', 'iommufd', '0009:01:00.0 cannot be used with iommufd', ''))
        self.assertNotIn('iommufd', self.succeeds('qemu'))
        made.bind('0009:01:00.0', 'nvgrace_gpu_vfio_pci')
        made.file('/proc/sys/kernel/osrelease').write_text('7.3.1-arm64\n')
        self.found(('note', 'iommufd', 'iommufd of this kernel (7.3.1-arm64) may not map '
                    'EGM', '--type1'))
        self.succeeds('qemu')
        self.assertIn('note: iommufd of this kernel (7.3.1-arm64)', ''.join(self.notes))

    def test_type1(self):
        """Although the host has iommufd."""
        grace.Host(self.root)
        self.assertIn('iommufd=iommufd0', self.succeeds('qemu'))
        self.assertNotIn('iommufd', self.succeeds('qemu', '--type1'))

    def test_capability(self):
        """KVM that does not report how it maps the memory."""
        grace.Host(self.root)
        machine_ = hostinfo.read(str(self.root))
        for answer, level in ((0, 'note'), (1, 'pass'), (OSError(25, ''), None)):
            with unittest.mock.patch('fcntl.ioctl', side_effect=[answer]) as ioctl:
                found = checks.find(machine_, emulator.Emulator(str(QEMU)))
            self.assertEqual(ioctl.call_args[0][1:], (0xae03, 243))
            self.assertEqual([f.level for f in found if f.id == 'kvm-maps-egm'],
                             [level] if level else [])

    def test_other_machine(self):
        """A host without KVM for arm64."""
        made = grace.Host(self.root)
        made.file('/proc/sys/kernel/arch').write_text('x86_64\n')
        self.found(('note', 'kvm', 'this is x86_64', ''))
        self.assertIn('accel=tcg', self.succeeds('qemu'))

    def test_iommu(self):
        """No IOMMU; a group with a NIC in it, which may be the host's own."""
        made = grace.Host(self.root)
        device = made.pci('0000:05:00.0', 0, 'e1000e', 0, 0x020000)
        made.interface('eth0', '0000:05:00.0')
        made.pci('0000:04:00.0', 0, 'pcieport', 0, 0x060400)
        found = self.found(('problem', 'gpu-group', '0000:05:00.0 (eth0, driver e1000e) is '
                            'in the IOMMU group of GPU 0008:01:00.0', 'may need it'))
        self.assertEqual([f.command for f in found if f.id == 'gpu-group'], [''])
        (device / 'driver').unlink()
        self.found()
        made.file('/sys/bus/pci/devices/0008:01:00.0/iommu_group').unlink()
        self.found(('problem', 'gpu-iommu', 'has no IOMMU group', 'SMMU'))

    def contradictions(self):
        """A host with what no driver should report."""
        made = grace.Host(self.root, 2)
        first = made.gpus[0][0]
        made.region(5, 64 * MIB, [first, '0077:01:00.0', made.gpus[1][0]])
        made.region(6, 64 * MIB, [])
        made.file('/dev/egm6').unlink()
        return first

    def test_contradictions(self):
        """GPUs that are on different nodes, in two regions, or not there."""
        first = self.contradictions()
        self.found(('problem', 'region-node', 'the GPUs of egm5 are on different NUMA '
                    'nodes: 0, 1', ''),
                   ('problem', 'region-device', '/dev/egm6 is missing', 'container'),
                   ('problem', 'region-gpus', 'egm6 has no GPU', ''),
                   ('problem', 'gpu-region', f'GPU {first} is listed by several regions: '
                    'egm4, egm5', ''),
                   ('problem', 'gpu-present', 'GPU 0077:01:00.0 not found', ''))

    def test_same_list(self):
        """qemu and libvirt refuse a VM for what host and check find, and for nothing
        else; svg and --no-check do not."""
        def nic(made):
            made.pci('0008:02:00.0', 0, 'mlx5_core', 0, 0x020000)

        def no_iommu(made):
            made.file('/sys/bus/pci/devices/0008:01:00.0/iommu_group').unlink()

        def no_device(made):
            made.file('/dev/egm4').unlink()

        def two_nodes(made):
            made.file('/sys/bus/pci/devices/0008:01:00.0/numa_node').write_text('1\n')

        def twice(made):
            made.region(5, 64 * MIB, made.gpus[0])

        def unbound(made):
            made.bind('0008:01:00.0', None)

        def gone(made):
            made.file('/sys/bus/pci/devices/0008:01:00.0').unlink()

        for change, ids in ((nic, ['gpu-group']), (no_iommu, ['gpu-iommu']),
                            (no_device, ['region-device']), (two_nodes, ['region-node']),
                            (twice, ['gpu-region'] * 2), (unbound, ['gpu-driver']),
                            (gone, ['gpu-present'])):
            with self.subTest(change.__name__), \
                    tempfile.TemporaryDirectory() as directory:
                self.root = pathlib.Path(directory)
                change(grace.Host(directory, 1, 2))
                problems = [f for f in self.findings()[1] if f.level == 'problem']
                self.assertEqual([f.id for f in problems], ids)
                self.assertEqual(self.run_it('check')[1].count('FAIL  '), len(ids))
                for what in 'qemu', 'libvirt':
                    self.refused(*(f.text for f in problems), args=(what,))
                    text = self.succeeds(what, '--no-check')
                self.assertEqual(text.count("domain='0x0008'") + text.count(
                    'domain="0x0008"'), 1)
                self.succeeds('svg')

    def test_other_socket(self):
        """What is wrong with another socket does not matter."""
        made = grace.Host(self.root, 2)
        made.file('/dev/egm4').unlink()
        self.refused('/dev/egm4 is missing')
        self.succeeds('qemu', '--socket', '1')

    def test_emulator(self):
        """No QEMU, one without the object, firmware that is none."""
        grace.Host(self.root)
        other = self.root / 'qemu'
        other.write_text('#!/bin/sh\necho rng-random\n')
        other.chmod(0o755)
        for path, message in (('/nonexistent', '/nonexistent not found'),
                              (other, 'no object acpi-egm-memory')):
            run = subprocess.run(
                [TOP / 'tools/egm-vm', 'qemu', '--root', self.root, '--qemu', path,
                 '--firmware', FIRMWARE], text=True, check=False,
                stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            self.assertEqual((run.returncode, run.stdout), (1, ''))
            self.assertIn(message, run.stderr)
        for path, message in (('/nonexistent', 'firmware /nonexistent does not exist'),
                              (self.root, 'is not a regular file'),
                              (other, 'does not have the 64 MiB of the flash')):
            self.refused(message, args=('qemu', '--firmware', path))
        self.refused('--firmware is empty', args=('qemu', '--firmware', ''))
        found = checks.find(hostinfo.read(str(self.root)),
                              emulator.Emulator(str(other), ''))
        self.assertEqual([f.level for f in found[-2:]], ['problem'] * 2, found)

    def test_opens_no_region(self):
        """The driver would clear it."""
        made = grace.Host(self.root, **EXAMPLE)
        made.user('/dev/kvm')
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0]))
                         if event == 'open' else None)
        self.findings()
        plan.make(hostinfo.read(str(self.root)))
        self.assertTrue(any('/sys/class/egm/egm4/' in path for path in opened))
        self.assertEqual([p for p in opened if '/dev/egm' in p], [])
        # A disk is opened to look at its format, a device is not.
        self.assertEqual(options.read_disk('--disk', '/dev/zero', True)[1],
                         ['--disk /dev/zero is not a file or a block device'])
        self.assertNotIn('/dev/zero', opened)

    def test_anything(self):
        """Files of sysfs can hold anything, or be directories: no traceback."""
        for seed in range(60):
            with self.subTest(seed=seed), tempfile.TemporaryDirectory() as directory:
                status, text = fuzz.try_host(directory, seed)
                self.assertIn(status, (0, 1, 2), text)
                self.assertNotIn('Traceback', text)

    def test_release_of_kernel(self):
        """A real file of /proc/sys: made-up hosts have ordinary files there."""
        self.assertEqual(hostinfo.read('/').kernel, os.uname().release)


class Refusals(Case):
    """Errors that name the wrong option."""

    def setUp(self):
        super().setUp()
        self.made = grace.Host(self.root, **EXAMPLE)

    def test_gpus(self):
        """Unknown names, duplicates, and words in the wrong place."""
        self.refused('0000:77:00.0 is not a GPU of an EGM region; there are 0008:01:'
                     '00.0, 0009:01:00.0', 'x is not a GPU',
                     args=('qemu', '--gpus', '77:00.0,x'))
        self.refused('GPU 0009:01:00.0 is named twice',
                     args=('qemu', '--gpus', '9:1:0.0,0009:01:00.0'))
        for names, *messages in (('', 'an address is missing'),
                                 (',', 'an address is missing'),
                                 ('ALL', 'all stands alone, in small letters'),
                                 ('free,8:1:0.0', 'free stands alone')):
            self.refused(*messages, args=('qemu', '--gpus', names))

    def test_memory(self):
        """Sizes, with one that would do."""
        for size, message in (
                ('513M', '513M is not a multiple of 2 MiB; the nearest is 512M'),
                ('1023', '1023 is not a multiple of 2 MiB; the nearest is 1024M'),
                ('0', '0 is not a multiple of 2 MiB; the nearest is 2M'),
                ('448G', '448G is more than egm4 has: 447 GiB'),
                ('9' * 30, 'not a size'), ('', 'not a size'), ('-1G', 'not a size'),
                ('\u0661\u0662G', 'not a size'), ('0.3K', 'not a size'),
                ('much', 'much: not a size')):
            status, text = self.run_it('qemu', f'--memory={size}')
            self.assertEqual(status, 1, text)
            self.assertIn(message, text)
        self.assertIn('size=1536M', self.succeeds('qemu', '--memory', '1.5G'))

    def test_notes(self):
        """Valid options that may not have the intended effect."""
        self.succeeds('qemu', '--memory', '1G', '--initiators', '3', '--disk', FIRMWARE)
        self.assertEqual(self.notes, [])
        self.succeeds('qemu', '--memory', '1G')
        self.assertEqual(len(self.notes), 2)
        self.assertIn('34 NUMA nodes: with a guest kernel that has 16', self.notes[0])
        self.assertIn('--initiators 3 fits', self.notes[0])
        self.assertIn('no disk to boot from', self.notes[1])
        self.succeeds('svg', '--memory', '1026M', '--initiators', '3')
        self.assertEqual(len(self.notes), 1)
        self.assertIn('1026 MiB of egm4 is not a multiple of 512 MiB', self.notes[0])
        self.assertIn('--memory 1024M does not', self.notes[0])
        self.succeeds('svg', '--gpus', '0009:01:00.0')
        self.assertEqual(len(self.notes), 1)
        self.assertIn('no other VM can have egm4 with 0008:01:00.0', self.notes[0])
        self.succeeds('svg', '--memory', '64', '--gpus', '8:1:0.0,9:1:0.0')
        self.assertIn('UEFI needs 128 MiB', ''.join(self.notes))

    def test_cpus(self):
        """The same number on each socket, and not more than virt supports."""
        for count, near in (('5', 4), ('1', 2), ('0', 2)):
            self.refused(f'--cpus {count} cannot be divided among 2 sockets; {near} '
                         'can', args=('qemu', '--cpus', count))
        self.refused('--cpus 514: the virt machine has at most 512',
                     args=('qemu', '--cpus', '514'))
        self.assertIn('-smp 512,', self.succeeds('qemu', '--cpus', '512'))
        for count in ('99999999999999999999998', '1_000', '\u0661', '-2', '', 'x'):
            self.wrong_usage('is not a number', 'qemu', f'--cpus={count}')

    def test_default_cpus(self):
        """Of hosts that do not report nodes, and of large ones."""
        for s in range(2):
            self.made.file(f'/sys/devices/system/node/node{s}/cpulist').unlink()
        self.assertIn('-smp 144,sockets=2', self.succeeds('qemu'))
        self.made.file('/sys/devices/system/cpu/present').write_text('0-1151\n')
        self.assertIn('-smp 512,sockets=2', self.succeeds('qemu'))
        self.assertIn('-smp 512 ', self.succeeds('qemu', '--socket', '0'))

    def test_initiators(self):
        """As many as the driver takes, and one at least."""
        for count in ('0', '9'):
            self.refused(f'--initiators {count}: a GPU has 1 to 8',
                         args=('qemu', '--initiators', count))

    def test_too_many(self):
        """More nodes, or buses, than there are."""
        with tempfile.TemporaryDirectory() as directory:
            self.root = pathlib.Path(directory)
            grace.Host(self.root, 4, 4)
            self.refused('4 sockets and 16 GPUs with 8 nodes each are more than '
                         '128 NUMA nodes; --initiators 7 fits')
            self.succeeds('qemu', '--initiators', '7')
            self.assertIn('fewer GPUs', ''.join(self.notes))
        with tempfile.TemporaryDirectory() as directory:
            self.root = pathlib.Path(directory)
            grace.Host(self.root, 5, 6)
            self.refused('30 GPUs: there are PCI host bridges for 29',
                         args=('qemu', '--initiators', '1'))

    def wrong_usage(self, message, *args):
        """An option that is wrong by itself."""
        run = subprocess.run([TOP / 'tools/egm-vm', *args], text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 2, run.stdout)
        self.assertIn(message, run.stdout)
        self.assertNotIn('Traceback', run.stdout)

    def test_options(self):
        """Those without effect are refused, and abbreviated ones."""
        for message, *args in (
                ('unrecognized arguments: --run', '--run'),
                ('host takes no options after --', '--', '-S'),
                ('libvirt takes no options after --', 'libvirt', '--', '-S'),
                ('unrecognized arguments: --memory 3', 'host', '--memory', '3'),
                ('unrecognized arguments: --run', 'svg', '--run'),
                ('unrecognized arguments: --json', 'libvirt', '--json'),
                ('unrecognized arguments: --disk', 'svg', '--disk', 'x'),
                ('--gpus is given twice', 'qemu', '--gpus', 'a', '--gpus', 'b'),
                ('--vars is given twice', 'qemu', '--vars=a', '--vars=b'),
                ('unrecognized arguments: --mem 64M', 'qemu', '--mem', '64M'),
                ('unrecognized arguments: --g', 'qemu', '--g', '8:1:0.0'),
                ('not allowed with argument', 'qemu', '--iommufd', '--type1'),
                ('not allowed with argument', 'qemu', '--type1', '--stand-in', 'edu'),
                ('not allowed with argument', 'qemu', '--run', '--json'),
                ('not allowed with argument', 'qemu', '--run', '--script', 'x'),
                ('not allowed with argument', 'check', '--json', '--prometheus'),
                ('--host draws no VM', 'svg', '--host', '--gpus', 'all'),
                ('invalid choice', 'topology')):
            with self.subTest(args=args):
                self.wrong_usage(message, *args)

    def test_name(self):
        """Names that libvirt accepts; in QEMU's -name, only the name is set."""
        for name, message in (('', '--name is empty'), ('a/b', 'must not contain a slash'),
                              ('a\nb', 'cannot be printed'), ('a\x01b', 'cannot be'),
                              (b'a\xff', 'cannot be printed'), (' ', 'consist of spaces')):
            for what in 'qemu', 'libvirt':
                self.refused(message, args=(what, '--name', name))
        for name in 'debug-threads=on', 'process=evil', 'x=y':
            self.assertIn(f'-name guest={name} ', self.succeeds('qemu', '--name', name))
        self.assertIn('-name guest=egm4-egm5 ', self.succeeds('qemu'))
        self.assertIn('<name>egm5<', self.succeeds('libvirt', '--socket', '1'))

    def test_disk(self):
        """A file or a block device; paths are absolute."""
        for name, message in (('', 'is empty'), (self.root, 'not a file or'),
                              ('/nonexistent', 'does not exist'),
                              ('json:{}', 'does not exist'), ('a\nb', 'cannot be printed'),
                              ('/dev/zero', 'not a file or a block device')):
            for args in (('qemu', '--disk', name), ('libvirt', '--cdrom', name)):
                self.refused(f'{args[1]} ', args=args)
                self.refused(message, args=args)
        (self.root / 'a:b.img').write_bytes(b'QFI\xfb')
        for what, text in (('qemu', f'format=qcow2,file={self.root}/a:b.img'),
                           ('libvirt', f'<source file="{self.root}/a:b.img" />')):
            self.assertIn(text, self.succeeds(what, '--disk', 'a:b.img', cwd=self.root))

    def test_many_disks(self):
        """The same disk once; as many as the bus has slots."""
        disks = [grace.write(self.root / f'disk{i}') for i in range(28)]
        (self.root / 'link').symlink_to(disks[0])
        self.refused(f'{self.root}/link: this disk is given twice', args=(
            'qemu', '--disk', disks[0], '--disk', self.root / 'link'))
        self.refused(f'--cdrom {self.root}/link: this is also a disk', args=(
            'qemu', '--disk', disks[0], '--cdrom', self.root / 'link'))
        args = [word for disk in disks[1:] for word in ('--disk', disk)]
        # There are 4 GPUs.
        self.succeeds('qemu', '--net', 'none', *args)
        self.refused('27 disks: the bus pcie.0 has room for 26 with 4 PCI host bridges',
                     args=('qemu', *args))
        self.refused('27 disks: the bus pcie.0 has room for 25 with 4 PCI host bridges',
                     args=('qemu', '--cdrom', disks[0], *args))

    def test_vars(self):
        """A file of the size of the flash device, which this user can write to."""
        path = self.root / 'a b'
        for name, message in (('', '--vars is empty'), ('a\nb', 'cannot be printed'),
                              (path, f"for a new VM, create it: truncate -s 64M '{path}'"),
                              (self.root, 'is not a file of 64 MiB'),
                              (grace.write(self.root / 'small'), 'is not a file of 64 MiB')):
            for what in 'qemu', 'libvirt':
                self.refused(message, args=(what, '--vars', name))
        subprocess.run(f"truncate -s 64M '{path}'", shell=True, check=True)
        self.assertIn(f"-drive 'if=pflash,format=raw,file={path}' ",
                      self.succeeds('qemu', '--vars', 'a b', cwd=self.root))
        system = ET.fromstring(self.succeeds('libvirt', '--vars', 'a b', cwd=self.root)
                               ).find('os')
        self.assertEqual(system.findtext('nvram'), str(path))
        self.assertIsNone(system.find('loader').get('stateless'))
        with unittest.mock.patch('os.access', return_value=False):
            self.assertIn('cannot write', ''.join(options.check_vars(str(path), True)))
            self.assertEqual(list(options.check_vars(str(path), False)), [])

    @unittest.skipUnless(os.getuid() == 0, 'only root can make device nodes')
    def test_block_device(self):
        """libvirt wants to know that a disk is one."""
        path = self.root / 'disk'
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(240, 0))
        with unittest.mock.patch('builtins.open', unittest.mock.mock_open(
                read_data=bytes(4))):
            disk, reasons = options.read_disk('--disk', str(path), True)
        self.assertEqual((disk, reasons), (options.Disk(str(path), True, 'raw'), []))
        vm = plan.make(hostinfo.read(str(self.root)))
        text = domain.domain(vm, emulator.Emulator(str(QEMU)),
                             options.Settings('x', disks=[disk]))
        self.assertIn('<disk type="block" device="disk">', text)
        self.assertIn(f'<source dev="{path}" />', text)

    def test_absolute(self):
        """libvirt's XML has no relative paths."""
        (self.root / 'code.fd').symlink_to(FIRMWARE)
        text = self.succeeds('libvirt', '--firmware', 'code.fd', '--qemu',
                             os.path.relpath(QEMU, self.root), cwd=self.root)
        self.assertIn(f'>{self.root}/code.fd</loader>', text)
        self.assertIn(f'<emulator>{QEMU}</emulator>', text)

    def test_net(self):
        """A bridge has to be one; each VM has a MAC address and a UUID of its own."""
        self.made.interface('eth0')
        self.refused("--net 'br0' is not user, none or a bridge of this host; there is no "
                     'bridge', args=('qemu', '--net', 'br0'))
        self.made.interface('br0', bridge=True)
        for name in '', 'NONE', 'eth0', '../br0':
            self.refused('is not user, none or a bridge of this host; there is br0',
                         args=('qemu', '--net', name))
        self.assertIn('bridge,id=net0,br=br0', self.succeeds('qemu', '--net', 'br0'))
        # An installed QEMU has a helper, which reads a file.
        program, = list(grace.write(self.root / 'bin/qemu-system-aarch64', '#!/bin/sh\n'
                                    f'exec {QEMU} "$@"\n').parent.iterdir())
        program.chmod(0o755)
        args = ('qemu', '--net', 'br0', '--qemu', program, '--firmware', FIRMWARE)
        path = self.root / 'etc/qemu/bridge.conf'
        self.refused(f'--net br0: {path} does not allow VMs to use this bridge: mkdir -p '
                     f'{path.parent}; echo allow br0 >> {path}', args=args)
        for text in 'allow br1', '#allow br0', 'deny all':
            grace.write(path, text + '\n')
            self.refused('does not allow VMs', args=args)
        for text in 'allow br0', ' allow all', 'include /etc/x':
            grace.write(path, f'deny virbr0\n{text}\n')
            self.succeeds(*args)
        seen = set()
        for name in 'vm1', 'vm2':
            text = self.succeeds('qemu', '--name', name)
            xml = ET.fromstring(self.succeeds('libvirt', '--name', name))
            mac = re.search(',mac=(52:54:00:[0-9a-f:]{8}),', text)[1]
            uuid = re.search('-uuid ([0-9a-f-]{36}) ', text)[1]
            self.assertEqual((mac, uuid), (xml.find('devices/interface/mac').get(
                'address'), xml.findtext('uuid')))
            self.assertEqual(text, self.succeeds('qemu', '--name', name))
            seen.update((mac, uuid))
        self.made.file('/etc/machine-id').write_text('f' * 32)
        text = self.succeeds('qemu', '--name', 'vm1')
        seen.add(re.search(',mac=(.{17}),', text)[1])
        self.assertEqual(len(seen), 5)

    def test_qmp_socket(self):
        """Where egm-report asks the VM; a path that QEMU can use."""
        self.assertRegex(self.succeeds('qemu', '--name', 'a b,c'),
                         r'unix:/\S+/a_b_c\.qmp,server=on,wait=off')
        text = self.succeeds('qemu', '--qmp', 'q,1', cwd=self.root)
        self.assertIn(f'-qmp unix:{self.root}/q,,1,server=on,wait=off', text)
        self.assertNotIn('qmp', self.succeeds('qemu', '--qmp', 'none'))
        with socket.socket(socket.AF_UNIX) as vm:
            vm.bind(f'{self.root}/q,1')
            vm.listen()
            self.refused(f'a VM runs that has the QMP socket {self.root}/q,1: use another',
                         args=('qemu', '--qmp', f'{self.root}/q,1'))
        self.succeeds('qemu', '--qmp', f'{self.root}/q,1')
        for path, message in (('', 'is empty'), ('/nonexistent/q', 'not a directory'),
                              (self.root / ('q' * 108), 'longer than 107 bytes')):
            self.refused(message, args=('qemu', '--qmp', path))

    def test_locale(self):
        """No output depends on the locale; what cannot be written is said."""
        for encoding in 'ascii', 'utf-8:strict':
            environment = {**os.environ, 'PYTHONIOENCODING': encoding, 'LC_ALL': 'C'}
            for args in (('svg',), ('libvirt', '--name', 'Gr\u00fcn')):
                ET.fromstring(self.succeeds(*args, env=environment))
            text = self.succeeds('qemu', '--', b'-append', b'\xff\xc3', env=environment,
                                 errors='surrogateescape') if encoding != 'ascii' else ''
            self.assertEqual('\udcff' in text, encoding != 'ascii')
        status, text = self.run_it('qemu', '--name', 'Gr\u00fcn', env={
            **os.environ, 'PYTHONIOENCODING': 'ascii'})
        self.assertEqual(status, 2, text)
        self.assertIn("cannot be written in ascii", text)

    def test_pipe(self):
        """A reader that stops reading."""
        with subprocess.Popen([TOP / 'tools/egm-vm', 'qemu', '--root', self.root,
                               '--qemu', QEMU], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as run:
            run.stdout.close()
            text = run.stderr.read().decode()
        self.assertNotIn('Broken', text)
        self.assertNotIn('Traceback', text)


class Smmu(Case):
    """An SMMUv3 for each GPU, which gives it ATS."""

    def smmus(self, *args):
        """Those of a VM, as options."""
        return re.findall('-device arm-smmuv3,(.*) ', self.succeeds('qemu', *args))

    def test_options(self):
        """What QEMU does not find out itself is written, by the names that it has."""
        grace.Host(self.root)
        for version, (_, wanted) in SMMUS.items():
            with self.subTest(version):
                self.assertEqual(self.smmus('--qemu', self.bin / version),
                                 [f'primary-bus=pxb0,id=smmu0,{wanted}'] if wanted else [])
                self.assertEqual('no SMMUv3' in ''.join(self.notes), not wanted)

    def test_domain(self):
        """The same for libvirt, which names the host bridge by its controller."""
        grace.Host(self.root, 2, 2)
        for version, wanted in (('11.0', {'accel': 'on', 'ats': 'on', 'ril': 'off',
                                          'ssidsize': '20', 'oas': '48'}),
                                ('11.1', {'accel': 'on', 'ats': 'on'}),
                                ('nvidia', {'accel': 'on', 'ats': 'on', 'ril': 'off',
                                            'oas': '48'}), ('10.2', None)):
            with self.subTest(version):
                devices = ET.fromstring(self.succeeds(
                    'libvirt', '--qemu', self.bin / version)).find('devices')
                self.assertEqual([d.attrib for d in devices.findall('iommu/driver')],
                                 [{'pciBus': str(i), **wanted} for i in range(1, 5)]
                                 if wanted else [])
                self.assertEqual([c.get('index') for c in devices.findall('controller')
                                  if c.get('model') == 'pcie-expander-bus'],
                                 ['1', '2', '3', '4'])

    def test_layout(self):
        """As Kata Containers and KubeVirt have it on GB200 and GB300: a host bridge, an
        SMMUv3, a root port and vfio-pci for each GPU."""
        made = grace.Host(self.root, 2, 2)
        lines = [line.strip(' \\') for line in self.succeeds(
            'qemu', '--qemu', self.bin / '11.0', '--disk', FIRMWARE).splitlines()]
        gpus = made.gpus[0] + made.gpus[1]
        wanted = [f'-device {device}' for i, address in enumerate(gpus) for device in (
            f'pxb-pcie,id=pxb{i},bus=pcie.0,bus_nr={32 * (i + 1)},numa_node={i // 2}',
            f'arm-smmuv3,primary-bus=pxb{i},id=smmu{i},'
            'accel=on,ats=on,ril=off,ssidsize=20,oas=48',
            f'pcie-root-port,id=rp{i},bus=pxb{i},chassis={i + 1},io-reserve=0,'
            'pref64-reserve=512G',
            f'vfio-pci-nohotplug,id=gpu{i},bus=rp{i},host={address},iommufd=iommufd0')]
        devices = [line for line in lines if line.startswith('-device')]
        self.assertEqual(devices[:16], wanted)
        # QEMU refuses emulated devices behind an SMMU of this kind.
        self.assertEqual([line.split(',')[0] for line in devices[16:] if
                          ',bus=pcie.0,' in line],
                         ['-device virtio-blk-pci', '-device virtio-net-pci'])
        self.assertEqual(len(devices), 18)

    def test_many(self):
        """Each of 16 GPUs has bus numbers of its own."""
        grace.Host(self.root, 4, 4)
        text = self.succeeds('qemu', '--initiators', '7')
        self.assertEqual([int(n) for n in re.findall('bus_nr=([0-9]+)', text)],
                         list(range(8, 136, 8)))

    def test_off(self):
        """Left out, with the reason, and what to try."""
        made = grace.Host(self.root, 2)

        def without(reason, *args):
            self.assertEqual(self.smmus(*args), [])
            note, hint = next(pair for pair in zip(self.notes, self.notes[1:])
                              if 'no SMMUv3' in pair[0])
            self.assertIn(f'no SMMUv3 with ATS: {reason}. The driver of a GPU, in its default '
                          'mode, may not load', note)
            self.assertIn('NVreg_CoherentGPUMemoryMode=driver', hint)
        without('--smmu off', '--smmu', 'off')
        without('it needs iommufd', '--type1')
        without('it needs KVM', '--accel', 'tcg')
        without(f'{self.bin}/10.2 has no arm-smmuv3 with accel=on', '--qemu',
                self.bin / '10.2')
        made.file('/sys/bus/pci/devices/0008:01:00.0/iommu').unlink()
        without('GPU 0008:01:00.0 is not behind an SMMUv3 but behind an IOMMU that the kernel '
                'does not name')
        self.assertEqual(len(self.smmus('--socket', '1')), 1)
        made.file('/proc/sys/kernel/osrelease').write_text('6.12.48-64k\n')
        without('iommufd of this kernel (6.12.48-64k) does not share an SMMUv3 with VMs',
                '--socket', '1')
        made.file('/dev/iommu').unlink()
        without('it needs iommufd')
        self.assertNotIn('<iommu', self.succeeds('libvirt'))
        self.assertIn('no SMMUv3 with ATS: it needs iommufd', ''.join(self.notes))

    def test_smmu(self):
        """What the GPU is behind."""
        made = grace.Host(self.root)
        for name in '/iommu/arm-smmu.0', None:
            place = made.file('/sys/bus/pci/devices/0008:01:00.0/iommu')
            place.unlink()
            if name:
                grace.link(place, name)
            self.found(('note', 'gpu-smmu', 'GPU 0008:01:00.0 is not behind an SMMUv3 but '
                        'behind ' + ('arm-smmu.0' if name else 'an IOMMU that'), 'SMMU'))
        made.file('/proc/sys/kernel/arch').write_text('x86_64\n')
        self.found(('note', 'kvm', '', ''))

    def test_ats(self):
        """Of the GPU, and of its root complex."""
        made = grace.Host(self.root)
        config = made.file('/sys/bus/pci/devices/0008:01:00.0/config')
        good, bad = (acpi_made.iort((0, 0x10000, True), ats=ats, segment=8)
                     for ats in (True, False))

        def check(*results):
            self.assertEqual([f.level for f in self.findings()[1] if f.id == 'gpu-ats'],
                             list(results))
        # Nobody but root can read these; then nothing is said.
        check()
        made.tables(IORT=good)
        check('pass')
        config.write_bytes(grace.CONFIG[:64])
        check()
        made.tables(IORT=bad)
        self.found(('note', 'gpu-ats', 'IORT of the host says that its root complex does not '
                    'support ATS', 'firmware'))
        made.tables(IORT=acpi_made.iort(segment=9))
        check('note')
        made.tables(IORT=good)
        for data in (grace.CONFIG[:300], bytes(4096), b'\0' * 256 + b'\1\0\1\x10' * 90,
                     b'\0' * 256 + b'\1\0\1\xff' * 90):
            config.write_bytes(data)
            self.found(('note', 'gpu-ats', 'GPU 0008:01:00.0 has no capability for ATS',
                        'firmware'))

    def test_nesting(self):
        """What iommufd says, or the version of the kernel."""
        made = grace.Host(self.root)
        for kernel, level in (('6.12.9', 'note'), ('6.13.0-rc1', 'pass'), ('5.20', 'note'),
                              ('7.0', 'pass'), ('6.11.0-1-nvidia-64k', 'note'), ('', 'note')):
            made.file('/proc/sys/kernel/osrelease').write_text(kernel + '\n')
            finding, = (f for f in self.findings()[1] if f.id == 'iommufd-nesting')
            self.assertEqual(finding.level, level, kernel)
            if level == 'note':
                self.assertIn('Linux 6.13', finding.hint)
        machine_ = hostinfo.read(str(self.root))
        for error, nests in ((errno.EINVAL, True), (errno.ENOTTY, False)):
            with unittest.mock.patch('stat.S_ISCHR', return_value=True), \
                    unittest.mock.patch('fcntl.ioctl', side_effect=OSError(error, '')) as ioctl:
                self.assertIs(machine_.nests(), nests)
            self.assertEqual(ioctl.call_args[0][1:], (0x3b90, bytes(4)))


class Nics(Case):
    """NICs of the host in a VM, near the GPUs of their socket."""

    def setUp(self):
        super().setUp()
        self.made = grace.Host(self.root, 2, 2, size=64 * MIB, cpus=1)
        for number, (address, node) in enumerate((
                ('0000:03:00.0', 0), ('0008:02:00.0', 0), ('0002:03:00.0', 1))):
            self.nic(address, node, 'vfio-pci', 20 + number)

    def nic(self, address, node, driver, group):
        """A NIC; in PCI domain 8, it is behind the SMMU of a GPU."""
        device = self.made.pci(address, node, driver, group, class_=0x020700)
        (device / 'vendor').write_text('0x15b3\n')
        (device / 'device').write_text('0x1021\n')
        return device

    def lines(self, *args):
        """Of devices and initiators."""
        return re.findall(r'-(?:device|object) (pxb|arm|pcie|vfio|acpi-gen)(\S*)',
                          self.succeeds('qemu', '--initiators', '1', *args))

    def test_host(self):
        """Those on the nodes of regions are shown, with their interfaces and users."""
        self.nic('0004:03:00.0', 7, 'mlx5_core', 30)
        self.nic('0006:03:00.0', 1, 'mlx5_core', 31)
        self.made.interface('ib0', '0006:03:00.0')
        self.made.user('/dev/vfio/devices/vfio20')
        text = self.succeeds()
        self.assertNotIn('0004:03:00.0', text)
        rows = [line.split() for line in text.splitlines() if '15b3:1021' in line]
        self.assertEqual(rows, [
            ['0000:03:00.0', '-', '0', 'qemu-system-aar', '(4711)', '15b3:1021', 'vfio-pci',
             '20', 'vfio20'],
            ['0002:03:00.0', '-', '1', '-', '15b3:1021', 'vfio-pci', '22', 'vfio22'],
            ['0006:03:00.0', 'ib0', '1', '-', '15b3:1021', 'mlx5_core', '31', '-'],
            ['0008:02:00.0', '-', '0', '-', '15b3:1021', 'vfio-pci', '21', 'vfio21']])
        data = json.loads(self.succeeds('host', '--json'))['nics']
        self.assertEqual([(n['address'], n['node'], n['interfaces'], n['free'], len(n['users']))
                          for n in data],
                         [('0000:03:00.0', 0, [], False, 1), ('0002:03:00.0', 1, [], True, 0),
                          ('0006:03:00.0', 1, ['ib0'], False, 0),
                          ('0008:02:00.0', 0, [], True, 0)])

    def test_place(self):
        """Below the bridge of a GPU that is behind the same SMMU, or one of its own on the
        same node; with an initiator on the node of the RAM."""
        lines = self.lines('--nic', '0008:02:00.0,3:0.0', '--socket', '0')
        smmu = 'v3,primary-bus={},id={},accel=on,ats=on'
        self.assertEqual(lines, [
            ('pxb', '-pcie,id=pxb0,bus=pcie.0,bus_nr=32,numa_node=0'),
            ('arm', '-smmu' + smmu.format('pxb0', 'smmu0')),
            ('pcie', '-root-port,id=rp0,bus=pxb0,chassis=1,io-reserve=0,pref64-reserve=512G'),
            ('vfio', '-pci-nohotplug,id=gpu0,bus=rp0,host=0008:01:00.0,iommufd=iommufd0'),
            ('pxb', '-pcie,id=pxb1,bus=pcie.0,bus_nr=64,numa_node=0'),
            ('arm', '-smmu' + smmu.format('pxb1', 'smmu1')),
            ('pcie', '-root-port,id=rp1,bus=pxb1,chassis=2,io-reserve=0,pref64-reserve=512G'),
            ('vfio', '-pci-nohotplug,id=gpu1,bus=rp1,host=0009:01:00.0,iommufd=iommufd0'),
            ('pcie', '-root-port,id=rp2,bus=pxb0,chassis=3,io-reserve=0'),
            ('vfio', '-pci-nohotplug,id=nic0,bus=rp2,host=0008:02:00.0,iommufd=iommufd0'),
            ('pxb', '-pcie,id=pxb2,bus=pcie.0,bus_nr=96,numa_node=0'),
            ('arm', '-smmu' + smmu.format('pxb2', 'smmu2')),
            ('pcie', '-root-port,id=rp3,bus=pxb2,chassis=4,io-reserve=0'),
            ('vfio', '-pci-nohotplug,id=nic1,bus=rp3,host=0000:03:00.0,iommufd=iommufd0'),
            ('acpi-gen', 'eric-initiator,id=gi1,pci-dev=gpu0,node=1'),
            ('acpi-gen', 'eric-initiator,id=gi2,pci-dev=gpu1,node=2'),
            ('acpi-gen', 'eric-initiator,id=gi-nic0,pci-dev=nic0,node=0'),
            ('acpi-gen', 'eric-initiator,id=gi-nic1,pci-dev=nic1,node=0')])
        lines = self.lines('--nic', '0002:03:00.0')
        self.assertIn(('pxb', '-pcie,id=pxb4,bus=pcie.0,bus_nr=160,numa_node=1'), lines)
        self.assertEqual(lines[-1][1], 'eric-initiator,id=gi-nic0,pci-dev=nic0,node=1')

    def test_turns(self):
        """Several NICs and GPUs behind one SMMU: each GPU gets as many."""
        for number in range(3):
            self.nic(f'000a:0{number}:00.0', 0, 'vfio-pci', 40 + number)
        for device in (self.root / 'sys/bus/pci/devices').iterdir():
            (device / 'iommu').unlink()
        vm = plan.make(hostinfo.read(str(self.root)), nics='a:0:0.0,a:1:0.0,a:2:0.0')
        self.assertEqual([(n.bridge, n.bus) for n in vm.nics],
                         [('pxb0', 0), ('pxb1', 0), ('pxb0', 0)])
        # With as many NICs as possible, a bridge has bus numbers for all of their ports.
        for number in range(3, 25):
            self.nic(f'000a:{number:02x}:00.0', 0, 'vfio-pci', None)
        vm = plan.make(hostinfo.read(str(self.root)), gpus='8:1:0.0,18:1:0.0',
                       nics=','.join(f'a:{number:x}:0.0' for number in range(25)))
        self.assertEqual({n.bridge for n in vm.nics}, {'pxb0'})
        self.assertGreater(vm.gpus[1].bus - vm.gpus[0].bus, 1 + len(vm.nics))

    def test_bus_numbers(self):
        """Below one of 16 host bridges there are bus numbers for few NICs."""
        grace.Host(self.root, 4, 4)
        for number in range(25):
            self.nic(f'000a:{number:02x}:00.0', 0, 'vfio-pci', None)
        for device in (self.root / 'sys/bus/pci/devices').iterdir():
            (device / 'iommu').unlink(missing_ok=True)
        names = [f'a:{number:x}:0.0' for number in range(25)]
        vm = plan.make(hostinfo.read(str(self.root)), nics=','.join(names[:24]), initiators=7)
        self.assertEqual({n.bridge for n in vm.nics}, {'pxb0', 'pxb1', 'pxb2', 'pxb3'})
        self.refused('7 NICs share an SMMU with one GPU: with 16 PCI host bridges each has bus '
                     'numbers for 6', args=('qemu', '--initiators', '7', '--nic', ','.join(names)))

    def test_refused(self):
        """Names, sockets, drivers, users."""
        self.refused("--nic '0008:01:00.0' is not a NIC on a socket of the VM; there are "
                     '0000:03:00.0, 0002:03:00.0, 0008:02:00.0', 'NIC 0000:03:00.0 is named twice',
                     args=('qemu', '--nic', '0008:01:00.0,0000:03:00.0,3:0.0'))
        self.refused("--nic '0002:03:00.0' is not a NIC on a socket of the VM; there are "
                     '0000:03:00.0', args=('qemu', '--socket', '0', '--nic', '2:3:0.0'))
        self.refused("--nic '' is not a NIC", args=('qemu', '--nic', ','))
        self.made.bind('0000:03:00.0', 'mlx5_core')
        self.made.interface('ib0', '0000:03:00.0')
        self.refused('NIC 0000:03:00.0 is not bound to a vfio driver but to mlx5_core (interface '
                     'ib0): driverctl set-override 0000:03:00.0 vfio-pci',
                     args=('qemu', '--nic', '3:0.0'))
        self.made.user('/dev/vfio/devices/vfio21')
        self.refused('NIC 0008:02:00.0 is in use by qemu-system-aar (4711)',
                     'free: ', args=('qemu', '--nic', '8:2:0.0'))
        # Others are not concerned.
        self.succeeds('qemu')
        for number in range(26):
            self.nic(f'00{number + 16:02x}:03:00.0', 0, 'vfio-pci', 40 + number)
        self.refused('4 GPUs and 26 NICs that share no SMMU with them: there are PCI host '
                     'bridges for 29', args=('qemu', '--nic', ','.join(
                         f'00{number + 16:02x}:03:00.0' for number in range(26))))

    def test_starts(self):
        """Our QEMU takes it."""
        vm = plan.make(hostinfo.read(str(self.root)), nics='8:2:0.0,3:0.0,2:3:0.0')
        lines = cmdline.command(
            vm, emulator.Emulator(str(QEMU)), options.Settings(
                'x', accel='tcg', iommufd=False, stand_in='pci-testdev'), ['-S'])
        with machine.Machine(cmdline.words(lines)[1:]) as vm_:
            self.assertEqual(len(vm_.cmd('query-acpi-egm-memory')), 4)
            buses = {d['qdev_id']: bus['bus'] for bus in vm_.cmd('query-pci')
                     for d in bus['devices']}
        self.assertEqual(buses['rp0'], buses['rp4'])
        self.assertEqual(len({buses[f'rp{i}'] for i in (0, 1, 2, 3, 5, 6)}), 6)


class Opens(Case):
    """--run opens the regions. Here they are files, and processes that are forked have
    functions that tell what the driver would do."""

    def setUp(self):
        super().setUp()
        self.made = grace.Host(self.root, 2, size=64 * MIB, cpus=1)
        self.machine = hostinfo.read(str(self.root))

    def start(self, opened=None):
        """Open the regions in a process that is left alone: gives it and its output.
        opened: is called with the path of a region when it is opened"""
        def open_(path, *args, **keywords):
            if opened and str(path).startswith(f'{self.root}/dev/egm'):
                opened(path)
            return real_open(path, *args, **keywords)

        def map_(file, length):
            self.assertEqual(length, mmap.PAGESIZE)
            name = os.path.basename(os.readlink(f'/proc/self/fd/{file}'))
            (self.root / f'mapped-{name}').touch()
        real_open = os.open
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.dup2(write, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with open(2, 'w', closefd=False, encoding='utf-8') as sys.stderr, \
                    unittest.mock.patch('os.open', open_), \
                    unittest.mock.patch('mmap.mmap', map_):
                try:
                    files = opening.open_all(self.machine, self.machine.regions)
                    print(sorted(files), file=sys.stderr, flush=True)
                    signal.pause()
                except opening.Failed as failed:
                    print('failed:', *failed.lines, sep='\n', file=sys.stderr, flush=True)
                except KeyboardInterrupt:
                    print('ended by Ctrl-C', file=sys.stderr, flush=True)
                finally:
                    os._exit(0)     # pylint: disable=protected-access
        os.close(write)
        output = open(read, encoding='utf-8')
        self.addCleanup(output.close)
        self.addCleanup(self.end, pid)
        return pid, output

    @staticmethod
    def end(pid):
        """End a process that a case has not waited for."""
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def read_until(self, output, text):
        """The lines up to one with a text."""
        lines = []
        for line in output:
            lines.append(line.rstrip())
            if text in line:
                return lines
        raise AssertionError(lines)

    def wait_for(self, name):
        """A file."""
        end = time.monotonic() + machine.LIMIT
        while not (self.root / name).exists():
            self.assertLess(time.monotonic(), end, name)
            time.sleep(0.05)

    def test_at_the_same_time(self):
        """No region is open before the other is being opened."""
        barrier = multiprocessing.get_context('fork').Barrier(2)
        pid, output = self.start(lambda _: barrier.wait(machine.LIMIT))
        lines = self.read_until(output, "['egm4', 'egm5']")
        self.assertEqual(lines[:2], [f'egm{n}: opening; the driver clears 64 MiB'
                                     for n in (4, 5)])
        self.assertEqual(sorted(re.sub('[0-9]+ s', 'N s', line) for line in lines[2:4]),
                         ['egm4: open after N s', 'egm5: open after N s'])
        # A VM that ends before it has mapped them: somebody else does.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for name in 'egm4', 'egm5':
            self.wait_for(f'mapped-{name}')

    def locked(self):
        """The processes that have locked each region."""
        grace.write(self.made.file('/proc/locks'), pathlib.Path('/proc/locks').read_text())
        return [[user.pid for user in region.users]
                for region in hostinfo.read(str(self.root)).regions]

    def test_locks(self):
        """A region that is being cleared is in use. After that, the VM has it."""
        with open(self.made.file('/dev/egm4'), 'rb') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if self.locked() != [[os.getpid()], []]:
                self.skipTest('on this file system, /proc/locks has other numbers than stat()')

        def opened(path):
            (self.root / f'opening-{os.path.basename(path)}').touch()
            self.wait_for('continue')
        pid, output = self.start(opened)
        for name in 'egm4', 'egm5':
            self.wait_for(f'opening-{name}')
        self.assertEqual([(len(pids), pid in pids) for pids in self.locked()],
                         [(1, False), (1, False)])
        other, errors = self.start()
        # Both are being opened at the same time: either can be the first that fails.
        self.assertRegex(self.read_until(errors, '/dev/egm')[-1],
                         '^/dev/egm[45]: the region is in use by another process$')
        os.waitpid(other, 0)
        (self.root / 'continue').touch()
        self.read_until(output, "['egm4', 'egm5']")
        self.assertEqual([pid in pids for pids in self.locked()], [True, True])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for name in 'egm4', 'egm5':
            self.wait_for(f'mapped-{name}')

    def test_error(self):
        """One that cannot be opened: the other one is mapped before it is closed."""
        for change, message in (
                (self.made.file('/dev/egm5').unlink, '/dev/egm5: No such file or directory'),
                (lambda: grace.write(self.made.file('/dev/egm5')), None)):
            change()
            with self.subTest(message), contextlib.ExitStack() as stack:
                if not message:
                    file = stack.enter_context(open(self.made.file('/dev/egm5'), 'rb'))
                    fcntl.flock(file, fcntl.LOCK_EX)
                    message = '/dev/egm5: the region is in use by another process'

                def opened(path):
                    # egm5 fails when egm4 is open.
                    if path.endswith('egm5'):
                        self.wait_for('opened')
                    else:
                        (self.root / 'opened').touch()
                pid, output = self.start(opened)
                self.assertEqual(self.read_until(output, '/dev/egm5: ')[-1], message)
                os.waitpid(pid, 0)
                self.wait_for('mapped-egm4')
                (self.root / 'mapped-egm4').unlink()
                (self.root / 'opened').unlink()

    def test_interrupt(self):
        """Ctrl-C ends the clearing with a driver that allows it. With others, it says that
        the kernel goes on; the region is mapped when that has finished."""
        self.enterContext(unittest.mock.patch('egm.opening._PATIENCE', machine.LIMIT))
        for killable in False, True:
            with self.subTest(killable=killable):
                release = self.root / f'release-{killable}'
                if killable:
                    self.made.file('/sys/module/egm').mkdir(parents=True)

                def opened(path, release=release):
                    release.with_name(f'{release.name}-{path[-4:]}').touch()
                    self.wait_for(release.name)
                pid, output = self.start(opened)
                for name in 'egm4', 'egm5':
                    self.wait_for(f'{release.name}-{name}')
                os.kill(pid, signal.SIGINT)
                lines = self.read_until(output, 'ended by Ctrl-C')
                os.waitpid(pid, 0)
                release.touch()
                left = re.findall('clearing (egm[45]) .process [0-9]+., which cannot be '
                                  'interrupted', '\n'.join(lines))
                self.assertEqual(left, [] if killable else ['egm4', 'egm5'], lines)
                for name in left:
                    self.wait_for(f'mapped-{name}')
                    (self.root / f'mapped-{name}').unlink()
        self.assertEqual(list(self.root.glob('mapped-*')), [])

    def run_vm(self, environment, *args, wait=lambda _: None):
        """Run a VM: what egm-vm prints, query-acpi-egm-memory, the path of the RAM.
        wait: is called with its monitor"""
        with tempfile.NamedTemporaryFile(dir=self.root) as file:
            file.truncate(mmap.PAGESIZE)
            with mmap.mmap(file.fileno(), mmap.PAGESIZE):
                seen = opening._is_mapped(      # pylint: disable=protected-access
                    os.fstat(file.fileno()), os.getpid())
        if not seen:
            self.skipTest('on this file system, /proc/PID/maps has other numbers than stat()')
        path = self.root / 'qmp'
        with subprocess.Popen(
                [TOP / 'tools/egm-vm', 'qemu', '--root', self.root, '--qemu', QEMU,
                 '--stand-in', 'pci-testdev', '--accel', 'tcg', '--net', 'none', '--socket',
                 '0', '--qmp', path, *args, '--run', '--', '-S', '-serial', 'none', '-monitor',
                 'none'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.STDOUT, env=environment) as vm, \
                contextlib.ExitStack() as stack:
            stack.callback(vm.kill)
            monitor = process.monitor(path, vm)
            stack.callback(monitor.socket.close)
            found = monitor.command('query-acpi-egm-memory')
            ram = monitor.command('qom-get', path='/objects/m0', property='mem-path')
            end = time.monotonic() + machine.LIMIT
            # The process that has opened the region ends when the VM has mapped it.
            while set(self.users('egm4')) - {vm.pid}:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
            wait(monitor)
            monitor.command('quit')
            text = vm.communicate()[0]
            self.assertEqual(vm.returncode, 0)      # QEMU's
            return text, found[0], ram

    def users(self, name):
        """The processes that have a region open."""
        for link in pathlib.Path('/proc').glob('[0-9]*/fd/*'):
            with contextlib.suppress(OSError):
                if os.readlink(link) == f'{self.root}/dev/{name}':
                    yield int(link.parts[2])

    def test_becomes_qemu(self):
        """QEMU gets a descriptor of the region; what was not checked, it opens itself."""
        text, _, ram = self.run_vm(None)
        self.assertRegex(text, r'egm4: opening; .*\negm4: open after [0-9]+ s\n')
        self.assertRegex(ram, '/dev/fdset/[0-9]+')
        text, _, ram = self.run_vm(None, '--no-check')
        self.assertNotIn('egm4: open', text)
        self.assertEqual(ram, f'{self.root}/dev/egm4')

    def cpus(self, node, text):
        """Change the CPUs of a node."""
        self.made.file(f'/sys/devices/system/node/node{node}/cpulist').write_text(text)

    def test_pinned(self):
        """The vCPUs of a node run on the CPUs of its socket; the VM's QMP socket is free."""
        allowed = sorted(os.sched_getaffinity(0))
        for args in (), ('--no-check',), ('--no-pin',):
            for cpu in (allowed[0], allowed[-1]):
                wanted = set(allowed) if '--no-pin' in args else {cpu}
                self.cpus(0, f'{cpu}')

                def wait(monitor, wanted=frozenset(wanted)):
                    end = time.monotonic() + machine.LIMIT
                    threads = [c['thread-id'] for c in monitor.command('query-cpus-fast')]
                    self.assertEqual(len(threads), 2)
                    while any(os.sched_getaffinity(t) != wanted for t in threads):
                        self.assertLess(time.monotonic(), end)
                        time.sleep(0.05)
                text = self.run_vm(None, '--cpus', '2', *args, wait=wait)[0]
                self.assertNotIn('cannot pin', text)
                (self.root / 'qmp').unlink(missing_ok=True)

    def test_not_pinned(self):
        """CPUs that QEMU cannot have are a note; without CPUs, nothing is done."""
        def wait(monitor):
            end = time.monotonic() + machine.LIMIT
            while not any(c['label'] == 'pinning' and c['filename'].startswith('disconnected')
                          for c in monitor.command('query-chardev')):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)
        self.cpus(0, '100000-100003\n')
        self.assertIn('note: cannot pin vCPUs to CPUs 100000-100003 of the host: Invalid '
                      'argument', self.run_vm(None, wait=wait)[0])
        self.cpus(0, '\n')
        vm = plan.make(hostinfo.read(str(self.root)), socket=0)
        self.assertIsNone(pinning.start(vm, []))

    def test_pins_shared_threads(self):
        """TCG can have one thread for all vCPUs."""
        vm = plan.make(self.machine, cpus=4)
        monitor = unittest.mock.Mock()
        monitor.command.return_value = [
            {'thread-id': 7 + i // 3, 'cpu-index': i} for i in range(4)]
        with unittest.mock.patch('os.sched_setaffinity') as set_:
            self.assertEqual(pinning.pin(monitor, vm), [])
        self.assertEqual([(call.args[0], set(call.args[1])) for call in set_.mock_calls],
                         [(7, {0, 1}), (8, {1})])

    def test_device(self):
        """QEMU knows a device by its descriptor."""
        grace.link(self.made.file('/dev/egm4'), '/dev/zero')
        with standin.Zero() as zero:
            self.assertIn('region', self.run_vm({**os.environ, **zero.environment})[1])


class Writes(Case):
    """Command lines, domains and pictures."""

    def start(self, *args, **shape):
        """What comes out starts in our QEMU: the objects, by id."""
        shape = {'size': 64 * MIB, 'cpus': 2, **shape}
        made = grace.Host(self.root, **shape)
        vm = plan.make(hostinfo.read(str(self.root)), *args)
        lines = cmdline.command(
            vm, emulator.Emulator(str(QEMU)), options.Settings(
                'x', accel='tcg', iommufd=False, stand_in='pci-testdev'), ['-S'])
        text = cmdline.shell_text(lines)
        for s in vm.sockets:
            for gpu in s.gpus:
                self.assertIn(f'id={gpu.bridge},bus=pcie.0,bus_nr={gpu.bus},'
                              f'numa_node={s.node}', text)
        self.assertEqual(text.count(',io-reserve=0'), len(vm.gpus))
        with machine.Machine(cmdline.words(lines)[1:]) as running:
            objects = {o['id']: o for o in running.cmd('query-acpi-egm-memory')}
            for name, one in objects.items():
                for key in 'pci-dev', 'node':
                    one[key] = running.cmd('qom-get', path=f'/objects/{name}',
                                           property=key)
                one['mem-path'] = running.cmd('qom-get', property='mem-path', path=(
                    f"/objects/m{one['node']}"))
            numa = running.cmd('human-monitor-command',
                               **{'command-line': 'info numa'}).splitlines()
        self.assertEqual(running.exitcode(), 0, running.get_log())
        for line in running.get_log().splitlines():
            self.assertRegex(line, 'is a regular file, not an EGM device')
        return made, objects, numa

    def test_starts(self):
        """Nodes, ranges and regions, in the order of the sockets."""
        for sockets, gpus in ((1, 1), (2, 2), (4, 1)):
            with self.subTest(sockets=sockets, gpus=gpus), \
                    tempfile.TemporaryDirectory() as directory:
                self.root = pathlib.Path(directory)
                _, objects, numa = self.start(sockets=sockets, gpus=gpus)
                self.assertEqual(len(objects), sockets * gpus)
                for i in range(sockets * gpus):
                    s = i // gpus
                    one = objects[f'egm{i}']
                    self.assertEqual(
                        (one['pci-dev'], one['node'], one['base'], one['size'],
                         one['mem-path']),
                        (f'gpu{i}', s, 0x40000000 + s * 64 * MIB, 64 * MIB,
                         f'{self.root}/dev/egm{4 + s}'))
                    self.assertIn(f'node {s} cpus: {2 * s} {2 * s + 1}', numa)
                self.assertEqual(numa[0], f'{sockets * (1 + 8 * gpus)} nodes')

    def test_starts_from_a_shell(self):
        """The text that is printed, with names that need care."""
        grace.Host(self.root, size=64 * MIB, cpus=2)
        disk = self.root / 'a disk, mine'
        disk.write_bytes(bytes(MIB))
        text = self.succeeds(
            'qemu', '--name', "it's, mine", '--disk', str(disk), '--stand-in',
            'pci-testdev', '--accel', 'tcg', '--', '-S', '-qmp', 'stdio', '-serial',
            'none')
        run = subprocess.run(
            ['bash', '-c', text.replace('-serial mon:stdio', '-monitor none')],
            text=True, check=False, timeout=machine.LIMIT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, input='{"execute": "qmp_capabilities"}\n'
            '{"execute": "query-name"}\n{"execute": "query-block"}\n'
            '{"execute": "quit"}\n')
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('"name": "it\'s, mine"', run.stdout)
        self.assertIn(f'"file": "{disk}"', run.stdout)

    def test_disks(self):
        """Disks and CD-ROMs, in the order of booting: a CD-ROM if no disk can."""
        grace.Host(self.root, size=64 * MIB, cpus=2)
        files = [grace.write(self.root / name) for name in ('a', 'b', 'c.iso', 'd.iso')]
        for file in files:
            file.write_bytes(bytes(MIB))
        args = [word for option, file in zip(('--disk', '--disk', '--cdrom', '--cdrom'), files)
                for word in (option, file)]
        words = json.loads(self.succeeds(
            'qemu', '--stand-in', 'pci-testdev', '--accel', 'tcg', *args, '--qmp', 'none',
            '--json', '--', '-S'))['arguments']
        with machine.Machine(words[1:words.index('-serial')] +
                             words[words.index('-serial') + 2:]) as vm:
            blocks = {b['device']: (b['inserted']['file'], b['inserted']['ro'], b['removable'])
                      for b in vm.cmd('query-block') if 'pflash' not in b['device']}
            devices = '/machine/peripheral-anon'
            order = {vm.cmd('qom-get', path=f"{devices}/{d['name']}", property='drive'):
                     vm.cmd('qom-get', path=f"{devices}/{d['name']}", property='bootindex')
                     for d in vm.cmd('qom-list', path=devices)
                     if d['type'] in ('child<virtio-blk-pci>', 'child<scsi-cd>')}
        names = ['disk0', 'disk1', 'cdrom0', 'cdrom1']
        self.assertEqual(blocks, {
            name: (str(file), i > 1, i > 1)
            for i, (name, file) in enumerate(zip(names, files))})
        self.assertEqual(order, dict(zip(names, range(1, 5))))
        disks = ET.fromstring(self.succeeds('libvirt', *args)).findall('devices/disk')
        self.assertEqual(
            [(d.get('device'), d.find('target').get('dev'), d.find('boot').get('order'),
              d.find('source').get('file'), d.find('readonly') is not None) for d in disks],
            [('disk', 'vda', '1', str(files[0]), False),
             ('disk', 'vdb', '2', str(files[1]), False),
             ('cdrom', 'sda', '3', str(files[2]), True),
             ('cdrom', 'sdb', '4', str(files[3]), True)])

    def uefi(self, line, *args):
        """Run a line in UEFI's shell; returns its output."""
        with pexpect.spawn(str(TOP / 'tools/egm-vm'), [
                'qemu', '--root', str(self.root), '--qemu', str(QEMU), '--stand-in',
                'pci-testdev', '--accel', 'tcg', '--net', 'none', '--qmp', 'none', *args,
                '--run'], timeout=machine.LIMIT, encoding='utf-8', codec_errors='replace') as vm:
            if vm.expect(['seconds to skip', 'Shell> ']) == 0:
                vm.send('\x1b')
                vm.expect('Shell> ')
            vm.send(line + '\r')
            vm.expect('Shell> ')
            # Without what moves the cursor
            text = re.sub(r'\x1b\[[0-9;]*[A-Za-z]', '', vm.before)
            vm.send('\x01x')
            vm.expect(pexpect.EOF)
        return text

    def test_vars_are_kept(self):
        """An empty file becomes a store of variables, which the next start finds."""
        grace.Host(self.root, size=256 * MIB, cpus=1)
        path = self.root / 'vars'
        with open(path, 'wb') as file:
            file.truncate(64 * MIB)
        line = 'setvar egm -guid 6f0d3a0e-6f7a-5a39-9c35-0a4f7b1f2c55'
        self.uefi(f'{line} -bs -nv =0x1234', '--vars', str(path))
        self.assertIn('34 12', self.uefi(line, '--vars', str(path)))

    def test_run(self):
        """--run becomes QEMU, with what comes after --."""
        grace.Host(self.root)
        self.assertIn('QEMU emulator version',
                      self.succeeds('qemu', '--run', '--', '-version'))

    def test_relative(self):
        """What is written can be used in another directory."""
        grace.Host(self.root)
        (self.root / 'qemu').symlink_to(QEMU)
        (self.root / 'uefi').symlink_to(FIRMWARE)
        words = shlex.split(self.succeeds('qemu', '--qemu', './qemu', '--firmware', 'uefi',
                                          cwd=self.root).replace('\\\n', ''))
        self.assertEqual(words[0], f'{self.root}/qemu')
        self.assertIn(f'file={self.root}/uefi', words[words.index('-drive') + 1])

    def test_script(self):
        """A file that can be run, also where a command line is too long; another file is
        not overwritten, and nothing is left of one that cannot be written."""
        grace.Host(self.root, 4, 4)
        path = self.root / 'a script'
        args = ('--initiators', '7', '--', b'-name', b"x\xff'$1")
        self.assertEqual(self.succeeds('qemu', '--script', path, *args), '')
        text = path.read_bytes()
        self.assertGreater(len(text), 128 << 10)
        self.assertIn(self.succeeds('qemu', *args, errors='surrogateescape').rstrip('\n'),
                      os.fsdecode(text))
        run = subprocess.run([path, '-version'], text=True, check=True,
                             stdout=subprocess.PIPE)
        self.assertIn('QEMU emulator version', run.stdout)
        args = '--socket', '0', '--initiators', '3', '--', '-S'
        for name, message in ((path, '/a script: File exists'), ('', 'No such file'),
                              ('/nonexistent/x', 'No such file')):
            self.refused(message, args=('qemu', '--script', name, *args))
        self.assertEqual(path.read_bytes(), text)
        status, text = self.run_it(
            'qemu', '--script', self.root / 'large', *args, preexec_fn=lambda:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)))
        self.assertEqual((status, text), (
            1, f'error: --script {self.root}/large: File too large\n'))
        self.assertFalse((self.root / 'large').exists())

    def test_socket(self):
        """The VM has a QMP socket, where egm-report asks it."""
        grace.Host(self.root, size=256 * MIB, cpus=1)
        path = self.root / 'qmp'
        with subprocess.Popen(
                [TOP / 'tools/egm-vm', 'qemu', '--root', self.root, '--qemu', QEMU,
                 '--stand-in', 'pci-testdev', '--accel', 'tcg', '--net', 'none',
                 '--qmp', path, '--run', '--', '-S', '-serial', 'none', '-monitor',
                 'none'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT) as vm:
            self.addCleanup(vm.kill)
            # egm-report waits for 5 seconds, in which a busy machine may not start a VM.
            process.monitor(path, vm).socket.close()
            run = subprocess.run([TOP / 'tools/egm-report', '--qmp', path], text=True,
                                 check=False, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
            vm.kill()
        self.assertIn('the firmware has not installed its tables yet', run.stdout)

    def distances(self, *args):
        """Of the nodes of a VM, on the command line."""
        return {(int(a), int(b)): int(v) for a, b, v in re.findall(
            r'dist,src=(\d+),dst=(\d+),val=(\d+)', self.succeeds('qemu', *args))}

    def test_distances(self):
        """GPU memory is farther than any socket, also with one socket."""
        made = grace.Host(self.root, 2, 2)
        self.assertEqual(self.distances('--initiators', '2', '--gpus', '8:1:0.0,18:1:0.0'), {
            (0, 1): 40, (0, 2): 80, (0, 3): 80, (0, 4): 120, (0, 5): 120,
            (1, 2): 120, (1, 3): 120, (1, 4): 80, (1, 5): 80,
            (2, 3): 11, (2, 4): 40, (2, 5): 40, (3, 4): 40, (3, 5): 40, (4, 5): 11})
        self.assertEqual(self.distances('--initiators', '1', '--socket', '0'), {
            (0, 1): 80, (0, 2): 80, (1, 2): 40})
        for node, row in ((0, '10 90'), (1, '90 10')):
            made.file(f'/sys/devices/system/node/node{node}/distance').write_text(
                row + '\n')
        found = self.distances('--initiators', '1', '--gpus', '8:1:0.0,18:1:0.0')
        self.assertEqual(found, {(0, 1): 90, (0, 2): 130, (0, 3): 170, (1, 2): 170,
                                 (1, 3): 130, (2, 3): 40})
        for row in ('ten 40', '', '1 2 3', '10 300'):
            made.file('/sys/devices/system/node/node0/distance').write_text(row + '\n')
            self.assertEqual(len(self.distances('--initiators', '1')), 15)

    def test_distances_of_host(self):
        """If the host's SLIT knows the nodes of GPUs, it counts; but not if it has GPU
        memory near."""
        made = grace.Host(self.root, 2, 1)
        entries = [acpi_made.processor(0), acpi_made.processor(1),
                   *(acpi_made.initiator(pxm, 1, domain) for pxm, domain in
                     ((6, 0x18), (7, 0x18), (4, 8), (5, 8)))]
        slit = {(0, 1): 32, (4, 5): 12, (6, 7): 13}

        def value(a, b):
            if a == b:
                return 10
            if (a, b) in slit:
                return slit[a, b]
            return 64 + a * 8 + b if a < 2 else 50 + a + b
        made.tables(SRAT=acpi_made.srat(*entries), SLIT=acpi_made.slit(
            8, lambda a, b: value(min(a, b), max(a, b))))
        found = self.distances('--initiators', '2')
        self.assertEqual(found, {
            (0, 1): 32, (0, 2): 68, (0, 3): 69, (0, 4): 70, (0, 5): 71,
            (1, 2): 76, (1, 3): 77, (1, 4): 78, (1, 5): 79,
            (2, 3): 12, (2, 4): 60, (2, 5): 61, (3, 4): 61, (3, 5): 62, (4, 5): 13})
        # It does not know a third node of each.
        self.assertEqual(self.distances('--initiators', '3')[0, 2], 80)
        slit.update({(0, 4): 20})
        made.tables(SLIT=acpi_made.slit(8, lambda a, b: value(min(a, b), max(a, b))))
        self.assertEqual(self.distances('--initiators', '2')[0, 2], 80)
        made.tables(SLIT=b'SLIT' + bytes(50), SRAT=b'x')
        self.assertEqual(self.distances('--initiators', '2')[0, 2], 80)

    def test_windows(self):
        """Large enough for all BARs of a GPU together, those that sysfs does not show
        included."""
        made = grace.Host(self.root, 2, 2)
        text = self.succeeds('qemu')
        self.assertEqual(text.count('pref64-reserve=512G'), 4)
        self.assertIn('highmem-mmio-size=4T', text)
        devices = [made.file(f'/sys/bus/pci/devices/{a}')
                   for s in made.gpus.values() for a in s]

        def change(name, text):
            for device in devices:
                (device / name).write_text(text)
        # GB300: a BAR of 256 GiB, and 288 GiB of memory
        change('resource', '0x100000000000 0x103fffffffff 0x14220c\n' * 1)
        change('device', '0x31c2\n')
        text = self.succeeds('qemu')
        self.assertEqual(text.count('pref64-reserve=1T'), 4)
        self.assertIn('highmem-mmio-size=8T', text)
        change('vendor', '0x1234\n')
        change('resource', '0x0 0xffffff 0x14220c\n')
        text = self.succeeds('qemu')
        self.assertEqual(text.count('pref64-reserve=16M'), 4)
        self.assertNotIn('highmem-mmio-size', text)
        (devices[0] / 'resource').write_text('0x0 0xffffff 0x40200\n' * 6)
        self.assertEqual(self.succeeds('qemu').count('pref64-reserve'), 3)
        change('resource', 'text\n0x0\n\n-1 2 3\n')
        self.assertEqual(self.succeeds('qemu').count('pref64-reserve'), 0)

    def test_sizes(self):
        """All sockets but the last are rounded down to 1 GiB, so that the next one
        begins well; what is left is said."""
        made = grace.Host(self.root, 2, 1)
        for pxm in 4, 5:
            made.file(f'/sys/class/egm/egm{pxm}/egm_size').write_text(
                f'{56896 * MIB:#x}\n')
        self.assertEqual(re.findall(',size=(.*?),', self.succeeds('qemu')),
                         ['55G', '56896M'])
        self.assertIn('note: egm4: 576 MiB of 55.6 GiB is not used\n', self.notes)
        self.assertEqual(len([n for n in self.notes if 'not used' in n]), 1)
        self.assertIn('55.6 GiB', self.succeeds())
        made.file('/sys/class/egm/egm4/egm_size').write_text(f'{576 * MIB:#x}\n')
        self.assertIn('size=576M', self.succeeds('qemu'))

    def test_domain(self):
        """The libvirt domain says the same as the command line."""
        grace.Host(self.root, **EXAMPLE).interface('br0', bridge=True)
        top = ET.fromstring(self.succeeds('libvirt', '--net', 'br0'))
        self.assertEqual(top.get('type'), 'kvm')
        memory = top.findall("devices/memory[@model='egm'][@access='shared']")
        self.assertEqual(
            [(m.findtext('source/path')[len(self.tmp.name):],
              m.findtext('target/node'), m.findtext('target/pciDev')) for m in memory],
            [('/dev/egm4', '0', 'ua-gpu0'), ('/dev/egm4', '0', 'ua-gpu1'),
             ('/dev/egm5', '1', 'ua-gpu2'), ('/dev/egm5', '1', 'ua-gpu3')])
        aliases = {h.find('alias').get('name'): h for h in
                   top.findall('devices/hostdev')}
        self.assertEqual(sorted(aliases), [f'ua-gpu{i}' for i in range(4)])
        self.assertEqual(aliases['ua-gpu1'].find('acpi').get('nodeset'), '10-17')
        ports = {c.get('index'): c for c in top.findall(
            "devices/controller[@model='pcie-root-port']")}
        roots = {c.get('index'): c.findtext('target/node') for c in top.findall(
            "devices/controller[@model='pcie-expander-bus']")}

        def number(element):
            return str(int(element.find('address').get('bus'), 16))

        # Each GPU is below the bridge of its node.
        self.assertEqual([roots[number(ports[number(aliases[f'ua-gpu{i}'])])]
                          for i in range(4)], ['0', '0', '1', '1'])
        self.assertEqual(len(top.findall('cpu/numa/cell')), 34)
        self.assertEqual(len(top.findall('cpu/numa/cell/distances/sibling')), 34**2)
        pins = [(p.get('vcpu'), p.get('cpuset')) for p in top.findall('cputune/vcpupin')]
        self.assertEqual(pins, [(str(i), ('0-71', '72-143')[i // 72]) for i in range(144)])
        self.assertNotIn('cputune', self.succeeds('libvirt', '--no-pin'))
        for node in range(2):
            (self.root / f'sys/devices/system/node/node{node}/cpulist').unlink()
        self.assertNotIn('cputune', self.succeeds('libvirt'))

    def test_picture(self):
        """Everything is in it; the README shows the demo's."""
        made = grace.Host(self.root, **grace.DEMO)
        text = self.succeeds('svg', '--initiators', '3')
        shown = ' '.join(t.text for t in ET.fromstring(text).iter(
            '{http://www.w3.org/2000/svg}text'))
        for word in [a for s in made.gpus.values() for a in s] + [
                'egm4', 'egm5', 'pxb0', 'pxb1', 'nodes 11-13', 'vCPU 2-3']:
            self.assertIn(word, shown)
        shown = TOP / 'docs/demo.svg'
        if 'EGM_DRAW' in os.environ:
            shown.write_text(text)
        self.assertEqual(shown.read_text(), text)

    def frames(self, text):
        """The sockets in a picture: where each is, and its text."""
        svg = '{http://www.w3.org/2000/svg}'
        top = ET.fromstring(text)
        places = []
        for group in top.findall(f'{svg}g'):
            x, y = map(int, re.findall('[0-9]+', group.get('transform')))
            frame = group.find(f'{svg}rect')
            # Everything is in its frame, and in the picture.
            for box in group.findall(f'{svg}rect'):
                for start, size in (('x', 'width'), ('y', 'height')):
                    self.assertLessEqual(int(box.get(start)) + int(box.get(size)),
                                         int(frame.get(size)))
            self.assertLess(x + int(frame.get('width')), int(top.get('width')))
            self.assertLess(y + int(frame.get('height')), int(top.get('height')))
            places.append((x, y, ' '.join(t.text for t in group.iter(f'{svg}text'))))
        return places

    def test_wide_pictures(self):
        """Sockets continue in another row, so that a page can show 16 GPUs."""
        for sockets, gpus, wanted in ((2, 2, [0, 0]), (4, 1, [0, 0, 1, 1]), (2, 4, [0, 1]),
                                      (4, 4, [0, 1, 2, 3])):
            with tempfile.TemporaryDirectory() as directory:
                self.root = pathlib.Path(directory)
                grace.Host(self.root, sockets, gpus)
                for args in ('--initiators', '7'), ('--host',):
                    text = self.succeeds('svg', *args)
                    self.assertLess(int(ET.fromstring(text).get('width')), 880)
                    rows = [y for _, y, _ in self.frames(text)]
                    self.assertEqual([sorted(set(rows)).index(y) for y in rows], wanted)

    def test_virtual_in_picture(self):
        """A virtual function names its physical function."""
        made = grace.Host(self.root)
        made.virtual('0008:01:00.0', 1, 'vfio-pci')
        for args in (), ('--host',):
            self.assertIn('0008:01:01.0 part of 0008:01:00.0', self.frames(
                self.succeeds('svg', *args))[0][2])

    def test_picture_of_host(self):
        """Sockets with regions, GPUs and NICs, and the users of each."""
        made = grace.Host(self.root, 3, 2)
        for number, node in enumerate((0, 0, 0, 1, 7)):
            made.pci(f'000{number}:03:00.0', node, 'vfio-pci', 20 + number, class_=0x020000)
        made.interface('eth0', '0000:03:00.0')
        made.bind('0000:03:00.0', 'mlx5_core')
        made.bind('0009:01:00.0', 'nvidia')
        made.user('/dev/egm5')
        made.user('/dev/vfio/devices/vfio23', pid=4712, command='one')
        made.user('/dev/vfio/devices/vfio2', pid=4713)
        made.user('/dev/vfio/devices/vfio2', pid=4714)
        frames = [text for _, _, text in self.frames(self.succeeds('svg', '--host'))]
        self.assertEqual(len(frames), 3)
        for part in ('NUMA node 0: 72 CPUs, 32 GiB for the host egm4: 447 GiB /dev/egm4 free',
                     'GPU 0008:01:00.0 nvgrace_gpu_vfio_pci free',
                     'GPU 0009:01:00.0 nvidia not bound to vfio',
                     'NIC eth0 0000:03:00.0 mlx5_core not bound to vfio',
                     'NIC 0002:03:00.0 vfio-pci free'):
            self.assertIn(part, frames[0])
        for part in ('egm5: 447 GiB /dev/egm5 qemu-system-aar (4711)',
                     'GPU 0018:01:00.0 nvgrace_gpu_vfio_pci 2 processes',
                     'NIC 0003:03:00.0 vfio-pci one (4712)'):
            self.assertIn(part, frames[1])
        self.assertNotIn('0004:03:00.0', ''.join(frames))
        # Without a node, and without GPUs
        for path in (self.root / 'sys/bus/pci/devices').iterdir():
            (path / 'numa_node').unlink()
        made.region(9, 64 * MIB, [])
        self.assertIn('Unknown NUMA node', self.frames(self.succeeds('svg', '--host'))[0][2])


class Examples(Case):
    """Files for systemd and udev, which are installed with the documentation."""

    def test_unit(self):
        """The service starts a VM, and stops it by its power button."""
        grace.Host(self.root, size=256 * MIB, cpus=1)
        unit = configparser.RawConfigParser()
        unit.read(TOP / 'tools/examples/egm-vm@.service')
        service = dict(unit['Service'])
        directory = self.root / service['runtimedirectory'].replace('%i', 'left')
        directory.mkdir(parents=True)
        options_ = ['--root', str(self.root), '--qemu', str(QEMU), '--stand-in', 'pci-testdev',
                    '--accel', 'tcg', '--net', 'none']

        def words(line):
            # systemd splits $OPTIONS, and nothing else.
            return [word for part in shlex.split(line) for word in (
                options_ if part == '$OPTIONS' else
                [part.replace('%i', 'left').replace('%t', str(self.root))])]
        start = words(service['execstart'])
        self.assertTrue(any((pathlib.Path(path) / start[0]).name == 'egm-vm'
                            for path in service['execsearchpath'].split()))
        with subprocess.Popen([TOP / 'tools' / start[0], *start[1:]], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as vm, contextlib.ExitStack() as stack:
            stack.callback(vm.kill)
            end = time.monotonic() + machine.LIMIT
            while not (directory / 'monitor').exists():
                self.assertIsNone(vm.poll())
                self.assertLess(time.monotonic(), end)
                time.sleep(0.1)
            monitor = process.monitor(directory / 'qmp', vm)
            stack.callback(monitor.socket.close)
            self.assertEqual(monitor.command('query-name'), {'name': 'left'})
            # The unit does not fail if there is nothing to stop.
            self.assertTrue(service['execstop'].startswith('-'))
            with subprocess.Popen(words(service['execstop'][1:])) as stop:
                while '"POWERDOWN"' not in monitor.socket.recv(65536).decode():
                    pass
                self.assertIsNone(stop.poll())
                monitor.command('quit')
                self.assertEqual(stop.wait(machine.LIMIT), 0)
            self.assertEqual(vm.wait(machine.LIMIT), 0)

    def test_rules(self):
        """The devices for which egm-vm writes rules; all belong to one group."""
        rules = [line for line in (TOP / 'tools/examples/70-egm.rules').read_text().splitlines()
                 if line and not line.startswith('#')]
        source = (TOP / 'tools/egm/checks.py').read_text()
        matches = re.findall(r"'((?:SUBSYSTEM|KERNEL)==\"[a-z-]+\")'", source)
        self.assertEqual(len(matches), 4)
        self.assertEqual([rule.split(', ')[0] for rule in rules], matches)
        self.assertEqual({rule[rule.index('GROUP'):] for rule in rules},
                         {'GROUP="kvm", MODE="0660"'})


def json_of_page(name):
    """The example in a man page."""
    page = (TOP / f'tools/{name}.1').read_text()
    return json.loads(re.search(r'^\.EX\n(\{.*?^\})\n\.EE', page, re.M | re.S)[1]
                      .replace('\\-', '-'))


def known_checks():
    """The ids in the source: there is one list."""
    text = (TOP / 'tools/egm/checks.py').read_text()
    return set(re.findall(r"Finding\(\s*'([a-z-]+)'", text)) | set(
        re.findall(r"_check_access\(host, '([a-z-]+)'", text))


class Documents(Case):
    """Help, man page, completion and README name the same things."""

    def options(self, *command):
        """Of --help; text in its paragraphs is not an option."""
        run = subprocess.run([TOP / 'tools' / command[0], *command[1:], '--help'],
                             text=True, check=True, stdout=subprocess.PIPE,
                             env={**os.environ, 'COLUMNS': '500'})
        return set(re.findall(r'^  (?:-h, )?(--[a-z0-9-]+)', run.stdout, re.M))

    COMMANDS = ('host', 'check', 'qemu', 'libvirt', 'svg')

    def test_help(self):
        """Each subcommand has its own; all have --version."""
        sizes = [len(self.options('egm-vm', what)) for what in self.COMMANDS]
        self.assertEqual(len(set(sizes)), 5, sizes)
        for name in 'egm-vm', 'egm-report':
            text = subprocess.run([TOP / 'tools' / name, '--version'], text=True,
                                  check=True, stdout=subprocess.PIPE).stdout
            self.assertRegex(text, rf'^{name} \(acpi-egm-memory\) [0-9.]+\n$')

    def test_man(self):
        """Every option, and no other; groff is silent."""
        for name, commands in (('egm-vm', self.COMMANDS), ('egm-report', [])):
            options_ = self.options(name).union(
                *(self.options(name, what) for what in commands))
            page = (TOP / f'tools/{name}.1').read_text()
            found = set(re.findall(r'\\-\\-([a-z0-9\\-]+)', page))
            self.assertEqual({'--' + f.replace('\\', '') for f in found}, options_)
        for page in TOP.glob('tools/*.1'):
            run = subprocess.run(['groff', '-man', '-Tutf8', '-ww', '-z', page],
                                 text=True, check=False, stderr=subprocess.PIPE)
            self.assertEqual((run.returncode, run.stderr), (0, ''))

    def test_json(self):
        """The man page has what programs get."""
        grace.Host(self.root, size=64 << 30).user('/dev/vfio/0')
        self.assertEqual(json_of_page('egm-vm'),
                         json.loads(self.succeeds('host', '--json')))
        text = self.succeeds('qemu', '--type1', '--no-check', '--json')
        shell = self.succeeds('qemu', '--type1', '--no-check')
        self.assertEqual(json.loads(text)['arguments'],
                         shlex.split(shell.replace('\\\n', '')))
        self.assertEqual([f['id'] for f in json.loads(text)['findings']],
                         ['vm-smmu', 'vm-disk'])

    def test_check(self):
        """A line for each check; those of --json are the same."""
        made = grace.Host(self.root, 2)
        made.bind('0008:01:00.0', 'nvidia')
        made.pages(4)
        status, text = self.run_it('check')
        self.assertEqual(status, 1, text)
        results = re.findall(r'^(PASS|WARN|FAIL)  ([a-z-]+) +\S', text, re.M)
        self.assertEqual(results.count(('FAIL', 'gpu-driver')), 1)
        self.assertEqual(results.count(('PASS', 'gpu-driver')), 1)
        self.assertEqual(results.count(('WARN', 'page-size')), 1)
        self.assertEqual({r for r, _ in results}, {'PASS', 'WARN', 'FAIL'})
        self.assertRegex(text, r'\n +driverctl set-override')
        status, text = self.run_it('check', '--json')
        self.assertEqual(status, 1)
        self.assertEqual([(c['result'], c['id']) for c in json.loads(text)['checks']],
                         results)
        self.assertEqual(set(re.findall(r'^\.TP\n\.B (\S+)$', (
            TOP / 'tools/egm-vm.1').read_text().split('.SH CHECKS')[1].split('.SH ')[0]
            .replace('\\-', '-'), re.M)), known_checks())

    def test_metrics(self):
        """For Prometheus: each check and subject once, with the worst result."""
        made = grace.Host(self.root, 2)
        made.user('/dev/egm5')
        made.pages(4)
        made.bind('0008:01:00.0', 'nvidia')
        for name in 'a', 'b':
            made.file(f'/sys/class/egm/{name}').mkdir()
        status, text = self.run_it('check', '--prometheus')
        self.assertEqual(status, 1)
        metrics = re.findall(r'^(egm_\w+)\{(.*)\} ([0-9])$', text, re.M)
        self.assertEqual(len(metrics) + 4, len(text.splitlines()), text)
        values = {(name, labels): int(value) for name, labels, value in metrics}
        self.assertEqual(len(values), len(metrics))
        for name, labels, value in (
                ('egm_check', 'check="gpu-driver",subject="0008:01:00.0"', 2),
                ('egm_check', 'check="gpu-driver",subject="0018:01:00.0"', 0),
                ('egm_check', 'check="page-size",subject=""', 1),
                ('egm_check', 'check="region-name",subject=""', 1),
                ('egm_check', 'check="region-use",subject="egm5"', 0),
                ('egm_in_use', 'subject="egm4"', 0), ('egm_in_use', 'subject="egm5"', 1)):
            self.assertEqual(values[name, labels], value, text)

    def complete(self, *words, program='egm-vm'):
        """Completions of bash after WORDS, in the form that a user sees."""
        line = ' '.join((program, *words))
        # bash splits words at colons, too.
        split = re.findall(r'[:=]|[^\s:=]+', line) + ([''] if line.endswith(' ') else [])
        function = '_' + program.replace('-', '_')
        return subprocess.run(
            ['bash', '-c', f'. {TOP}/tools/egm-vm.bash; _egm_root={self.root}; '
             'COMP_WORDBREAKS=$\' \\t\\n"><=;|&(:\'; COMP_LINE=$1 COMP_POINT=${#1}; '
             'shift; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
             f'{function} {program} "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"; '
             'echo "${COMPREPLY[@]}"', 'bash', line, *split],
            text=True, check=True, stdout=subprocess.PIPE).stdout.split()

    def test_completion(self):
        """Options of the subcommand, and what options take."""
        for what in self.COMMANDS:
            self.assertEqual(set(self.complete(what, '--')), self.options('egm-vm', what))
        self.assertEqual(set(self.complete('--')), self.options('egm-vm', 'host'))
        self.assertEqual(self.complete(''), list(self.COMMANDS))
        self.assertEqual(self.complete('qemu', ''), [])
        self.assertEqual(self.complete('qemu', '--', '-'), [])
        self.assertEqual(self.complete('qemu', '--accel', ''), ['kvm', 'tcg'])
        self.assertEqual(self.complete('qemu', '--smmu', ''), ['auto', 'off'])
        self.assertEqual(self.complete('qemu', '--net', 'n'), ['none'])
        self.assertEqual(set(self.complete('--', program='egm-report')),
                         self.options('egm-report'))

    def test_completion_of_host(self):
        """PCI addresses, with their colons and in lists; functions of split GPUs."""
        made = grace.Host(self.root, 2, 2)
        made.interface('br0', bridge=True)
        made.interface('eth0')
        parts = made.virtual('0019:01:00.0', 2, 'vfio-pci')
        self.assertEqual(self.complete('qemu', '--gpus', ''), [
            '0008:01:00.0', '0009:01:00.0', '0018:01:00.0', *parts, 'all', 'free'])
        # readline has what comes before the last colon.
        self.assertEqual(self.complete('qemu', '--gpus', '0008:'), ['01:00.0'])
        for address, node in (('0000:03:00.0', 0), ('0002:03:00.0', 1), ('0004:03:00.0', 7)):
            made.pci(address, node, 'vfio-pci', None, class_=0x020000)
        self.assertEqual(self.complete('qemu', '--nic', ''), ['0000:03:00.0', '0002:03:00.0'])
        self.assertEqual(self.complete('qemu', '--nic', '0002:03:00.0,0'), ['00.0,0000:03:00.0'])
        self.assertEqual(self.complete('qemu', '--gpus', '0008:01:00.0,'), [
            '00.0,0009:01:00.0', '00.0,0018:01:00.0', *(f'00.0,{p}' for p in parts)])
        self.assertEqual(self.complete('qemu', '--gpus', '0008:01:00.0,0009:'),
                         ['01:00.0'])
        self.assertEqual(set(self.complete('qemu', '--socket', '')), {'0', '1'})
        self.assertEqual(self.complete('qemu', '--net', ''), ['user', 'none', 'br0'])
        # A name is not run.
        made.interface('$(echo,br1)', bridge=True)
        self.assertEqual(self.complete('qemu', '--net', ''),
                         ['user', 'none', '$(echo,br1)', 'br0'])

    def test_completion_on_a_terminal(self):
        """The same, typed on a terminal."""
        grace.Host(self.root, 2, 1)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvp('bash', ['bash', '--norc', '-i'])
        with open(terminal, 'r+b', buffering=0) as file:
            def type_(text):
                file.write(text.encode())

            def wait_for(pattern, text=b''):
                end = time.monotonic() + machine.LIMIT
                while not re.search(pattern, text):
                    self.assertLess(time.monotonic(), end, text)
                    if select.select([file], [], [], 1)[0]:
                        text += os.read(terminal, 4096)
                return text
            type_(f"PS1='ready> ' TERM=dumb; . {TOP}/tools/egm-vm.bash; "
                  f'_egm_root={self.root}\n')
            wait_for(rb'[\r\n]ready> ')
            type_('echo egm-vm; egm-vm qemu --gpus 0018:\t')
            wait_for(rb'0018:01:00\.0')
            type_(',\t')
            wait_for(rb',0008:01:00\.0')
            type_('\x03exit\n')
        os.waitpid(pid, 0)

    def test_python(self):
        """The oldest version that the man pages name reads the sources."""
        for name in 'egm-vm', 'egm-report':
            self.assertIn('Python 3.9 or newer', (TOP / f'tools/{name}.1').read_text()
                          .replace('\n', ' '))
        for path in [TOP / 'tools/egm-vm', TOP / 'tools/egm-report',
                     *TOP.glob('tools/egm/*.py')]:
            ast.parse(path.read_text(), feature_version=(3, 9))

    def example(self, *args):
        """What egm-vm prints, with paths as they are on a real host."""
        status, text = self.run_it(*args)
        self.assertEqual(status, 0, text)
        for path, shown in ((f'{self.root}/guest', 'guest'), (str(self.root), ''),
                            (str(self.qemu), 'qemu-system-aarch64')):
            text = text.replace(path, shown)
        text = re.sub(r'unix:\S*/', 'unix:/run/', text)
        text = re.sub(r'file=\S*/edk2', 'file=/usr/local/share/qemu/edk2', text)
        return ''.join(f'    {line}\n' for line in text.splitlines())

    def test_readme(self):
        """Its output is that of a host with 2 sockets and 4 GPUs."""
        grace.Host(self.root, **EXAMPLE)
        readme = (TOP / 'README.md').read_text()
        disk = self.root / 'guest.qcow2'
        disk.write_bytes(b'QFI\xfb')
        for what in ([], ['qemu', '--gpus', '9:1:0.0', '--initiators', '1', '--disk',
                          'guest.qcow2']):
            self.assertIn(f'    $ egm-vm{"".join(" " + w for w in what)}\n' + self.example(
                *(str(disk) if w == disk.name else w for w in what)), readme)

    def test_manual(self):
        """Its command lines; what README and manual name in short is in them."""
        page = TOP / 'docs/system/egm-memory.rst'
        text, examples = page.read_text(), []
        for sockets, args in ((1, ()), (2, ('--initiators', '1'))):
            with tempfile.TemporaryDirectory() as directory:
                self.root = pathlib.Path(directory)
                grace.Host(directory, sockets, size=64 << 30, cpus=16)
                disk = self.root / 'guest.qcow2'
                disk.write_bytes(b'QFI\xfb')
                examples.append(self.example('qemu', '--disk', disk, *args))
        pattern = re.compile(r'^    qemu-system-aarch64 \\\n(?:    .*\n)*', re.M)
        if 'EGM_DRAW' in os.environ:
            new = iter(examples)
            page.write_text(pattern.sub(lambda _: next(new), text))
        self.assertEqual(pattern.findall(page.read_text()), examples)
        for part in (TOP / 'README.md', TOP / 'docs/system/egm-device.rst'):
            short = re.findall(r'^    (-(?:object|numa|device) .*)$',
                               part.read_text(), re.M)
            self.assertTrue(short)
            for option in short:
                self.assertIn(f'    {option}', examples[0])
