# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of KVM whose RAM is EGM: UEFI and Linux, with GPUs by vfio.

The guest is that of tests/guest, with its module that makes the driver's calls.
"""

import contextlib
import dataclasses
import re
import unittest

import pexpect

from lib import BUILD, MIB, RAM_BASE
from lib.made import need_arm64
from guest.guest import BLOCK, pattern
from host.host import ARM64, Dma, Guest, Host, Qemu
from host.test_host import (HOST, ONE, SECOND_BRIDGE, backend, egm, HostTest, node, passthrough,
                            ram)
from host.test_iommufd import EGM as IOMMUFD

ECAM = 0x4010000000
# Firmware needs what is below.
UPPER = RAM_BASE + 128 * MIB
RAM_END = RAM_BASE + 256 * MIB
TWO = (['-m', '384', '-smp', '2', *backend(0, 4, 256), *backend(1, 5, 128),
        *node(0), *node(1)] + passthrough(0) + egm(0) + SECOND_BRIDGE
       + passthrough(2, bus='second') + egm(2, 1))


class Guests(HostTest):
    """Guests boot, find their memory, reboot, and are killed."""

    @contextlib.contextmanager
    def guest(self, args, *messages, name=''):
        """A running guest; QEMU has printed this text."""
        keep = BUILD / f'host-{HOST.name}' / (name or self.id().rsplit('.', 1)[1])
        with Guest(self.host, args, keep) as guest:
            self.assertEqual(guest.qemu.text.count('\n'), len(messages), guest.qemu.text)
            for message in messages:
                self.assertIn(message, guest.qemu.text)
            guest.boot()
            yield guest

    def verify(self, report, gpus):
        """Base, size and node that the driver finds for each GPU."""
        found = {address: (e.base, e.size, e.pxm)
                 for address, e in report.egm.items()}
        self.assertEqual(found, gpus)
        for address, gpu in report.egm.items():
            self.assertEqual(report.nodes[address], gpu.node)
            self.assertEqual(report.srat[gpu.node, gpu.pxm],
                             [(gpu.base, gpu.size)])
            self.assertGreater(report.memory[gpu.node], gpu.size * 0.6)

    def page(self, guest, number, pxm, base):
        """What the guest writes to a node's page is in the region."""
        address = guest.page(number)
        self.assertEqual(self.host.region(pxm, address - base, 4096),
                         pattern(4096))
        return address

    def dma(self, guest):
        """The GPU of virt's own host bridge copies what the guest has written."""
        address = self.page(guest, 0, 4, RAM_BASE)
        Dma(guest.qemu, ECAM).copy(address, address + 2048, 2048)
        self.assertEqual(self.host.region(4, address - RAM_BASE, 4096),
                         pattern(4096)[:2048] * 2)

    def test_life(self):
        """A guest works, reboots and is killed; the next one has its region and another
        one. What firmware has retired none of them sees.
        """
        retired = RAM_BASE + 128 * MIB
        hole = f'{retired:#x}-{retired + BLOCK - 1:#x}'
        expected = {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)}
        with self.standin(retired=f'{retired - RAM_BASE:#x}'):
            with self.guest(ONE, hole, name='first') as guest:
                self.verify(guest.report(), expected)
                self.lacks(guest, retired)
                self.dma(guest)
                self.refuses(ONE, 'in use by another process\n',
                             machine_args=HOST.kvm)
                guest.send('reboot')
                guest.boot()
                self.verify(guest.report(), expected)
                self.page(guest, 0, 4, RAM_BASE)
                guest.qemu.end('KILL')
            with self.guest(TWO, hole, name='second') as guest:
                report = guest.report()
                second = next(a for a in report.egm if a != '0000:01:00.0')
                self.verify(report, {**expected,
                                     second: (RAM_BASE + 256 * MIB, 128 * MIB, 1)})
                self.page(guest, 0, 4, RAM_BASE)
                self.page(guest, 1, 5, RAM_BASE + 256 * MIB)

    def test_blocks(self):
        """A driver that maps blocks on first access; no released driver does."""
        with self.host.standin(huge='y'), self.guest(ONE) as guest:
            self.verify(guest.report(), {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)})
            self.dma(guest)

    def test_iommufd(self):
        """The same by iommufd, as production has it."""
        with self.host.pfnmap(), self.standin(), self.guest(IOMMUFD) as guest:
            self.verify(guest.report(), {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)})
            self.dma(guest)

    def lacks(self, guest, address):
        """The guest got no RAM in the block of 64 KiB at ADDRESS."""
        ram = guest.ram()
        self.assertTrue(ram.iomem)
        self.assertEqual(ram.touches(address & -BLOCK), [])

    def lacks_next(self, guest, address):
        """The guest that boots now gets none there."""
        guest.send('reboot')
        guest.boot()
        self.lacks(guest, address)
        self.assertEqual(guest.qemu.cmd('query-status')['status'], 'running')

    def fails(self, file, address):
        """The host's memory at a guest physical address goes bad."""
        self.host.check(f'echo {HOST.base(4) + address - RAM_BASE:#x} > {file}')

    def access(self, guest, first, last):
        """A process of the guest allocates a page there, and reads it on the next line of input."""
        guest.send(f'access {first:#x} {last:#x}')
        guest.expect('EGM page ')
        return int(guest.expect('\n'), 16)

    def aborts(self, guest, address):
        """The process gets at the page, which has gone bad: a record for the guest,
        and the end of the process.
        """
        self.fails('/sys/module/egm_standin/parameters/fatal', address)
        guest.send('')
        guest.expect('EGM SIGBUS 4 there')       # BUS_MCEERR_AR
        guest.expect('EGM done')
        errors = '\n'.join(guest.command('errors'))
        self.assertIn('event severity: recoverable', errors)
        self.assertIn(f'physical_address: {address:#018x}', errors)
        self.assertIn(f'{address >> 12:#x}: recovery action', errors)

    def test_error(self):
        """Memory errors, one after the other, in one guest."""
        with self.host.standin(driver='B'), \
                self.guest([*ONE, '-machine', 'ras=on']) as guest:
            # If the host takes a page offline, the guest keeps it until it
            # reboots.
            given_up = self.access(guest, UPPER, RAM_END - 1)
            self.fails('/sys/devices/system/memory/hard_offline_page', given_up)
            guest.send('')
            guest.expect('EGM read 0x45474d2070616765')
            guest.expect('EGM done')
            self.assertEqual(guest.command('errors'), [])
            self.lacks_next(guest, given_up)
            # A page whose error the guest has met is also gone after the reboot.
            address = self.access(guest, UPPER, RAM_END - 1)
            self.aborts(guest, address)
            self.lacks_next(guest, address)
            self.lacks(guest, given_up)
            # If firmware needs the page, QEMU ends instead of rebooting the guest.
            self.aborts(guest, self.access(guest, RAM_BASE, UPPER - 1))
            guest.send('reboot')
            self.host.check(f'while [ -e /proc/{guest.qemu.pid} ]; do sleep 0.1; done')

    def test_unprivileged(self):
        """A user needs the three devices, and no locked memory."""
        with self.standin():
            self.host.check('chown operator /dev/egm4 /dev/kvm /dev/vfio/*')
            try:
                self.assertEqual(self.starts(ONE, user='operator',
                                             machine_args=HOST.kvm), '')
            finally:
                self.host.check('chown root /dev/kvm /dev/vfio/*')


TRACING = '/sys/kernel/tracing'
KEEP = BUILD / f'host-{HOST.name}'


@unittest.skipUnless(HOST.name == 'arm64-6.12', 'another kernel')
class OldKernel(HostTest):
    """Linux 6.12, with pages of 16 KiB: KVM maps the region as device memory, where
    neither code nor page tables can be.
    """

    def counter(self, qemu):
        """The program counter of the guest."""
        text = qemu.hmp('info registers')
        return int(re.search('PC=([0-9a-f]+)', text).group(1), 16)

    def endless(self):
        """The fault that KVM has been taking a thousand times: where, and at which
        instruction; None: there is no such.
        """
        found = re.fullmatch(
            r' *1000 ipa (\S+), hsr \S+, hxfar \S+, pc (\S+)\n', self.host.check(
                f"tail -n 1000 {TRACING}/trace | sed 's/.*kvm_guest_fault: //' | "
                'sort | uniq -c'))
        return found and tuple(int(x, 16) for x in found.groups())

    def runs(self, qemu):
        """QEMU runs without output."""
        self.assertEqual(qemu.cmd('query-status')['status'], 'running')
        self.assertEqual(qemu.text, '')

    def test_ram(self):
        """A guest with ordinary RAM boots."""
        with Guest(self.host, ram(256, path='/dev/shm/m0'), KEEP / 'ram') as guest:
            self.assertEqual(guest.qemu.text, '')
            guest.boot()
        self.host.check('rm /dev/shm/m0')

    def test_loader(self):
        """The loader in RAM never runs: the vector of that exception is in flash,
        which is empty, so another one follows there, for ever.
        """
        with self.standin(), Qemu(self.host, ram(256) + ['-kernel', '/guest/vmlinuz'],
                                  HOST.kvm) as qemu:
            self.runs(qemu)
            self.host.vm.until('exception', lambda: self.counter(qemu) == 0x200)

    def test_firmware(self):
        """UEFI starts in flash, and gets to where it turns the MMU on."""
        switch = f'{TRACING}/events/kvm/kvm_guest_fault/enable'
        self.host.check(f'echo 1 > {switch}')
        self.addCleanup(self.host.check, f'echo 0 > {switch}')
        with self.standin(), Guest(self.host, ram(256), KEEP / 'egm') as guest:
            self.runs(guest.qemu)
            address, where = self.host.vm.until('endless fault', self.endless)
            self.assertIn(address, range(RAM_BASE, RAM_BASE + 256 * MIB))
            self.assertEqual(self.counter(guest.qemu), where)
            guest.expect('\n')
            guest.line.expect(pexpect.TIMEOUT, 1)
            self.assertNotIn('\n', guest.line.before)


class OldCpu(unittest.TestCase):
    """Linux 7.3 on a CPU without FWB, a host of its own, refuses the memory."""

    def test_no_fwb(self):
        """QEMU starts with ordinary RAM, or with EGM without KVM."""
        need_arm64()
        with Host(dataclasses.replace(ARM64, cpu='neoverse-n1'), KEEP / 'no-fwb') as host:
            host.boot()
            with host.standin():
                status, text = host.start(ram(256), machine_args=ARM64.kvm)
                self.assertNotEqual(status, 0)
                self.assertIn('Invalid argument', text)
                for args, accel in ((ram(256, path='/dev/shm/m0'), ARM64.kvm),
                                    (ram(256), ARM64.guest)):
                    self.assertEqual(host.start(args, machine_args=accel), (0, ''))
