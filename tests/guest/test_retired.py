# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Linux guest never touches retired pages.

The EGM device is a stand-in: /dev/zero with a list of retired pages. These have
a pattern, which must be there after the guest has written to all of its memory.
"""

import random

from lib import MIB, RAM_BASE, fdt, standin
from guest.guest import BLOCK, Guest
from guest.test_guest import Base, Case, devices, egm, gpu, port, pxb

PAGE = 4 << 10
POISON = 0x7265746972656421


def blocks(ranges, base):
    """The blocks of guest RAM that contain ranges of a region."""
    return sorted({base + n * BLOCK for offset, size in ranges for n in
                   range(offset // BLOCK, (offset + size - 1) // BLOCK + 1)})


class Retired(Base):
    """Boots, with pages retired in one of two nodes."""

    def setUp(self):
        super().setUp()
        self.zero = standin.Zero()
        self.zero.__enter__()
        self.addCleanup(self.zero.__exit__)

    def start(self, size, poisoned, *, kernel=None, name='', first=512,
              uefi=True):
        """A machine with FIRST MiB of ordinary RAM, then SIZE MiB of EGM."""
        nodes = [(first, f'{self.tmp.name}/m0')] if first else []
        nodes.append((size, self.zero.path))
        args = ['-machine', 'virt,gic-version=3', '-m', f'{first + size}M',
                '-smp', f'{len(nodes)},sockets={len(nodes)}']
        for n, (mib, path) in enumerate(nodes):
            args += ['-object', f'memory-backend-file,id=m{n},size={mib}M,'
                     f'share=on,prealloc=on,mem-path={path}',
                     '-numa', f'node,nodeid={n},memdev=m{n},cpus={n}']
        if uefi:        # Only ACPI tables describe EGM.
            args += self.gpu(len(nodes) - 1)
        for block in poisoned:
            for offset in (0, BLOCK // 2, BLOCK - 8):
                args += ['-device', f'loader,addr={block + offset:#x},'
                         f'data={POISON:#x},data-len=8']
        return Guest(kernel or self.kernel, args, self.keep / name, uefi=uefi,
                     environment=self.zero.environment)

    @staticmethod
    def gpu(where):
        """A GPU whose EGM is the node WHERE."""
        return devices(pxb('pxb0', 32), port('rp0', 'pxb0'),
                       gpu(0, 'rp0')) + egm(where)

    def case(self, size):
        """The expected contents of the guest's tables: the whole region."""
        return Case([], {'0000:21:00.0': (r'\_SB_.PC20.S00_.S00_', 1)},
                    sizes=(512, size))

    @staticmethod
    def peek(vm, block):
        """A block of guest memory, even if QEMU refuses to save it."""
        text = vm.hmp(f'xp /{BLOCK // 8}xg {block:#x}')
        return b''.join(int(word, 16).to_bytes(8, 'little') for line in
                        text.splitlines() for word in line.split()[1:])

    def untouched(self, guest, poisoned):
        """The block has only the pattern."""
        wanted = bytearray(BLOCK)
        for offset in (0, BLOCK // 2, BLOCK - 8):
            wanted[offset:offset + 8] = POISON.to_bytes(8, 'little')
        for block in poisoned:
            self.assertEqual(self.peek(guest.vm, block), bytes(wanted), hex(block))

    def look(self, guest, holes, poisoned=None):
        """The guest has no RAM in the holes, and the rest of RAM works."""
        seen = guest.ram()
        for block in holes:
            self.assertEqual(seen.touches(block), [], hex(block))
        if poisoned is not None:
            line, = guest.command('fill')
            filled = int(line.split()[1])
            # Linux keeps a reserve.
            self.assertGreater(filled, seen.free * 0.9)
            self.untouched(guest, poisoned)
        return seen

    def described(self, guest):
        """The amount of RAM in the device tree, in bytes."""
        return sum(size for _, size, _ in fdt.memory(guest.vm.device_tree()))

    def boot(self, ranges, size=512, **keywords):
        """Boot with retired pages, and fill memory; return the RAM that the guest found."""
        holes = blocks(ranges, RAM_BASE + keywords.get('first', 512) * MIB)
        self.zero.retire(*ranges)
        with self.start(size, holes, **keywords) as guest:
            guest.boot()
            seen = self.look(guest, holes, holes)
            if keywords.get('uefi', True):
                self.assertTrue(seen.efi)
                self.verify(self.case(size), guest.report(), guest)
            seen.described = self.described(guest)
            return seen

    SHAPES = ((0, 1), (4 * MIB, BLOCK), (4 * MIB + BLOCK, PAGE),    # adjacent
              (100 * MIB + 60 * 1024, 2 * PAGE),                    # two blocks
              (512 * MIB - 1, 1))

    def test_holes(self):
        """Holes at start, middle and end of a node; the rest is complete."""
        whole = self.boot((), name='whole')
        holed = self.boot(self.SHAPES, name='holed')
        self.assertTrue(whole.touches(RAM_BASE + 512 * MIB))
        lost = whole.total - holed.total
        self.assertGreater(lost, 0)
        self.assertLess(lost, len(blocks(self.SHAPES, 0)) * BLOCK + MIB)

    def test_big_pages(self):
        """Another kernel, with 16 KiB pages."""
        self.boot(self.SHAPES, kernel='6.12-16k')

    def test_without_uefi(self):
        """A kernel that QEMU loads, and that boots by device tree."""
        self.boot([(n * MIB, PAGE) for n in (1, 100, 400)], first=0,
                  uefi=False)

    def test_most(self):
        """The maximum number of holes: the guest loses only memory that QEMU reports."""
        size = 1024
        draw = random.Random(1)
        ranges = [(4 * n * BLOCK, BLOCK)
                  for n in draw.sample(range(size * MIB // BLOCK // 4), 768)]
        self.zero.retire(*ranges)
        with self.start(size, ()) as guest:
            guest.boot()
            described = self.described(guest)
            seen = self.look(guest, blocks(ranges, RAM_BASE + 512 * MIB), ())
        self.assertEqual(described, (512 + size) * MIB - len(ranges) * BLOCK)
        # The kernel, and its data about memory, use some of the RAM.
        self.assertGreater(seen.total, described - 128 * MIB)
        self.assertGreater(len(seen.iomem), 700)

    def test_grows(self):
        """A page that goes bad is a hole from the next boot on."""
        first, second = (4 * MIB, PAGE), (300 * MIB, PAGE)
        base = RAM_BASE + 512 * MIB
        self.zero.retire(first)
        with self.start(512, ()) as guest:
            guest.boot()
            before = guest.report()
            seen = self.look(guest, blocks([first], base))
            self.assertTrue(seen.touches(base + second[0]))
            self.zero.retire(first, second)
            guest.send('reboot')
            guest.boot()
            self.look(guest, blocks([first, second], base), ())
            self.assertTrue(guest.report().same(before))
