# SPDX-License-Identifier: GPL-2.0-or-later
"""The installed QEMU runs an ordinary VM, without EGM."""

import json
import os
import pathlib
import re
import tempfile
import unittest

from egm import tables
from lib import BUILD, RAM_BASE, TOP, grace, machine, process
from lib.made import made

RAM_SIZE = 512 << 20
# docs/build.md has these lists, too.
DEVICES = """
    pxb-pcie pcie-root-port x3130-upstream xio3130-downstream pcie-pci-bridge
    pci-bridge pxb-cxl cxl-rp cxl-upstream cxl-downstream cxl-type3
    virtio-blk-pci virtio-net-pci virtio-scsi-pci virtio-serial-pci virtio-rng-pci
    virtio-balloon-pci virtio-gpu-pci virtio-keyboard-pci virtio-tablet-pci
    virtio-mouse-pci virtio-sound-pci virtio-crypto-pci virtio-iommu-pci
    virtio-mem-pci virtio-9p-pci vhost-vsock-pci vhost-scsi-pci
    vhost-user-fs-pci vhost-user-blk-pci vhost-user-scsi-pci vhost-user-vsock-pci
    vfio-pci vfio-pci-nohotplug nvme ich9-ahci ide-cd scsi-hd scsi-cd
    e1000 e1000e igb rtl8139 VGA bochs-display ramfb intel-hda hda-duplex
    qemu-xhci usb-ehci usb-hub usb-kbd usb-mouse usb-tablet usb-storage usb-uas
    tpm-tis-device pvpanic-pci i6300esb pci-serial ivshmem-plain ivshmem-doorbell
    pc-dimm nvdimm acpi-erst vmcoreinfo edu pci-testdev loader guest-loader
"""
NO_DEVICES = 'cirrus-vga rocker lsi53c895a megasas pvscsi vmxnet3 ne2k_pci pcnet ufs'


class OrdinaryVM(unittest.TestCase):
    """The files of `make install DESTDIR=` are complete."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix='egm-vm-')
        targets = json.loads((BUILD / 'meson-info/intro-targets.json').read_text())
        made(BUILD, *(os.path.relpath(file, BUILD) for target in targets
                      if target['installed'] for file in target['filename']))
        process.output(BUILD / 'pyvenv/bin/meson', 'install', '--quiet', '--no-rebuild',
                       '--only-changed', '--destdir', cls.directory.name, cwd=BUILD)
        cls.prefix = pathlib.Path(cls.directory.name + '/usr/local')
        cls.binary = str(cls.prefix / 'bin/qemu-system-aarch64')

    @classmethod
    def tearDownClass(cls):
        cls.directory.cleanup()

    def test_tools(self):
        """egm-vm and egm-report run; egm-vm uses QEMU and firmware of its prefix."""
        with tempfile.TemporaryDirectory(prefix='egm-vm-') as directory:
            grace.Host(directory)
            other = pathlib.Path(directory) / 'bin/qemu-system-aarch64'
            other.parent.mkdir()
            other.symlink_to('/bin/false')
            # The same paths as in the package of make dist
            link = other.with_name('egm-vm')
            link.symlink_to(self.prefix / 'bin/egm-vm')
            text = process.output(
                'egm-vm', 'qemu', '--root', directory,
                env={'PATH': f'{other.parent}:{os.environ["PATH"]}'})
        self.assertTrue(text.startswith(self.binary), text)
        self.assertIn(f'{self.prefix}/share/qemu/edk2-aarch64-code.fd', text)
        golden = TOP / 'tests/data/acpi/aarch64/virt'
        process.output(self.prefix / 'bin/egm-report', golden / 'DSDT.egmgi',
                       golden / 'SRAT.egmgi')
        for name in ('man/man1/egm-vm.1', 'man/man1/egm-report.1',
                     'bash-completion/completions/egm-vm',
                     'bash-completion/completions/egm-report'):
            self.assertTrue((self.prefix / 'share' / name).exists(), name)

    def test_boot(self):
        """UEFI starts a program from a virtio disk; a NIC is there; quit."""
        ram = os.path.join(self.directory.name, 'ram')
        medium = machine.TREE / \
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
        vm = machine.Machine(args, binary=self.binary)
        with vm, open(ram, 'rb') as memory:
            def read(address, length):
                memory.seek(address - RAM_BASE)
                return memory.read(length)

            rsdp = vm.until('a program started by UEFI', lambda: tables.marked(
                read, RAM_BASE, RAM_SIZE))
            dsdt = tables.read(read, rsdp)['DSDT'][0]
            self.assertEqual(dsdt[:4], b'DSDT')
            self.assertNotIn(b'nvidia', dsdt)
            classes = [d['class_info']['class']
                       for d in vm.cmd('query-pci')[0]['devices']]
            self.assertIn(0x0200, classes, 'Ethernet controller')
            self.assertIn(0x0100, classes, 'block storage')
            self.assertTrue(vm.cmd('query-status')['running'])
        self.assertEqual(vm.exitcode(), 0)
        self.assertEqual(vm.get_log(), '')

    def test_features(self):
        """The production build has the features for hosts of VMs."""
        def output(*args):
            return process.output(self.binary, *args)

        devices = set(re.findall('(?m)^name "([^"]+)"', output('-device', 'help')))
        self.assertLessEqual(set(DEVICES.split()), devices)
        self.assertFalse(devices & set(NO_DEVICES.split()))
        machines = {line.split()[0] for line in
                    output('-machine', 'help').splitlines()[1:]}
        self.assertEqual({name for name in machines
                          if not re.match(r'virt(-\d+\.\d+)?$', name)}, {'none', 'sbsa-ref'})
        objects = output('-object', 'help')
        for name in ('acpi-egm-memory', 'acpi-generic-initiator', 'iommufd',
                     'memory-backend-file', 'memory-backend-memfd'):
            self.assertIn(name, objects)
        self.assertIn('user', output('-machine', 'none', '-netdev',
                                     'help').split())
        self.assertIn('-sandbox', output('-help'))
        self.assertIn('tcg', output('-accel', 'help'))

    def test_help(self):
        """The option help describes how to use the object."""
        text = process.output(self.binary, '-object', 'acpi-egm-memory,help')
        self.assertRegex(text, r'pci-dev=<string>\s+- id or QOM path')
