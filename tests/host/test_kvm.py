#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of KVM whose RAM is EGM: UEFI and Linux, with GPUs by vfio.

The guest is that of tests/guest, with its module that makes the driver's calls.
"""

import contextlib
import dataclasses
import re
import unittest

from test_host import (BUILD, HOST, HostTest, ONE, RAM_BASE, SECOND_BRIDGE,
                       backend, egm, node, passthrough, ram)
from test_iommufd import EGM as IOMMUFD
from host import ARM64, Dma, Guest, Host, MIB, PLATFORMS, Qemu
from guest import BLOCK, pattern
from egmtest import tap

ECAM = 0x4010000000
# Firmware needs what is below.
UPPER = RAM_BASE + 128 * MIB
RAM_END = RAM_BASE + 256 * MIB
TWO = (['-m', '384', '-smp', '2', *backend(0, 4, 256), *backend(1, 5, 128),
        *node(0), *node(1)] + passthrough(0) + egm(0) + SECOND_BRIDGE
       + passthrough(2, bus='second') + egm(2, 1))


class Guests(HostTest):
    """What boots, what it finds, and what becomes of it."""

    @contextlib.contextmanager
    def guest(self, args):
        """A guest that is up."""
        keep = BUILD / f'host-{HOST.name}' / self.id().rsplit('.', 1)[1]
        with Guest(self.host, args, keep) as guest:
            self.assertEqual(guest.qemu.text, '')
            guest.boot()
            yield guest

    def verify(self, report, gpus):
        """What the driver finds for each GPU: base, size and node."""
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

    def test_one_gpu(self):
        """Found, used, and again after a reboot; no second VM meanwhile."""
        expected = {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)}
        with self.standin(), self.guest(ONE) as guest:
            self.verify(guest.report(), expected)
            self.page(guest, 0, 4, RAM_BASE)
            self.refuses(ONE, f'in use by process {guest.qemu.pid}\n',
                         machine_args=HOST.kvm)
            guest.send('reboot')
            guest.boot()
            self.verify(guest.report(), expected)

    def test_two_sockets(self):
        """Each GPU with the region of its socket."""
        with self.standin(), self.guest(TWO) as guest:
            report = guest.report()
            second = next(a for a in report.egm if a != '0000:01:00.0')
            self.verify(report, {
                '0000:01:00.0': (RAM_BASE, 256 * MIB, 0),
                second: (RAM_BASE + 256 * MIB, 128 * MIB, 1)})
            self.page(guest, 0, 4, RAM_BASE)
            self.page(guest, 1, 5, RAM_BASE + 256 * MIB)

    def test_dma(self):
        """The GPU gets at what the guest has written, through the SMMU."""
        with self.standin(), self.guest(ONE) as guest:
            self.dma(guest)

    def test_blocks(self):
        """A driver that maps blocks when they are touched, as none does yet."""
        with self.host.standin(huge='y'), self.guest(ONE) as guest:
            self.verify(guest.report(), {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)})
            self.dma(guest)

    def test_iommufd(self):
        """The same by iommufd, as production has it."""
        with self.host.pfnmap(), self.standin(), self.guest(IOMMUFD) as guest:
            self.verify(guest.report(), {'0000:01:00.0': (RAM_BASE, 256 * MIB, 0)})
            self.dma(guest)

    def test_retired(self):
        """Linux stays away from a bad page."""
        with self.standin(retired='0x8000000'), \
                Guest(self.host, ONE, BUILD / 'host-kvm-retired') as guest:
            self.assertIn('0x48000000-0x4800ffff', guest.qemu.text)
            guest.boot()
            self.lacks(guest, 0x48000000)

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
        """The kernel's memory at a guest physical address goes bad."""
        self.host.check(f'echo {self.host.base(4) + address - RAM_BASE:#x} > {file}')

    @contextlib.contextmanager
    def victim(self, first, last):
        """A guest with a process that has a page there; the guest, and the page."""
        with self.host.standin(driver='B'), \
                self.guest([*ONE, '-machine', 'ras=on']) as guest:
            guest.send(f'access {first:#x} {last:#x}')
            guest.expect('EGM page ')
            yield guest, int(guest.expect('\n'), 16)

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
        """A memory error: the guest does not see the page again."""
        with self.victim(UPPER, RAM_END - 1) as (guest, address):
            self.aborts(guest, address)
            self.lacks_next(guest, address)

    def test_error_below(self):
        """One where firmware has to be: the VM stops instead of starting anew."""
        with self.victim(RAM_BASE, UPPER - 1) as (guest, address):
            self.aborts(guest, address)
            guest.send('reboot')
            self.host.vm.wait('stop', lambda: guest.qemu.cmd(
                'query-status')['status'] == 'internal-error')

    def test_offline(self):
        """A page that the host's administrator gives up is the guest's until it
        reboots.
        """
        with self.victim(UPPER, RAM_END - 1) as (guest, address):
            self.fails('/sys/devices/system/memory/hard_offline_page', address)
            guest.send('')
            guest.expect('EGM read 0x45474d2070616765')
            guest.expect('EGM done')
            self.assertEqual(guest.command('errors'), [])
            self.lacks_next(guest, address)

    def test_killed(self):
        """A guest that was killed leaves a region that the next one can have."""
        with self.standin():
            with self.guest(ONE) as guest:
                self.page(guest, 0, 4, RAM_BASE)
                guest.qemu.end('KILL')
            with self.guest(ONE) as guest:
                self.page(guest, 0, 4, RAM_BASE)

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
CAPABILITY = ("warning: memory backend 'm0': this host's KVM does not say that it maps "
              'EGM region egm4 as ordinary memory '
              '(KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED')


class Hosts(unittest.TestCase):
    """Hosts whose KVM cannot run guests on EGM; Guests has one that can."""

    @contextlib.contextmanager
    def host(self, platform):
        """The host, with the stand-in."""
        keep = BUILD / 'host-kvm' / self.id().rsplit('.', 1)[1]
        with Host(platform, BUILD, keep) as host:
            host.boot()
            with host.standin():
                yield host, keep

    def counter(self, qemu):
        """Where the guest is."""
        text = qemu.cmd('human-monitor-command', **{'command-line': 'info registers'})
        return int(re.search('PC=([0-9a-f]+)', text).group(1), 16)

    def endless(self, host):
        """The fault that KVM has been taking a thousand times: where, and at which
        instruction; None: there is no such.
        """
        found = re.fullmatch(
            r' *1000 ipa (\S+), hsr \S+, hxfar \S+, pc (\S+)\n', host.check(
                f"tail -n 1000 {TRACING}/trace | sed 's/.*kvm_guest_fault: //' | "
                'sort | uniq -c'))
        return found and tuple(int(x, 16) for x in found.groups())

    def warns(self, qemu):
        """QEMU runs, and has said one thing."""
        self.assertEqual(qemu.cmd('query-status')['status'], 'running')
        self.assertIn(CAPABILITY, qemu.text)
        self.assertEqual(qemu.text.count('\n'), 1)

    def test_old_kernel(self):
        """Linux 6.12, with pages of 16 KiB: a word before the guest dies.

        KVM maps the region as device memory, where neither code nor page tables
        can be.
        """
        with self.host(PLATFORMS['arm64-6.12']) as (host, keep):
            with Guest(host, ram(256, path='/dev/shm/m0'), keep / 'ram') as guest:
                self.assertEqual(guest.qemu.text, '')
                guest.boot()
            host.check('rm /dev/shm/m0')
            # The loader in RAM never runs: the vector of that exception is in flash,
            # which is empty, so another one follows there, for ever.
            with Qemu(host, ram(256) + ['-kernel', '/guest/vmlinuz'],
                      ARM64.kvm) as qemu:
                self.warns(qemu)
                host.vm.wait('exception', lambda: self.counter(qemu) == 0x200)
            # UEFI starts in flash, and gets to where it turns the MMU on.
            host.check(f'echo 1 > {TRACING}/events/kvm/kvm_guest_fault/enable')
            with Guest(host, ram(256), keep / 'egm') as guest:
                self.warns(guest.qemu)
                address, where = host.vm.wait('endless fault',
                                              lambda: self.endless(host))
                self.assertIn(address, range(RAM_BASE, RAM_BASE + 256 * MIB))
                self.assertEqual(self.counter(guest.qemu), where)
                self.assertEqual(guest.text.count('\n'), 1, guest.text)

    def test_no_fwb(self):
        """Linux 7.3 on a CPU without FWB refuses the memory."""
        with self.host(dataclasses.replace(ARM64, cpu='neoverse-n1')) as (host, _):
            status, text = host.start(ram(256), machine_args=ARM64.kvm)
            self.assertNotEqual(status, 0)
            self.assertIn(CAPABILITY, text)
            self.assertIn('Invalid argument', text)
            self.assertLess(text.index(CAPABILITY), text.index('Invalid argument'))
            # Ordinary RAM, and EGM without KVM
            for args, accel in ((ram(256, path='/dev/shm/m0'), ARM64.kvm),
                                (ram(256), ARM64.guest)):
                self.assertEqual(host.start(args, machine_args=accel), (0, ''))


if __name__ == '__main__':
    tap.main()
