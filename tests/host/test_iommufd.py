# SPDX-License-Identifier: GPL-2.0-or-later
"""EGM, and other RAM, with iommufd instead of vfio's type1.

The kernel's own iommufd maps no memory without struct page; iommufd/README.md
tells how it comes to do so here.
"""

import contextlib
import os

from lib import MIB, RAM_BASE
from host.host import Dma, Qemu
from host.test_host import HOST, SECOND_BRIDGE, backend, egm, HostTest, node, passthrough, ram

HINT = 'IOMMU_IOAS_MAP of memory without struct page (VM_PFNMAP)'
IOMMUFD = ['-object', 'iommufd,id=iommufd0']


def gpu(number, **keywords):
    """A GPU of the host, by its vfio character device."""
    *args, device = passthrough(number, **keywords)
    return [*args, f'{device},iommufd=iommufd0']


def machine(*memory):
    """A machine with one node and one GPU."""
    return ['-m', '256', *memory, *node(0), *IOMMUFD, *gpu(0)]


EGM = machine(*backend(0, 4, 256)) + egm(0)


class IommufdTest(HostTest):
    """A GPU with iommufd."""

    def works(self, args, region=None):
        """QEMU starts without output, and DMA reaches the right memory."""
        data = os.urandom(2048)
        source, target = 0x10000, 200 * MIB
        with Qemu(self.host, args) as qemu:
            self.assertEqual(qemu.text, '')
            dma = Dma(qemu)
            qemu.write(RAM_BASE + source, data)
            dma.copy(RAM_BASE + source, RAM_BASE + target, len(data))
            self.assertEqual(qemu.read(RAM_BASE + target, len(data)), data)
            if region:
                self.assertEqual(self.host.region(region, target, len(data)),
                                 data)


class Mainline(IommufdTest):
    """iommufd of mainline Linux."""

    def test_anonymous(self):
        """RAM without a file."""
        self.works(machine('-object', 'memory-backend-ram,id=m0,size=256M'))

    def test_memfd(self):
        """RAM that has a file descriptor."""
        self.works(machine('-object', 'memory-backend-memfd,id=m0,size=256M'))

    def test_file(self):
        """RAM that is a file."""
        self.works(machine(*backend(0, 4, 256, path='/dev/shm/m0')))
        self.host.check('rm /dev/shm/m0')

    def test_egm(self):
        """EGM is refused, and the message says what is missing."""
        with self.host.standin():
            for _ in range(2):      # the first one has left nothing behind
                text = self.refuses(EGM, 'm0: ', '(Bad address)', HINT)
                self.assertNotIn('type1', text)
            self.starts(ram(256) + passthrough(0) + egm(0))

    def test_other_errors(self):
        """Other errors do not get the hint."""
        self.host.check('mkdir /tmp/full; '
                        'mount -t tmpfs -o size=32M tmpfs /tmp/full')
        # Files that both QEMU and the kernel can map by file are not mapped by address.
        version = self.host.vm.cmd('query-version')['qemu']
        by_file = (version['major'], version['minor']) >= (10, 1) and \
            HOST.name != 'arm64-6.12'
        text = self.refuses(machine(*backend(0, 4, 256, 'share=on',
                                             path='/tmp/full/m0')),
                            '(No space left on device)' if by_file else
                            '(Bad address)')
        self.host.check('umount /tmp/full')
        self.assertNotIn('struct page', text)
        self.host.check('chown operator /dev/iommu /dev/vfio/devices/*')
        text = self.refuses(machine('-object',
                                    'memory-backend-ram,id=m0,size=256M'),
                            '(Cannot allocate memory)', user='operator')
        self.assertNotIn('struct page', text)


class Pfnmap(IommufdTest):
    """iommufd that maps memory without struct page, by address."""

    @contextlib.contextmanager
    def pfnmap(self):
        """With the stand-in."""
        with self.host.pfnmap(), self.host.standin():
            yield

    def test_egm(self):
        """The device reads and writes the region."""
        with self.pfnmap():
            self.works(EGM, 4)

    def test_two_regions(self):
        """Each socket's GPU with its own region, both mapped for each."""
        args = ['-m', '512', '-smp', '2', *backend(0, 4, 256),
                *backend(1, 5, 256), *node(0), *node(1), *IOMMUFD,
                *gpu(0), *egm(0), *SECOND_BRIDGE, *gpu(2, bus='second'),
                *egm(2, 1)]
        data = os.urandom(2048)
        with self.pfnmap(), Qemu(self.host, args) as qemu:
            self.assertEqual(qemu.text, '')
            qemu.write(RAM_BASE + 0x10000, data)
            Dma(qemu).copy(RAM_BASE + 0x10000, RAM_BASE + 300 * MIB, len(data))
            self.assertEqual(self.host.region(5, 44 * MIB, len(data)), data)

    def test_again(self):
        """A VM does not affect the next one."""
        with self.pfnmap():
            for _ in range(3):
                self.assertEqual(self.starts(EGM), '')
            with Qemu(self.host, EGM) as qemu:
                qemu.end('KILL')
            self.works(EGM, 4)

    def test_other_memory(self):
        """Other memory works as with mainline iommufd."""
        with self.pfnmap():
            self.works(machine('-object',
                               'memory-backend-memfd,id=m0,size=256M'))
