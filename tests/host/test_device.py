# SPDX-License-Identifier: GPL-2.0-or-later
"""EGM devices: what QEMU refuses before it opens one, the second user, descriptors.

The host and the stand-in are those of test_host.py.
"""

import re

from host.host import Qemu
from host.test_host import (FREE, HOST, SECOND_BRIDGE, WORD, backend, egm, HostTest, node,
                            passthrough, ram, word)

IN_USE = ': the region is in use by another process\n'
PORT = ['-device', 'pcie-root-port,id=rp0,addr=1']


class DeviceTest(HostTest):
    """Shared by the classes below."""

    def has(self, pxm, value):
        """A region has this word, seen from outside of the host."""
        self.assertEqual(self.host.region(pxm, FREE, 8), value.to_bytes(8, 'little'))

    def opened(self, args, *files):
        """A QEMU that inherits open files, in fd sets 1 and so on."""
        redirections, sets = [], []
        for number, file in enumerate(files, 1):
            redirections.append(f'{number + 3}<> {file}')
            sets += ['-add-fd', f'fd={number + 3},set={number}']
        return ' '.join(redirections), [*args, *sets]

    def starts_opened(self, args, *files):
        """QEMU starts with open files; return its output."""
        prefix, args = self.opened(args, *files)
        return self.starts(args, prefix=prefix)

    def refuses_opened(self, args, files, *messages):
        """QEMU does not start with open files, and prints the reason."""
        prefix, args = self.opened(args, *files)
        return self.refuses(args, *messages, prefix=prefix)


class Checks(DeviceTest):
    """What sysfs reports decides whether QEMU opens the device."""

    def test_host_ram(self):
        """A region in the node of the host's own memory is refused, and not cleared."""
        uses = ': the host uses this memory itself'
        with self.standin(), self.qemu(ram(64) + word(FREE)):
            self.has(4, WORD)
        with self.standin(pxm='0,1'):
            self.refuses(ram(64, path='/dev/egm0'), "memory backend 'm0': cannot use "
                         f'EGM region egm0, mem-path=/dev/egm0{uses}')
            self.has(4, WORD)
            self.refuses_opened(ram(64, path='/dev/fdset/1'), ['/dev/egm0'],
                                f'egm0, mem-path=/dev/fdset/1{uses}')
            # The host does not have a node 1.
            self.starts(['-m', '64', *backend(0, 1, 64), *node(0)])

    def test_no_sysfs(self):
        """A device whose class the host does not report is not used as a file."""
        hide = ("unshare -m sh -c 'mount -t tmpfs tmpfs /sys/dev/char; "
                'exec "$@"\' sh')
        with self.standin():
            self.refuses(ram(64), 'mem-path=/dev/egm4: the host does not have this EGM '
                         'device', prefix=hide)
            # By another name it could be anything, and nothing is claimed.
            self.host.check('ln -s /dev/egm4 /tmp/egm')
            self.assertIn('does not report mem-path=/tmp/egm as an EGM device',
                          self.starts(ram(64, path='/tmp/egm') + passthrough(0)
                                      + egm(0), prefix=hide))
            self.host.check('rm /tmp/egm')

    def test_names(self):
        """In /dev, all names except /dev/egmN are treated as files."""
        for path in '/dev/dax0.0', '/dev/guestram', '/dev/egm', '/dev/egm4x':
            self.assertEqual(self.starts(ram(64, path=path)), '')
            self.host.check(f'rm {path}')


class Descriptors:
    """EGM devices that another process has opened."""

    def test_two_regions(self):
        """A VM on two descriptors, and GPUs of both sockets."""
        sets = '/dev/fdset/1', '/dev/fdset/2'
        line, args = self.opened(
            ['-m', '384', '-smp', '2', *backend(0, 4, 256, path=sets[0]),
             *backend(1, 5, 128, path=sets[1]), *node(0), *node(1)]
            + passthrough(0) + egm(0) + SECOND_BRIDGE
            + passthrough(2, bus='second') + egm(2, 1)
            + word(FREE) + word((256 << 20) + FREE, WORD + 1), '/dev/egm4', '/dev/egm5')
        with self.standin():
            qemu = Qemu(self.host, args)
            qemu.line = f'{line} {qemu.line}'
            with qemu:
                self.assertEqual(qemu.text, '')
                self.has(4, WORD)
                self.has(5, WORD + 1)
                self.assertEqual(
                    [entry['region']['name']
                     for entry in qemu.cmd('query-acpi-egm-memory')],
                    ['egm4', 'egm5'])

    def test_unprivileged(self):
        """QEMU needs no permission for the device."""
        line = self.host.command(ram(64, path='/dev/fdset/1')
                                 + ['-add-fd', 'fd=4,set=1'])
        with self.standin():
            self.host.check(f'echo quit | su operator -c "exec {line} -monitor stdio" '
                            '4<> /dev/egm4 > /dev/null')

    def test_size(self):
        """If the region is too small, the error names both sizes."""
        if self.driver == 'B':
            self.skipTest('closing a file that was not mapped damages this driver')
        with self.standin():
            self.refuses_opened(
                ram(2048, path='/dev/fdset/1'), ['/dev/egm4'],
                "memory backend 'm0': cannot use EGM region egm4, "
                'mem-path=/dev/fdset/1: size=2147483648 is larger than the region of '
                '1073741824 bytes')

    def test_foreign(self):
        """The region of another socket, and another device."""
        args = ram(64, path='/dev/fdset/1') + passthrough(0) + egm(0)
        with self.standin():
            self.refuses_opened(
                args, ['/dev/egm5'], f'host device {HOST.gpus[0]} is not attached to '
                'the socket of EGM region egm5')
            self.assertIn('does not report mem-path=/dev/fdset/1 as an EGM device',
                          self.starts_opened(args, '/dev/zero'))

    def test_second_use(self):
        """The region is in use, by this VM or by another one."""
        first = ['-m', '128', '-smp', '2', *backend(0, 4, 64, path='/dev/fdset/1')]
        nodes = [*node(0), *node(1)]
        other = ': the region is in use by another memory backend\n'
        with self.standin():
            self.refuses_opened([*first, *backend(1, 4, 64, path='/dev/fdset/1'),
                                 *nodes], ['/dev/egm4'], other)
            self.refuses_opened([*first, *backend(1, 4, 64), *nodes], ['/dev/egm4'],
                                other)
            line, args = self.opened(ram(64, path='/dev/fdset/1') + word(FREE),
                                     '/dev/egm4')
            qemu = Qemu(self.host, args)
            qemu.line = f'{line} {qemu.line}'
            with qemu:
                self.refuses(ram(64), IN_USE)
                self.has(4, WORD)
            self.starts(ram(64))


class DescriptorsB(Descriptors, DeviceTest):
    """A second open file cannot be mapped."""
    driver = 'B'


class DescriptorsC(Descriptors, DeviceTest):
    """Mapping a second open file crashes the host."""
    driver = 'C'


class DescriptorsM(Descriptors, DeviceTest):
    """A second open file works."""
    driver = 'M'


class DescriptorsE(Descriptors, DeviceTest):
    """There is no second open file."""
    driver = 'E'


class OtherNode:
    """Another device node, as containers have: the driver keeps VMs apart."""

    def test_other_node(self):
        """The first VM is unharmed."""
        with self.standin():
            self.other_node()
            with self.qemu(ram(64) + word(FREE)):
                self.refuses(ram(64, path='/tmp/egm'), 'mem-path=/tmp/egm' + IN_USE)
                self.has(4, WORD)


class OtherNodeB(OtherNode, DeviceTest):
    """mmap() of the second open file fails."""
    driver = 'B'


class OtherNodeE(OtherNode, DeviceTest):
    """The second open() fails."""
    driver = 'E'

    def test_together(self):
        """Of two QEMUs that start at the same time, one gets the region."""
        with self.standin():
            self.other_node()
            for path in '/dev/egm4', '/tmp/egm':
                lines = []
                for number, name in enumerate(('/dev/egm4', path)):
                    line = self.host.command(ram(64, path=name)
                                             + word(FREE, WORD + number))
                    lines.append(f'({line} -daemonize -pidfile /tmp/pid{number}; echo '
                                 f'{number} status $?) > /tmp/said{number} 2>&1 &')
                text = self.host.check(f'{" ".join(lines)} wait; cat /tmp/said?')
                winner, = re.findall(r'(?m)^(\d) status 0', text)
                self.assertIn(IN_USE, text)
                self.has(4, WORD + int(winner))
                self.host.check(f'p=$(cat /tmp/pid{winner}); kill $p; '
                                'while [ -e /proc/$p ]; do sleep 0.1; done')


class Vfio(DeviceTest):
    """A vfio device that another process has opened, with iommufd."""

    def gpu(self, number):
        """Its character device."""
        return '/dev/vfio/devices/' + self.host.check(
            f'ls /sys/bus/pci/devices/{HOST.gpus[number]}/vfio-dev').strip()

    ARGS = ram(256) + PORT + egm(0) + [
        '-object', 'iommufd,id=iommufd0', '-device',
        'vfio-pci-nohotplug,id=dev0,fd=9,iommufd=iommufd0,bus=rp0']

    def test_address(self):
        """QEMU finds out which device it is, and has nothing to warn about."""
        with self.host.pfnmap(), self.standin():
            qemu = Qemu(self.host, self.ARGS)
            qemu.line = f'9<> {self.gpu(0)} {qemu.line}'
            with qemu:
                self.assertEqual(qemu.text, '')
                found, = qemu.cmd('query-acpi-egm-memory')
                self.assertEqual(found['host-address'], HOST.gpus[0])
                self.assertTrue(qemu.cmd(
                    'qom-get', path='/machine/peripheral/dev0',
                    property='sysfsdev').endswith('/' + HOST.gpus[0]))

    def test_wrong_socket(self):
        """A GPU of the other socket is refused."""
        with self.host.pfnmap(), self.standin():
            self.refuses(self.ARGS, "acpi-egm-memory 'egm0': pci-dev=dev0, node=0: host "
                         f'device {HOST.gpus[2]} is not attached to the socket of EGM '
                         'region egm4', prefix=f'9<> {self.gpu(2)}')

    def test_unknown(self):
        """Without sysfs, the device could be any: a warning."""
        hide = ("unshare -m sh -c 'mount -t tmpfs tmpfs /sys/dev; mkdir /sys/dev/char; "
                'ln -s /sys/class/egm/egm4 /sys/dev/char/$(cat /sys/class/egm/egm4/dev); '
                'exec "$@"\' sh')
        with self.host.pfnmap(), self.standin():
            text = self.starts(self.ARGS, prefix=f'9<> {self.gpu(0)} {hide}')
        self.assertEqual(text.count('\n'), 1, text)
        self.assertIn("warning: acpi-egm-memory 'egm0': pci-dev=dev0, node=0: the host "
                      'does not report the PCI address of the device', text)
