# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Linux guest reads what QEMU advertises.

The calls are the same as in the real driver (see tests/images/guest/probe/). The machines
below have the topologies that users build.
"""

import dataclasses
import pathlib
import re
import shutil
import tempfile
import unittest

from egm import iort
from lib import BUILD, MIB, RAM_BASE
from lib.machine import has
from lib.options import (devices, distance, distances, edu, egm, gpu, initiators, nic, port,
                             pxb, ram, switch)
from guest.guest import Egm, Guest, pattern, read_file


@dataclasses.dataclass
class Case:
    """A machine, and what Linux must find: by PCI address, path and node."""
    args: list
    gpus: dict
    sizes: tuple = (512,)
    empty: int = 0
    machine: str = 'virt,gic-version=3'
    needs: tuple = ()   # type, property: not every QEMU has it
    # Other functions, by PCI address: the node of their host bridge, None: -1
    others: dict = dataclasses.field(default_factory=dict)


TWO_SOCKETS = devices(
    pxb('pxb0', 32, 0), pxb('pxb1', 64, 1),
    port('rp0', 'pxb0', '0'), port('rp1', 'pxb0', '1'),
    port('rp2', 'pxb1', '0'), port('rp3', 'pxb1', '1'),
    gpu(0, 'rp0'), gpu(1, 'rp1'), gpu(2, 'rp2'), gpu(3, 'rp3'))

# GPUs at different places of one machine. For each place: the functions that have EGM,
# with path and node, and neighbours without EGM, with the node of their host bridge.
WAYS = {
    # Other functions below this host bridge are in the same node.
    'root_bus': ({'0000:00:03.0': (r'\_SB_.PCI0.S18_', 1)}, {'0000:00:04.0': 1}),
    'root_port_function': ({'0000:02:00.0': (r'\_SB_.PCI0.S13_.S00_', 1)},
                           {'0000:01:00.0': 1}),
    # A host bridge without a node gets the node of the object. It needs all of its 16 bus
    # numbers.
    'pxb': ({'0000:11:00.0': (r'\_SB_.PC10.S00_.S00_', 0)}, {'0000:12:00.0': 0}),
    'switch': ({'0000:23:00.0': (r'\_SB_.PC20.S00_.S00_.S00_.S00_', 2),
                '0000:24:00.0': (r'\_SB_.PC20.S00_.S00_.S08_.S00_', 2)}, {}),
    'generic_initiators': ({'0000:31:00.0': (r'\_SB_.PC30.S00_.S00_', 3)}, {}),
    'socket': ({'0000:41:00.0': (r'\_SB_.PC40.S00_.S00_', 0)}, {}),
    # UEFI finds enough address space for the BARs of Grace's GPUs.
    'large_window': ({'0000:51:00.0': (r'\_SB_.PC50.S00_.S00_', 0),
                      '0000:52:00.0': (r'\_SB_.PC50.S08_.S00_', 0)}, {}),
    # Host bridges without EGM, with and without a node
    'neighbour': ({}, {'0000:61:00.0': 1, '0000:71:00.0': None}),
}

CASES = {
    'side_by_side': Case(
        devices(gpu(0, 'pcie.0', '3'), nic('pcie.0', '4'),
                port('rp0', 'pcie.0', '2.0,multifunction=on'),
                port('rp1', 'pcie.0', '2.3'), gpu(1, 'rp1'), edu('rp0'),
                pxb('pxb1', 0x10), port('rp2', 'pxb1', '0'), gpu(2, 'rp2'),
                port('rp3', 'pxb1', '1,bus-reserve=13'), edu('rp3'),
                pxb('pxb2', 0x20, 2), port('rp4', 'pxb2'),
                *switch('up', 'rp4', ('d0', 0), ('d1', 1)),
                gpu(3, 'd0'), gpu(4, 'd1'),
                pxb('pxb3', 0x30, 3), port('rp5', 'pxb3'), gpu(5, 'rp5'),
                pxb('pxb4', 0x40, 0), port('rp6', 'pxb4'), gpu(6, 'rp6'),
                pxb('pxb5', 0x50, 0), port('rp7', 'pxb5', '0,pref64-reserve=1T'),
                port('rp8', 'pxb5', '1,pref64-reserve=1T'), gpu(7, 'rp7'),
                gpu(8, 'rp8'),
                pxb('pxb6', 0x60, 1), port('rp9', 'pxb6'), edu('rp9'),
                pxb('pxb7', 0x70), port('rp10', 'pxb7'), edu('rp10'))
        + initiators(5, range(4, 12)) + egm(1, 1, 0, 2, 2, 3, 0, 0, 0),
        {address: gpu for gpus, _ in WAYS.values() for address, gpu in gpus.items()},
        sizes=(256, 384, 256, 512), empty=8,
        machine='virt,gic-version=3,highmem-mmio-size=4T',
        others={address: node for _, others in WAYS.values()
                for address, node in others.items()}),

    'two_sockets': Case(
        TWO_SOCKETS + egm(0, 0, 1, 1),
        {'0000:21:00.0': (r'\_SB_.PC20.S00_.S00_', 0),
         '0000:22:00.0': (r'\_SB_.PC20.S08_.S00_', 0),
         '0000:41:00.0': (r'\_SB_.PC40.S00_.S00_', 1),
         '0000:42:00.0': (r'\_SB_.PC40.S08_.S00_', 1)},
        sizes=(384, 256)),

    # Objects before nodes and devices, bus numbers from 1, HMAT, and a NIC that
    # an initiator ties to the EGM node
    'production': Case(
        initiators(0, (2, 3, 4)) + initiators(1, (5, 6, 7))
        + ['-object', 'acpi-generic-initiator,id=gin,pci-dev=nic,node=0']
        + egm(0, 1)
        + devices(pxb('pxb0', 1, 0), pxb('pxb1', 65, 1),
                  port('rp0', 'pxb0', '0'), port('rp1', 'pxb0', '1'),
                  port('rp2', 'pxb1'), gpu(0, 'rp0'), nic('rp1'),
                  gpu(1, 'rp2')),
        {'0000:02:00.0': (r'\_SB_.PC01.S00_.S00_', 0),
         '0000:42:00.0': (r'\_SB_.PC41.S00_.S00_', 1)},
        sizes=(384, 256), empty=6, machine='virt,gic-version=3,hmat=on',
        others={'0000:03:00.0': 0}),

    'smmu_per_host_bridge': Case(
        devices(pxb('pxb0', 1, 0), pxb('pxb1', 33, 1),
                'arm-smmuv3,id=smmu0,primary-bus=pxb0',
                'arm-smmuv3,id=smmu1,primary-bus=pxb1',
                port('rp0', 'pxb0'), port('rp1', 'pxb1'), gpu(0, 'rp0'),
                gpu(1, 'rp1')) + egm(0, 1),
        {'0000:02:00.0': (r'\_SB_.PC01.S00_.S00_', 0),
         '0000:22:00.0': (r'\_SB_.PC21.S00_.S00_', 1)},
        sizes=(384, 256), needs=('arm-smmuv3', 'smmu_per_bus')),
}


def with_initiators(each):
    """2 sockets and 4 GPUs with EACH nodes; the order of options is arbitrary."""
    count = 2 + 4 * each
    own = [x for g in (2, 0, 3, 1) for x in
           initiators(g, reversed(range(2 + each * g, 2 + each * (g + 1))))]
    return dataclasses.replace(CASES['two_sockets'], empty=4 * each,
                               args=TWO_SOCKETS + own + egm(0, 0, 1, 1)
                               + distance(distances(count)))


class Base(unittest.TestCase):
    """Boot a case, and verify it."""

    kernel = '6.1-4k'

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-guest-')
        self.addCleanup(self.tmp.cleanup)
        self.keep = BUILD / 'guest' / self.id().split('.', 1)[1]
        shutil.rmtree(self.keep, ignore_errors=True)

    def guest(self, case, kernel=None, extra=(), name=''):
        """The machine of a case, not yet started."""
        directory = pathlib.Path(self.tmp.name) / (name or 'ram')
        directory.mkdir(exist_ok=True)
        return Guest(kernel or self.kernel, ['-machine', case.machine]
                     + ram(directory, case.sizes, case.empty) + case.args
                     + list(extra), self.keep / name)

    def verify(self, case, report, guest):
        """Only the GPUs have properties. The values are right, and QEMU reports the same."""
        self.check(case, report)
        queried = {o['pci-address']: (o['base'], o['size'], o['acpi-path'])
                   for o in guest.vm.cmd('query-acpi-egm-memory')}
        self.assertEqual(queried, {
            address: (e.base, e.size, re.sub(r'_+(?=\.|$)', '', e.path))
            for address, e in report.egm.items()})

    def check(self, case, report):
        """The same checks, of the guest's report."""
        expected = {}
        for address, (path, node) in case.gpus.items():
            base = RAM_BASE + sum(case.sizes[:node]) * MIB
            expected[address] = Egm(base, case.sizes[node] * MIB, node,
                                    report.egm[address].node
                                    if address in report.egm else -1, path)
        self.assertEqual(report.egm, expected)
        # The driver assumes that the GPU's NUMA node is the node of its EGM.
        node_of = {pxm: node for node, pxm in report.srat}
        for address, found in report.egm.items():
            self.assertEqual(report.nodes[address], found.node, address)
        for address, pxm in case.others.items():
            self.assertEqual(report.nodes[address], node_of.get(pxm, -1),
                             address)
        for found in report.egm.values():
            self.assertGreaterEqual(found.node, 0)
            self.assertEqual(report.srat[found.node, found.pxm],
                             [(found.base, found.size)])
            self.assertEqual(found.node, node_of[found.pxm])
            # Linux has this memory in the node, except for the part that it uses itself.
            self.assertGreater(report.memory[found.node], found.size * 0.7)

    def require(self, case):
        """Skip a case that this QEMU cannot have."""
        if case.needs and not has(*case.needs):
            self.skipTest(f'this QEMU has no {".".join(case.needs)}')

    def boot_once(self, case, kernel=None):
        """Boot, verify, end."""
        self.require(case)
        with self.guest(case, kernel) as guest:
            guest.boot()
            report = guest.report()
            self.verify(case, report, guest)
            return report


class Topologies(Base):
    """Places of GPUs, and other common options."""

    def test_side_by_side(self):
        """A GPU at each place, and the same machine without objects."""
        case = CASES['side_by_side']
        with self.guest(case) as guest:
            guest.boot()
            report = guest.report()
            for way, (gpus, others) in WAYS.items():
                with self.subTest(way):
                    self.check(dataclasses.replace(case, gpus=gpus, others=others),
                               report.part({*gpus, *others}))
            self.verify(case, report, guest)
            self.assertEqual(set(report.memory), set(range(12)))
            srat = guest.tables()['SRAT']
        bare = dataclasses.replace(
            case, gpus={}, args=case.args[:-len(egm(*range(9)))],
            others={**dict.fromkeys(WAYS['root_bus'][0]), '0000:11:00.0': None,
                    '0000:23:00.0': 2})
        with self.guest(bare, name='bare') as guest:
            guest.boot()
            report = guest.report()
            self.verify(bare, report, guest)
            # The same Generic Initiators, SRAT too
            self.assertEqual(set(report.memory), set(range(12)))
            self.assertEqual(guest.tables()['SRAT'], srat)

    def test_production(self):
        """A command line in the order of management tools."""
        self.boot_once(CASES['production'])

    def test_smmu_per_host_bridge(self):
        """Each GPU is behind an SMMU by IORT; Linux gives each host bridge its own SMMU.

        IORT has the bus numbers that the firmware set, so a guest is needed to see them.
        """
        case = CASES['smmu_per_host_bridge']
        self.require(case)
        with self.guest(case) as guest:
            guest.boot()
            report, table = guest.report(), iort.Iort(guest.tables()['IORT'])
            self.verify(case, report, guest)
        for address, behind in ('0000:00:00.0', False), *((a, True) for a in case.gpus):
            self.assertEqual(table.has_smmu(0, int(address[5:7], 16) << 8), behind, address)
        # Linux asks IORT when it binds a driver; root ports have one.
        self.assertEqual(set(report.iommus), {'0000:01:00.0', '0000:21:00.0'})
        self.assertEqual(len(set(report.iommus.values())), 2)


class Lifecycle(Base):
    """More than one boot, and other kernels."""

    def test_numbers_and_distances(self):
        """Linux has the node numbers and the distances of -numa.

        Its kernel supports 16 nodes: 2 sockets, 4 GPUs with 3 nodes each.
        """
        report = self.boot_once(with_initiators(3))
        self.assertEqual(report.distances, distances(14))
        self.assertEqual([report.memory[n] > 0 for n in range(14)],
                         [True] * 2 + [False] * 12)
        self.assertEqual(set(report.srat), {(0, 0), (1, 1)})

    def test_big_pages(self):
        """Another kernel, with 16 KiB pages."""
        report = self.boot_once(CASES['two_sockets'], '6.12-16k')
        self.assertEqual(report.page_size, 16384)
        self.assertTrue(report.kernel.startswith('6.12.'), report.kernel)

    def test_acpi_hotplug(self):
        """ACPI PCI hot-plug has scopes of its own for the same Devices."""
        option = 'acpi-pci-hotplug-with-bridge-support'
        if not has('acpi-ged', option):
            self.skipTest('this QEMU does not have it')
        case = Case(
            devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0'),
                    pxb('pxb0', 32), port('rp1', 'pxb0'), gpu(1, 'rp1'))
            + egm(0, 0) + ['-global', f'acpi-ged.{option}=on'],
            {'0000:01:00.0': (r'\_SB_.PCI0.S10_.S00_', 0),
             '0000:21:00.0': (r'\_SB_.PC20.S00_.S00_', 0)})
        with self.guest(case) as guest:
            guest.boot()
            first = guest.report()
            self.verify(case, first, guest)
            self.assertIn(b'PCNT', guest.tables()['DSDT'])
            # The next boot's tables have a Device for the plugged device.
            guest.vm.cmd('device_add', driver='pcie-root-port', id='late',
                         bus='pcie.0', addr='5', chassis=99)
            guest.send('reboot')
            guest.boot()
            again = guest.report()
            self.verify(case, again, guest)
            self.assertEqual(again.egm, first.egm)

    def page(self, report, guest):
        """Data that the guest writes to its EGM is in the file, at the same offset."""
        wanted = pattern(report.page_size)
        for found in {e.node: e for e in report.egm.values()}.values():
            address = guest.page(found.node)
            offset = address - found.base
            self.assertTrue(0 <= offset < found.size)
            self.assertEqual(
                read_file(f'{self.tmp.name}/source/m{found.pxm}', offset, len(wanted)),
                wanted)

    def test_two_sockets(self):
        """Each boot finds the same: after a reset while UEFI runs, after a reboot, and
        after a migration to another QEMU.
        """
        case = CASES['two_sockets']
        state = f'file:{self.tmp.name}/state'
        with self.guest(case, name='source') as guest:
            guest.expect('UEFI firmware')
            guest.vm.cmd('system_reset')
            guest.expect('UEFI firmware')
            guest.boot()
            first, tables = guest.report(), guest.tables()
            self.verify(case, first, guest)
            self.page(first, guest)
            guest.send('reboot')
            guest.boot()
            self.assertTrue(guest.report().same(first))
            self.assertEqual(guest.tables(), tables)
            guest.vm.cmd('migrate', uri=state)
            guest.vm.until('the state to be saved', lambda: guest.vm.cmd(
                'query-migrate')['status'] == 'completed')
        with self.guest(case, name='target',
                        extra=('-incoming', state)) as guest:
            guest.vm.until('the state to be restored', lambda: guest.vm.cmd(
                'query-status')['status'] == 'running')
            self.assertTrue(guest.report().same(first))
            # The tables are built again for the next boot.
            guest.send('reboot')
            guest.boot()
            self.assertTrue(guest.report().same(first))
            self.assertEqual(guest.tables(), tables)
