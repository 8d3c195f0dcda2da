# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU with retired pages, up to the device tree for the guest.

The EGM device is a stand-in (egm_zero.c). tests/guest/ boots Linux on it.
"""

import contextlib
import os
import pathlib
import struct
import tempfile
import unittest

from lib import BUILD, KIB, MIB, RAM_BASE, fdt, machine, process, standin

BLOCK = 64 * KIB
RAM_SIZE = 512 * MIB
LIMIT = 768


def holes_of(ranges, base=RAM_BASE, size=RAM_SIZE):
    """Ranges of a region as blocks of guest RAM: merged (start, end)."""
    blocks = set()
    for offset, length in ranges:
        end = min(offset + length, size)
        if length and offset < size:
            blocks.update(range(offset // BLOCK, (end + BLOCK - 1) // BLOCK))
    result = []
    for block in sorted(blocks):
        start = base + block * BLOCK
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], start + BLOCK)
        else:
            result.append((start, start + BLOCK))
    return result


def pieces(holes, base=RAM_BASE, size=RAM_SIZE, node=0):
    """The remaining RAM of a node, in the form of fdt.memory()."""
    edges = [base, *(min(max(edge, base), base + size) for hole in holes
                     for edge in hole), base + size]
    return [(start, end - start, node)
            for start, end in zip(edges[::2], edges[1::2]) if end > start]


class Retired(unittest.TestCase):
    """QEMU without a guest; the tests read its memory from outside."""

    FLASH = ('-drive', 'if=pflash,format=raw,readonly=on,file='
             f'{BUILD}/pc-bios/edk2-aarch64-code.fd')

    def setUp(self):
        self.zero = standin.Zero()
        self.enterContext(self.zero)

    def machine(self, *args, ram=None):
        """A VM with one node on the device, or with the nodes of RAM."""
        return machine.Machine(
            ['-machine', 'virt,gic-version=3', '-cpu', 'cortex-a57', '-accel', 'qtest',
             *(ram or self.ram()), *args],
            environment={**self.zero.environment, 'EGM_GUARD': 'yes'})

    def ram(self, node=0, size=RAM_SIZE):
        """Options for a node on the device, which must be the last node."""
        return ['-m', f'{size * (node + 1) // MIB}', '-object',
                f'memory-backend-file,id=m{node},mem-path={self.zero.path},'
                f'size={size},share=on,prealloc=on',
                '-numa', f'node,nodeid={node},memdev=m{node}']

    def device_tree(self, vm):
        """RAM in the device tree; both copies of the tree must have the same."""
        dumped = fdt.memory(vm.device_tree())
        self.assertEqual(fdt.memory(vm.memory(RAM_BASE, MIB)), dumped)
        return dumped

    def check(self, *ranges):
        """The ranges become the expected holes; return QEMU's output."""
        self.zero.retire(*ranges)
        with self.machine() as vm:
            self.assertEqual(self.device_tree(vm), pieces(holes_of(ranges)))
        return vm.get_log()

    def refused(self, *args):
        """QEMU does not start; return its output."""
        with self.assertRaisesRegex(RuntimeError, 'did not start') as caught, \
                self.machine(*args):
            pass
        return str(caught.exception)

    def reset_ends(self, vm, message):
        """An impossible reset ends QEMU, without an event of a reset."""
        with contextlib.suppress(Exception):    # QEMU may close the connection at once
            vm.cmd('system_reset')
        vm.until('the end', lambda: not vm.is_running())
        self.assertNotIn('RESET', [event['event'] for event in vm.get_qmp_events()])
        vm.wait()
        self.assertEqual(vm.exitcode(), 1)
        self.assertIn(message, vm.get_log())

    def test_none(self):
        """Without retired pages, no output and one memory node."""
        self.assertEqual(self.check(), '')

    def test_shapes(self):
        """One page, the end, adjacent, overlapping, unsorted, empty."""
        page = (2 * MIB, 4 * KIB)
        last = (RAM_SIZE - 4 * KIB, 4 * KIB)
        for ranges in (
                [page], [last], [page, last], [last, page], [page, page],
                [(2 * MIB + 60 * KIB, 8 * KIB)],                # in two blocks
                [(2 * MIB, BLOCK), (2 * MIB + BLOCK, BLOCK)],   # adjacent
                [(2 * MIB, 3 * BLOCK), (2 * MIB + BLOCK, BLOCK)],
                [(2 * MIB + BLOCK, 3 * BLOCK), (2 * MIB, 2 * BLOCK)],
                [(2 * MIB + n * 4 * KIB, 4 * KIB) for n in range(16)],
                [(2 * MIB, 0), page]):
            with self.subTest(ranges=ranges):
                text = self.check(*ranges)
                start, end = holes_of(ranges)[0]
                self.assertIn(f'{start:#x}-{end - 1:#x}', text)
                self.assertEqual(text.count('warning'), 1, text)

    def test_warning(self):
        """The warning has the size of all holes, and the addresses of the first four."""
        text = self.check(*((n * MIB, 1) for n in range(2, 12)))
        self.assertIn(
            'warning: guest RAM has holes of 640 KiB because of bad ranges: '
            '0x40200000-0x4020ffff, '
            '0x40300000-0x4030ffff, 0x40400000-0x4040ffff, '
            '0x40500000-0x4050ffff and 6 more\n', text)

    def test_outside(self):
        """Retired pages outside of the VM's memory are ignored, with any numbers."""
        top = 2 ** 64 - BLOCK
        self.assertEqual(self.check((RAM_SIZE, BLOCK), (top, BLOCK),
                                    (top + 1, 2 ** 64 - 1)), '')
        self.check((RAM_SIZE - BLOCK, 2 * BLOCK), (4 * MIB, 2 ** 64 - 4 * MIB))
        self.zero.retire((4 * KIB, 2 ** 64 - 1))
        self.assertIn('hole at 0x40000000', self.refused())

    def ordinary(self, size):
        """Options for a node of ordinary memory, and one on the device after it."""
        return ['-object', f'memory-backend-ram,id=m0,size={size}',
                '-numa', 'node,nodeid=0,memdev=m0', '-smp', '2',
                *self.ram(1), '-m', f'{(size + RAM_SIZE) >> 10}K']

    def test_second_node(self):
        """Offsets count from the start of the node, blocks from address 0."""
        ranges = [(0, 1), (MIB, BLOCK), (RAM_SIZE - 1, 1)]
        self.zero.retire(*ranges)
        for first in RAM_SIZE, RAM_SIZE + 8 * KIB:
            base = RAM_BASE + first
            holes = [(start // BLOCK * BLOCK, -(-end // BLOCK) * BLOCK)
                     for start, end in holes_of(ranges, base)]
            with self.subTest(first=first), \
                    self.machine(ram=self.ordinary(first)) as vm:
                self.assertEqual(self.device_tree(vm), pieces(holes, size=first) +
                                 pieces(holes, base, node=1))

    def test_without_numa(self):
        """The machine's only memory backend."""
        self.zero.retire((MIB, 1))
        ram = [*self.ram()[:4], '-machine', 'memory-backend=m0']
        with self.machine(ram=ram) as vm:
            self.assertEqual(self.device_tree(vm),
                             pieces(holes_of([(MIB, 1)]), node=None))

    def test_nodes_by_qemu(self):
        """QEMU adds a node itself, whose RAM is the machine's backend."""
        self.zero.retire((MIB, 1))
        for more in (['-m', '512M,maxmem=2G'], ['-m', '512M,slots=2,maxmem=2G']):
            ram = [*more, *self.ram()[2:4], '-machine', 'memory-backend=m0']
            with self.machine(ram=ram) as vm:
                self.assertEqual(self.device_tree(vm),
                                 pieces(holes_of([(MIB, 1)])))

    def test_limit(self):
        """The maximum number of holes, and one hole more."""
        ranges = [(n * 4 * BLOCK, 1) for n in range(8, 8 + LIMIT)]
        self.check(*ranges)
        self.zero.retire(*ranges, (RAM_SIZE - 1, 1))
        self.assertIn('guest RAM would have 769 holes because of bad ranges, and a guest '
                      'can have at most 768', self.refused())

    def test_full_list(self):
        """The longest list of a driver: 65536 entries of 4 KiB."""
        self.check(*((64 * MIB + n * 4 * KIB, 4 * KIB) for n in range(65536)))

    def test_device_tree(self):
        """A retired page at the address of the device tree is an error."""
        self.zero.retire((8 * KIB, 4 * KIB))
        self.assertIn("guest RAM has a hole at 0x40000000, where 'dtb' "
                      'has to be loaded', self.refused())

    def test_firmware(self):
        """A hole in the first 128 MiB is an error with UEFI, which needs them in one piece."""
        self.zero.retire((128 * MIB - 1, 1))
        self.assertIn(f'hole at {RAM_BASE + 128 * MIB - BLOCK:#x}, but '
                      'the firmware needs the first 128 MiB in one piece',
                      self.refused(*self.FLASH))
        with self.machine(*self.FLASH, ram=self.ordinary(128 * MIB)):
            pass
        self.zero.retire((128 * MIB, 1))
        with self.machine(*self.FLASH):
            pass

    def test_loader(self):
        """A file that the user loads to a retired page is an error."""
        with tempfile.NamedTemporaryFile() as blob:
            blob.write(bytes(BLOCK))
            blob.flush()
            self.zero.retire((64 * MIB + BLOCK, 1))
            args = ['-device', f'loader,file={blob.name},force-raw=on,addr=']
            where = RAM_BASE + 64 * MIB
            self.assertIn('has to be loaded',
                          self.refused(args[0], f'{args[1]}{where + 4:#x}'))
            with self.machine(args[0], f'{args[1]}{where:#x}'):
                pass

    @staticmethod
    def kernel(directory, memory=4 * MIB):
        """An image of 1 MiB whose header asks for MEMORY bytes."""
        path = pathlib.Path(directory) / 'kernel'
        path.write_bytes(struct.pack('<2I3Q', 0, 0, 0, memory, 0) + bytes(24)
                         + b'ARM\x64' + bytes(MIB))
        return ['-kernel', str(path)]

    def test_kernel(self):
        """Without firmware, files that QEMU would load to a retired page are errors."""
        with tempfile.TemporaryDirectory(prefix='egm-kernel-') as directory:
            initrd = pathlib.Path(directory) / 'initrd'
            initrd.write_bytes(bytes(3 * MIB))
            args = [*self.kernel(directory), '-initrd', str(initrd)]
            for offset, what in (
                    (0, "where 'bootloader' has to be loaded"),
                    (2 * MIB, f"where '{args[1]}' has to be loaded"),
                    (5 * MIB, f"where '{args[1]}' has to be loaded"),
                    (129 * MIB, f"where '{initrd}' has to be loaded"),
                    (132 * MIB, "where 'dtb' has to be loaded")):
                with self.subTest(offset=offset):
                    self.zero.retire((offset, 1))
                    self.assertIn('guest RAM has a hole at '
                                  f'{RAM_BASE + offset:#x}, {what}',
                                  self.refused(*args))
            ranges = [(n * MIB, 1) for n in (1, 6, 127, 140)]
            self.zero.retire(*ranges)
            with self.machine(*args) as vm:
                self.assertEqual(fdt.memory(vm.device_tree()),
                                 pieces(holes_of(ranges)))

    def test_kernel_grows(self):
        """The memory that a kernel clears is checked at reset as well."""
        with tempfile.TemporaryDirectory(prefix='egm-kernel-') as directory, \
                self.machine(*self.kernel(directory, 8 * MIB)) as vm:
            self.zero.retire((6 * MIB, 1))
            self.reset_ends(vm, f"at 0x40600000, where '{directory}/kernel' has "
                            'to be loaded')

    def test_device_tree_file(self):
        """A device tree of the user has space for all holes, also for those of a reset."""
        ranges = [(n * 4 * BLOCK, 1) for n in range(16, 16 + LIMIT)]
        with tempfile.TemporaryDirectory(prefix='egm-dtb-') as directory:
            path = f'{directory}/dtb'
            with self.machine() as vm:
                data = vm.device_tree()
            # Without free space, like the output of dtc
            used, = struct.unpack_from('>I', data, 8)
            strings = struct.unpack_from('>I', data, 12)[0]
            size = max(used + struct.unpack_from('>I', data, 36)[0],
                       strings + struct.unpack_from('>I', data, 32)[0])
            pathlib.Path(path).write_bytes(
                data[:4] + struct.pack('>I', size) + data[8:size])
            self.zero.retire(*ranges[:100])
            with self.machine('-dtb', path) as vm:
                self.zero.retire(*ranges)
                vm.cmd('system_reset')
                vm.cmd('query-status')
                self.assertEqual(fdt.memory(vm.device_tree()),
                                 pieces(holes_of(ranges)))

    def test_reset(self):
        """Pages that go bad at run time are holes after the next reset."""
        first, second = (4 * MIB, 1), (8 * MIB, 1)
        self.zero.retire(first)
        with self.machine() as vm:
            before = self.device_tree(vm)
            self.zero.retire(first, second)
            self.assertEqual(self.device_tree(vm), before)
            for _ in range(20):     # resets do not make the blob larger
                vm.cmd('system_reset')
                vm.until('reset', lambda: self.device_tree(vm) == pieces(
                    holes_of([first, second])))
        self.assertEqual(vm.get_log().count('guest RAM has holes'), 2, vm.get_log())

    def test_reset_impossible(self):
        """A page goes bad that the next boot needs."""
        with self.machine() as vm:
            self.zero.retire((0, 1))
            self.reset_ends(vm, "where 'dtb' has to be loaded")
        self.zero.retire()
        with self.machine() as vm:
            self.zero.retire(*((n * 4 * BLOCK, 1) for n in range(8, 9 + LIMIT)))
            self.reset_ends(vm, 'guest RAM would have 769 holes')

    def test_driver_forgets(self):
        """Ranges that were reported are kept if the driver fails later."""
        self.zero.retire((4 * MIB, 1))
        with self.machine() as vm:
            self.zero.file.unlink()
            vm.cmd('system_reset')
            vm.cmd('query-status')
            self.assertEqual(self.device_tree(vm),
                             pieces(holes_of([(4 * MIB, 1)])))
        self.assertIn("warning: memory backend 'm0': cannot read the list of retired "
                      'pages: Input/output error', vm.get_log())

    def test_migration(self):
        """Migration is refused, also for pages that went bad after the last reset."""
        with self.machine() as vm:
            self.zero.retire((4 * MIB, 1))
            with self.assertRaisesRegex(Exception, "RAM block 'm0' has bad ranges"):
                vm.cmd('migrate', uri='exec:cat > /dev/null')

    def test_save_memory(self):
        """Commands that copy a range of guest memory fail at the pages."""
        bad = RAM_BASE + 4 * MIB
        with tempfile.TemporaryDirectory(prefix='egm-save-') as directory, \
                self.machine() as vm:
            self.zero.retire((4 * MIB, 1))
            path = pathlib.Path(directory) / 'memory'
            for command in 'pmemsave', 'memsave':
                for start, size in ((bad - MIB, MIB), (bad + BLOCK, 1)):
                    vm.cmd(command, val=start, size=size, filename=str(path))
                    self.assertEqual(path.stat().st_size, size)
                for start, size in ((bad, 1), (bad - 8, 16), (bad + BLOCK - 1, MIB),
                                    (RAM_BASE, RAM_SIZE), (RAM_BASE - 4 * KIB, 5 * MIB),
                                    (0, RAM_BASE + RAM_SIZE)):
                    if command == 'memsave' and start < RAM_BASE:
                        continue    # it reads the pages before the bad one
                    with self.assertRaisesRegex(Exception, 'has a bad range, which must '
                                                'not be read'):
                        vm.cmd(command, val=start, size=size, filename=str(path))

    def test_plugged(self):
        """A DIMM with retired pages is refused, because QEMU cannot omit its pages."""
        # The machine has slots if the guest has ACPI.
        dimm = ['-device', 'pc-dimm,memdev=m0', *self.FLASH]
        ram = ['-m', '512M,slots=1,maxmem=2G', *self.ram()[2:4]]
        with self.machine(*dimm, ram=ram) as vm:
            self.zero.retire((4 * MIB, 1))
            self.reset_ends(vm, "RAM block 'm0' has bad ranges, which can be left out "
                            "only of the machine's main memory")
        with self.assertRaisesRegex(RuntimeError, "RAM block 'm0' has bad ranges"), \
                self.machine(*dimm, ram=ram):
            pass
        with self.machine(ram=ram[:2]) as vm, \
                self.assertRaisesRegex(Exception, 'cannot be left out of memory that is '
                                       'added to a running VM'):
            vm.cmd('object-add', **{'qom-type': 'memory-backend-file', 'id': 'm0',
                                    'size': RAM_SIZE, 'share': True,
                                    'mem-path': self.zero.path})

    def test_other_machine(self):
        """A machine that does not support holes refuses retired pages."""
        self.zero.retire((4 * MIB, 1))
        with self.assertRaisesRegex(RuntimeError, "memory backend 'm0': the memory has "
                                    "bad ranges, and machine 'none' cannot leave them "
                                    'out of guest RAM'), \
                machine.Machine(['-machine', 'none', *self.ram()[2:4]],
                                environment=self.zero.environment):
            pass

    def test_only_migratable(self):
        """-only-migratable refuses retired pages."""
        self.zero.retire((4 * MIB, 1))
        self.assertIn('-only-migratable does not allow', self.refused('-only-migratable'))

    def test_incoming(self):
        """A state that was saved with all of RAM is not loaded."""
        with tempfile.TemporaryDirectory(prefix='egm-state-') as directory:
            state = f'file:{directory}/state'
            with self.machine() as vm:
                vm.cmd('migrate', uri=state)
                vm.until('the state to be saved', lambda: vm.cmd(
                    'query-migrate')['status'] == 'completed')
            self.zero.retire((4 * MIB, 1))
            with self.machine('-incoming', 'defer') as vm:
                with self.assertRaisesRegex(Exception, 'has bad ranges'):
                    vm.cmd('migrate-incoming', uri=state)
            self.assertIn('has bad ranges', self.refused('-incoming', state))

    def test_snapshot(self):
        """A snapshot is neither saved nor loaded; the disk stays as it is."""
        with tempfile.TemporaryDirectory(prefix='egm-disk-') as directory:
            disk = f'{directory}/disk'
            process.output(f'{BUILD}/qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M')
            drive = ['-drive', f'if=none,id=d,format=qcow2,file={disk}']

            with self.machine(*drive) as vm:
                self.assertEqual(vm.hmp('savevm one'), '')
                vm.hmp('qemu-io d "write -P 7 0 64k"')
                self.zero.retire((4 * MIB, 1))
                vm.cmd('system_reset')
                vm.cmd('query-status')
                for command in ('savevm two', 'loadvm one'):
                    self.assertIn('has bad ranges', vm.hmp(command))
                self.assertNotIn('failed', vm.hmp('qemu-io d "read -P 7 0 64k"'))
                vm.cmd('cont')
                self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_reset_while_migrating(self):
        """A reset that finds another retired page cancels a migration."""
        # With little bandwidth, the migration does not get past the loaded file, which is
        # before the page.
        with self.machine('-device', f'loader,addr={RAM_BASE + 64 * MIB:#x},'
                          f'file={BUILD}/qemu-system-aarch64,force-raw=on') as vm:
            vm.cmd('migrate-set-parameters', **{'max-bandwidth': 4096})
            vm.cmd('migrate', uri='exec:cat > /dev/null')
            vm.until('the migration to begin', lambda: vm.cmd(
                'query-migrate')['status'] == 'active')
            self.zero.retire((RAM_SIZE - 1, 1))
            vm.cmd('system_reset')
            vm.until('the migration to end', lambda: vm.cmd(
                'query-migrate')['status'] == 'cancelled')
            with self.assertRaisesRegex(Exception, 'has bad ranges'):
                vm.cmd('migrate', uri='exec:cat > /dev/null')
            self.assertEqual(self.device_tree(vm),
                             pieces(holes_of([(RAM_SIZE - 1, 1)])))

    def inflate(self, vm, qtest, page):
        """Give a page of guest RAM to the balloon, as a guest's driver does."""
        def register(offset, value=None):
            address = device + offset
            if value is None:
                return int(qtest.command(f'readl {address:#x}').split()[1], 16)
            return qtest.command(f'writel {address:#x} {value:#x}')

        # virtio 1.2, 4.2.4: the legacy registers of the last MMIO transport of virt
        device = 0x0a003e00
        self.assertEqual(register(0x8), 5)              # a balloon
        ring, buffer = RAM_BASE + 16 * MIB, RAM_BASE + 17 * MIB
        for offset, value in ((0x70, 3), (0x20, 0), (0x28, 4 * KIB), (0x30, 0),
                              (0x38, 16), (0x3c, 4 * KIB), (0x40, ring >> 12),
                              (0x70, 7)):
            register(offset, value)
        for address, data in (
                (buffer, struct.pack('<I', page >> 12)),
                (ring, struct.pack('<QIHH', buffer, 4, 0, 0)),      # descriptor
                (ring + 16 * 16, struct.pack('<3H', 0, 1, 0))):     # available
            qtest.command(f'write {address:#x} {len(data):#x} 0x{data.hex()}')
        register(0x50, 0)
        used = ring + 4 * KIB
        vm.until('the balloon', lambda: vm.memory(used + 2, 2) == b'\1\0')

    def test_balloon(self):
        """The balloon gives no page back to an EGM device, as it does to a file."""
        page, data = RAM_BASE + 64 * MIB, b'EGM page'
        with tempfile.NamedTemporaryFile(dir='/dev/shm') as file:
            for path, after in ((self.zero.path, data), (file.name, bytes(8))):
                # /dev/shm can be smaller than the RAM.
                ram = [word.replace(self.zero.path, path).replace(',prealloc=on', '')
                       for word in self.ram()]
                with machine.qtest(self.machine('-device', 'virtio-balloon-device',
                                                ram=ram)) as (vm, qtest):
                    qtest.command(f'write {page:#x} 8 0x{data.hex()}')
                    self.inflate(vm, qtest, page)
                    self.assertEqual(vm.memory(page, 8), after)
                self.assertEqual(vm.get_log().count('no part of it can be discarded'),
                                 int(path == self.zero.path), vm.get_log())

    def test_dirty_rate(self):
        """calc-dirty-rate, which samples RAM, does not read them."""
        with self.machine() as vm:
            self.zero.retire((4 * MIB, 64 * MIB), (128 * MIB, 256 * MIB))
            vm.cmd('calc-dirty-rate', **{'calc-time': 1, 'sample-pages': 4096})
            vm.until('the rate', lambda: vm.cmd(
                'query-dirty-rate')['status'] == 'measured')

    def test_dump(self):
        """A dump of guest memory omits them."""
        ranges = [(4 * MIB, 1), (RAM_SIZE - 1, 1)]
        self.zero.retire(*ranges)
        with self.machine() as vm:
            path = pathlib.Path(vm.temp_dir) / 'dump'
            vm.cmd('dump-guest-memory', paging=False, protocol=f'file:{path}')
            with open(path, 'rb') as file:
                head = file.read(MIB)
        at, = struct.unpack_from('<Q', head, 32)
        size, count = struct.unpack_from('<2H', head, 54)
        found = []
        for n in range(count):
            kind, _, _, _, base, length = struct.unpack_from('<2I4Q', head,
                                                             at + n * size)
            if kind == 1 and base >= RAM_BASE:
                found.append((base, length, 0))
        self.assertEqual(sorted(found), pieces(holes_of(ranges)))

    def test_one_descriptor(self):
        """QEMU opens the device once, because only the first descriptor works."""
        with self.machine() as vm:
            fds = [os.readlink(fd) for fd in
                   pathlib.Path(f'/proc/{vm.get_pid()}/fd').iterdir()]
        self.assertEqual(fds.count(self.zero.path), 1, fds)

    def test_size(self):
        """The size is checked, because drivers may map memory after a region."""
        with self.assertRaisesRegex(RuntimeError, 'size=2199023255552 is larger than '
                                    'the region of 1099511627776 bytes'), \
                self.machine(ram=self.ram(size=2 << 40)):
            pass
