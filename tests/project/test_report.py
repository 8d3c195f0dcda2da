#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""egm-report: a table for each thing that it has to notice."""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / 'tests'), str(TOP / 'tools')]
# pylint: disable=wrong-import-position
from egm import aml, guestinfo, report, show, tables  # noqa: E402
from egm.srat import Affinity  # noqa: E402
from egmtest import machine, standin, tap  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])
GOLDEN = TOP / 'tests/data/acpi/aarch64/virt'
BASE, SIZE = 0x40000000, 0x20000000
PROPERTIES = (('nvidia,egm-base-pa', f'{BASE:#x}'),
              ('nvidia,egm-size', f'{SIZE:#x}'), ('nvidia,egm-pxm', '1'))
UUID = 'daffd814-6eba-4d8c-8a91-bc9bbf4aa301'


def dsd(properties=PROPERTIES, uuid=UUID):
    """ASL of a _DSD."""
    pairs = ', '.join(f'Package () {{"{k}", {v}}}' for k, v in properties)
    return (f'Name (_DSD, Package () {{ ToUUID ("{uuid}"), '
            f'Package () {{ {pairs} }} }})')


def bridge(body, name='PC20', bus=32, pxm=1):
    """ASL of a host bridge."""
    node = '' if pxm is None else f'Name (_PXM, {pxm})'
    return (f'Device ({name}) {{ Name (_HID, "PNP0A08") Name (_CID, "PNP0A03") '
            f'Name (_BBN, {bus}) {node} {body} }}')


def device(name, body, adr=0):
    """ASL of a Device."""
    return f'Device ({name}) {{ Name (_ADR, {adr:#x}) {body} }}'


GOOD = bridge(device('S00', device('S00', dsd())))
GPU = report.Function('0000:21:00.0', 32, (0, 0), 'gpu0', True)


HOT = 3     # flags: enabled, and memory can be plugged there


def affinity(pxm, base, size, flags=1):
    """A Memory Affinity Structure."""
    return struct.pack('<BBIHQQIIQ', 1, 40, pxm, 0, base, size, 0, flags, 0)


def initiator(pxm, bus=0x21, flags=1):
    """A Generic Initiator Affinity Structure of device 0 on a bus."""
    handle = struct.pack('<HBB12x', 0, bus, 0)
    return struct.pack('<BBBBI16sII', 5, 32, 0, 1, pxm, handle, flags, 0)


def processor(pxm):
    """A GICC Affinity Structure."""
    return struct.pack('<BBIIII', 3, 18, pxm, 0, 1, 0)


def table(name, body):
    """An ACPI table."""
    return checked(name + struct.pack('<I', 36 + len(body)) + bytes(28) + body, 9)


def checked(data, at):
    """With a checksum in a byte."""
    return data[:at] + bytes([-sum(data) & 0xff]) + data[at + 1:]


def srat(*entries):
    """SRAT with these entries."""
    return table(b'SRAT', bytes(12) + b''.join(entries))


MEMORY = srat(affinity(0, 0x20000000, BASE - 0x20000000),
              affinity(1, BASE, SIZE))


class Diagnoses(unittest.TestCase):
    """Tables made with iasl."""

    def analyse(self, asl, srat_=MEMORY, functions=(GPU,), **more):
        """What is said about a DSDT, given as ASL."""
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            source = pathlib.Path(directory) / 'dsdt.asl'
            source.write_text('DefinitionBlock ("", "DSDT", 2, "EGM", "TEST", 1)'
                              f'{{ Scope (\\_SB) {{ {asl} }} }}')
            run = subprocess.run(['iasl', '-f', source], text=True, check=False,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
            self.assertEqual(run.returncode, 0, run.stdout)
            data = source.with_suffix('.aml').read_bytes()
        found = {'DSDT': data}
        if srat_:
            found['SRAT'] = srat_
        result = report.analyse(found, functions and list(functions), **more)
        self.assertEqual(result.notes, [])
        return result

    def wrong(self, *messages, **keywords):
        """Just these problems; they are in the text, too."""
        asl = keywords.pop('asl', GOOD)
        result = self.analyse(asl, **keywords)
        found = [p for g in result.gpus for p in g.problems] + result.problems
        self.assertEqual(len(found), len(messages), found)
        self.assertFalse(result.good)
        lines = show.lines(result)
        for message, problem in zip(messages, found):
            self.assertIn(message, problem)
            self.assertTrue(any(line.startswith('problem: ') and
                                line.endswith(problem) for line in lines))

    def test_good(self):
        """Nothing to complain about."""
        result = self.analyse(GOOD)
        self.assertTrue(result.good, show.lines(result))
        gpu, = result.gpus
        self.assertEqual((gpu.path, gpu.root, gpu.chain, gpu.base, gpu.size,
                          gpu.pxm, gpu.affinity.index, gpu.label),
                         (r'\_SB.PC20.S00.S00', 32, (0, 0), BASE, SIZE, 1, 1,
                          'gpu0 (0000:21:00.0)'))

    def test_compatible_list(self):
        """A host bridge may have several _CID."""
        self.assertTrue(self.analyse(GOOD.replace(
            '"PNP0A03")', 'Package () { "ACPI0016", "PNP0A03" })')).good)

    def test_no_device(self):
        """A flat Device, or none on the way: no companion."""
        missing = 'it has no ACPI companion with EGM properties'
        self.wrong('lead to no PCI function', missing,
                   r'\_SB.PC20.S00 there is no Device with _ADR 0x0',
                   asl=bridge(device('S00', dsd())))
        self.wrong(missing, r'below \_SB.PC20 there is no Device with _ADR 0x0',
                   asl=bridge(''))
        self.wrong(missing, r'\_SB.PC20.S00.S00 has no EGM properties',
                   asl=bridge(device('S00', device('S00', ''))))
        self.wrong('lead to no PCI function', missing,
                   'there is no host bridge with bus 0x20',
                   asl=bridge(device('S00', device('S00', dsd())), bus=64))
        self.wrong('lead to no PCI function', missing,
                   r'below \_SB.PC20.S00 there is no Device with _ADR 0x0',
                   asl=bridge(device('S00', device('S00', dsd(), 0x10000))))

    def test_no_adr(self):
        """A Device without _ADR binds to nothing."""
        self.wrong(r'\_SB.PC20.S00 has no _ADR', functions=None,
                   asl=bridge(f'Device (S00) {{ {device("S00", dsd())} }}'))
        self.wrong('there is no PCI host bridge above', functions=None,
                   asl=device('S00', dsd()))

    def test_properties(self):
        """One that is missing, or not a number."""
        for i, (name, _) in enumerate(PROPERTIES):
            less = PROPERTIES[:i] + PROPERTIES[i + 1:]
            text = less + ((name, '"text"'),)
            for properties in (less, text):
                self.wrong(f'there is no integer {name}', asl=bridge(
                    device('S00', device('S00', dsd(properties)))))

    def test_uuid(self):
        """Other _DSD are not device properties."""
        other = 'a1b2c3d4' + UUID[8:]
        self.wrong('no Device has EGM properties', functions=None,
                   asl=bridge(device('S00', device('S00', dsd(uuid=other)))))

    def test_domain(self):
        """SRAT does not know the proximity domain."""
        self.wrong('SRAT has no memory of proximity domain 1',
                   srat_=srat(affinity(0, BASE, SIZE)))
        self.wrong('SRAT has no memory of proximity domain 1',
                   'there is no SRAT', srat_=None)

    def test_range(self):
        """The range is not inside one Memory Affinity of its domain."""
        message = 'the range is not inside one Memory Affinity'
        half = SIZE // 2
        for entries in ([affinity(1, BASE, SIZE - 4096)],
                        [affinity(1, BASE + 4096, SIZE)],
                        [affinity(1, BASE, half), affinity(1, BASE + half, half)],
                        [affinity(0, BASE, SIZE), affinity(1, 0, BASE)]):
            self.wrong(message, srat_=srat(*entries))

    def test_disabled(self):
        """A Memory Affinity that is not enabled."""
        self.wrong('SRAT entry #0 is not enabled',
                   srat_=srat(affinity(1, BASE, SIZE, 0)))

    def notes(self, *messages, **keywords):
        """Just these notes, which are in the text, and no problem."""
        result = self.analyse(keywords.pop('asl', GOOD), **keywords)
        self.assertTrue(result.good, show.lines(result))
        found = [line for line in show.lines(result) if line.startswith('note: ')]
        self.assertEqual(len(found), len(messages), found)
        for message, line in zip(messages, found):
            self.assertIn(message, line)

    def test_bridge(self):
        """Linux takes a GPU's node from its host bridge, in any scope."""
        below = device('S00', device('S00', dsd()))
        self.wrong(r'\_SB.PC20 has no _PXM', asl=bridge(below, pxm=None))
        self.wrong(r'\_SB.PC20 has _PXM 0: the driver takes the memory of domain 0',
                   asl=bridge(below, pxm=0))
        again = bridge(below, pxm=None) + 'Scope (PC20) { Name (_PXM, %d) }'
        self.assertTrue(self.analyse(again % 1).good)
        self.wrong('has _PXM 2', asl=again % 2)

    def test_other_ram(self):
        """RAM of the node that is not in the range: the GPU takes it, too."""
        message = '0x80000000-0x8fffffff, is RAM of proximity domain 1 outside'
        more = srat(affinity(1, BASE, SIZE), affinity(1, 0x80000000, 0x10000000))
        self.wrong(f'SRAT entry #1, {message}', srat_=more)
        dimm = report.Plugged('DIMM d0', 0x80000000, 0x10000000, 1)
        self.wrong(f'DIMM d0, {message}', plugged=[dimm])
        self.assertTrue(self.analyse(GOOD, plugged=[
            report.Plugged('DIMM d1', 0x80000000, 0x10000000, 0)]).good)
        around = srat(affinity(1, BASE - 4096, SIZE + 8192))
        self.wrong(f'{BASE - 4096:#x}-{BASE - 1:#x}, is RAM',
                   f'{BASE + SIZE:#x}-{BASE + SIZE + 4095:#x}, is RAM',
                   srat_=around)
        self.notes('SRAT entry #1, 0x80000000-0x8fffffff, is room to plug memory',
                   srat_=srat(affinity(1, BASE, SIZE),
                              affinity(1, 0x80000000, 0x10000000, HOT)))

    def test_alignment(self):
        """The base: 2 MiB at least; 512 MiB for guests with 64 KiB pages."""
        def moved(by):
            base = BASE + by
            values = (base, SIZE, 1)
            return {'asl': bridge(device('S00', device('S00', dsd(
                [(k, f'{v:#x}') for (k, _), v in zip(PROPERTIES, values)])))),
                    'srat_': srat(affinity(0, 0x20000000, BASE - 0x20000000),
                                  affinity(2, BASE, by), affinity(1, base, SIZE))}
        self.wrong('the base 0x40100000 is no multiple of 2 MiB: the GPU\'s large '
                   'pages break; make the size of node 2, 1 MiB, a multiple of '
                   '2 MiB', **moved(1 << 20))
        self.notes('the base 0x40200000 is no multiple of 512 MiB: guests with '
                   'pages of 64 KiB lose large pages; make the size of node 2, '
                   '2 MiB, a multiple of 512 MiB', **moved(2 << 20))

    def test_gpu_memory(self):
        """Properties that override what the driver finds itself."""
        name = 'nvidia,gpu-mem-base-pa'
        more = dsd(PROPERTIES + ((name, '0'),))
        self.wrong(rf'\_SB.PC20.S00.S00: {name} overrides',
                   asl=bridge(device('S00', device('S00', more))))
        alone = device('S08', device('S00', dsd(((name, '0'),))), 0x10000)
        self.wrong(rf'\_SB.PC20.S08.S00: {name} overrides',
                   asl=bridge(device('S00', device('S00', dsd())) + alone))

    def test_initiator(self):
        """The GPU's own on the EGM node, but not others and those of a NIC."""
        ram = affinity(1, BASE, SIZE)
        message = 'Generic Initiator #1 is in proximity domain 1'
        self.wrong(message, srat_=srat(ram, initiator(1)))
        self.assertTrue(self.analyse(GOOD, srat(ram, initiator(2))).good)
        self.assertTrue(self.analyse(GOOD, srat(ram, initiator(1, 0x30))).good)
        self.notes(f'{message}: if it is of this GPU,', functions=None,
                   srat_=srat(ram, initiator(1)))

    def test_initiator_without_node(self):
        """It costs the GPU all of its initiators."""
        ram = affinity(1, BASE, SIZE)
        off = initiator(3, flags=0)
        message = 'Generic Initiator #2 is in proximity domain 3, which has no node'
        self.wrong(message, srat_=srat(ram, initiator(2), off))
        self.notes(message, functions=None, srat_=srat(ram, initiator(2), off))
        self.assertTrue(self.analyse(GOOD, srat(
            ram, initiator(2), off, processor(3))).good)
        self.assertTrue(self.analyse(GOOD, srat(
            ram, initiator(2), initiator(3, 0x30, 0))).good)
        self.wrong('SRAT has 3 proximity domains, and this kernel has 2 nodes',
                   srat_=srat(ram, initiator(2), initiator(3)), nodes=2)
        self.assertTrue(self.analyse(GOOD, srat(ram, initiator(2)), nodes=2).good)

    def test_size_zero(self):
        """The driver takes this for: no EGM."""
        zero = (PROPERTIES[0], (PROPERTIES[1][0], '0'), PROPERTIES[2])
        self.wrong('the size is 0', asl=bridge(
            device('S00', device('S00', dsd(zero)))))

    def test_disagree(self):
        """Two GPUs of one node that are told different ranges."""
        less = (PROPERTIES[0], (PROPERTIES[1][0], '0x1000'), PROPERTIES[2])
        both = bridge(device('S00', device('S00', dsd())) +
                      device('S08', device('S00', dsd(less)), 0x10000))
        second = report.Function('0000:22:00.0', 32, (0x10000, 0), gpu=True)
        self.wrong('is RAM of proximity domain 1 outside',
                   'the GPUs of proximity domain 1 are told different ranges',
                   asl=both, functions=(GPU, second))

    def test_neighbours(self):
        """PCI functions that are no GPUs need nothing."""
        nic = report.Function('0000:22:00.0', 32, (0x10000, 0), 'nic')
        self.assertTrue(self.analyse(GOOD, functions=(GPU, nic)).good)

    def test_map(self):
        """Nodes, what they are for, and holes."""
        lines = show.memory_map(self.analyse(GOOD), {1: '/dev/egm4'},
                                  [(BASE + 0x10000, 0x10000)])
        self.assertEqual(lines, [
            '0x000020000000-0x00003fffffff   512 MiB  node 0',
            '0x000040000000-0x00005fffffff   512 MiB  node 1  EGM of gpu0  '
            'on /dev/egm4',
            '  0x000040010000-0x00004001ffff  64 KiB  withheld'])

    def test_garbage(self):
        """Tables that are cut off are no reason to crash."""
        for path in (GOLDEN / 'DSDT.egmswitch', GOLDEN / 'SRAT.egmswitch'):
            data = path.read_bytes()
            for length in range(36, len(data), 97):
                found = {'DSDT': data[:length], 'SRAT': data[:length]}
                show.lines(report.analyse(found))

    def test_reads_everything(self):
        """The AML reader knows all of QEMU's own tables."""
        for path in (machine.source_tree(BUILD) / 'tests/data/acpi').rglob(
                '*DSDT*'):
            with self.subTest(path=path.name):
                self.assertEqual(aml.read(path.read_bytes())[1], [])


class Linux(unittest.TestCase):
    """What a guest finds in its own /sys and /proc, here made up."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-linux-')
        self.addCleanup(self.tmp.cleanup)
        self.root = pathlib.Path(self.tmp.name)

    def add(self, path, vendor, class_):
        """A PCI function at a path below /sys/devices."""
        place = self.root / 'sys/devices' / path
        place.mkdir(parents=True, exist_ok=True)
        (place / 'vendor').write_text(f'{vendor:#06x}\n')
        (place / 'class').write_text(f'{class_:#08x}\n')
        link = self.root / 'sys/bus/pci/devices' / place.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)

    def test_functions(self):
        """The root bus, and the chain of _ADR; GPUs by vendor and class."""
        self.add('pci0000:20/0000:20:01.0', 0x1b36, 0x060400)
        self.add('pci0000:20/0000:20:01.0/0000:21:00.0', 0x10de, 0x030200)
        self.add('pci0000:20/0000:20:01.0/0000:21:00.1', 0x10de, 0x040300)
        self.add('pci0000:00/0000:00:02.3', 0x1af4, 0x020000)
        found = {f.address: (f.root, f.chain, f.gpu)
                 for f in guestinfo.pci_functions(self.root)}
        self.assertEqual(found, {
            '0000:20:01.0': (0x20, (0x10000,), False),
            '0000:21:00.0': (0x20, (0x10000, 0), True),
            '0000:21:00.1': (0x20, (0x10000, 1), False),
            '0000:00:02.3': (0, (0x20003,), False)})

    def test_nodes(self):
        """How many nodes the kernel has, from a list of ranges."""
        self.assertIsNone(guestinfo.nodes(self.root))
        possible = self.root / 'sys/devices/system/node/possible'
        possible.parent.mkdir(parents=True)
        for text, count in (('0', 1), ('0-15', 16), ('0-1,4,6-7', 5)):
            possible.write_text(text + '\n')
            self.assertEqual(guestinfo.nodes(self.root), count)

    def test_holes(self):
        """Gaps in /proc/iomem, within the memory of SRAT only."""
        (self.root / 'proc').mkdir()
        iomem = self.root / 'proc/iomem'
        nodes = [Affinity(0, 0x40000000, 0x10000000, 0, True),
                 Affinity(1, 0x50000000, 0x10000000, 1, True),
                 Affinity(2, 0x80000000, 0x10000000, 2, False)]
        iomem.write_text('09000000-09000fff : pl011\n'
                         '40000000-41ffffff : System RAM\n'
                         '  40210000-412fffff : Kernel code\n'
                         '42010000-4fffffff : System RAM\n'
                         '50010000-5ffeffff : System RAM\n'
                         '4010000000-401fffffff : PCI ECAM\n')
        self.assertEqual(guestinfo.holes(nodes, self.root),
                         [(0x42000000, 0x10000), (0x50000000, 0x10000),
                          (0x5fff0000, 0x10000)])
        iomem.write_text('00000000-00000000 : System RAM\n')
        self.assertEqual(guestinfo.holes(nodes, self.root), [])


def image_of(at, dsdt, *more, fadt_size=148, xsdt_name=b'XSDT', xsdt_tail=b''):
    """Memory from an address on: an RSDP, and what it leads to."""
    memory = bytes(64)
    places = []
    fadt = table(b'FACP', (bytes(104) + struct.pack('<Q', at + 64))[:fadt_size - 36])
    for data in (dsdt, fadt, *more):
        places.append(at + len(memory))
        memory += data
    xsdt = at + len(memory)
    memory += table(xsdt_name, struct.pack(f'<{len(places) - 1}Q', *places[1:]) +
                    xsdt_tail)
    rsdp = struct.pack('<8s7xBIIQ4x', b'RSD PTR ', 2, 0, 36, xsdt)
    return checked(checked(rsdp[:20], 8) + rsdp[20:], 32) + memory[36:]


class Memory(unittest.TestCase):
    """Tables in the memory of a VM whose firmware is about to write them."""

    def read(self, *args, **keywords):
        """Those that an RSDP leads to."""
        memory = image_of(BASE, *args, **keywords)
        return tables.read(lambda address, length:
                           memory[address - BASE:][:length], BASE)

    def test_whole(self):
        """They are found."""
        dsdt, srat_ = table(b'DSDT', b'1'), table(b'SRAT', b'2')
        found = self.read(dsdt, srat_)
        self.assertEqual((found['DSDT'], found['SRAT']), (dsdt, srat_))

    def test_torn(self):
        """What is none of them is not taken for one."""
        dsdt = table(b'DSDT', b'')
        for args, keywords, message in (
                ((table(b'SSDT', b''),), {}, 'no ACPI table at 0x40000040'),
                ((dsdt,), {'xsdt_name': b'XXXX'}, 'no ACPI table'),
                ((dsdt,), {'xsdt_tail': b'1234'}, 'ends within an address'),
                ((dsdt,), {'fadt_size': 116}, 'no FADT of ACPI 2.0'),
                ((dsdt[:-1] + b'1',), {}, 'no ACPI table at 0x40000040')):
            with self.assertRaisesRegex(ValueError, message):
                self.read(*args, **keywords)


class Command(unittest.TestCase):
    """tools/egm-report."""

    def run_it(self, *args):
        """Exit status and output."""
        run = subprocess.run([TOP / 'tools/egm-report', *args], text=True,
                             check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)
        self.assertNotIn('Traceback', run.stdout)
        return run.returncode, run.stdout

    def test_files(self):
        """Golden tables of this project are good; mixed up, they are not."""
        status, text = self.run_it(GOLDEN / 'DSDT.egmswitch',
                                   GOLDEN / 'SRAT.egmswitch')
        self.assertEqual(status, 0, text)
        self.assertEqual(text.count(' yes\n'), 4)
        status, text = self.run_it(GOLDEN / 'DSDT.egmswitch',
                                   GOLDEN / 'SRAT.egmroot')
        self.assertEqual(status, 1)
        self.assertIn('problem: ', text)

    def test_directory(self):
        """As in /sys/firmware/acpi/tables."""
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            for name in ('DSDT', 'SRAT'):
                pathlib.Path(directory, name).write_bytes(
                    (GOLDEN / f'{name}.egmgi').read_bytes())
            self.assertEqual(self.run_it(directory)[0], 0)

    def test_cannot_tell(self):
        """Not the same as a problem in the tables."""
        for args in (('/nonexistent',), ('--qmp', '/nonexistent')):
            status, text = self.run_it(*args)
            self.assertEqual(status, 2, text)
            self.assertTrue(text.startswith('error: '), text)

    def installed(self, *names, nodes=1):
        """Ask a stopped VM in whose memory there are these golden tables: exit
        status and output, without and with the address of the RSDP."""
        at = BASE + (511 << 20)
        memory = image_of(at, *((GOLDEN / f'{name}.egmroot').read_bytes()
                                for name in names))
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            image, socket = (pathlib.Path(directory, n) for n in ('image', 'qmp'))
            image.write_bytes(memory)
            numa = (option for n in range(nodes)
                    for option in ('-object', f'memory-backend-ram,id=m{n},size='
                                   f'{512 // nodes}M',
                                   '-numa', f'node,nodeid={n},memdev=m{n}'))
            with machine.Machine(BUILD, [
                    '-S', '-machine', 'virt', '-m', '512M', *numa,
                    '-qmp', f'unix:{socket},server=on,wait=off',
                    '-device', f'loader,file={image},addr={at:#x},'
                    'force-raw=on']):
                return [self.run_it('--qmp', socket, *where)
                        for where in ((), ('--rsdp', hex(at)))]

    def test_some_tables(self):
        """Firmware that has not installed all of its tables yet."""
        for status, text in self.installed('DSDT'):
            self.assertEqual(status, 2, text)
            self.assertIn('the firmware has not come that far', text)
        for status, text in self.installed('DSDT', 'SRAT'):
            self.assertEqual(status, 1, text)
            self.assertIn('problem: ', text)
            self.assertNotIn('there is no SRAT', text)
        # Nor will there be one.
        for status, text in self.installed('DSDT', nodes=0):
            self.assertEqual(status, 1, text)
            self.assertIn('problem: there is no SRAT', text)

    def vm(self, zero, socket, nodes):
        """A stopped VM with a GPU on its last node, which is an EGM device whose
        bad pages kill QEMU when it touches them. nodes: sizes in MiB"""
        medium = machine.source_tree(BUILD) / \
            'tests/data/uefi-boot-images/bios-tables-test.aarch64.iso.qcow2'
        last = len(nodes) - 1
        ram = [f'memory-backend-ram,id=m{n},size={size}M' if n < last else
               f'memory-backend-file,id=m{n},size={size}M,share=on,'
               f'mem-path={zero.path}' for n, size in enumerate(nodes)]
        return machine.Machine(BUILD, [
            '-S', '-machine', 'virt', '-cpu', 'cortex-a57', '-m', f'{sum(nodes)}M',
            '-smp', str(len(nodes)), '-qmp', f'unix:{socket},server=on,wait=off',
            '-drive', 'if=pflash,format=raw,readonly=on,file='
            f'{BUILD}/pc-bios/edk2-aarch64-code.fd',
            '-drive', f'if=none,id=cd,readonly=on,file={medium}',
            '-device', 'virtio-blk-pci,drive=cd,bus=pcie.0,bootindex=1',
            *(option for n, backend in enumerate(ram) for option in (
                '-object', backend, '-numa', f'node,nodeid={n},memdev=m{n}')),
            '-device', f'pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32,numa_node={last}',
            '-device', 'pcie-root-port,id=rp0,bus=pxb,chassis=1',
            '-device', 'pci-testdev,id=gpu0,bus=rp0',
            '-object', f'acpi-egm-memory,id=egm0,pci-dev=gpu0,node={last}'],
            environment={**zero.environment, 'EGM_GUARD': 'yes'})

    def ask(self, nodes, *retired):
        """Ask a VM until its UEFI has come far enough: exit status, output."""
        with standin.Zero(BUILD) as zero, \
                tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            zero.retire(*retired)
            socket = f'{directory}/qmp2'
            with self.vm(zero, socket, nodes) as vm:
                status, text = self.run_it('--qmp', socket)
                self.assertEqual(status, 2, text)
                self.assertIn('the firmware has not come that far', text)
                vm.cmd('cont')
                text = vm.wait('tables of UEFI', lambda: (
                    lambda answer: answer[1] if answer[0] < 2 else None)(
                        self.run_it('--qmp', socket)))
                self.assertIsNone(vm.process.poll())
            self.assertIn(' yes\n', text)
            self.assertEqual(vm.process.returncode, 0, vm.text)
        return text

    def test_qmp(self):
        """A VM before and after its UEFI has installed its tables."""
        text = self.ask([512])
        self.assertRegex(text, r'gpu0 +\\_SB\.PC20\.S00\.S00 +0000:21:00\.0 +'
                         r'0x40000000-0x5fffffff +512 MiB +0 +#1 +yes')
        self.assertIn('EGM of gpu0  on /dev/zero', text)

    def test_retired(self):
        """Pages that would end QEMU are not touched, however many."""
        text = self.ask([512], *((n << 20, 1) for n in range(320, 512)))
        self.assertEqual(text.count(' withheld\n'), 192)

    def test_retired_elsewhere(self):
        """UEFI starts in the first node, whatever the last one is."""
        text = self.ask([256, 512], *((n << 24, 1) for n in range(1, 32)))
        self.assertIn(' withheld\n', text)


if __name__ == '__main__':
    tap.main()
