# SPDX-License-Identifier: GPL-2.0-or-later
"""egm-report: a table for each thing that it has to notice."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

from egm import aml, guestinfo, report, running, show, smbios, tables
from egm.srat import Affinity
from lib import BUILD, TOP, machine, process, standin
from tools import fuzz
from tools.acpi_made import (HOT, affinity, checked, initiator, iort, processor, slit, srat,
                             table)

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


GOOD_PATH = r'\_SB.PC20.S00.S00'
GOOD = bridge(device('S00', device('S00', dsd())))
GPU = report.Function('0000:21:00.0', 32, (0, 0), 'gpu0', True)


# Bus 0 is behind the ITS, all others are behind the SMMU.
SMMU = iort((0, 0x100, False), (0x100, 0xff00, True))
MEMORY = srat(affinity(0, 0x20000000, BASE - 0x20000000),
              affinity(1, BASE, SIZE), initiator(2))


class Diagnoses(unittest.TestCase):
    """Tables made with iasl."""

    def analyse(self, asl, srat_=MEMORY, functions=(GPU,), **more):
        """The report about a DSDT in ASL."""
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            source = pathlib.Path(directory) / 'dsdt.asl'
            source.write_text('DefinitionBlock ("", "DSDT", 2, "EGM", "TEST", 1)'
                              f'{{ Scope (\\_SB) {{ {asl} }} }}')
            run = subprocess.run(['iasl', '-f', source], text=True, check=False,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
            self.assertEqual(run.returncode, 0, run.stdout)
            data = source.with_suffix('.aml').read_bytes()
        found = {'DSDT': [data]}
        if srat_:
            found['SRAT'] = [srat_]
        iort_ = more.pop('iort_', SMMU)
        if iort_:
            found['IORT'] = [iort_]
        if 'slit' in more:
            found['SLIT'] = [more.pop('slit')]
        result = report.analyse(found, functions and list(functions), **more)
        self.assertFalse(result.unread)
        return result

    def wrong(self, *messages, **keywords):
        """Exactly these problems, also in the text."""
        asl = keywords.pop('asl', GOOD)
        result = self.analyse(asl, **keywords)
        found = [f.text for f in [*(f for g in result.gpus for f in g.findings),
                                  *result.findings] if f.level == 'problem']
        self.assertEqual(len(found), len(messages), found)
        self.assertIs(result.good, False)
        lines = show.lines(result)
        for message, problem in zip(messages, found):
            self.assertIn(message, problem)
            self.assertTrue(any(line.startswith('problem: ') and
                                line.endswith(problem) for line in lines))

    def test_good(self):
        """Correct tables have no problem."""
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
        self.wrong('matches no PCI function', missing,
                   r'\_SB.PC20.S00 there is no Device with _ADR 0x0',
                   asl=bridge(device('S00', dsd())))
        self.wrong(missing, r'below \_SB.PC20 there is no Device with _ADR 0x0',
                   asl=bridge(''))
        self.wrong(missing, r'\_SB.PC20.S00.S00 has no EGM properties',
                   asl=bridge(device('S00', device('S00', ''))))
        self.wrong('matches no PCI function', missing,
                   'there is no host bridge with bus 0x20',
                   asl=bridge(device('S00', device('S00', dsd())), bus=64))
        self.wrong('matches no PCI function', missing,
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
                   srat_=srat(affinity(0, BASE, SIZE), initiator(2)))
        self.wrong('SRAT has no memory of proximity domain 1', 'no Generic Initiator for it',
                   'there is no SRAT', srat_=None)

    def test_range(self):
        """The range is not inside one Memory Affinity of its domain."""
        message = 'the range is not inside one Memory Affinity'
        half = SIZE // 2
        for entries in ([affinity(1, BASE, SIZE - 4096)],
                        [affinity(1, BASE + 4096, SIZE)],
                        [affinity(1, BASE, half), affinity(1, BASE + half, half)],
                        [affinity(0, BASE, SIZE), affinity(1, 0, BASE)]):
            self.wrong(message, srat_=srat(*entries, initiator(2)))

    def test_disabled(self):
        """A Memory Affinity that is not enabled."""
        self.wrong('SRAT entry #0 is not enabled',
                   srat_=srat(affinity(1, BASE, SIZE, 0), initiator(2)))

    def notes(self, *messages, **keywords):
        """Exactly these notes, also in the text, and no problem."""
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
        self.wrong(r'\_SB.PC20 has _PXM 0: the driver treats the memory of domain 0',
                   asl=bridge(below, pxm=0))
        again = bridge(below, pxm=None) + 'Scope (PC20) { Name (_PXM, %d) }'
        self.assertTrue(self.analyse(again % 1).good)
        self.wrong('has _PXM 2', asl=again % 2)

    def test_other_ram(self):
        """RAM of the node outside of the range: the GPU uses it as EGM as well."""
        message = '0x80000000-0x8fffffff, is RAM of proximity domain 1 outside'
        more = srat(affinity(1, BASE, SIZE), affinity(1, 0x80000000, 0x10000000),
                    initiator(2))
        self.wrong(f'SRAT entry #1, {message}', srat_=more)
        dimm = report.Plugged('DIMM d0', 0x80000000, 0x10000000, 1)
        self.wrong(f'DIMM d0, {message}', plugged=[dimm])
        self.assertTrue(self.analyse(GOOD, plugged=[
            report.Plugged('DIMM d1', 0x80000000, 0x10000000, 0)]).good)
        around = srat(affinity(1, BASE - 4096, SIZE + 8192), initiator(2))
        self.wrong(f'{BASE - 4096:#x}-{BASE - 1:#x}, is RAM',
                   f'{BASE + SIZE:#x}-{BASE + SIZE + 4095:#x}, is RAM',
                   srat_=around)
        self.notes('SRAT entry #1, 0x80000000-0x8fffffff, is room to plug memory',
                   srat_=srat(affinity(1, BASE, SIZE),
                              affinity(1, 0x80000000, 0x10000000, HOT),
                              initiator(2)))

    def test_alignment(self):
        """The base: 2 MiB at least; 512 MiB for guests with 64 KiB pages."""
        def moved(by):
            base = BASE + by
            values = (base, SIZE, 1)
            return {'asl': bridge(device('S00', device('S00', dsd(
                [(k, f'{v:#x}') for (k, _), v in zip(PROPERTIES, values)])))),
                    'slit': slit(4, lambda a, b: 10 if a == b else 80 if 3 in (a, b)
                                 else 40),
                    'srat_': srat(affinity(0, 0x20000000, BASE - 0x20000000),
                                  affinity(2, BASE, by), affinity(1, base, SIZE),
                                  initiator(3))}
        self.wrong('the base 0x40100000 is not a multiple of 2 MiB: the GPU\'s large '
                   'pages break; make the size of node 2, 1 MiB, a multiple of '
                   '2 MiB', **moved(1 << 20))
        self.notes('the base 0x40200000 is not a multiple of 512 MiB: guests with '
                   '64 KiB pages cannot use large pages; make the size of node 2, '
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
        """The GPU's own on a node with RAM, but not others and those of a NIC."""
        ram = affinity(1, BASE, SIZE)
        message = 'Generic Initiator #1 is in proximity domain 1'
        self.wrong(message, srat_=srat(ram, initiator(1)))
        self.wrong('Generic Initiator #1 is in proximity domain 0', srat_=srat(
            affinity(1, BASE, SIZE), initiator(0), affinity(0, 0x20000000, 0x10000000)))
        self.assertTrue(self.analyse(GOOD, srat(ram, initiator(2))).good)
        self.assertTrue(self.analyse(GOOD, srat(
            ram, initiator(2), initiator(1, 0x30))).good)
        self.notes(f'{message}: if it is of this GPU,', functions=None,
                   srat_=srat(ram, initiator(1)))

    def test_no_initiator(self):
        """Without one, or at a place where its driver does not look for it, a GPU does
        not load."""
        ram = affinity(1, BASE, SIZE)
        message = 'SRAT has no Generic Initiator for it: its driver does not load'
        for more in ((), (initiator(2, 0x30),), (initiator(2, flags=0), processor(2))):
            self.wrong(message, srat_=srat(ram, *more))
        self.wrong(message, srat_=srat(ram), functions=None)
        place = report.Function('0000:21:01.0', 32, (0, 0x10000), 'gpu0', True)
        found = self.analyse(bridge(device('S00', device('S08', dsd(), 0x10000))),
                             functions=[place]).gpus[0].findings
        self.assertEqual(len(found), 2, found)
        self.assertIn('it is not device 0, function 0 of its bus', found[0].text)

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
            ram, initiator(2), initiator(3, 0x30, flags=0))).good)

    def test_nodes(self):
        """More domains than the kernel has nodes, or than most kernels have."""
        ram = affinity(1, BASE, SIZE)
        self.wrong('SRAT has 3 proximity domains, and this kernel has 2 nodes',
                   srat_=srat(ram, initiator(2), initiator(3)), nodes=2)
        self.assertTrue(self.analyse(GOOD, srat(ram, initiator(2)), nodes=2).good)
        many = srat(ram, *(initiator(2 + i) for i in range(16)))
        self.notes('SRAT has 17 proximity domains: a kernel with 16 nodes', srat_=many)
        self.assertTrue(self.analyse(GOOD, many, nodes=17).good)

    def test_distances(self):
        """GPU memory that is not farther than DRAM: Linux uses it first."""
        memory = srat(affinity(0, 0x20000000, 0x20000000), affinity(1, BASE, SIZE),
                      initiator(2))

        def distances(gpu):
            return slit(3, lambda a, b: 10 if a == b else gpu if 2 in (a, b) else 40)
        for gpu in 20, 40:
            self.notes(f'to proximity domain 0, the memory of a GPU in domain 2 ({gpu}) is '
                       'not farther than the DRAM of domain 1 (40)', srat_=memory,
                       slit=distances(gpu))
        self.notes(srat_=memory, slit=distances(41))
        self.notes('(20) is not farther than the DRAM of domain 1 (20)', srat_=memory)
        self.notes(srat_=srat(affinity(1, BASE, SIZE), initiator(2)))

    def test_window(self):
        """Room to plug memory in a GPU's own node."""
        self.notes('is room to plug memory into proximity domain 2, which is a GPU\'s own',
                   srat_=srat(affinity(1, BASE, SIZE), initiator(2),
                              affinity(2, 0x80000000, 0x10000000, HOT)))

    def test_smmu(self):
        """The GPU's requester ID is behind an SMMUv3, and its root complex has ATS."""
        memory = srat(affinity(1, BASE, SIZE), initiator(2))
        self.notes(iort_=iort((0x2100, 8, True)), srat_=memory)
        none = 'IORT has no SMMUv3 for gpu0: the driver, in its default mode, may not load'
        for table_ in (iort((0, 0x10000, False)), iort((0x2000, 0x100, True)),
                       iort((0x2101, 0x100, True)), iort(), b'',
                       iort((0, 0x10000, True), segment=1)):
            self.notes(none, iort_=table_, srat_=memory)
        self.notes('IORT has an SMMUv3 without ATS for gpu0',
                   iort_=iort((0, 0x10000, True), ats=False), srat_=memory)
        # Without PCI addresses, the host bridge's bus counts, if there is an IORT.
        without = f'no SMMUv3 for {GOOD_PATH}'
        self.notes(iort_=iort((0x2000, 0x100, True)), functions=None, srat_=memory)
        self.notes(without, iort_=iort((0x2100, 0x100, True)), functions=None,
                   srat_=memory)
        self.notes(iort_=b'', functions=None, srat_=memory)
        self.notes(iort_=iort((0, 0x10000, True), segment=1), functions=[
            report.Function('0001:21:00.0', 0x120, (0, 0), 'gpu0', True)],
                   asl=GOOD.replace('Name (_BBN', 'Name (_SEG, 1) Name (_BBN'),
                   srat_=srat(affinity(1, BASE, SIZE), initiator(2, domain=1)))

    def test_virtual(self):
        """SMBIOS has to say that this is a VM."""
        self.wrong('SMBIOS does not say that this is a VM', virtual=False)
        for value in True, None:
            self.assertTrue(self.analyse(GOOD, virtual=value).good)

    def test_size_zero(self):
        """The driver takes this for: no EGM."""
        zero = (PROPERTIES[0], (PROPERTIES[1][0], '0'), PROPERTIES[2])
        self.wrong('the size is 0', asl=bridge(
            device('S00', device('S00', dsd(zero)))))

    def test_disagree(self):
        """Two GPUs of one node with different ranges."""
        less = (PROPERTIES[0], (PROPERTIES[1][0], '0x1000'), PROPERTIES[2])
        both = bridge(device('S00', device('S00', dsd())) +
                      device('S08', device('S00', dsd(less)), 0x10000))
        second = report.Function('0000:22:00.0', 32, (0x10000, 0), gpu=True)
        self.wrong('is RAM of proximity domain 1 outside',
                   'the GPUs of proximity domain 1 have different ranges',
                   asl=both, functions=(GPU, second), srat_=srat(
                       affinity(1, BASE, SIZE), initiator(2), initiator(3, 0x22)))

    def test_neighbours(self):
        """PCI functions that are not GPUs need no properties."""
        nic = report.Function('0000:22:00.0', 32, (0x10000, 0), 'nic')
        self.assertTrue(self.analyse(GOOD, functions=(GPU, nic)).good)

    def test_map(self):
        """Nodes, what they are for, and holes."""
        lines = show.memory_map(self.analyse(GOOD), {BASE: 'egm4'},
                                  [(BASE + 0x10000, 0x10000)])
        self.assertEqual(lines, [
            '0x000020000000-0x00003fffffff   512 MiB  node 0',
            '0x000040000000-0x00005fffffff   512 MiB  node 1  EGM of gpu0  '
            'on egm4',
            '  0x000040010000-0x00004001ffff  64 KiB  hole'])

    def test_no_gpu(self):
        """There is no empty table."""
        lines = show.lines(report.analyse({'SRAT': [MEMORY]}))
        self.assertEqual(lines[0], 'Guest-physical memory:')
        self.assertIn('problem: no Device has EGM properties', lines)

    def test_types(self):
        """Names of the wrong type are as if they were not there."""
        for old, new, message in (
                ('Name (_BBN, 32)', 'Name (_BBN, "x")', 'with bus 0x20'),
                ('Name (_PXM, 1)', 'Name (_PXM, Package () {1})', 'has no _PXM'),
                ('Name (_ADR, 0x0)', 'Name (_ADR, "x")', 'has no _ADR'),
                ('Name (_CID, "PNP0A03")', 'Name (_CID, Package () { Package () {1} })',
                 None)):
            self.assertIn(old, GOOD)
            result = self.analyse(GOOD.replace(old, new))
            self.assertIs(result.good, message is None)
            self.assertIn(message or '', '\n'.join(show.lines(result)))

    def test_segment(self):
        """PCI segments have bus numbers of their own."""
        function = report.Function('0001:21:00.0', 0x120, (0, 0), 'gpu0', True)
        asl = GOOD.replace('Name (_BBN', 'Name (_SEG, 1) Name (_BBN')
        memory = srat(affinity(1, BASE, SIZE), initiator(2, domain=1))
        self.assertTrue(self.analyse(asl, memory, functions=[function]).good)
        self.assertFalse(self.analyse(GOOD, memory, functions=[function]).good)

    def test_reads_everything(self):
        """The AML reader knows all of QEMU's own tables."""
        paths = list((machine.TREE / 'tests/data/acpi').rglob('*DSDT*'))
        self.assertTrue(paths)
        for path in paths:
            with self.subTest(path=path.name):
                self.assertEqual(aml.read(path.read_bytes())[1], [])


class Damaged(unittest.TestCase):
    """Tables that cannot be read: a GPU is not reported as usable."""

    def read(self, body, srat_=MEMORY, **more):
        """A report about AML."""
        return report.analyse({'DSDT': [table(b'DSDT', body)], 'SRAT': [srat_], **more})

    def unread(self, message, *args, **more):
        """Something that is said not to be read; nothing is good then."""
        result = self.read(*args, **more)
        lines = show.lines(result)
        self.assertTrue(any(line.startswith('unread: ') and message in line
                            for line in lines), lines)
        self.assertIsNot(result.good, True)
        self.assertNotIn(True, [result.usable(gpu) for gpu in result.gpus])

    def test_overlapping_packages(self):
        """An item that ends behind its package would be read again, and again."""
        for count in 30, 100:
            self.unread('cannot read all', b'\x08AAAA' +
                        b'\x12\x0a\x01\x12\x03\x01' * count + bytes(20))

    def test_deep(self):
        """Packages and scopes that are nested deeper than Python's stack."""
        self.unread('a length at offset', b'\x08AAAA' + b'\x12\x12\x01' * 2000)
        for kind, inner in ((b'\x12', b'\x01'), (b'\x10', b'AAAA')):
            body = b''
            for _ in range(500):
                length = len(body) + len(inner) + 3
                body = kind + bytes([0x80 | length & 15, length >> 4 & 255,
                                     length >> 12]) + inner + body
            self.unread('nested too deep', (b'\x08AAAA' if kind == b'\x12' else b'') + body)

    def test_unknown(self):
        """An opcode that is not known, in the middle of the golden table: a GPU may be
        in what follows."""
        golden = (GOLDEN / 'DSDT.egmgi').read_bytes()[36:]
        memory = (GOLDEN / 'SRAT.egmgi').read_bytes()
        self.assertIs(self.read(golden, memory).good, True)
        self.unread('opcode 0xfe', golden + b'\xfe', memory)
        self.unread('a name at offset', golden + b'\x08ab\x1b[\x00', memory)
        self.unread('the end of what is', golden + b'\x08', memory)
        self.unread('more parts like these', golden + b'\x10\x06_SB_\xfe' * 99, memory)

    def test_srat(self):
        """Entries that are cut off, or of a wrong length."""
        golden = (GOLDEN / 'DSDT.egmgi').read_bytes()[36:]
        memory = (GOLDEN / 'SRAT.egmgi').read_bytes()
        for tail in (b'\x01', b'\x01\x00', b'\x01\x28' + bytes(30),
                     b'\x05\x08' + bytes(6)):
            self.unread('cannot read all of SRAT: entry #', golden, memory + tail)
        self.unread('more than 4096 entries', golden, memory + b'\x07\x02' * 5000)
        self.unread('cannot read SLIT', golden, memory, SLIT=[table(b'SLIT', b'\xff' * 8)])

    def test_iort(self):
        """Nodes and mappings that are cut off, of a wrong length, or too many."""
        golden = (GOLDEN / 'DSDT.egmgi').read_bytes()[36:]
        memory = (GOLDEN / 'SRAT.egmgi').read_bytes()
        whole = iort((0, 0x10000, True))
        self.assertIs(self.read(golden, memory, IORT=[whole]).good, True)
        for damaged, message in (
                (whole[:40], 'it is cut off'),
                (whole[:-1], 'node #2, at offset 0x8c, has a wrong length'),
                (whole[:36] + b'\x04' + whole[37:], 'it is cut off'),
                (whole[:36] + b'\xff\xff' + whole[38:], 'it has more than 4096 nodes'),
                (whole[:49] + bytes(2) + whole[51:], 'node #0, at offset 0x30, has a wrong'),
                (whole[:148] + b'\xff' * 4 + whole[152:], 'a node has more than 4096 ID mappings'),
                (whole[:148] + b'\x02' + whole[149:], 'it is cut off')):
            self.unread(f'cannot read all of IORT: {message}', golden, memory, IORT=[damaged])

    def test_many(self):
        """A report takes a limited number of GPUs."""
        functions = [report.Function(f'0000:{i:02x}:00.0', i, (0,), gpu=True)
                     for i in range(257)]
        with self.assertRaisesRegex(ValueError, 'there are 257 GPUs'):
            report.analyse({}, functions)

    def test_control_characters(self):
        """Names from the guest do not reach the terminal as they are."""
        function = report.Function('0000:21:00.0', 32, (0, 0), 'gpu\x1bc\n', True)
        text = '\n'.join(show.lines(report.analyse({}, [function])))
        self.assertIn('gpu?c?', text)
        self.assertNotIn('\x1b', text)

    def test_anything(self):
        """Damaged tables, some of each kind: no traceback, no hang."""
        for seed in range(200):
            with self.subTest(seed=seed):
                fuzz.check_tables(seed)


class Linux(unittest.TestCase):
    """Made-up /sys and /proc of a guest."""

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

    def test_odd_functions(self):
        """Domains of more than four digits, and files that hold something else."""
        self.add('pci10000:e0/10000:e0:00.0', 0x10de, 0x030200)
        self.add('virtual/odd', 0x10de, 0x030200)
        self.add('pci0000:20/0000:20:01.0', 0x10de, 0x030200)
        (self.root / 'sys/devices/pci0000:20/0000:20:01.0/class').write_text('text')
        self.assertEqual([(f.address, f.root, f.gpu)
                          for f in guestinfo.pci_functions(self.root)],
                         [('0000:20:01.0', 0x20, False), ('10000:e0:00.0', 0x10000e0, True)])

    def test_virtual(self):
        """SMBIOS type 0: the bit of its second extension byte."""
        other = bytes([1, 6, 0, 0, 1, 1]) + b'text\0\0'
        bios = bytes(2) + b'text\0\0'

        def dmi(extension, length=0x18):
            entry = bytearray(length)
            entry[:2] = 0, length
            if length > 0x13:
                entry[0x13] = extension
            return other + bytes(entry) + bios[2:] + bytes([127, 4, 0, 0, 0, 0])
        path = self.root / 'sys/firmware/dmi/tables/DMI'
        path.parent.mkdir(parents=True)
        for data, expected in ((dmi(0x1c), True), (dmi(0x0c), False),
                               (dmi(0, 0x12), False), (other, None), (b'', None),
                               (b'\0', None), (bytes(99), None), (dmi(0x1c)[:14], None)):
            path.write_bytes(data)
            self.assertIs(guestinfo.virtual(self.root), expected, data)

    def test_virtual_in_memory(self):
        """The entry point leads to the structures; others are tried, not for ever."""
        structures = bytes([0, 0x18]) + bytes(17) + b'\x1c' + bytes(4) + b'\0\0'
        entry = checked(struct.pack('<5sBBBBBBBIQ', b'_SM3_', 0, 24, 3, 0, 0, 1, 0,
                                    len(structures), 0x1000), 5)
        asked = []

        def read(address, length):
            asked.append(address)
            if address != 0x1000:
                raise ValueError('none')
            return structures[:length]
        self.assertIs(smbios.find_in_memory(b'_SM3_' + entry, read), True)
        self.assertIsNone(smbios.find_in_memory(entry[:-1], read))
        wrong = checked(entry[:16] + b'\0' * 8, 5)
        self.assertIs(smbios.find_in_memory(wrong + entry, read), True)
        asked.clear()
        self.assertIsNone(smbios.find_in_memory(wrong * 10000 + entry, read))
        self.assertLess(len(asked), 100)

    def test_nodes(self):
        """How many nodes the kernel has, from a list of ranges."""
        self.assertIsNone(guestinfo.nodes(self.root))
        self.assertIsNone(guestinfo.virtual(self.root))
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
        self.assertEqual((found['DSDT'], found['SRAT']), ([dsdt], [srat_]))

    def test_torn(self):
        """Other data is not used as a table."""
        dsdt = table(b'DSDT', b'')
        for args, keywords, message in (
                ((table(b'SSDT', b''),), {}, 'no ACPI table at 0x40000040'),
                ((dsdt,), {'xsdt_name': b'XXXX'}, 'no ACPI table'),
                ((dsdt,), {'xsdt_tail': b'1234'}, 'ends within an address'),
                ((dsdt,), {'fadt_size': 116}, 'no FADT of ACPI 2.0'),
                ((dsdt, table(b'SRAT', b''), table(b'SRAT', b'')), {}, 'two SRAT'),
                ((dsdt, *[table(b'SSDT', b'')] * 256), {}, 'more than 256 tables'),
                ((dsdt[:-1] + b'1',), {}, 'no ACPI table at 0x40000040')):
            with self.assertRaisesRegex(ValueError, message):
                self.read(*args, **keywords)


# virsh qemu-monitor-command --domain DOMAIN [--pass-fds N] REQUEST
VIRSH = """#!%s
import array, json, socket, sys
words = sys.argv[1:]
assert words[:2] == ['qemu-monitor-command', '--domain'], words
if words[2] != 'guest':
    sys.exit('error: no such domain')
more = []
if words[3] == '--pass-fds':
    more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [int(words[4])]))]
assert len(words) == 4 + 2 * len(more), words
with socket.socket(socket.AF_UNIX) as qmp:
    qmp.connect('%s')
    file = qmp.makefile()
    file.readline()
    for request, rights in (json.dumps({'execute': 'qmp_capabilities'}), []), \\
            (words[-1], more):
        qmp.sendmsg([request.encode()], rights)
        answer = file.readline()
        while 'event' in json.loads(answer):
            answer = file.readline()
print(answer)
"""


class Command(unittest.TestCase):
    """tools/egm-report."""

    def run_it(self, *args, **keywords):
        """Exit status and output."""
        run = subprocess.run([TOP / 'tools/egm-report', *args], text=True,
                             check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, timeout=machine.LIMIT, **keywords)
        self.assertNotIn('Traceback', run.stdout)
        return run.returncode, run.stdout

    def test_files(self):
        """Golden tables of this project are good; mixed up, they are not."""
        files = GOLDEN / 'DSDT.egmgi', GOLDEN / 'SRAT.egmgi'
        status, text = self.run_it(*files)
        self.assertEqual(status, 0, text)
        self.assertEqual(text.count(' yes\n'), 1)
        status, text = self.run_it(files[0], GOLDEN / 'SRAT.egmroot')
        self.assertEqual(status, 1)
        self.assertIn('problem: ', text)
        # The README shows this.
        self.assertIn(''.join(f'    {line}'.rstrip() + '\n' for line in text.splitlines()),
                      (TOP / 'README.md').read_text())

    def test_json(self):
        """The man page has what programs get."""
        status, text = self.run_it('--json', GOLDEN / 'DSDT.egmgi', GOLDEN / 'SRAT.egmgi')
        self.assertEqual(status, 0)
        page = (TOP / 'tools/egm-report.1').read_text()
        self.assertEqual(json.loads(re.search(r'^\.EX\n(\{.*?^\})\n\.EE', page,
                                              re.M | re.S)[1]
                                    .replace('\\-', '-').replace('\\e', '\\')),
                         json.loads(text))
        status, text = self.run_it('--json', GOLDEN / 'DSDT.egmgi', GOLDEN / 'SRAT.egmroot')
        found = json.loads(text)
        self.assertEqual((status, found['usable'], found['gpus'][0]['usable']),
                         (1, False, False))
        self.assertEqual([(f['id'], f['level']) for f in found['gpus'][0]['findings']],
                         [('gpu-initiators', 'problem')])

    def wrong_file(self, message, *files):
        """An error, and exit status 2."""
        for form in (), ('--json',):
            status, text = self.run_it(*form, *files)
            self.assertEqual(status, 2, text)
            self.assertRegex(text, f'^error: .*{re.escape(message)}.*\n$')

    def test_wrong_files(self):
        """Files that are damaged, are not tables, or are of the same kind."""
        dsdt, memory = GOLDEN / 'DSDT.egmgi', GOLDEN / 'SRAT.egmgi'
        data = dsdt.read_bytes()
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            path = pathlib.Path(directory) / 'file'

            def write(text):
                path.write_bytes(text)
                return path
            for length in range(36, len(data), 97):
                self.wrong_file(f'DSDT has {length} bytes, and its header says {len(data)}',
                                write(data[:length]), memory)
            self.wrong_file(f'has {len(data) + 1} bytes', write(data + b'\0'), memory)
            self.wrong_file('wrong checksum', write(data[:-1] + bytes([data[-1] ^ 1])),
                            memory)
            self.wrong_file('there are two DSDT', dsdt, dsdt, memory)
            for text in b'', b'x' * 35, b'root:x:0:0:root' * 9, b'DSDT', b'\x1b[2J' * 9:
                self.wrong_file('', write(text))
            self.wrong_file('not an ACPI table', write(b'root:x:0:0:root' * 9))
            self.wrong_file('no table of DSDT, SSDT, SRAT, SLIT',
                            write(table(b'FACP', b'')))
            self.wrong_file('has no ACPI tables', directory)
            self.wrong_file('/dev/null is not a file', '/dev/null')
            path.unlink()
            os.mkfifo(path)
            self.wrong_file('is not a file', path)
            # Others of a machine's tables are as good.
            path.unlink()
            self.assertEqual(self.run_it(write(table(b'FACP', b'')), dsdt, memory)[0], 0)
            self.assertEqual(self.run_it(write(b'FACS' + bytes(60)), dsdt, memory)[0], 0)

    def test_options(self):
        """Those without effect are refused, and abbreviated ones."""
        for message, *args in (
                ('--rsdp needs --qmp or --libvirt', '--rsdp', '5'),
                ("'x' is not an address", '--qmp', 's', '--rsdp', 'x'),
                ('from files or from a running VM', '--qmp', 's', GOLDEN / 'DSDT.egmgi'),
                ('not allowed with argument', '--qmp', 's', '--libvirt', 'd'),
                ('--qmp is given twice', '--qmp', 's', '--qmp', 't'),
                ('unrecognized arguments: --js', '--js')):
            status, text = self.run_it(*args)
            self.assertEqual(status, 2, text)
            self.assertIn(message, text)

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
            self.assertIn('/nonexistent', text)

    def serve(self, *messages):
        """A socket on which somebody answers with these, then nothing; gives its path."""
        directory = tempfile.TemporaryDirectory(prefix='egm-report-')
        self.addCleanup(directory.cleanup)
        path = f'{directory.name}/qmp'
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()

        def answer():
            with contextlib.suppress(OSError):
                client = server.accept()[0]
                self.addCleanup(client.close)
                for message in messages:
                    client.sendall(message)
                if messages and not messages[-1]:
                    client.close()
        threading.Thread(target=answer, daemon=True).start()
        return path

    def test_silent_socket(self):
        """A socket that another program uses, and a socket that is not QEMU's."""
        greeting = b'{"QMP": {}}\n'
        for messages, expected in (
                ((), 'no answer for 5 s: is another program connected to this socket?'),
                ((b'{}\n',), 'is not a QMP socket'),
                ((b'SSH-2.0\n',), "QEMU's answer is not valid"),
                ((b'[1]\n',), "QEMU's answer is not valid"),
                ((greeting, b''), 'QEMU closed the connection'),
                ((greeting, b'{"return": {}}\n{"return": [{}]}\n'),
                 "unknown answer of QEMU: KeyError('holes')"),
                ((greeting, b'{"event": "X"}\n{"error": {"desc": "no"}}\n'),
                 'qmp_capabilities: no')):
            path = self.serve(*messages)
            status, text = self.run_it('--qmp', path)
            self.assertEqual(status, 2, text)
            self.assertIn(expected, text)
            self.assertTrue(text.startswith(f'error: {path}'), text)

    def installed(self, *names, nodes=1):
        """Ask a stopped VM in whose memory there are these golden tables: exit
        status and output, without and with the address of the RSDP."""
        at = BASE + (511 << 20)
        memory = image_of(at, *((GOLDEN / f'{name}.egmroot').read_bytes()
                                for name in names))
        with tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            image, path = (pathlib.Path(directory, n) for n in ('image', 'qmp'))
            image.write_bytes(memory)
            numa = (option for n in range(nodes)
                    for option in ('-object', f'memory-backend-ram,id=m{n},size='
                                   f'{512 // nodes}M',
                                   '-numa', f'node,nodeid={n},memdev=m{n}'))
            with machine.Machine([
                    '-S', '-machine', 'virt', '-m', '512M', *numa,
                    '-qmp', f'unix:{path},server=on,wait=off',
                    '-device', f'loader,file={image},addr={at:#x},'
                    'force-raw=on']):
                return [self.run_it('--qmp', path, *where)
                        for where in ((), ('--rsdp', hex(at)))]

    def test_some_tables(self):
        """Firmware that has not installed all of its tables yet."""
        for status, text in self.installed('DSDT'):
            self.assertEqual(status, 2, text)
            self.assertIn('the firmware has not installed its tables yet', text)
        for status, text in self.installed('DSDT', 'SRAT'):
            self.assertEqual(status, 1, text)
            self.assertIn('problem: ', text)
            self.assertNotIn('there is no SRAT', text)
        # Nor will there be one.
        for status, text in self.installed('DSDT', nodes=0):
            self.assertEqual(status, 1, text)
            self.assertIn('problem: there is no SRAT', text)

    def vm(self, zero, path, nodes):
        """A stopped VM with a GPU on its last node, which is an EGM device whose
        retired pages kill QEMU when it touches them. nodes: sizes in MiB"""
        medium = machine.TREE / \
            'tests/data/uefi-boot-images/bios-tables-test.aarch64.iso.qcow2'
        last = len(nodes) - 1
        ram = [f'memory-backend-ram,id=m{n},size={size}M' if n < last else
               f'memory-backend-file,id=m{n},size={size}M,share=on,'
               f'mem-path={zero.path}' for n, size in enumerate(nodes)]
        return machine.Machine([
            '-S', '-machine', 'virt', '-cpu', 'cortex-a57', '-m', f'{sum(nodes)}M',
            '-smp', str(len(nodes)), '-qmp', f'unix:{path},server=on,wait=off',
            '-drive', 'if=pflash,format=raw,readonly=on,file='
            f'{BUILD}/pc-bios/edk2-aarch64-code.fd',
            '-drive', f'if=none,id=cd,readonly=on,file={medium}',
            '-device', 'virtio-blk-pci,drive=cd,bus=pcie.0,bootindex=1',
            *(option for n, backend in enumerate(ram) for option in (
                '-object', backend, '-numa', f'node,nodeid={n},memdev=m{n}')),
            '-device', f'pxb-pcie,id=pxb,bus=pcie.0,bus_nr=32,numa_node={last}',
            '-device', 'pcie-root-port,id=rp0,bus=pxb,chassis=1',
            '-device', 'pci-testdev,id=gpu0,bus=rp0',
            '-numa', f'node,nodeid={last + 1}',
            '-object', f'acpi-generic-initiator,id=gi0,pci-dev=gpu0,node={last + 1}',
            '-object', f'acpi-egm-memory,id=egm0,pci-dev=gpu0,node={last}'],
            environment={**zero.environment, 'EGM_GUARD': 'yes'})

    def ask(self, nodes, *retired, more=None):
        """Ask a VM until its UEFI has come far enough; gives the output. more: is
        called with the path of its socket then"""
        with standin.Zero() as zero, \
                tempfile.TemporaryDirectory(prefix='egm-report-') as directory:
            zero.retire(*retired)
            path = f'{directory}/qmp2'
            with self.vm(zero, path, nodes) as vm:
                status, text = self.run_it('--qmp', path)
                self.assertEqual(status, 2, text)
                self.assertTrue(text.startswith(f'error: {path}: there is no ACPI RSDP'),
                                text)
                vm.cmd('cont')
                text = vm.until('tables of UEFI', lambda: (
                    lambda answer: answer[1] if answer[0] < 2 else None)(
                        self.run_it('--qmp', path)))
                if more:
                    more(path)
                self.assertTrue(vm.is_running())
            self.assertIn(' yes\n', text)
            self.assertEqual(vm.exitcode(), 0, vm.get_log())
        return text

    def test_qmp(self):
        """A VM before and after its UEFI has installed its tables."""
        text = self.ask([512], more=self.ask_virsh)
        self.assertRegex(text, r'gpu0 +\\_SB\.PC20\.S00\.S00 +0000:21:00\.0 +'
                         r'0x40000000-0x5fffffff +512 MiB +0 +#1 +yes')
        self.assertRegex(text, 'EGM of gpu0  on (zero|1:5)')

    def ask_virsh(self, path):
        """The same by virsh: here a script that does what it does, pass a request and
        a descriptor to QEMU."""
        script = pathlib.Path(path).with_name('virsh')
        script.write_text(VIRSH % (sys.executable, str(path)))
        script.chmod(0o755)
        environment = {**os.environ, 'PATH': f'{script.parent}:{os.environ["PATH"]}'}
        direct = self.run_it('--qmp', path, '--json')
        self.assertEqual(self.run_it('--libvirt', 'guest', '--json', env=environment),
                         direct)
        self.assertEqual(direct[0], 0, direct)
        # UEFI's SMBIOS says that this is a VM.
        monitor = running.Socket(path)
        with monitor.socket, running.Memory(monitor, set()) as memory:
            self.assertIs(running.read_tables(memory)[1], True)
        status, text = self.run_it('--libvirt', 'other', env=environment)
        self.assertEqual((status, text), (2, 'error: other: virsh: no such domain\n'))
        status, text = self.run_it('--libvirt', 'guest', env={
            **os.environ, 'PATH': '/usr/bin' if not shutil.which('virsh', path='/usr/bin')
            else '/nonexistent'})
        self.assertEqual((status, text), (
            2, 'error: guest: virsh: No such file or directory\n'))

    @unittest.skipUnless(os.getuid() == 0, 'only root can start a VM of another user')
    def test_other_user(self):
        """A VM of another user in a mount namespace of its own, as libvirt's are."""
        with tempfile.TemporaryDirectory(prefix='egm-report-', dir='/var/tmp') as directory:
            os.chmod(directory, 0o777)
            path = f'{directory}/qmp'
            # By a descriptor: the other user may not get to the file by its path, nor the
            # namespace, which has a /tmp of its own.
            program = os.open(BUILD / 'qemu-system-aarch64', os.O_RDONLY)
            self.addCleanup(os.close, program)
            with subprocess.Popen(
                    ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /tmp && '
                     'exec setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$@"',
                     'sh', f'/proc/self/fd/{program}', '-S', '-machine', 'virt', '-m',
                     '512M', '-nodefaults', '-no-user-config', '-display', 'none', '-qmp',
                     f'unix:{path},server=on,wait=off'], stdout=subprocess.DEVNULL,
                    pass_fds=[program]) as vm:
                self.addCleanup(vm.kill)
                # egm-report waits for 5 seconds, in which a busy machine may not start a VM.
                process.monitor(path, vm).socket.close()
                status, text = self.run_it('--qmp', path)
                vm.kill()
        # It has read the memory, and found nothing there.
        self.assertEqual(status, 2, text)
        self.assertIn('there is no ACPI RSDP in 0x5c000000-0x5fffffff', text)

    def test_retired(self):
        """Pages that would end QEMU are not touched, however many."""
        text = self.ask([512], *((n << 20, 1) for n in range(320, 512)))
        self.assertEqual(text.count(' hole\n'), 192)

    def test_retired_elsewhere(self):
        """UEFI starts in the first node, whatever the last one is."""
        text = self.ask([256, 512], *((n << 24, 1) for n in range(1, 32)))
        self.assertIn(' hole\n', text)
