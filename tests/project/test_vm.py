#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The installed QEMU runs an ordinary VM, without EGM."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / 'tests'), str(TOP / 'tools')]
# pylint: disable=wrong-import-position
from egm import tables  # noqa: E402
from egmtest import machine, tap  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])
RAM_BASE = 0x40000000
RAM_SIZE = 512 << 20


class OrdinaryVM(unittest.TestCase):
    """What `make install DESTDIR=` puts there is complete."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix='egm-vm-')
        subprocess.run(
            [BUILD / 'pyvenv/bin/meson', 'install', '--quiet', '--no-rebuild',
             '--only-changed', '--destdir', cls.directory.name],
            cwd=BUILD, check=True, stdout=subprocess.DEVNULL)
        cls.prefix = pathlib.Path(cls.directory.name + '/usr/local')
        cls.binary = str(cls.prefix / 'bin/qemu-system-aarch64')

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def test_boot(self):
        """UEFI starts a program from a virtio disk; a NIC is there; quit."""
        ram = os.path.join(self.directory.name, 'ram')
        medium = machine.source_tree(BUILD) / \
            'tests/data/uefi-boot-images/bios-tables-test.aarch64.iso.qcow2'
        args = ['-machine', 'virt,memory-backend=ram', '-cpu', 'cortex-a57',
                '-m', '512M', '-serial', 'null',
                '-object', f'memory-backend-file,id=ram,mem-path={ram},'
                f'size={RAM_SIZE},share=on',
                '-drive', 'if=pflash,format=raw,readonly=on,file='
                f'{self.prefix}/share/qemu/edk2-aarch64-code.fd',
                '-drive', f'if=none,id=disk,snapshot=on,file={medium}',
                '-device', 'virtio-blk-pci,drive=disk,bootindex=1',
                '-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net']
        vm = machine.Machine(BUILD, args, binary=self.binary)
        with vm, open(ram, 'rb') as memory:
            def read(address, length):
                memory.seek(address - RAM_BASE)
                return memory.read(length)

            rsdp = vm.wait('a program started by UEFI', lambda: tables.marked(
                read, RAM_BASE, RAM_SIZE))
            dsdt = tables.read(read, rsdp)['DSDT']
            self.assertEqual(dsdt[:4], b'DSDT')
            self.assertNotIn(b'nvidia', dsdt)
            classes = [d['class_info']['class']
                       for d in vm.cmd('query-pci')[0]['devices']]
            self.assertIn(0x0200, classes, 'Ethernet controller')
            self.assertIn(0x0100, classes, 'block storage')
            self.assertTrue(vm.cmd('query-status')['running'])
        self.assertEqual(vm.process.returncode, 0)
        self.assertEqual(vm.text, '')

    def test_features(self):
        """The production build has what hosts of VMs use."""
        def output(*args):
            return subprocess.run([self.binary, *args], text=True, check=True,
                                  stdout=subprocess.PIPE).stdout

        devices = output('-device', 'help')
        for device in ('vfio-pci', 'vfio-pci-nohotplug', 'virtio-net-pci',
                       'virtio-blk-pci', 'pxb-pcie', 'pcie-root-port'):
            self.assertIn(f'"{device}"', devices)
        objects = output('-object', 'help')
        for name in ('acpi-egm-memory', 'acpi-generic-initiator', 'iommufd',
                     'memory-backend-file', 'memory-backend-memfd'):
            self.assertIn(name, objects)
        self.assertIn('user', output('-machine', 'none', '-netdev',
                                     'help').split())
        self.assertIn('-sandbox', output('-help'))
        self.assertIn('tcg', output('-accel', 'help'))

    def test_help(self):
        """The option help tells how the object is used."""
        text = subprocess.run([self.binary, '-object', 'acpi-egm-memory,help'],
                              text=True, check=True,
                              stdout=subprocess.PIPE).stdout
        self.assertRegex(text, r'pci-dev=<string>\s+- id or QOM path')


if __name__ == '__main__':
    tap.main()
