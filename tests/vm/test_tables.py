# SPDX-License-Identifier: GPL-2.0-or-later
"""The ACPI tables of every kind of machine, as QEMU offers them to the firmware.

ACPICA's interpreter evaluates DSDT. No guest runs, so a case takes a second.
"""

import dataclasses
import tempfile
import unittest

from egm import slit, srat
from lib import MIB, RAM_BASE, acpi, fw_cfg, machine
from lib.options import (devices, distance, distances, edu, egm, gpu, initiators, port, pxb,
                             ram, switch)

ECAM_BASE = 0x4010000000
RANGE = (RAM_BASE, 128 * MIB, 0)      # of a machine's only node


@dataclasses.dataclass
class Case:
    """A machine, and what its tables must say.

    gpus: node of each GPU by its path, without the leading \\_SB; all other values follow
    from that, sizes, and the rule that a Device has the name of its devfn.
    """
    args: list
    gpus: dict
    sizes: tuple = (128,)       # of nodes, in MiB; 0: none
    empty: int = 0              # more nodes without memory
    machine: str = 'virt'
    option: str = ''            # of the machine, given if this QEMU has it
    needs: tuple = ()           # type, None: the machine; property
    initiators: tuple = ()      # proximity domains in the order of SRAT
    name: str = ''              # another name that DSDT must have
    distances: dict = dataclasses.field(default_factory=dict)


def initiator(name, device, node):
    """A Generic Initiator."""
    return ['-object', f'acpi-generic-initiator,id={name},pci-dev={device},node={node}']


def one_port():
    """A GPU below a root port."""
    return devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0')) + egm(0)


def grace(sockets, gpus):
    """Each GPU below a host bridge of its socket, with 8 nodes."""
    args, paths = [], {}
    for n in range(sockets * gpus):
        first = sockets + 8 * n
        args += devices(pxb(f'pxb{n}', 32 * (n + 1), n // gpus),
                        port(f'rp{n}', f'pxb{n}'), gpu(n, f'rp{n}'))
        args += initiators(n, range(first, first + 8))
        paths[f'PC{32 * (n + 1):02X}.S00.S00'] = n // gpus
    return Case(args + egm(*paths.values()), paths, (128,) * sockets,
                empty=8 * len(paths), initiators=tuple(range(sockets, sockets + 8 * len(paths))))


ONE_PORT = {'PCI0.S10.S00': 0}
CASES = {
    'none': Case(devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0')), {}),
    'root-bus': Case(devices(gpu(0, 'pcie.0', '1f.0')) + egm(0), {'PCI0.SF8': 0}),
    'root-port': Case(
        devices(port('rp0', 'pcie.0', '2.0,multifunction=on'), port('rp1', 'pcie.0', '2.3'),
                gpu(0, 'rp1'), edu('rp0')) + egm(0), {'PCI0.S13.S00': 0}),
    'pxb': Case(devices(pxb('pxb', 32), port('rp0', 'pxb'), gpu(0, 'rp0')) + egm(0),
                {'PC20.S00.S00': 0}),
    'pxb-with-node': Case(
        devices(pxb('pxb', 32, 0), port('rp0', 'pxb'), gpu(0, 'rp0')) + egm(0),
        {'PC20.S00.S00': 0}),
    'pxb-bus-number-below-16': Case(
        devices(pxb('pxb', 10), port('rp0', 'pxb'), gpu(0, 'rp0')) + egm(0),
        {'PC0A.S00.S00': 0}),
    'switch': Case(
        devices(pxb('pxb', 64), port('rp0', 'pxb'),
                *switch('up', 'rp0', ('d0', 0), ('d1', 1), ('d2', 2)),
                gpu(0, 'd0'), edu('d1'), gpu(1, 'd2')) + egm(0, 0),
        {'PC40.S00.S00.S00.S00': 0, 'PC40.S00.S00.S10.S00': 0}),
    'switch-below-switch': Case(
        devices(port('rp0', 'pcie.0', '3'), *switch('up', 'rp0', ('d0', 5)),
                *switch('lower', 'd0', ('d1', 6)), gpu(0, 'd1')) + egm(0),
        {'PCI0.S18.S00.S28.S00.S30.S00': 0}),
    'multifunction': Case(
        devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0', '0.0,multifunction=on'),
                edu('rp0', '0.1'), gpu(1, 'rp0', '0.7')) + egm(0, 0),
        {'PCI0.S10.S00': 0, 'PCI0.S10.S07': 0}),
    'pci-bridge': Case(
        devices('pcie-pci-bridge,id=b0,bus=pcie.0,addr=4',
                'pci-bridge,id=b1,bus=b0,addr=8,chassis_nr=9', gpu(0, 'b1', '9')) + egm(0),
        {'PCI0.S20.S40.S48': 0}),
    # As in production; the order of options is arbitrary
    '2-sockets': Case(
        egm(1, 0, 1, 0) +
        devices(pxb('pxb1', 0x40), pxb('pxb0', 0x20), port('rp3', 'pxb1', '1'),
                port('rp2', 'pxb1', '0'), port('rp1', 'pxb0', '1'), port('rp0', 'pxb0', '0'),
                gpu(0, 'rp3'), gpu(3, 'rp0'), gpu(1, 'rp1'), gpu(2, 'rp2')),
        {'PC20.S00.S00': 0, 'PC20.S08.S00': 0, 'PC40.S00.S00': 1, 'PC40.S08.S00': 1},
        sizes=(128, 256)),
    # Nodes without memory between others, and sizes of the largest DIMMs on sale
    '4-sockets': Case(
        devices(port('rp0', 'pcie.0', '1'), gpu(0, 'rp0'),
                pxb('pxb1', 64), port('rp1', 'pxb1', '2'), gpu(1, 'rp1'),
                pxb('pxb2', 128), port('rp2', 'pxb2', '3'), gpu(2, 'rp2'),
                pxb('pxb3', 192), port('rp3', 'pxb3', '4'), gpu(3, 'rp3')) + egm(0, 2, 3, 5),
        {'PCI0.S08.S00': 0, 'PC40.S10.S00': 2, 'PC80.S18.S00': 3, 'PCC0.S20.S00': 5},
        sizes=(1 << 20, 0, 1536 << 10, 2 << 20, 0, 2560 << 10)),
    'base-2-mib': Case(devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0')) + egm(1),
                       {'PCI0.S10.S00': 1}, sizes=(130, 128)),
    # In the order of their nodes, independent of ids and devices
    'generic-initiators': Case(
        one_port() + devices(port('rp1', 'pcie.0', '3'), 'edu,id=nic,bus=rp1')
        + initiator('c', 'gpu0', 4) + initiator('a', 'gpu0', 2) + initiator('d', 'gpu0', 1)
        + initiator('b', 'nic', 3) + initiator('e', 'nic', 0),
        ONE_PORT, empty=4, initiators=(0, 1, 2, 3, 4)),
    'hmat-and-hotplug-memory': Case(
        one_port() + ['-m', 'slots=2,maxmem=1G', '-numa',
                      'hmat-lb,initiator=0,target=0,hierarchy=memory,'
                      'data-type=access-latency,latency=10', '-numa',
                      'hmat-lb,initiator=0,target=0,hierarchy=memory,'
                      'data-type=access-bandwidth,bandwidth=10G'],
        ONE_PORT, machine='virt,hmat=on'),
    'highmem-off': Case(one_port(), ONE_PORT, machine='virt,highmem=off'),
    'highmem-ecam-off': Case(one_port(), ONE_PORT,
                             machine='virt,highmem-ecam=off,highmem-mmio=off'),
    'cxl-host-bridge': Case(
        devices('pxb-cxl,id=cxl,bus=pcie.0,bus_nr=16', 'cxl-rp,id=crp,bus=cxl,chassis=1,slot=1',
                gpu(0, 'crp'), pxb('pxb', 32), port('rp0', 'pxb'), gpu(1, 'rp0'),
                port('rp1', 'pcie.0', '5'), gpu(2, 'rp1')) + egm(0, 0, 0),
        {'PCI0.S28.S00': 0, 'PC10.S00.S00': 0, 'PC20.S00.S00': 0}, option='cxl'),
    # This needs the Generic Event Device, which only machines with firmware have.
    'acpi-pci-hotplug': Case(
        ['-global', 'acpi-ged.acpi-pci-hotplug-with-bridge-support=on',
         '-bios', 'edk2-aarch64-code.fd'] +
        devices(port('rp0', 'pcie.0', '2'), gpu(0, 'rp0'), pxb('pxb', 32), port('rp1', 'pxb'),
                gpu(1, 'rp1'), 'pcie-pci-bridge,id=br,bus=pcie.0,addr=6',
                'pci-bridge,id=br1,bus=br,chassis_nr=3,addr=4', gpu(2, 'br1', '7'),
                edu('br1', '8')) + egm(0, 0, 0),
        {'PCI0.S10.S00': 0, 'PCI0.S30.S20.S38': 0, 'PC20.S00.S00': 0},
        needs=('acpi-ged', 'acpi-pci-hotplug-with-bridge-support'), name='PCI0.PCNT'),
    'smmu-and-its': Case(one_port(), ONE_PORT, machine='virt,iommu=smmuv3,gic-version=3'),
    'smmu-per-host-bridge': Case(
        devices(pxb('pxb', 1, 0), port('rp0', 'pxb'), pxb('pxb1', 33), port('rp1', 'pxb1'),
                'arm-smmuv3,primary-bus=pxb,id=smmu0', 'arm-smmuv3,primary-bus=pxb1,id=smmu1',
                gpu(0, 'rp0'), gpu(1, 'rp1')) + egm(0, 0),
        {'PC01.S00.S00': 0, 'PC21.S00.S00': 0}, machine='virt,gic-version=3',
        needs=('arm-smmuv3', 'smmu_per_bus')),
    'highmem-mmio-size': Case(
        devices(port('rp0', 'pcie.0', '2,pref64-reserve=1T'), gpu(0, 'rp0')) + egm(0),
        ONE_PORT, machine='virt,highmem-mmio-size=4T', needs=(None, 'highmem-mmio-size')),
    'qom-path': Case(
        devices(port('rp0', 'pcie.0', '2'), edu('rp0')) +
        ['-object', 'acpi-egm-memory,id=egm0,node=0,'
         'pci-dev=/machine/peripheral-anon/device[0]'], ONE_PORT),
    # The largest machines: 4 sockets with a GPU each, 2 sockets with 2 GPUs each
    '36-nodes': grace(4, 1),
    '34-nodes': dataclasses.replace(grace(2, 2), distances=distances(34)),
}


def without_objects(args):
    """The same machine without EGM."""
    pairs = zip(args[::2], args[1::2])
    return [word for pair in pairs if 'acpi-egm-memory' not in pair[1] for word in pair]


class Base(unittest.TestCase):
    """Machines without a guest."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-tables-')
        self.addCleanup(self.tmp.cleanup)

    def start(self, *args, sizes=(128,), empty=0, kind='virt'):
        """A machine with nodes, and the qtest protocol."""
        return machine.qtest(machine.Machine(
            ['-machine', kind, '-accel', 'qtest', '-cpu', 'max',
             *ram(self.tmp.name, sizes, empty), *args]))

    def has(self, kind, name):
        """Whether this QEMU has a property; kind None: of its virt machine."""
        if kind:
            return machine.has(kind, name)
        with self.start() as (vm, _):
            return name in (p['name'] for p in vm.cmd('qom-list', path='/machine'))

    def reset(self, vm, qtest):
        """The tables that QEMU builds after a reset."""
        vm.cmd('system_reset')
        vm.until('the reset', lambda: 'RESET' in (e['event'] for e in vm.get_qmp_events()))
        return fw_cfg.tables(qtest)


    def check_dsdt(self, dsdt, gpus, bare):
        """DSDT has base, size and proximity domain of each GPU by its path, the Devices on
        the way to the GPUs, the node of their host bridges, and no other objects than the
        machine without EGM.
        """
        found = acpi.egm_devices(dsdt)
        self.assertEqual({d.path: (d.base, d.size, d.pxm) for d in found},
                         {rf'\_SB.{path}': value for path, value in gpus.items()})
        needed = set()
        for device in found:
            self.assertEqual(device.node, device.pxm, device.path)
            parts = device.path.split('.')
            # ACPI 6.5, 6.1.1: number of the device, number of the function
            devfns = [int(part[1:], 16) for part in parts[2:]]
            self.assertEqual(device.adrs, tuple(n >> 3 << 16 | n & 7 for n in devfns))
            needed |= {'.'.join(parts[:2]) + '._PXM', device.path + '._DSD'}
            for count in range(3, len(parts) + 1):
                way = '.'.join(parts[:count])
                needed |= {way, way + '._ADR'}
        self.assertEqual(set(acpi.namespace(dsdt)) - set(bare), needed - set(bare))

    def check_srat(self, table, memory, initiators_):
        """SRAT has this memory, and initiators with these proximity domains, in this order."""
        found = srat.read(table)
        self.assertEqual(found.damage, '')
        self.assertEqual([(a.base, a.size, a.pxm) for a in found.affinities
                          if a.enabled and not a.hot_pluggable], memory)
        self.assertEqual([i.pxm for i in found.initiators if i.enabled], list(initiators_))


class Tables(Base):
    """A method for each case of CASES, and test_spelling."""

    def start_case(self, case, args):
        """The machine of a case."""
        kind = case.machine
        if case.option and self.has(None, case.option):
            kind += f',{case.option}=on'
        return self.start(*args, *distance(case.distances), sizes=case.sizes,
                          empty=case.empty, kind=kind)

    def check_case(self, case):
        """The tables of one machine have the expected data, and no other data about EGM."""
        if case.needs and not self.has(*case.needs):
            self.skipTest('this QEMU does not have it')
        with self.start_case(case, case.args) as (vm, qtest):
            tables = fw_cfg.tables(qtest)
            # The tables are built again after each reset.
            for _ in range(2):
                self.assertEqual(self.reset(vm, qtest), tables)
        with self.start_case(case, without_objects(case.args)) as (_, qtest):
            bare = acpi.namespace(fw_cfg.tables(qtest)['DSDT'])
        ranges = [(RAM_BASE + sum(case.sizes[:node]) * MIB, size * MIB, node)
                  for node, size in enumerate(case.sizes)]
        self.check_dsdt(tables['DSDT'], {path: ranges[node]
                                         for path, node in case.gpus.items()}, bare)
        names = acpi.namespace(tables['DSDT'])
        self.assertEqual({path: names[path] for path in bare}, bare)
        self.check_srat(tables['SRAT'], [r for r in ranges if r[1]], case.initiators)
        if case.name:
            self.assertIn(rf'\_SB.{case.name}', names)
        if case.distances:
            table = slit.Slit(tables['SLIT'])
            self.assertEqual({a: [table.distance(a, b) for b in range(table.count)]
                              for a in range(table.count)}, case.distances)

    def test_spelling(self):
        """Options as key=value or JSON, in any order: the tables are the same."""
        ports = devices(port('rp0', 'pcie.0', '2'), port('rp1', 'pcie.0', '3'))
        json = ('{"node":0,"id":"x","qom-type":"acpi-egm-memory","pci-dev":"gpu0"}',
                '{"qom-type":"acpi-egm-memory","id":"a","node":0,'
                '"pci-dev":"/machine/peripheral/gpu1"}')
        gpus = devices(gpu(0, 'rp0')), devices(gpu(1, 'rp1'))
        found = []
        for args in (ports + gpus[0] + gpus[1] + egm(0, 0),
                     egm(0, 0)[2:] + ports + egm(0) + gpus[0] + gpus[1],
                     ['-object', json[0], *ports, *gpus[1], *gpus[0], '-object', json[1]]):
            with self.start(*args) as (_, qtest):
                found.append(fw_cfg.tables(qtest))
        self.assertEqual(len(acpi.egm_devices(found[0]['DSDT'])), 2)
        self.assertEqual(found[1], found[0])
        self.assertEqual(found[2], found[0])


for _name, _case in CASES.items():
    setattr(Tables, 'test_' + _name.replace('-', '_'),
            lambda self, case=_case: self.check_case(case))


class Unplug(Base):
    """Devices that disappear while QEMU runs."""

    def slot_power(self, qtest, on):
        """Switch the slot of the port at 00:02.0 on or off, by its Slot Control register."""
        config = ECAM_BASE + (2 << 15)
        at = qtest.read(config + 0x34, 1)[0]
        while qtest.read(config + at, 1)[0] != 0x10:        # PCI Express
            at = qtest.read(config + at + 1, 1)[0]
            self.assertNotEqual(at, 0)
        qtest.write(config + at + 0x18, (0x0100 if on else 0x0700).to_bytes(2, 'little'))

    def bare(self, *args, **keywords):
        """The DSDT without our objects."""
        with self.start(*without_objects(args), **keywords) as (_, qtest):
            return acpi.namespace(fw_cfg.tables(qtest)['DSDT'])

    def check_reset(self, vm, qtest, bare, gpus, initiators_=()):
        """After a reset, the tables describe these GPUs and initiators."""
        tables = self.reset(vm, qtest)
        self.check_dsdt(tables['DSDT'], dict.fromkeys(gpus, RANGE), bare)
        self.check_srat(tables['SRAT'], [RANGE], initiators_)

    def power_off(self, kind):
        """Power off the slot of a GPU of this type, and check the tables of the next reset."""
        both = ['PCI0.S10.S00', 'PCI0.S18.S00']
        args = (*devices(port('rp0', 'pcie.0', '2'), port('rp1', 'pcie.0', '3'),
                         f'{kind},id=gpu0,bus=rp0', gpu(1, 'rp1')),
                *initiators(0, [1]), *initiators(1, [2]), *egm(0, 0))
        bare = self.bare(*args, empty=2)
        with self.start(*args, empty=2) as (vm, qtest):
            self.check_reset(vm, qtest, bare, both, (1, 2))
            self.slot_power(qtest, False)
            self.check_reset(vm, qtest, bare, both[1:], (2,))
            self.slot_power(qtest, True)
            vm.cmd('device_add', driver='pci-testdev', id='gpu0', bus='rp0')
            self.check_reset(vm, qtest, bare, both[1:], (1, 2))
        self.assertEqual(vm.exitcode(), 0)

    def test_slot_power_off(self):
        """A guest can power off the slot of a GPU, even if the GPU has unplug blockers.
        The device is gone at once, without an event. After the next reset, neither our
        Devices nor the initiators describe it. A device that is plugged into the slot later
        was never checked, so it does not get EGM, even under the same name.
        """
        self.power_off('pci-testdev')

    def test_nohotplug(self):
        """The same for a type of device that cannot be hot-plugged."""
        self.power_off('VGA,romfile=')      # not every host has its ROM

    def test_bridge_unplugged(self):
        """A bridge can be unplugged, together with the GPU below it."""
        args = (*devices(port('rp0', 'pcie.0', '2'), *switch('up', 'rp0', ('d0', 0)),
                         'pci-testdev,id=gpu0,bus=d0'), *egm(0))
        bare = self.bare(*args)
        with self.start(*args) as (vm, qtest):
            vm.cmd('device_del', id='up')
            self.slot_power(qtest, False)
            vm.until('the event', lambda: 'gpu0' in (
                e['data'].get('device') for e in vm.get_qmp_events()
                if e['event'] == 'DEVICE_DELETED'))
            self.assertNotIn('gpu0', [p['name'] for p in vm.cmd(
                'qom-list', path='/machine/peripheral')])
            self.check_reset(vm, qtest, bare, [])
        self.assertEqual(vm.exitcode(), 0)
