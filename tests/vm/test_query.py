# SPDX-License-Identifier: GPL-2.0-or-later
"""query-acpi-egm-memory and info egm."""

import os
import pathlib
import re
import tempfile
import unittest

from lib import BUILD, MIB, RAM_BASE, machine, standin


class Query(unittest.TestCase):
    """Machines without a guest."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-query-')
        self.addCleanup(self.tmp.cleanup)

    def machine(self, *args, path=None, environment=None):
        """A VM with one node."""
        path = path or f'{self.tmp.name}/m0'
        return machine.Machine(
            BUILD, ['-machine', 'virt', '-accel', 'qtest', '-m', '128',
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
        return vm.cmd('human-monitor-command',
                      **{'command-line': 'info egm'}).splitlines()

    def test_none(self):
        """A machine without objects: an empty list, one line."""
        with self.machine() as vm:
            self.assertEqual(vm.cmd('query-acpi-egm-memory'), [])
            self.assertEqual(self.info(vm), ['No acpi-egm-memory objects'])

    def test_files(self):
        """Sorted by id; the address behind a bridge is not known yet."""
        with self.machine(*self.PORT, *self.ROOT) as vm:
            common = {'node': 0, 'base': RAM_BASE, 'size': 128 * MIB,
                      'withheld': [], 'memdev': 'm0',
                      'mem-path': f'{self.tmp.name}/m0'}
            self.assertEqual(vm.cmd('query-acpi-egm-memory'), [
                {'id': 'a1', 'pci-dev': '/machine/peripheral/gpu1',
                 'pci-address': '0000:00:1f.0', 'acpi-path': r'\_SB.PCI0.SF8',
                 **common},
                {'id': 'egm0', 'pci-dev': 'gpu0',
                 'acpi-path': r'\_SB.PC20.S00.S00', **common}])

    def test_device(self):
        """What the host tells, and what is withheld."""
        with standin.Zero(BUILD) as zero:
            zero.retire((4 * MIB, 1), (100 * MIB, 128 << 10))
            with self.machine(*self.PORT, path=zero.path,
                              environment=zero.environment) as vm:
                found, = vm.cmd('query-acpi-egm-memory')
                lines = self.info(vm)
        # Where there is no sysfs, only the number is known.
        self.assertIn(found['egm-device']['name'], ('zero', '1:5'))
        self.assertEqual(found['withheld'], [
            {'base': RAM_BASE + 4 * MIB, 'size': 64 << 10},
            {'base': RAM_BASE + 100 * MIB, 'size': 128 << 10}])
        self.assertEqual(lines[0], 'egm0: node 0, 0x40000000-0x47ffffff, '
                         '128 MiB, 192 KiB withheld')
        self.assertEqual(lines[2], '    memory: m0, /dev/zero')

    def test_info(self):
        """A paragraph for each object, whatever the length of ids."""
        long = 'x' * 100
        with self.machine(*self.PORT, '-device',
                          f'edu,id={long},bus=pcie.0,addr=7', '-object',
                          f'acpi-egm-memory,id=b{long},node=0,'
                          f'pci-dev={long}') as vm:
            lines = self.info(vm)
        self.assertEqual(lines, [
            f'b{long}: node 0, 0x40000000-0x47ffffff, 128 MiB',
            f'    device: {long}, guest 0000:00:07.0, ACPI \\_SB.PCI0.S38',
            f'    memory: m0, {self.tmp.name}/m0 (not EGM)',
            'egm0: node 0, 0x40000000-0x47ffffff, 128 MiB',
            '    device: gpu0, ACPI \\_SB.PC20.S00.S00',
            f'    memory: m0, {self.tmp.name}/m0 (not EGM)'])

    def test_gone(self):
        """A device that is gone has no address and no path."""
        # A function that no guest can see, as there is no function 0, goes at once.
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
        self.assertEqual(lines[1], '    device: gpu0, gone')

    def test_schema(self):
        """It is marked as unstable."""
        with self.machine() as vm:
            schema = vm.cmd('query-qmp-schema')
        command, = (e for e in schema if e['name'] == 'query-acpi-egm-memory')
        self.assertEqual(command['features'], ['unstable'])

    @unittest.skipIf('LSAN_OPTIONS' in os.environ,
                     'the sanitizer finds leaks, and keeps what was freed')
    def test_leak(self):
        """Thousands of queries cost no memory."""
        def resident(vm):
            # Not of files, which come as they are used
            status = pathlib.Path(f'/proc/{vm.process.pid}/status').read_text()
            return int(re.search(r'(?m)^RssAnon:\s*(\d+) kB', status)[1]) << 10

        with self.machine(*self.PORT, *self.ROOT) as vm:
            def query(times):
                for _ in range(times):
                    vm.cmd('query-acpi-egm-memory')
                return resident(vm)

            before = query(500)
            # The smallest string takes 32 bytes: one that leaks would be 156 KiB.
            self.assertLess(query(5000) - before, 100 << 10)
