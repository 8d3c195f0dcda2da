# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on a host with vfio-pci and an EGM device.

The devices are stand-ins (see standin/ and host.py); everything else is real:
the kernel, its IOMMU driver, vfio, and the QEMU that was built.
"""

import atexit
import os
import time
import unittest

from egm import srat
from lib import BUILD, MIB, RAM_BASE, acpi, fdt, fw_cfg
from lib.made import need_arm64
from host.host import PLATFORMS, REGIONS, Dma, Host, Qemu

HOST = PLATFORMS[os.environ.get('EGM_HOST', 'arm64')]
WORD = 0x45474d20776f7264


def backend(number, pxm, size, extra='share=on,prealloc=on', path=None):
    """A memory backend on a region of the host."""
    return ['-object', f'memory-backend-file,id=m{number},size={size}M,'
            f'mem-path={path or f"/dev/egm{pxm}"},{extra}']


def node(number):
    """A NUMA node whose RAM is a backend."""
    return ['-numa', f'node,nodeid={number},memdev=m{number}']


# A host bridge belongs to one node.
SECOND_BRIDGE = ['-device', 'pxb-pcie,id=second,bus_nr=8,numa_node=1']


def passthrough(number, driver='vfio-pci-nohotplug', address=None, bus='pcie.0'):
    """A GPU of the host, behind a root port."""
    return ['-device', f'pcie-root-port,id=rp{number},chassis={number + 1},'
            f'addr={number + 1},bus={bus}', '-device',
            f'{driver},id=dev{number},host={address or HOST.gpus[number]},'
            f'bus=rp{number}']


def egm(number, where=0):
    """Ties a GPU to a node."""
    return ['-object', f'acpi-egm-memory,id=egm{number},pci-dev=dev{number},'
            f'node={where}']


def ram(size, *args, **keywords):
    """A machine with one node, by default on region 4."""
    return ['-m', str(size), *backend(0, 4, size, *args, **keywords), *node(0)]


ONE = ram(256) + passthrough(0) + egm(0)


# virt has a device tree at the start of RAM.
FREE = 2 * MIB


def word(offset, value=WORD):
    """What the `loader` device writes into guest RAM when the VM starts."""
    return ['-device', f'loader,addr={RAM_BASE + offset:#x},data={value:#x},'
            'data-len=8']


class HostTest(unittest.TestCase):
    """All cases share one host; each loads the stand-in."""

    host = None
    driver = 'E'

    @classmethod
    def setUpClass(cls):
        need_arm64()
        if not HostTest.host:
            HostTest.host = Host(HOST, BUILD / f'host-{HOST.name}')
            HostTest.host.__enter__()
            # Other modules use it as well.
            atexit.register(HostTest.host.__exit__, None, None, None)
            HostTest.host.boot()

    def tearDown(self):
        bad = self.host.run('dmesg -c | grep -E '
                            '"BUG|WARNING|smmu.*event|Oops|'
                            'Call Trace"')
        self.assertEqual(bad[1], '')

    def standin(self, **parameters):
        """The driver, as the generation that the class is about."""
        return self.host.standin(driver=self.driver, **parameters)

    def other_node(self):
        """Another device node, as containers have their own."""
        self.host.check('mknod /tmp/egm c $(tr : " " < '
                        '/sys/class/egm/egm4/dev)')
        self.addCleanup(self.host.check, 'rm /tmp/egm')

    def qemu(self, args):
        """A context manager around a running QEMU."""
        return Qemu(self.host, args)

    def starts(self, args, **keywords):
        """QEMU starts; return its output."""
        status, text = self.host.start(args, **keywords)
        self.assertEqual(status, 0, text)
        return text

    def refuses(self, args, *messages, **keywords):
        """QEMU does not start, and prints the reason."""
        status, text = self.host.start(args, **keywords)
        self.assertEqual(status, 1, text)
        for message in messages:
            self.assertIn(message, text)
        self.assertNotIn('ftruncate', text)
        return text


def generations(names, full=None):
    """Make a test class of the decorated one for each generation of the driver that
    matters to it; `make check-full` takes those of FULL.
    """
    def expand(cases):
        for name in full if full and 'EGM_FULL' in os.environ else names:
            made = cases.__name__ + name
            globals()[made] = type(made, (cases, HostTest), {
                'driver': name, '__module__': __name__, '__doc__': cases.__doc__})
        return cases
    return expand


@generations('BE', full='BCME')
class Works:
    """Machines that start."""

    def test_word(self):
        """Guest RAM is the region, byte for byte."""
        size = REGIONS[4]
        args = ram(size // MIB) + word(FREE) + word(size - 8, WORD + 1)
        with self.standin(), self.qemu(args):
            for offset, value in ((FREE, WORD), (size - 8, WORD + 1)):
                self.assertEqual(self.host.region(4, offset, 8),
                                 value.to_bytes(8, 'little'))

    def test_zeroed(self):
        """The next VM does not find what the last one left."""
        with self.standin():
            with self.qemu(ram(64) + word(FREE)):
                pass
            with self.qemu(ram(64)):
                self.assertEqual(self.host.region(4, FREE, 8), bytes(8))

    def test_one_gpu(self):
        """The tables are correct, and there is no warning."""
        with self.standin(), self.qemu(ONE) as qemu:
            self.assertEqual(qemu.text, '')
            self.check_tables(qemu, {(0,): (RAM_BASE, 256 * MIB, 0)})

    def test_two_gpus(self):
        """Two GPUs of one socket share its region."""
        args = ONE + passthrough(1) + egm(1)
        with self.standin(), self.qemu(args) as qemu:
            self.assertEqual(qemu.text, '')
            self.check_tables(qemu, {(0,): (RAM_BASE, 256 * MIB, 0),
                                     (1,): (RAM_BASE, 256 * MIB, 0)})

    def check_tables(self, qemu, gpus):
        """The data that QEMU reports, by number of the GPU."""
        tables = fw_cfg.tables(qemu)
        devices = {d.adrs: (d.base, d.size, d.pxm)
                   for d in acpi.egm_devices(tables['DSDT'])}
        self.assertEqual(devices, {((number + 1) << 16, 0): value
                                   for (number,), value in gpus.items()})
        affinities = {(a.base, a.size, a.pxm)
                      for a in srat.read(tables['SRAT']).affinities if a.enabled}
        self.assertEqual(affinities, set(gpus.values()))

    def test_two_regions(self):
        """Each socket's GPU with its own region."""
        args = (['-m', '384', '-smp', '2', *backend(0, 4, 256),
                 *backend(1, 5, 128), *node(0), *node(1)]
                + passthrough(0) + egm(0) + SECOND_BRIDGE
                + passthrough(2, bus='second') + egm(2, 1)
                + word(FREE) + word(256 * MIB + FREE, WORD + 1))
        with self.standin(), self.qemu(args) as qemu:
            self.assertEqual(qemu.text, '')
            for pxm, value in ((4, WORD), (5, WORD + 1)):
                self.assertEqual(self.host.region(pxm, FREE, 8),
                                 value.to_bytes(8, 'little'))
            self.check_tables(
                qemu, {(0,): (RAM_BASE, 256 * MIB, 0),
                       (2,): (RAM_BASE + 256 * MIB, 128 * MIB, 1)})


@generations('E', full='BCME')
class Runs:
    """Behaviour that is the same with each generation."""

    def test_dma(self):
        """vfio type1 maps the region: the device reads and writes it."""
        data = os.urandom(2048)
        with self.standin(), self.qemu(ONE) as qemu:
            dma = Dma(qemu)
            qemu.write(RAM_BASE + 0x10000, data)
            dma.copy(RAM_BASE + 0x10000, RAM_BASE + 200 * MIB, len(data))
            self.assertEqual(self.host.region(4, 200 * MIB, len(data)), data)

    def test_unprivileged(self):
        """A user needs the two devices, and no locked memory."""
        with self.standin():
            text = self.refuses(
                ONE, "memory backend 'm0': cannot use EGM region egm4, "
                'mem-path=/dev/egm4: cannot open it: Permission denied',
                user='operator')
            self.assertNotIn('size', text)
            self.host.check('chown operator /dev/egm4 /dev/vfio/*')
            try:
                self.assertEqual(self.starts(ONE, user='operator'), '')
            finally:
                self.host.check('chown root /dev/vfio/*')

    def test_locked(self):
        """Locking all of QEMU's memory does no harm."""
        with self.standin():
            self.assertEqual(self.starts(ONE + ['-overcommit', 'mem-lock=on']), '')

    def test_prealloc(self):
        """The driver has populated the mapping, so QEMU touches no page."""
        with self.standin(), self.host.probe('qemu_prealloc_mem') as hits:
            self.starts(ram(64))
            self.assertEqual(hits(), 0)
            with self.qemu(ram(64, 'share=on')) as qemu:
                qemu.cmd('qom-set', path='/objects/m0', property='prealloc',
                         value=True)
            self.assertEqual(hits(), 0)
            self.starts(ram(64, path='/dev/shm/m0'))
            self.assertGreater(hits(), 0)
        self.host.check('rm /dev/shm/m0')

    def test_virtual_function(self):
        """The physical function is checked."""
        if self.driver in 'BC':
            self.skipTest('here the physical function is not bound to vfio')
        physical, virtual = HOST.function
        args = ram(64) + passthrough(0, address=virtual) + egm(0)
        with self.standin(gpus=f'{physical},{HOST.gpus[2]}'):
            self.assertEqual(self.starts(args), '')
        with self.standin(gpus=f'{HOST.gpus[0]},{physical}'):
            self.refuses(args, f'host device {physical} is not attached to the '
                         'socket of EGM region egm4', HOST.gpus[0])

    def test_ignore_shared(self):
        """RAM that loses its content is migrated, also to the same host."""
        def migrated(qemu):
            while True:
                status = qemu.cmd('query-migrate').get('status')
                if status in ('completed', 'failed'):
                    return status
                time.sleep(0.1)

        capabilities = [{'capability': 'x-ignore-shared', 'state': True}]
        with self.standin():
            with self.qemu(ram(64) + word(FREE)) as qemu:
                qemu.cmd('migrate-set-capabilities', capabilities=capabilities)
                qemu.cmd('migrate', uri='file:/tmp/state')
                self.assertEqual(migrated(qemu), 'completed')
            with self.qemu(ram(64) + ['-incoming', 'defer']) as qemu:
                qemu.cmd('migrate-set-capabilities', capabilities=capabilities)
                qemu.cmd('migrate-incoming', uri='file:/tmp/state')
                self.assertEqual(migrated(qemu), 'completed')
                self.assertEqual(qemu.read(RAM_BASE + FREE, 8),
                                 WORD.to_bytes(8, 'little'))
        self.host.check('rm /tmp/state')

    def cpr_transfer(self, args):
        """What QEMU answers to a transfer to another QEMU, which is not there."""
        channels = [{'channel-type': kind,
                     'addr': {'transport': 'socket', 'type': 'unix',
                              'path': f'/tmp/{kind}'}} for kind in ('main', 'cpr')]
        with self.qemu(['-machine', 'aux-ram-share=on', *args]) as qemu:
            qemu.cmd('migrate-set-parameters', mode='cpr-transfer')
            with self.assertRaises(Exception) as context:
                qemu.cmd('migrate', channels=channels)
            return str(context.exception)

    def test_cpr_transfer(self):
        """New QEMU cannot map the region while old QEMU has it."""
        refused = 'new QEMU cannot map while old QEMU has it'
        with self.standin():
            self.assertIn(refused, self.cpr_transfer(ram(64)))
            self.assertIn('Failed to connect',
                          self.cpr_transfer(ram(64, path='/dev/shm/m0')))
        self.host.check('rm /dev/shm/m0')

    def mapping(self, args):
        """Where the region is in QEMU's address space."""
        with self.standin(), self.qemu(args) as qemu:
            line = self.host.check(f'grep /dev/egm4 /proc/{qemu.pid}/maps')
        self.assertEqual(line.count('\n'), 1, line)
        return int(line.split('-')[0], 16)

    def test_alignment(self):
        """Where KVM can use large blocks."""
        for size, alignment in ((64, 64), (96, 128), (1024, 1024)):
            self.assertEqual(self.mapping(ram(size)) % (alignment * MIB), 0, size)

    def test_align(self):
        """align= overrides the default alignment."""
        for align in (2, 4096):
            address = self.mapping(ram(64, f'share=on,align={align}M'))
            self.assertEqual(address % (align * MIB), 0, hex(address))


@generations('BCME')
class Retired:
    """Pages that firmware and the driver report as retired."""

    def holes(self, retired, *messages):
        """Start with a list; return the guest's RAM and QEMU's output."""
        with self.standin(retired=retired), self.qemu(ONE) as qemu:
            for message in messages:
                self.assertIn(message, qemu.text)
            return fdt.memory(self.host.region(4, 0, MIB)), qemu.text

    def test_blocks(self):
        """The guest does not get whole blocks, in any order of the list."""
        tree, text = self.holes(
            '0x2020000+0x4000000*512:0x10000',
            'warning: guest RAM has holes of 32.1 MiB because of bad ranges: '
            '0x42020000-0x4202ffff, 0x44000000-0x45ffffff\n')
        self.assertEqual(tree, [(0x40000000, 0x2020000, 0),
                                (0x42030000, 0x1fd0000, 0),
                                (0x46000000, 0xa000000, 0)])
        self.assertEqual(text.count('\n'), 1, text)

    def test_longest(self):
        """As many blocks as firmware can report."""
        self.holes('0x8000000*2048:0x10000+0x20000000*2048:0x10000',
                      'guest RAM has holes of 128 MiB')

    def test_outside(self):
        """Entries of other memory are ignored."""
        tree, text = self.holes('0x40000000')
        self.assertEqual(tree, [(0x40000000, 0x10000000, 0)])
        self.assertEqual(text, '')


@generations('BCM')
class Poisoned:
    """Errors at run time; E does not report them."""

    def poison(self, qemu):
        """A page goes bad, and the guest starts anew."""
        self.host.check('echo 0xfff8000 > '
                        '/sys/module/egm_standin/parameters/poisoned')
        qemu.cmd('system_reset')
        qemu.cmd('query-status')        # after the reset

    def test_reset(self):
        """The guest loses the block that the page is in."""
        with self.standin(), self.qemu(ONE) as qemu:
            self.assertEqual(qemu.text, '')
            self.poison(qemu)
            self.assertEqual(fdt.memory(self.host.region(4, 0, MIB)),
                             [(0x40000000, 0xfff0000, 0)])

    def test_loadvm(self):
        """A snapshot that cannot be loaded leaves the disk as it is."""
        def made(job, options):
            qemu.cmd('blockdev-create', **{'job-id': job, 'options': options})
            jobs = self.host.vm.until(f'job {job}', lambda: [
                j for j in qemu.cmd('query-jobs')
                if j['id'] == job and j['status'] == 'concluded'])
            self.assertNotIn('error', jobs[0])

        with self.standin(), self.qemu(ram(256)) as qemu:
            create = {'driver': 'file', 'filename': '/tmp/disk', 'size': 0}
            disk = {'driver': 'qcow2', 'file': 'file'}
            made('a', create)
            qemu.cmd('blockdev-add', **{'node-name': 'file', 'driver': 'file',
                                        'filename': '/tmp/disk'})
            made('b', {**disk, 'size': MIB})
            qemu.cmd('blockdev-add', **{'node-name': 'disk', **disk})
            self.assertEqual(qemu.hmp('savevm before'), '')
            qemu.hmp('qemu-io disk "write -P 7 0 512"')
            self.poison(qemu)
            self.assertIn('has bad ranges', qemu.hmp('loadvm before'))
            self.assertNotIn('failed', qemu.hmp('qemu-io disk "read -P 7 0 512"'))
        self.host.check('rm /tmp/disk')


@generations('BC')
class Bound:
    """The driver has a region only while a GPU of it is bound to vfio."""

    def move(self, number, where):
        """Take a GPU from vfio (`unbind`), or give it back (`bind`)."""
        self.host.check(f'echo {HOST.gpus[number]} > /sys/bus/pci/drivers/vfio-pci/{where}')

    def gpus(self):
        """GPUs of region 4, as the driver names them."""
        return self.host.check('cd /sys/class/egm/egm4; cat gpu_devices 2> /dev/null || '
                               'ls -d *:*').split()

    def test_bound(self):
        """The region comes with the first GPU, and goes with the last one."""
        for number in range(2):
            self.move(number, 'unbind')
            self.addCleanup(self.host.run, f'echo {HOST.gpus[number]} > '
                            '/sys/bus/pci/drivers/vfio-pci/bind')
        with self.standin():
            self.refuses(ram(64), 'mem-path=/dev/egm4: the host does not have this EGM device')
            self.starts(['-m', '64', *backend(0, 5, 64), *node(0)])
            self.move(1, 'bind')
            self.assertEqual(self.gpus(), [HOST.gpus[1]])
            self.starts(ram(64))
            self.move(0, 'bind')
            self.assertEqual(sorted(self.gpus()), list(HOST.gpus[:2]))
            self.assertEqual(self.starts(ONE), '')
            self.move(1, 'unbind')
            self.assertEqual(self.gpus(), [HOST.gpus[0]])
            self.move(0, 'unbind')
            self.refuses(ram(64), 'mem-path=/dev/egm4: the host does not have this EGM device')


class Crash(HostTest):
    """An error that would crash QEMU or a real host fails a case."""

    driver = 'C'

    def test_second_mapping(self):
        """Generation C crashes when a second descriptor is mapped."""
        with self.standin(), self.qemu(ram(64)):
            self.host.run('egm_write /dev/egm4 4096 0 2>&1')
        with self.assertRaisesRegex(AssertionError, 'WARNING'):
            self.tearDown()

    def test_ended(self):
        """No case waits for the answer of a QEMU that has ended."""
        with self.qemu(['-m', '64']) as qemu:
            qemu.end('KILL')
            with self.assertRaisesRegex(Exception, 'Disconnected'):
                qemu.cmd('query-status')


@generations('A')
class Unknown:
    """A driver that reports nothing."""

    def test_size(self):
        """The region could be too small, and the driver would not notice."""
        with self.standin():
            for args in (ram(64), ONE):
                self.refuses(args, "memory backend 'm0': cannot use EGM region "
                             'egm4, mem-path=/dev/egm4: the host does not report '
                             'the size of the region')


@generations('BE', full='BCME')
class Errors:
    """Mistakes, with and without an acpi-egm-memory object."""

    def test_properties(self):
        """The backend itself refuses what breaks the linear mapping."""
        with self.standin():
            for extra, message in (
                    ('share=off', 'share=off'),
                    ('share=off,prealloc=on', 'share=off'),
                    ('share=on,readonly=on', 'readonly=on'),
                    ('share=on,readonly=on,rom=on', 'readonly=on'),
                    ('share=on,offset=2M', 'offset=2097152')):
                self.refuses(ram(64, extra), f"memory backend 'm0' has {message}: ")
            self.refuses(['-m', '64', '-mem-path', '/dev/egm4'],
                         "memory backend 'mach-virt.ram' has share=off")
            for align, number in ('3M', 3145728), ('1K', 1024):
                self.refuses(ram(64, f'share=on,align={align}'), "memory backend 'm0': cannot "
                             'use EGM region egm4, mem-path=/dev/egm4: '
                             f'align={number} is not a power of 2')

    def test_size(self):
        """Both sizes and the path."""
        with self.standin():
            self.refuses(
                ram(2048), "memory backend 'm0': cannot use EGM region egm4, "
                'mem-path=/dev/egm4: size=2147483648 is larger than the region '
                'of 1073741824 bytes')

    def test_missing(self):
        """No driver, wrong number: no file appears in its place."""
        missing = "mem-path=/dev/egm4: the host does not have this EGM device"
        self.refuses(ram(64), missing)
        with self.standin(pxm='6,7'):
            self.refuses(ram(64), missing)
        self.assertEqual(self.host.run('ls /dev | grep egm')[1], '')

    def test_link(self):
        """A link to the device is the device; a link to nothing is refused."""
        self.host.check('ln -sf /dev/egm4 /tmp/socket0')
        try:
            self.refuses(ram(64, path='/tmp/socket0'), '/tmp/socket0 for guest '
                         'RAM: No such file or directory')
            with self.standin():
                self.refuses(ram(64, 'share=off', path='/tmp/socket0'),
                             'share=off')
                self.assertEqual(self.starts(ram(64, path='/tmp/socket0')), '')
        finally:
            self.host.check('rm /tmp/socket0')

    def test_wrong_socket(self):
        """The GPU of one socket with the memory of the other."""
        with self.standin():
            self.refuses(
                ram(64) + passthrough(2) + egm(2),
                "acpi-egm-memory 'egm2': pci-dev=dev2, node=0: host device "
                f'{HOST.gpus[2]} is not attached to the socket of EGM region egm4',
                'The GPUs of egm4 are: ', *HOST.gpus[:2])


class Ordinary(HostTest):
    """Files and devices that are not EGM devices."""

    def test_ordinary(self):
        """Files elsewhere are still made; the object warns about them."""
        for path in ('/dev/shm/m0', '/tmp/m0'):
            self.assertEqual(self.starts(ram(64, path=path)), '')
            self.assertIn(f'mem-path={path} is a regular file, not an EGM device',
                          self.starts(ram(64, path=path) + passthrough(0)
                                      + egm(0)))
            self.host.check(f'rm {path}')

    def test_other_device(self):
        """A character device that is not EGM."""
        self.assertIn('does not report mem-path=/dev/zero as an EGM device', self.starts(
            ram(64, path='/dev/zero') + passthrough(0) + egm(0)))

    def test_dma_ordinary(self):
        """Only EGM gets the hint."""
        self.host.check('truncate -s 32M /tmp/short')
        text = self.refuses(ram(64, 'share=on', path='/tmp/short')
                            + passthrough(0))
        self.host.check('rm /tmp/short')
        self.assertNotIn('EGM', text)


class InUse:
    """Shared by the next two classes."""

    def busy(self, args, user='another process', path='/dev/egm4', **keywords):
        """QEMU does not start, because the region is in use."""
        self.refuses(args, "': cannot use EGM region egm4, "
                     f'mem-path={path}: the region is in use by {user}\n', **keywords)

    def descriptors(self, qemu):
        """Those of the device."""
        return self.host.check(
            f'cd /proc/{qemu.pid}/fd; for f in *; do '
            '[ "$(readlink $f)" != /dev/egm4 ] || echo $f; done; cd /').split()


@generations('BCME')
class Exclusive(InUse):
    """A region is the RAM of one VM: the result of a second open()."""

    def test_other_process(self):
        """The first VM is unharmed; the other region is free."""
        with self.standin():
            with self.qemu(ram(64) + word(FREE)):
                self.busy(ram(64))
                self.assertEqual(self.host.region(4, FREE, 8),
                                 WORD.to_bytes(8, 'little'))
                self.starts(['-m', '64', *backend(0, 5, 64), *node(0)])
            self.starts(ram(64))


    def test_passed(self):
        """A process that was given the memory, and outlives QEMU, keeps it."""
        self.passed('')

    def test_passed_mapped(self):
        """The file need not be open."""
        if self.driver == 'B':
            self.skipTest('this driver maps a region once')
        self.passed('/tmp')

    def passed(self, root):
        """The process keeps the open file or, with a root, a mapping."""
        with self.standin():
            with self.qemu(ram(64)) as qemu:
                fd, = self.descriptors(qemu)
                keeper = self.host.check(f'keep_fd {qemu.pid} {fd} {root}').strip()
                qemu.end('KILL')
                self.busy(ram(64))
                self.host.check(f'kill {keeper}; '
                                f'while [ -e /proc/{keeper} ]; do sleep 0.1; done')
                self.starts(ram(64))


@generations('E', full='BCME')
class OneVM(InUse):
    """The same, for cases that do not depend on the driver."""

    def test_own_process(self):
        """Two backends of one VM, by two names of the device, or two nodes."""
        args = ['-m', '128', '-smp', '2', *backend(0, 4, 64),
                *backend(1, 4, 64, path='/tmp/egm'), *node(0), *node(1)]
        user = 'another memory backend'
        with self.standin():
            self.host.check('ln -sf /dev/egm4 /tmp/egm')
            self.busy(args, user, '/tmp/egm')
            self.host.check('rm /tmp/egm')
            self.other_node()
            self.busy(args, user, '/tmp/egm')

    def test_killed(self):
        """After a crash, the region is free."""
        with self.standin():
            with self.qemu(ONE) as qemu:
                qemu.end('KILL')
                self.assertEqual(self.starts(ONE), '')

    def test_one_descriptor(self):
        """It is opened once, and no child gets it."""
        with self.standin(), self.qemu(ram(64)) as qemu:
            fds = self.descriptors(qemu)
            self.assertEqual(len(fds), 1)
            flags = self.host.check(f'grep flags /proc/{qemu.pid}/fdinfo/{fds[0]}')
            self.assertTrue(int(flags.split()[1], 8) & os.O_CLOEXEC, flags)

    def test_teardown(self):
        """A mapping that is still being taken down keeps the region."""
        line = self.host.command(ram(64) + ['-run-with', 'async-teardown=on'])
        with self.standin():
            pid = self.host.check(
                f'{line} & while kill -0 $! && ! grep -q /dev/egm4 /proc/$!/maps; do '
                'sleep 0.1; done; echo $!').strip()
            # Its name comes a moment after itself, and other processes go.
            clone = self.host.check(
                f'cd /proc; until grep -ls ^cleanup/{pid}$ */comm; do sleep 0.1; done; '
                'cd /').split('/')[0]
            self.host.check(f'kill -STOP {clone}; kill -KILL {pid}; '
                            f'while [ -d /proc/{pid}/fd ]; do sleep 0.1; done')
            self.busy(ram(64))
            self.host.check(f'kill -KILL {clone}; '
                            f'while [ -e /proc/{clone} ]; do sleep 0.1; done')
            self.starts(ram(64))

    def test_object_del(self):
        """A backend that was deleted gives the region back at once."""
        add = {'qom-type': 'memory-backend-file', 'id': 'm1', 'size': 64 * MIB,
               'mem-path': '/dev/egm4', 'share': True}
        with self.standin(), self.qemu(
                ['-m', '64', '-run-with', 'async-teardown=on']) as qemu:
            for _ in range(10):
                qemu.cmd('object-add', **add)
                qemu.cmd('object-del', id='m1')
            # RCU unmaps the last one, and the driver is to go.
            self.host.check(f'while grep -q /dev/egm4 /proc/{qemu.pid}/maps; do '
                            'sleep 0.1; done')
