# SPDX-License-Identifier: GPL-2.0-or-later
"""egm-vm on a host with vfio: what it finds there, and what it writes starts.

The stand-in's regions and QEMU's `edu` in the place of GPUs are in the real sysfs;
egm-vm runs in the host, with the part of Python that it needs.
"""

import contextlib
import re

from lib import MIB
from lib.machine import has
from host.host import REGIONS, Qemu
from host.test_host import FREE, HOST, WORD, HostTest, ram, word

FIRMWARE = '--firmware /tmp/firmware'
# To QEMU's monitor, on a terminal that it shares with the guest's serial port
MONITOR = r"printf '\001cinfo egm\nquit\n'"


def gpu(number):
    """The host's PCI address of a GPU."""
    return HOST.gpus[number]


class EgmVm(HostTest):
    """Region egm4 has GPUs 0 and 1, egm5 has GPU 2."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.host.check('truncate -s 64M /tmp/firmware')

    def found(self, *problems):
        """The output of egm-vm; it has exactly these problems."""
        status, text = self.host.run(f'/egm-vm {FIRMWARE}')
        self.assertEqual(status, 1 if problems else 0, text)
        found = [line for line in text.splitlines() if line.startswith('problem')]
        self.assertEqual(len(found), len(problems), text)
        for problem, line in zip(problems, found):
            self.assertIn(problem, line)
        return text

    def start(self, options):
        """Run the command line that egm-vm writes; return `info egm` of the VM."""
        self.host.check(f'/egm-vm qemu {FIRMWARE} {options} -- -S > /tmp/vm')
        status, text = self.host.run(f'{MONITOR} | sh /tmp/vm 2>&1')
        self.assertEqual(status, 0, text)
        self.assertNotIn('qemu-system-aarch64: ', text)
        return text

    def test_host(self):
        """Regions, sizes, GPUs, drivers; nothing is wrong but that it is slow."""
        with self.host.standin():
            text = self.found()
            for pxm, number in ((4, 0), (4, 1), (5, 2)):
                size = f'{REGIONS[pxm] // MIB} MiB'.replace('1024 MiB', '1 GiB')
                self.assertRegex(text, (
                    rf'egm{pxm} +({size} .*)?{re.escape(gpu(number))}  1234:11e8  '
                    r'vfio-pci  \d+ +vfio\d'))
            self.assertNotIn('note: this is', text)

    def test_gpus_as_file(self):
        """The other form in which drivers name GPUs."""
        with self.host.standin(driver='B'):
            self.assertIn(gpu(1), self.found())

    def test_no_driver(self):
        """Before the driver is loaded."""
        self.found('the driver is not loaded')

    def test_starts(self):
        """All GPUs of both sockets, and one."""
        with self.host.standin():
            text = self.start('--type1 --memory 128M')
            for number, node in ((0, 0), (1, 0), (2, 1)):
                self.assertIn(gpu(number), text)
            text = self.start(f'--type1 --gpus {gpu(2)}')
            self.assertIn('egm5', text)
            self.assertNotIn('egm4', text)

    def test_in_use(self):
        """A region is in use by any node in /dev; the other region is free."""
        with self.host.standin():
            with Qemu(self.host, ram(64)) as qemu:
                who = f'qemu-system-aar ({qemu.pid})'
                self.assertIn(who, self.found())
                status, text = self.host.run(
                    f'/egm-vm qemu {FIRMWARE} --gpus {gpu(1)}')
                self.assertEqual(status, 1, text)
                self.assertIn(f'egm4 is in use by {who}: a region belongs to one VM',
                              text)
                self.assertIn(f'free: {gpu(2)} on egm5', text)
                self.start(f'--type1 --gpus {gpu(2)}')
            self.assertNotIn('qemu-system-aar (', self.found())
            self.host.check('mknod /dev/other c $(tr : " " < '
                            '/sys/class/egm/egm4/dev)')
            self.addCleanup(self.host.check, 'rm /dev/other')
            with Qemu(self.host, ram(64, path='/dev/other')) as qemu:
                self.assertIn(f'qemu-system-aar ({qemu.pid})', self.found())

    def test_unbound(self):
        """The suggested command solves the problem."""
        with self.host.standin():
            device = f'/sys/bus/pci/devices/{gpu(0)}'
            self.host.check(f'echo {gpu(0)} > {device}/driver/unbind')
            with contextlib.ExitStack() as stack:
                stack.callback(self.host.run,
                               f'echo {gpu(0)} > /sys/bus/pci/drivers_probe')
                text = self.found(f'GPU {gpu(0)} is not bound to a vfio driver')
                command = text.splitlines()
                mend = command[next(i for i, line in enumerate(command)
                                    if line.startswith('problem')) + 1].strip()
                # What driverctl does, but for the next boot
                self.host.check('driverctl() { '
                                'echo "$3" > /sys/bus/pci/devices/$2/driver_override; '
                                'echo "$2" > /sys/bus/pci/drivers_probe; }; ' + mend)
            self.found()

    def test_user(self):
        """A user who cannot open the devices."""
        with self.host.standin():
            status, text = self.host.run(f"su operator -c '/egm-vm {FIRMWARE}'")
            self.assertEqual(status, 1, text)
            self.assertIn('user operator: no access to /dev/egm4', text)

    def test_region_stays(self):
        """egm-vm does not clear a region, because it does not open it."""
        with self.host.standin():
            with Qemu(self.host, ram(64) + word(FREE)):
                pass
            for what in ('host', 'check', 'qemu', 'libvirt'):
                self.host.check(f'/egm-vm {what} {FIRMWARE} > /dev/null')
            self.host.check('/egm-vm svg > /dev/null')
            self.assertEqual(self.host.region(4, FREE, 8),
                             WORD.to_bytes(8, 'little'))

    def test_iommufd(self):
        """The default, on a kernel whose iommufd can map EGM. An accelerated SMMUv3 needs one
        in the host that can be nested, which this host does not have.
        """
        parameter = '/sys/module/iommufd/parameters/pfnmap'
        self.host.check(f'echo Y > {parameter}')
        self.addCleanup(self.host.check, f'echo N > {parameter}')
        with self.host.standin():
            smmu = ''
            if has('arm-smmuv3', 'accel'):
                smmu = '--smmu off'
                self.host.check(f'/egm-vm qemu {FIRMWARE} --memory 128M -- -S > /tmp/vm')
                self.host.check('grep -q accel=on,ats=on /tmp/vm')
                status, text = self.host.run('sh /tmp/vm 2>&1')
                self.assertEqual(status, 1, text)
                self.assertIn('Host SMMUv3 device info', text)
            self.assertIn(gpu(0), self.start(f'--memory 128M {smmu}'))
            self.host.check('grep -q iommufd=iommufd0 /tmp/vm')

    def test_nic(self):
        """A NIC behind the SMMU of the GPUs is below the bridge of one of them."""
        device = f'/sys/bus/pci/devices/{HOST.nic}'
        self.addCleanup(self.host.check, f'echo > {device}/driver_override; '
                        f'echo {HOST.nic} > {device}/driver/unbind')
        with self.host.standin():
            status, text = self.host.run(f'/egm-vm qemu {FIRMWARE} --nic {HOST.nic} 2>&1')
            self.assertEqual(status, 1, text)
            self.assertIn(f'NIC {HOST.nic} is not bound to a vfio driver', text)
            self.host.check(f'echo vfio-pci > {device}/driver_override; '
                            f'echo {HOST.nic} > /sys/bus/pci/drivers_probe')
            self.assertRegex(self.found(), rf'{HOST.nic} .* vfio-pci')
            self.start(f'--type1 --memory 128M --gpus {gpu(2)} --nic {HOST.nic}')
            for part in (f'vfio-pci-nohotplug,id=nic0,bus=rp1,host={HOST.nic}',
                         'pcie-root-port,id=rp1,bus=pxb0,'):
                self.host.check(f'grep -q {part} /tmp/vm')

    def test_run(self):
        """egm-vm opens the regions, all at once, and hands them to QEMU."""
        for driver in 'B', 'C', 'E':
            with self.subTest(driver), self.host.standin(driver=driver):
                status, text = self.host.run(
                    f'{MONITOR} | /egm-vm qemu {FIRMWARE} --type1 --memory 128M --run -- -S 2>&1')
                self.assertEqual(status, 0, text)
                for region in 'egm4', 'egm5':
                    self.assertIn(f'{region}: open after ', text)
                for number in range(3):
                    self.assertIn(gpu(number), text)
                self.assertNotIn('qemu-system-aar (', self.found())
