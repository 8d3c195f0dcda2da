# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of /dev/egmX in a guest: it makes the devices from our tables.

A guest can pass its GPUs on to guests of its own. Its kernel leaves the EGM nodes
alone (mem=), and the stand-in for the driver finds their addresses in _DSD.
"""

import mmap
import os
import re
import shutil
import tempfile
import unittest

from lib import BUILD, MIB, RAM_BASE
from guest.guest import Guest, pattern
from guest.test_guest import devices, edu, egm, gpu, port, pxb, ram

# Node 0 is the kernel's. GPUs 0 and 1 belong to node 1, GPU 2 belongs to node 2.
SIZES = 512, 256, 128
MACHINE = [
    '-machine', 'virt,gic-version=3',
    *devices(pxb('pxb0', 32, 1), port('rp0', 'pxb0', '0'), port('rp1', 'pxb0', '1'),
             port('rp2', 'pxb0', '2'), pxb('pxb1', 64, 2), port('rp3', 'pxb1'),
             gpu(0, 'rp0'), gpu(1, 'rp1'), edu('rp2'), gpu(2, 'rp3')),
    *egm(1, 1, 2)]
# For a kernel that leaves the EGM nodes alone, from its own image on
ALONE = f'mem={SIZES[0]}M nokaslr'
REGIONS = {'egm1': (256 * MIB, ['0000:21:00.0', '0000:22:00.0']),
           'egm2': (128 * MIB, ['0000:41:00.0'])}


class Driver(unittest.TestCase):
    """The generations of the driver, as in the stand-in's README."""

    kernel = '6.12-16k'

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-driver-')
        self.addCleanup(self.tmp.cleanup)
        self.keep = BUILD / 'guest' / self.id().split('.', 1)[1]
        shutil.rmtree(self.keep, ignore_errors=True)

    def guest(self, append):
        """A guest with these words on its kernel's command line, not yet started."""
        return Guest(self.kernel, ram(self.tmp.name, SIZES) + MACHINE, self.keep,
                     append=append)

    def regions(self, guest, options=''):
        """The devices that the driver creates: size and GPUs by name."""
        found = {}
        for line in guest.command(f'driver {options}'):
            match = re.fullmatch(r'region (egm(\d+)) size 0x([0-9a-f]+) '
                                 r'dev \d+:(\d+) mode 600 gpus ?(.*)', line)
            self.assertTrue(match, line)
            self.assertEqual(match[2], match[4])
            found[match[1]] = int(match[3], 16), match[5].split()
        return found

    def file(self, node):
        """The contents of the file of a node."""
        with open(f'{self.tmp.name}/m{node}', 'r+b') as file:
            return mmap.mmap(file.fileno(), 0)

    def written(self, guest, name, length, size):
        """Data written to a device is in the file of its node, and the rest is clear,
        because opening the device clears it.
        """
        with self.file(name[3:]) as memory:
            memory[size:2 * size] = os.urandom(size)
            offsets = [0, length // 2 + 3 * size, length - size]
            self.assertEqual(
                guest.command(f'write /dev/{name} {length} {" ".join(map(str, offsets))}'),
                [f'written {offset}' for offset in offsets])
            at = 0
            for offset in offsets:
                self.assertEqual(memory[at:offset], bytes(offset - at))
                self.assertEqual(memory[offset:offset + size], pattern(size))
                at = offset + size
            self.assertEqual(at, length)

    def test_devices(self):
        """A device for each domain, if the driver's generation accepts our tables."""
        with self.guest(ALONE) as guest:
            guest.boot()
            self.assertEqual(self.regions(guest), REGIONS)
            size = guest.report().page_size
            for name, (length, _) in REGIONS.items():
                with self.subTest(name):
                    self.written(guest, name, length, size)
            # Without a GPU that is bound to vfio, there is no region. C also requires a
            # list of retired pages, which our tables do not have.
            for driver in 'BC':
                with self.subTest(driver):
                    self.assertEqual(self.regions(guest, f'driver={driver}'), {})
            with self.subTest('four domains are as many as it takes'):
                where = ','.join(f'{RAM_BASE + (SIZES[0] + n) * MIB:#x}' for n in (0, 1))
                options = f'base={where} size=0x10000,0x10000 pxm='
                refused, = guest.command(f'driver {options}1,5')
                self.assertIn('Invalid', refused)
                self.assertEqual(list(self.regions(guest, f'{options}1,4')),
                                 ['egm1', 'egm4'])

    def test_node_in_use(self):
        """The kernel uses the node as RAM, so it must not become a device."""
        with self.guest('') as guest:
            guest.boot()
            refused, = guest.command('driver')
            self.assertIn('Invalid', refused)
