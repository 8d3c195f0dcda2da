#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Boot Linux on a machine with acpi-egm-memory, and check the data that the
driver of a GPU reads: the ACPI companion of the PCI function, its NUMA node,
and the device properties.
"""

import base64
import struct

import test_hotplug_pci
from qemu_test import LinuxKernelTest, exec_command_and_wait_for_pattern

MIB = 1 << 20
PROMPT = '~ #'


class EgmMemory(LinuxKernelTest):

    # Debian's installer; it has a shell.
    ASSET_KERNEL = test_hotplug_pci.HotplugPCI.ASSET_KERNEL
    ASSET_INITRD = test_hotplug_pci.HotplugPCI.ASSET_INITRD

    def guest_output(self, command):
        """Return the output of a command in the guest."""
        text = exec_command_and_wait_for_pattern(self, command, PROMPT).decode()
        # The console repeats the command, and ends with the prompt.
        return text.partition('\n')[2].rpartition(PROMPT)[0].strip()

    def check_property(self, dsdt, name, value):
        """An integer property, ACPI 6.5, 20.2.3: a string and an integer"""
        if value <= 1:
            integer = bytes([value])                    # ZeroOp, OneOp
        else:
            integer = struct.pack('<BI', 0x0c, value)   # DWordConst
        self.assertIn(b'\x0d' + name.encode() + b'\0' + integer, dsdt)

    def test_egm_memory(self):
        self.set_machine('virt')
        self.require_accelerator('tcg')
        self.require_device('edu')

        self.cpu = 'cortex-a57'
        self.vm.add_args(
            '-m', '768M', '-smp', '2,sockets=2',
            '-bios', self.build_file('pc-bios', 'edk2-aarch64-code.fd'),
            '-append', 'console=ttyAMA0,115200 quiet loglevel=1 init=/bin/sh')
        for node, size in enumerate((512, 256)):
            self.vm.add_args(
                '-object', f'memory-backend-file,id=mem{node},size={size}M,'
                f'mem-path={self.scratch_file(f"mem{node}")},share=on',
                '-numa', f'node,nodeid={node},memdev=mem{node},cpus={node}')
        # edu stands in for a GPU.
        self.vm.add_args(
            '-device', 'pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32',
            '-device', 'pcie-root-port,id=rp0,bus=pxb,chassis=1',
            '-device', 'edu,id=gpu,bus=rp0',
            '-object', 'acpi-egm-memory,id=egm,pci-dev=gpu,node=1')
        self.launch_kernel(self.ASSET_KERNEL.fetch(), self.ASSET_INITRD.fetch(),
                           wait_for=PROMPT)

        gpu = '/sys/bus/pci/devices/0000:21:00.0'
        self.assertEqual(self.guest_output(f'cat {gpu}/firmware_node/path'),
                         r'\_SB_.PC20.S00_.S00_')
        self.assertEqual(self.guest_output(f'cat {gpu}/numa_node'), '1')
        dsdt = base64.b64decode(self.guest_output(
            'base64 /sys/firmware/acpi/tables/DSDT'))
        self.check_property(dsdt, 'nvidia,egm-base-pa', 0x40000000 + 512 * MIB)
        self.check_property(dsdt, 'nvidia,egm-size', 256 * MIB)
        self.check_property(dsdt, 'nvidia,egm-pxm', 1)


if __name__ == '__main__':
    LinuxKernelTest.main()
