#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""egm-vm on made-up hosts: what it finds, what it refuses, what it writes."""

import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree as ET

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / 'tests'), str(TOP / 'tools')]
# pylint: disable=wrong-import-position
from egm import cmdline, emulator, findings, hostinfo, plan  # noqa: E402
from egmtest import grace, machine, tap  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])
QEMU = BUILD / 'qemu-system-aarch64'
MIB = 1 << 20
EXAMPLE = {'sockets': 2, 'gpus': 2}     # of the README


class Case(unittest.TestCase):
    """Each case has a directory for its host."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-vm-')
        self.addCleanup(self.tmp.cleanup)
        self.root = pathlib.Path(self.tmp.name)
        self.root.chmod(0o755)
        self.notes = []

    def run_it(self, *args, **keywords):
        """egm-vm on this host: exit status, output."""
        run = subprocess.run(
            [TOP / 'tools/egm-vm', '--root', self.root, '--qemu', QEMU, *args],
            text=True, check=False, timeout=machine.LIMIT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, **keywords)
        self.assertNotIn('Traceback', run.stdout)
        return run.returncode, run.stdout

    def succeeds(self, *args, **keywords):
        """The output, without notes, which are kept."""
        status, text = self.run_it(*args, **keywords)
        self.assertEqual(status, 0, text)
        lines = text.splitlines(keepends=True)
        self.notes = [] if not args else \
            [line for line in lines if line.startswith('note: ')]
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

    def found(self, *expected, **keywords):
        """Just these findings: (kind, text, command)."""
        machine_ = hostinfo.read(str(self.root))
        with unittest.mock.patch('fcntl.ioctl', return_value=1):
            found = findings.find(machine_, emulator.Emulator(
                QEMU, keywords.get('firmware', QEMU)))
        self.assertEqual(len(found), len(expected), found)
        text = '\n'.join(findings.lines(machine_, found))
        for finding, (kind, message, command) in zip(found, expected):
            self.assertEqual(finding.problem, kind == 'problem', finding)
            self.assertIn(message, finding.text)
            self.assertIn(command, finding.command)
            self.assertIn(f'{kind}: {finding.text}', text)
            self.assertIn(finding.command, text)


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
        """The driver is not there; or it has nothing."""
        made = grace.Host(self.root, 0)
        self.found(('problem', 'the driver is not loaded', 'modprobe nvgrace-egm'))
        made.file('/sys/module/nvgrace_egm').mkdir(parents=True)
        self.found(('problem', 'the firmware has set no memory aside', ''))
        self.assertEqual(self.run_it()[0], 1)
        self.refused('this host has no EGM region')
        made.region(4, 64 * MIB, [])
        self.refused('no EGM region of this host has a GPU')

    def test_unbound(self):
        """A GPU that a host driver has, and one that none has."""
        made = grace.Host(self.root, 1, 2)
        for address, driver in zip(made.gpus[0], ('nvidia', None)):
            made.bind(address, driver)
        first, second = made.gpus[0]
        self.found(
            ('problem', f'GPU {first} is not bound to a vfio driver but to nvidia',
             f'echo {first} > /sys/bus/pci/devices/{first}/driver/unbind'),
            ('problem', f'GPU {second} is not bound to a vfio driver but to none',
             'echo nvgrace_gpu_vfio_pci > '))
        self.refused(f'GPU {first} is not bound', f'GPU {second} is not bound')
        made.bind(second, 'vfio-pci')
        self.succeeds('qemu', '--gpus', second)

    def test_size(self):
        """The driver may not tell, or tell an odd one."""
        made = grace.Host(self.root)
        made.file('/sys/class/egm/egm4/egm_size').unlink()
        self.found(('note', 'does not tell its size', ''))
        self.refused('egm4: the driver does not tell its size: say --memory')
        self.assertIn('size=64M', self.succeeds('qemu', '--memory', '64M'))
        made.file('/sys/class/egm/egm4/egm_size').write_text('0x4100000\n')
        self.found(('note', 'no multiple of 2 MiB', ''))
        self.assertIn('size=64M', self.succeeds('qemu'))

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
            made.pci(address, 0, 'vfio-pci', pxm)
            made.region(pxm, 64 * MIB, [address])
        self.found()
        text = self.succeeds('qemu')
        for pxm in (4, 5):
            self.assertIn(f'host=1000{pxm}:01:00.0', text)

    def test_in_use(self):
        """By a descriptor, a mapping, or a lock."""
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
                self.found(('problem', f'egm4 is {who}', ''))
                self.assertIn('qemu-system-aar (4711)', self.run_it()[1])
                # Another GPU of that socket for another VM
                second = made.gpus[0][1]
                self.refused(f'egm4, the region of {second}, is {who}: a region '
                             'belongs to one VM', args=('qemu', '--gpus', second))

    def test_in_use_by_a_busy_one(self):
        """A descriptor that is closed meanwhile does not hide the others."""
        made = grace.Host(self.root)
        made.user('/dev/egm4')
        for number in range(100, 120):
            # What is no link cannot be read either.
            made.file(f'/proc/4711/fd/{number}').touch()
        self.found(('problem', 'egm4 is in use by qemu-system-aar (4711)', ''))

    @unittest.skipUnless(os.getuid() == 0, 'only root can make device nodes')
    def test_number(self):
        """Another node of the device counts, a disk of the same number does not."""
        made = grace.Host(self.root)
        for name, kind in ('node', stat.S_IFCHR), ('disk', stat.S_IFBLK):
            os.mknod(self.root / name, kind, os.makedev(511, 4))
        made.user(self.root / 'disk', pid=4710)
        self.found()
        made.user(self.root / 'node')
        self.found(('problem', 'egm4 is in use by qemu-system-aar (4711)', ''))

    def test_gpu_in_use(self):
        """A VM without EGM can have a GPU, too."""
        made = grace.Host(self.root)
        for device in ('/dev/vfio/0', '/dev/vfio/devices/vfio0'):
            made.user(device)
            self.refused('GPU 0008:01:00.0 is in use by qemu-system-aar (4711)')

    @unittest.skipUnless(os.getuid() == 0, 'only root can become somebody else')
    def test_permissions(self):
        """A user who may not open devices is told how to get there."""
        made = grace.Host(self.root)
        for name in ('egm4', 'kvm', 'iommu', 'vfio/devices/vfio0'):
            made.file(f'/dev/{name}').chmod(0o600)
        # Copies, as the checkout can be root's alone.
        subprocess.run(['cp', '-r', TOP / 'tools', self.root / 'tools'], check=True)
        run = subprocess.run(
            [self.root / 'tools/egm-vm', '--root', self.root, '--qemu', QEMU],
            text=True, check=False, stdout=subprocess.PIPE, user='nobody',
            stderr=subprocess.STDOUT)
        self.assertEqual(run.returncode, 1, run.stdout)
        for name in ('egm4', 'kvm', 'iommu', 'vfio/devices/vfio0'):
            self.assertIn(f'problem: nobody may not open /dev/{name}', run.stdout)
            self.assertIn(f'setfacl -m u:nobody:rw /dev/{name}\n', run.stdout)

    def test_kernel(self):
        """iommufd, pages, KVM and its capability."""
        made = grace.Host(self.root, iommufd=False)
        made.pages(4)
        made.file('/dev/kvm').unlink()
        self.found(('note', 'no iommufd', 'modprobe iommufd'),
                   ('note', 'pages of 4 KiB', '64 KiB'),
                   ('problem', 'there is no /dev/kvm', ''))
        self.assertNotIn('iommufd', self.succeeds('qemu'))
        self.assertIn('iommufd=iommufd0', self.succeeds('qemu', '--iommufd'))
        self.assertIn('accel=tcg', self.succeeds('qemu'))

    def test_type1(self):
        """Although the host has iommufd."""
        grace.Host(self.root)
        self.assertIn('iommufd=iommufd0', self.succeeds('qemu'))
        self.assertNotIn('iommufd', self.succeeds('qemu', '--type1'))

    def test_capability(self):
        """KVM that does not tell how it maps the memory."""
        grace.Host(self.root)
        machine_ = hostinfo.read(str(self.root))
        for answer, count in ((0, 1), (1, 0), (OSError(25, ''), 0)):
            with unittest.mock.patch('fcntl.ioctl', side_effect=[answer]) as ioctl:
                found = findings.find(machine_, emulator.Emulator(QEMU, QEMU))
            self.assertEqual(ioctl.call_args[0][1:], (0xae03, 243))
            self.assertEqual(len(found), count, found)
            if found:
                self.assertIn('capability 243', found[0].text)

    def test_other_machine(self):
        """A host without KVM for arm64."""
        made = grace.Host(self.root)
        made.file('/proc/sys/kernel/arch').write_text('x86_64\n')
        self.found(('note', 'this is x86_64', ''))
        self.assertIn('accel=tcg', self.succeeds('qemu'))

    def test_iommu(self):
        """No IOMMU; a group with somebody else in it."""
        made = grace.Host(self.root)
        device = made.pci('0000:05:00.0', 0, 'e1000e', 0, 0x020000)
        made.pci('0000:04:00.0', 0, 'pcieport', 0, 0x060400)
        self.found(('problem', '0000:05:00.0 is in the IOMMU group of GPU '
                    '0008:01:00.0', 'driver/unbind'))
        (device / 'driver').unlink()
        self.found()
        made.file('/sys/bus/pci/devices/0008:01:00.0/iommu_group').unlink()
        self.found(('problem', 'has no IOMMU group', 'SMMU'))

    def test_contradictions(self):
        """What no driver should tell."""
        made = grace.Host(self.root, 2)
        first = made.gpus[0][0]
        made.region(5, 64 * MIB, [first, '0077:01:00.0'])
        made.region(6, 64 * MIB, [])
        made.file('/dev/egm6').unlink()
        self.found(('problem', 'the GPUs of egm5 are on different NUMA nodes', ''),
                   ('problem', '/dev/egm6 is missing',
                    'mknod -m 600 /dev/egm6 c 511 6'),
                   ('problem', 'egm6 has no GPU', ''),
                   ('problem', f'GPU {first} is of several regions: egm4, egm5', ''),
                   ('problem', 'GPU 0077:01:00.0 is not there', ''))

    def test_emulator(self):
        """No QEMU, one without the object, one without firmware."""
        grace.Host(self.root)
        other = self.root / 'qemu'
        other.write_text('#!/bin/sh\necho rng-random\n')
        other.chmod(0o755)
        for path, message in (('/nonexistent', 'no /nonexistent'),
                              (other, 'no object acpi-egm-memory')):
            run = subprocess.run(
                [TOP / 'tools/egm-vm', 'qemu', '--root', self.root, '--qemu', path,
                 '--firmware', QEMU], text=True, check=False,
                stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            self.assertEqual((run.returncode, run.stdout), (1, ''))
            self.assertIn(message, run.stderr)
        self.refused('there is no firmware /nonexistent',
                     args=('qemu', '--firmware', '/nonexistent'))
        found = findings.find(hostinfo.read(str(self.root)),
                              emulator.Emulator(other, ''))
        self.assertEqual([f.problem for f in found[-2:]], [True, True], found)

    def test_opens_no_region(self):
        """The driver would clear it."""
        made = grace.Host(self.root, **EXAMPLE)
        made.user('/dev/kvm')
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0]))
                         if event == 'open' else None)
        machine_ = hostinfo.read(str(self.root))
        findings.find(machine_, emulator.Emulator(QEMU, QEMU))
        plan.make(machine_)
        self.assertTrue(any('/sys/class/egm/egm4/' in path for path in opened))
        self.assertEqual([p for p in opened if '/dev/egm' in p], [])


class Refusals(Case):
    """What would be wrong, by name."""

    def setUp(self):
        super().setUp()
        grace.Host(self.root, **EXAMPLE)

    def test_gpus(self):
        """Names that are none, or twice."""
        self.refused('0000:77:00.0 is no GPU of an EGM region; there are 0008:01:'
                     '00.0, 0009:01:00.0', 'x is no GPU',
                     args=('qemu', '--gpus', '77:00.0,x'))
        self.refused('GPU 0009:01:00.0 is named twice',
                     args=('qemu', '--gpus', '9:1:0.0,0009:01:00.0'))

    def test_memory(self):
        """Sizes, with one that would do."""
        for size, message in (
                ('513M', '513M is no multiple of 2 MiB; the nearest is 512M'),
                ('1023', '1023 is no multiple of 2 MiB; the nearest is 1024M'),
                ('0', '0 is no multiple of 2 MiB; the nearest is 2M'),
                ('448G', '448G is more than egm4 has: 447 GiB'),
                ('much', 'much: not a size')):
            status, text = self.run_it('qemu', '--memory', size)
            self.assertEqual(status, 1, text)
            self.assertIn(message, text)

    def test_notes(self):
        """What is right, but may not be what was wanted."""
        self.succeeds('qemu', '--memory', '1G')
        self.assertEqual(self.notes, [])
        self.succeeds('qemu', '--memory', '1026M')
        self.assertEqual(len(self.notes), 1)
        self.assertIn('1026 MiB of egm4 are no multiple of 512 MiB', self.notes[0])
        self.assertIn('--memory 1024M does not', self.notes[0])
        self.succeeds('svg', '--gpus', '0009:01:00.0')
        self.assertEqual(len(self.notes), 1)
        self.assertIn('no other VM can have egm4 with 0008:01:00.0', self.notes[0])

    def test_cpus(self):
        """So many that each socket has as many as the others."""
        for count, near in (('5', 4), ('1', 2), ('0', 2)):
            self.refused(f'--cpus {count} cannot be divided among 2 sockets; {near} '
                         'can', args=('qemu', '--cpus', count))

    def test_initiators(self):
        """As many as the driver takes."""
        self.refused('--initiators 9: a GPU has 0 to 8',
                     args=('qemu', '--initiators', '9'))

    def test_too_many(self):
        """More nodes, or buses, than there are."""
        with tempfile.TemporaryDirectory() as directory:
            self.root = pathlib.Path(directory)
            grace.Host(self.root, 4, 4)
            self.refused('4 sockets and 16 GPUs with 8 nodes each are more than '
                         '128 NUMA nodes')
            self.succeeds('qemu', '--initiators', '7')
        with tempfile.TemporaryDirectory() as directory:
            self.root = pathlib.Path(directory)
            grace.Host(self.root, 8, 1)
            self.refused('8 GPUs on 8 sockets need more PCI buses',
                         args=('qemu', '--initiators', '0'))

    def test_options(self):
        """What belongs to qemu only, and files that are not there."""
        self.refused('libvirt takes no --run and no options after --',
                     args=('libvirt', '--run'))
        self.refused('--disk /nonexistent does not exist',
                     args=('qemu', '--disk', '/nonexistent'))


class Writes(Case):
    """Command lines, domains and pictures."""

    def start(self, *args, **shape):
        """What comes out starts in our QEMU: the objects, by id."""
        shape = {'size': 64 * MIB, 'cpus': 2, **shape}
        made = grace.Host(self.root, **shape)
        vm = plan.make(hostinfo.read(str(self.root)), stand_in=True, *args)
        lines = cmdline.command(
            vm, emulator=emulator.Emulator(QEMU), accel='tcg', iommufd=False,
            stand_in='pci-testdev', more=['-S'])
        text = cmdline.text(lines)
        for s in vm.sockets:
            self.assertIn(f'id={s.bridge},bus=pcie.0,bus_nr={s.bus},'
                          f'numa_node={s.node}', text)
        self.assertEqual(text.count(',io-reserve=0'), len(vm.gpus))
        with machine.Machine(BUILD, cmdline.words(lines)[1:]) as running:
            objects = {o['id']: o for o in running.cmd('query-acpi-egm-memory')}
            numa = running.cmd('human-monitor-command',
                               **{'command-line': 'info numa'}).splitlines()
        self.assertEqual(running.process.returncode, 0, running.text)
        for line in running.text.splitlines():
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

    def test_run(self):
        """--run becomes QEMU, with what comes after --."""
        grace.Host(self.root)
        self.assertIn('QEMU emulator version',
                      self.succeeds('qemu', '--run', '--', '-version'))

    def test_distances(self):
        """As the host's; initiators one step from their socket."""
        made = grace.Host(self.root, 2, 1)
        text = self.succeeds('qemu', '--initiators', '2')
        values = {(int(a), int(b)): int(v) for a, b, v in re.findall(
            r'dist,src=(\d+),dst=(\d+),val=(\d+)', text)}
        self.assertEqual(values, {
            (0, 1): 40, (0, 2): 20, (0, 3): 20, (0, 4): 50, (0, 5): 50,
            (1, 2): 50, (1, 3): 50, (1, 4): 20, (1, 5): 20,
            (2, 3): 30, (2, 4): 60, (2, 5): 60, (3, 4): 60, (3, 5): 60,
            (4, 5): 30})
        for node, row in ((0, '10 20'), (1, '20 10')):
            made.file(f'/sys/devices/system/node/node{node}/distance').write_text(
                row + '\n')
        self.assertNotIn('dist', self.succeeds('qemu'))

    def test_windows(self):
        """Large enough for BARs, those that sysfs does not show included."""
        made = grace.Host(self.root, 2, 2)
        text = self.succeeds('qemu')
        self.assertEqual(text.count('pref64-reserve=512G'), 4)
        self.assertIn('highmem-mmio-size=4T', text)
        for address in [a for s in made.gpus.values() for a in s]:
            device = made.file(f'/sys/bus/pci/devices/{address}')
            (device / 'vendor').write_text('0x1234\n')
        text = self.succeeds('qemu')
        self.assertEqual(text.count('pref64-reserve=16M'), 4)
        self.assertNotIn('highmem-mmio-size', text)
        (device / 'resource').write_text('0x0 0xffffff 0x40200\n' * 6)
        self.assertEqual(self.succeeds('qemu').count('pref64-reserve'), 3)

    def test_domain(self):
        """The libvirt domain says the same as the command line."""
        grace.Host(self.root, **EXAMPLE)
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

    def test_picture(self):
        """Everything is in it; the README shows the demo's."""
        made = grace.Host(self.root, **grace.DEMO)
        text = self.succeeds('svg')
        shown = ' '.join(t.text for t in ET.fromstring(text).iter(
            '{http://www.w3.org/2000/svg}text'))
        for word in [a for s in made.gpus.values() for a in s] + [
                'egm4', 'egm5', 'pxb0', 'pxb1', 'nodes 26-33', 'vCPU 2-3']:
            self.assertIn(word, shown)
        shown = TOP / 'docs/demo.svg'
        if 'EGM_DRAW' in os.environ:
            shown.write_text(text)
        self.assertEqual(shown.read_text(), text)


class Documents(Case):
    """Help, man page, completion and README name the same things."""

    def options(self):
        """Of --help."""
        return set(re.findall(r'--[a-z][a-z0-9-]*', self.succeeds('--help')))

    def test_man(self):
        """Every option, and no other; groff is silent."""
        page = TOP / 'tools/egm-vm.1'
        found = set(re.findall(r'\\-\\-([a-z0-9\\-]+)', page.read_text()))
        self.assertEqual({'--' + f.replace('\\', '') for f in found},
                         self.options())
        for page in TOP.glob('tools/*.1'):
            run = subprocess.run(['groff', '-man', '-Tutf8', '-ww', '-z', page],
                                 text=True, check=False, stderr=subprocess.PIPE)
            self.assertEqual((run.returncode, run.stderr), (0, ''))

    def complete(self, *words):
        """What bash offers after WORDS."""
        line = ' '.join(f"'{w}'" for w in words)
        return subprocess.run(
            ['bash', '-c', f'. {TOP}/tools/egm-vm.bash; COMP_WORDS=({line}); '
             'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _egm_vm egm-vm '
             '"${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"; echo "${COMPREPLY[@]}"'],
            text=True, check=True, stdout=subprocess.PIPE).stdout.split()

    def test_completion(self):
        """Options, forms, GPUs and what options take."""
        self.assertEqual(set(self.complete('egm-vm', '--')), self.options())
        self.assertEqual(self.complete('egm-vm', ''),
                         ['host', 'qemu', 'libvirt', 'svg'])
        self.assertEqual(self.complete('egm-vm', 'qemu', '--accel', ''),
                         ['kvm', 'tcg'])
        self.assertEqual(self.complete('egm-vm', 'qemu', '--net', 'n'), ['none'])

    def example(self, *args):
        """What egm-vm prints, with paths as they are on a real host."""
        status, text = self.run_it(*args)
        self.assertEqual(status, 0, text)
        for path, shown in ((f'{self.root}/guest', 'guest'), (str(self.root), ''),
                            (str(QEMU), 'qemu-system-aarch64')):
            text = text.replace(path, shown)
        text = re.sub(r'file=\S*/edk2', 'file=/usr/local/share/qemu/edk2', text)
        return ''.join(f'    {line}\n' for line in text.splitlines())

    def test_readme(self):
        """Its output is that of a host with 2 sockets and 4 GPUs."""
        grace.Host(self.root, **EXAMPLE)
        readme = (TOP / 'README.md').read_text()
        for what in ([], ['qemu', '--gpus', '9:1:0.0']):
            self.assertIn(f'    $ egm-vm{"".join(" " + w for w in what)}\n'
                          f'{self.example(*what)}', readme)

    def test_manual(self):
        """Its command lines; what README and manual name in short is in them."""
        page = TOP / 'docs/system/egm-memory.rst'
        text, examples = page.read_text(), []
        for sockets, args in ((1, ()), (2, ('--initiators', '0'))):
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


if __name__ == '__main__':
    tap.main()
