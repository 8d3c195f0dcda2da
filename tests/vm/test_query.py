# SPDX-License-Identifier: GPL-2.0-or-later
"""query-acpi-egm-memory and info egm."""

import os
import pathlib
import re
import tempfile
import unittest

from lib import MIB, RAM_BASE, machine, standin


class Query(unittest.TestCase):
    """Machines without a guest."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-query-')
        self.addCleanup(self.tmp.cleanup)

    def machine(self, *args, path=None, environment=None):
        """A VM with one node."""
        path = path or f'{self.tmp.name}/m0'
        return machine.Machine(
            ['-machine', 'virt', '-accel', 'qtest', '-m', '128',
             '-object', f'memory-backend-file,id=m0,size=128M,share=on,'
             f'mem-path={path}', '-numa', 'node,memdev=m0', *args],
            environment=environment)

    PORT = ('-device', 'pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32',
            '-device', 'pcie-root-port,id=rp0,bus=pxb,chassis=1',
            '-device', 'edu,id=gpu0,bus=rp0',
            '-object', 'acpi-egm-memory,id=egm0,pci-dev=gpu0,node=0')
    ROOT = ('-device', 'edu,id=gpu1,bus=pcie.0,addr=0x1f.0',
            '-object', 'acpi-egm-memory,id=a1,pci-dev=/machine/peripheral/gpu1,'
            'node=0')

    @staticmethod
    def info(vm):
        """Lines of info egm."""
        return vm.hmp('info egm').splitlines()

    def test_none(self):
        """A machine without objects: an empty list, and one line in the monitor."""
        with self.machine() as vm:
            self.assertEqual(vm.cmd('query-acpi-egm-memory'), [])
            self.assertEqual(self.info(vm), ['No acpi-egm-memory objects'])

    def test_files(self):
        """Objects are sorted by id; the address behind a bridge is not known yet."""
        with self.machine(*self.PORT, *self.ROOT) as vm:
            common = {'base': RAM_BASE, 'size': 128 * MIB, 'holes': []}
            self.assertEqual(vm.cmd('query-acpi-egm-memory'), [
                {'id': 'a1', 'pci-address': '0000:00:1f.0',
                 'acpi-path': r'\_SB.PCI0.SF8', **common},
                {'id': 'egm0', 'acpi-path': r'\_SB.PC20.S00.S00', **common}])

    def test_device(self):
        """The replies have the region of the host, and holes."""
        with standin.Zero() as zero:
            zero.retire((4 * MIB, 1), (100 * MIB, 128 << 10))
            with self.machine(*self.PORT, path=zero.path,
                              environment=zero.environment) as vm:
                found, = vm.cmd('query-acpi-egm-memory')
                lines = self.info(vm)
        # Without sysfs, QEMU knows only the number of the device.
        name = found['region']['name']
        self.assertIn(name, ('zero', '1:5'))
        self.assertEqual(found['region'], {'name': name, 'size': 1 << 40})
        self.assertEqual(found['holes'], [
            {'base': RAM_BASE + 4 * MIB, 'size': 64 << 10},
            {'base': RAM_BASE + 100 * MIB, 'size': 128 << 10}])
        self.assertEqual(lines, [
            f'egm0: 0x40000000-0x47ffffff, 128 MiB, on {name}',
            '    guest -, host -, ACPI \\_SB.PC20.S00.S00',
            '    hole 0x40400000-0x4040ffff',
            '    hole 0x46400000-0x4641ffff'])

    def test_info(self):
        """A paragraph for each object, with ids of any length."""
        long = 'x' * 100
        with self.machine(*self.PORT, '-device',
                          f'edu,id={long},bus=pcie.0,addr=7', '-object',
                          f'acpi-egm-memory,id=b{long},node=0,'
                          f'pci-dev={long}') as vm:
            lines = self.info(vm)
        self.assertEqual(lines, [
            f'b{long}: 0x40000000-0x47ffffff, 128 MiB, on no EGM region',
            '    guest 0000:00:07.0, host -, ACPI \\_SB.PCI0.S38',
            'egm0: 0x40000000-0x47ffffff, 128 MiB, on no EGM region',
            '    guest -, host -, ACPI \\_SB.PC20.S00.S00'])

    def test_gone(self):
        """A device that is gone has no address and no path."""
        # Without function 0, a guest cannot see this function, so unplugging is immediate.
        with self.machine('-device', 'pcie-root-port,id=rp0,chassis=1',
                          '-device', 'x3130-upstream,id=up,bus=rp0,addr=0.1',
                          '-device', 'xio3130-downstream,id=d0,bus=up,chassis=2',
                          '-device', 'edu,id=gpu0,bus=d0', '-object',
                          'acpi-egm-memory,id=egm0,pci-dev=gpu0,node=0') as vm:
            before, = vm.cmd('query-acpi-egm-memory')
            vm.cmd('device_del', id='up')
            after, = vm.cmd('query-acpi-egm-memory')
            lines = self.info(vm)
        self.assertEqual(set(before) - set(after), {'acpi-path'})
        self.assertEqual(lines[1], '    guest -, host -, ACPI -')

    def test_schema(self):
        """The command is not marked as unstable."""
        with self.machine() as vm:
            schema = vm.cmd('query-qmp-schema')
        command, = (e for e in schema if e['name'] == 'query-acpi-egm-memory')
        self.assertNotIn('features', command)

    @unittest.skipIf('LSAN_OPTIONS' in os.environ,
                     'the sanitizer finds leaks, and keeps freed memory')
    def test_leak(self):
        """Thousands of queries do not leak memory."""
        def resident(vm):
            # Without pages of files, which are added as they are used. The counter in
            # status is exact only in new kernels.
            maps = pathlib.Path(f'/proc/{vm.get_pid()}/smaps_rollup').read_text()
            return int(re.search(r'(?m)^Anonymous:\s*(\d+) kB', maps)[1]) << 10

        with self.machine(*self.PORT, *self.ROOT) as vm:
            def query(times):
                for _ in range(times):
                    vm.cmd('query-acpi-egm-memory')
                return resident(vm)

            before = query(500)
            # The smallest string takes 32 bytes: one leak per query would be 156 KiB.
            self.assertLess(query(5000) - before, 100 << 10)
