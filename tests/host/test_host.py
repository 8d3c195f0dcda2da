#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU on a host with vfio-pci and an EGM device.

The devices are stand-ins (see standin/ and host.py); everything else is real:
the kernel, its IOMMU driver, vfio, and the QEMU that was built.
"""

import os
import pathlib
import re
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
# pylint: disable=wrong-import-position
from host import Dma, GPUS, Host, MIB, Qemu, REGIONS, gpu  # noqa: E402
from egmtest import acpi, fdt, fw_cfg, tap  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])
RAM_BASE = 0x40000000
WORD = 0x45474d20776f7264


def backend(number, pxm, size, extra='share=on,prealloc=on', path=None):
    """A memory backend on a region of the host."""
    return ['-object', f'memory-backend-file,id=m{number},size={size}M,'
            f'mem-path={path or f"/dev/egm{pxm}"},{extra}']


def node(number):
    """A NUMA node whose RAM is a backend."""
    return ['-numa', f'node,nodeid={number},memdev=m{number}']


def passthrough(number, driver='vfio-pci-nohotplug'):
    """A GPU of the host, behind a root port."""
    return ['-device', f'pcie-root-port,id=rp{number},chassis={number + 1},'
            f'addr={number + 1}', '-device',
            f'{driver},id=dev{number},host={gpu(number)},bus=rp{number}']


def egm(number, where=0):
    """Ties a GPU to a node."""
    return ['-object', f'acpi-egm-memory,id=egm{number},pci-dev=dev{number},'
            f'node={where}']


def ram(size, *args, **keywords):
    """A machine with one node, on region 4 unless told otherwise."""
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

    @classmethod
    def setUpClass(cls):
        if not HostTest.host:
            HostTest.host = Host(BUILD, BUILD / 'host')
            HostTest.host.__enter__()
            unittest.addModuleCleanup(HostTest.host.__exit__, None, None, None)
            HostTest.host.boot()

    def tearDown(self):
        bad = self.host.run('dmesg -c | grep -E "BUG|WARNING|DMAR.*fault|Oops"')
        self.assertEqual(bad[1], '')

    def starts(self, args, user='root'):
        """QEMU starts; give what it says."""
        status, text = self.host.start(args, user)
        self.assertEqual(status, 0, text)
        return text

    def refuses(self, args, *messages, user='root'):
        """QEMU does not start, and says why."""
        status, text = self.host.start(args, user)
        self.assertEqual(status, 1, text)
        for message in messages:
            self.assertIn(message, text)
        self.assertNotIn('ftruncate', text)
        return text


class Works(HostTest):
    """Machines that start."""

    def test_word(self):
        """Guest RAM is the region, byte for byte."""
        size = REGIONS[4][1]
        args = ram(size // MIB) + word(FREE) + word(size - 8, WORD + 1)
        with self.host.standin(), Qemu(self.host, args):
            for offset, value in ((FREE, WORD), (size - 8, WORD + 1)):
                self.assertEqual(self.host.region(4, offset, 8),
                                 value.to_bytes(8, 'little'))

    def test_one_gpu(self):
        """The tables, and not a word of warning."""
        with self.host.standin(), Qemu(self.host, ONE) as qemu:
            self.assertEqual(qemu.text, '')
            self.check_tables(qemu, {(0,): (RAM_BASE, 256 * MIB, 0)})

    def test_two_gpus(self):
        """Two GPUs of one socket share its region."""
        args = ONE + passthrough(1) + egm(1)
        with self.host.standin(), Qemu(self.host, args) as qemu:
            self.assertEqual(qemu.text, '')
            self.check_tables(qemu, {(0,): (RAM_BASE, 256 * MIB, 0),
                                     (1,): (RAM_BASE, 256 * MIB, 0)})

    def test_two_regions(self):
        """Each socket's GPU with its own region."""
        args = (['-m', '384', '-smp', '2', *backend(0, 4, 256),
                 *backend(1, 5, 128), *node(0), *node(1)]
                + passthrough(0) + egm(0) + passthrough(2) + egm(2, 1)
                + word(FREE) + word(256 * MIB + FREE, WORD + 1))
        with self.host.standin(), Qemu(self.host, args) as qemu:
            self.assertEqual(qemu.text, '')
            for pxm, value in ((4, WORD), (5, WORD + 1)):
                self.assertEqual(self.host.region(pxm, FREE, 8),
                                 value.to_bytes(8, 'little'))
            self.check_tables(
                qemu, {(0,): (RAM_BASE, 256 * MIB, 0),
                       (2,): (RAM_BASE + 256 * MIB, 128 * MIB, 1)})

    def check_tables(self, qemu, gpus):
        """What QEMU tells, by number of the GPU."""
        with tempfile.TemporaryDirectory(prefix='egm-host-') as directory:
            text = {name: acpi.decode(directory, name, table)
                    for name, table in fw_cfg.tables(qemu).items()}
        devices = {d.adrs: (d.base, d.size, d.pxm)
                   for d in acpi.egm_devices(text['DSDT'])}
        self.assertEqual(devices, {((number + 1) << 16, 0): value
                                   for (number,), value in gpus.items()})
        affinities = {(a.base, a.size, a.pxm)
                      for a in acpi.memory_affinities(text['SRAT']) if a.enabled}
        self.assertEqual(affinities, set(gpus.values()))

    def test_dma(self):
        """vfio type1 maps the region: the device reads and writes it."""
        data = os.urandom(2048)
        with self.host.standin(), Qemu(self.host, ONE) as qemu:
            dma = Dma(qemu)
            qemu.write(RAM_BASE + 0x10000, data)
            dma.copy(RAM_BASE + 0x10000, RAM_BASE + 200 * MIB, len(data))
            self.assertEqual(self.host.region(4, 200 * MIB, len(data)), data)

    def test_unprivileged(self):
        """A user needs the two devices, and no locked memory."""
        with self.host.standin():
            text = self.refuses(
                ONE, "memory backend 'm0': cannot use EGM region egm4, "
                'mem-path=/dev/egm4: Permission denied', user='operator')
            self.assertNotIn('size', text)
            self.host.check('chown operator /dev/egm4 /dev/vfio/*')
            try:
                self.assertEqual(self.starts(ONE, user='operator'), '')
            finally:
                self.host.check('chown root /dev/vfio/*')

    def test_prealloc(self):
        """The driver has populated the mapping, so QEMU does not."""
        event = 'host_memory_backend_populated'
        trace = ['-trace', event]
        size = REGIONS[4][1]
        seconds = {}
        with self.host.standin(zero='n'):
            for mib in (64, size // MIB):
                args = ram(mib) + trace
                begin = time.monotonic()
                text = self.starts(args)
                seconds[mib] = time.monotonic() - begin
                self.assertIn(f'{event} m0: nothing to do for prealloc=on, the '
                              f'device has populated {mib * MIB:#x} bytes', text)
            self.assertNotIn(event, self.starts(ram(64, 'share=on') + trace))
        self.assertNotIn(event, self.starts(
            ram(64, path='/dev/shm/m0') + trace))
        self.host.check('rm /dev/shm/m0')
        small, large = seconds.values()
        print(f'# prealloc=on: {size // MIB} MiB take {large / small:.2f} times '
              'as long as 64 MiB')

    def test_retired(self):
        """The list is read, however long it is, and kept from the guest."""
        retired = '0x2020000:0x10000+0x4000000:0x1000*4096:0x2000'
        trace = ONE + ['-trace', 'egm_backend_claim']
        with self.host.standin(retired=retired):
            with Qemu(self.host, ONE) as qemu:
                tree = fdt.memory(self.host.region(4, 0, MIB))
            self.assertIn('m0: region egm4 size 0x40000000 GPUs 2 retired '
                          'ranges 4097', self.starts(trace))
            self.assertIn('warning: 32.1 MiB of guest RAM are withheld from '
                          'the guest, for retired pages of its EGM: '
                          '0x42020000-0x4202ffff, 0x44000000-0x45ffffff\n',
                          qemu.text)
            self.assertEqual(tree, [(0x40000000, 0x2020000, 0),
                                    (0x42030000, 0x1fd0000, 0),
                                    (0x46000000, 0xa000000, 0)])
            self.host.check('echo 0xffff000:1 > '
                            '/sys/module/egm_standin/parameters/retired')
            self.assertIn('0x4fff0000-0x4fffffff', self.starts(ONE))
            self.host.check('echo 0x40000000:0x1000 > '
                            '/sys/module/egm_standin/parameters/retired')
            text = self.starts(ONE)
            self.assertEqual(text.count(
                'EGM region egm4: retired page at offset 0x40000000 of 0x1000 '
                'bytes is not in the region of 0x40000000 bytes'), 1, text)
            self.assertNotIn('withheld', text)
        with self.host.standin():
            self.assertIn('retired ranges 0', self.starts(trace))

class Unknown(HostTest):
    """Drivers that tell less, or in another way."""

    def test_nothing(self):
        """One warning for each piece that the driver does not tell."""
        with self.host.standin(egm_size='n', gpu_abi='none', retired_ioctl='n'):
            for llseek in ('none', 'noop'):
                text = self.starts(ONE)
                self.assertEqual(
                    re.sub('(?m)^.*?warning: ', '', text).splitlines(),
                    [f"memory backend 'm0': the host does not tell the {what} "
                     'of EGM region egm4'
                     for what in ('size', 'GPUs', 'retired pages')], llseek)

    def test_no_warning_without_object(self):
        """Who only uses the memory is not told about GPUs."""
        with self.host.standin(egm_size='n', gpu_abi='none', retired_ioctl='n',
                               llseek='noop'):
            self.assertEqual(self.starts(ram(64)), '')

    def test_size_by_seek(self):
        """A driver that answers lseek() is believed."""
        with self.host.standin(egm_size='n', llseek='size'):
            self.assertEqual(self.starts(ONE), '')
            self.refuses(ram(2048), 'size=2147483648 is larger than EGM region '
                         'egm4, mem-path=/dev/egm4, of 1073741824 bytes')

    def test_size_unknown(self):
        """mmap() says EINVAL; what that may mean."""
        with self.host.standin(egm_size='n'):
            self.refuses(ram(2048),
                         "memory backend 'm0': cannot use EGM region egm4, "
                         'mem-path=/dev/egm4: unable to map backing store for '
                         'guest RAM: Invalid argument',
                         'size=2147483648 may be too large')

    def test_gpu_file(self):
        """GPUs by an attribute instead of links."""
        with self.host.standin(gpu_abi='file'):
            self.assertEqual(self.starts(ONE), '')
            self.refuses(ram(64) + passthrough(2) + egm(2),
                         f'host device {gpu(2)} is not attached to the socket '
                         'of EGM region egm4')


class Errors(HostTest):
    """Mistakes, with and without an acpi-egm-memory object."""

    def test_properties(self):
        """The backend itself refuses what breaks the linear mapping."""
        with self.host.standin():
            for extra, message in (
                    ('share=off', "'m0' has share=off"),
                    ('share=off,prealloc=on', "'m0' has share=off"),
                    ('share=on,readonly=on', "'m0' has readonly=on"),
                    ('share=on,readonly=on,rom=on', "'m0' has readonly=on"),
                    ('share=on,offset=2M', "'m0' has offset=2097152")):
                self.refuses(ram(64, extra), 'memory backend ' + message)
            self.refuses(['-m', '64', '-mem-path', '/dev/egm4'],
                         "memory backend 'mach-virt.ram' has share=off")

    def test_size(self):
        """Both sizes and the path."""
        for llseek in ('none', 'noop'):
            with self.host.standin(llseek=llseek):
                self.refuses(
                    ram(2048), "memory backend 'm0': size=2147483648 is larger "
                    'than EGM region egm4, mem-path=/dev/egm4, of 1073741824 '
                    'bytes', 'Use size=1073741824 or less.')

    def test_missing(self):
        """No driver, wrong number: no file appears in its place."""
        missing = "mem-path=/dev/egm4: there is no such device"
        self.refuses(ram(64), missing, 'nvgrace-egm')
        with self.host.standin(pxm='6,7'):
            self.refuses(ram(64), missing)
        self.assertEqual(self.host.run('ls /dev | grep egm')[1], '')

    def test_link(self):
        """A link to the device is the device; a link to nothing is refused."""
        self.host.check('ln -sf /dev/egm4 /tmp/socket0')
        try:
            self.refuses(ram(64, path='/tmp/socket0'), 'is a link to a file '
                         'that does not exist')
            with self.host.standin():
                self.refuses(ram(64, 'share=off', path='/tmp/socket0'),
                             'share=off')
                self.assertEqual(self.starts(ram(64, path='/tmp/socket0')), '')
        finally:
            self.host.check('rm /tmp/socket0')

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
        self.assertIn('mem-path=/dev/zero is not an EGM device', self.starts(
            ram(64, path='/dev/zero') + passthrough(0) + egm(0)))

    def test_wrong_socket(self):
        """The GPU of one socket with the memory of the other."""
        with self.host.standin():
            self.refuses(
                ram(64) + passthrough(2) + egm(2),
                "acpi-egm-memory 'egm2': pci-dev=dev2, node=0: host device "
                f'{gpu(2)} is not attached to the socket of EGM region egm4',
                'The GPUs of egm4 are: ', gpu(0), gpu(1))

    def test_dma(self):
        """Memory that the IOMMU cannot have."""
        with self.host.standin(pinnable='n'):
            text = self.refuses(ONE, 'm0: ', '(Bad address)')
            self.assertNotIn('iommufd', text)   # it is not to blame here

    def test_dma_ordinary(self):
        """The hint is for EGM alone."""
        self.host.check('truncate -s 32M /tmp/short')
        text = self.refuses(ram(64, 'share=on', path='/tmp/short')
                            + passthrough(0))
        self.host.check('rm /tmp/short')
        self.assertNotIn('EGM', text)


class Exclusive(HostTest):
    """A region is the RAM of one VM, through one backend."""

    BUSY = "memory backend 'm0': EGM region egm4 is in use by process "

    def test_other_process(self):
        """The holder is named; the other region is free."""
        with self.host.standin():
            with Qemu(self.host, ram(64)) as qemu:
                self.refuses(ram(64) + word(FREE), f'{self.BUSY}{qemu.pid}\n')
                self.assertEqual(self.host.region(4, FREE, 8), bytes(8))
                self.starts(['-m', '64', *backend(0, 5, 64), *node(0)])
            self.starts(ram(64))

    def test_own_process(self):
        """Two backends of one VM, by two names of the device."""
        self.host.check('ln -sf /dev/egm4 /tmp/egm')
        with self.host.standin():
            self.refuses(['-m', '128', '-smp', '2', *backend(0, 4, 64),
                          *backend(1, 4, 64, path='/tmp/egm'),
                          *node(0), *node(1)],
                         "memory backend 'm1': EGM region egm4 is in use by "
                         'another memory backend')
        self.host.check('rm /tmp/egm')

    def test_other_node(self):
        """Two device nodes of one device have a lock each."""
        with self.host.standin():
            self.host.check('mknod /tmp/egm c $(tr : " " < '
                            '/sys/class/egm/egm4/dev)')
            self.refuses(['-m', '128', '-smp', '2', *backend(0, 4, 64),
                          *backend(1, 4, 64, path='/tmp/egm'),
                          *node(0), *node(1)],
                         "memory backend 'm1': EGM region egm4 is in use by "
                         'another memory backend')
        self.host.check('rm /tmp/egm')

    def test_killed(self):
        """A crash leaves nothing behind."""
        with self.host.standin():
            with Qemu(self.host, ONE) as qemu:
                qemu.end('KILL')
                self.assertEqual(self.starts(ONE), '')

    def test_child(self):
        """A child that outlives QEMU does not keep the region."""
        with self.host.standin():
            with Qemu(self.host, ram(64)) as qemu:
                flags = self.host.check(
                    f'cd /proc/{qemu.pid}/fd; for f in *; do '
                    '[ $(readlink $f) != /dev/egm4 ] || '
                    'grep flags ../fdinfo/$f; done; cd /')
                words = flags.split()[1::2]
                self.assertEqual(len(words), 2, flags)
                for value in words:
                    self.assertTrue(int(value, 8) & os.O_CLOEXEC, flags)


if __name__ == '__main__':
    assert len(REGIONS) == 2 and GPUS == 3
    tap.main()
