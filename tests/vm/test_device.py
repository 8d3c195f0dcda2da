# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU with an EGM device, by path and by descriptor.

The device is a stand-in (egm_zero.c). tests/host/ has a driver.
"""

import ctypes
import mmap
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from lib import BUILD, LIMIT, MIB, machine, standin

IN_USE = 'the region is in use by '
SET = '/dev/fdset/7'


class Base(unittest.TestCase):
    """QEMU without a guest."""

    def setUp(self):
        self.zero = standin.Zero()
        self.addCleanup(self.zero.__enter__().__exit__)

    @staticmethod
    def backend(name='m0', path='/dev/zero', size='64M', extra='share=on'):
        """A memory backend."""
        return ['-object', f'memory-backend-file,id={name},mem-path={path},'
                f'size={size},{extra}']

    def machine(self, *args, opened=None):
        """A VM whose only RAM is its backends; opened: how the file of fd set 7 is opened."""
        script = pathlib.Path(self.zero.directory.name) / 'qemu'
        # No descriptor of the monitor has these numbers.
        script.write_text(f'#!/bin/bash\nexec {BUILD}/qemu-system-aarch64 "$@" '
                          f'99{opened or "<>"} /dev/zero\n')
        script.chmod(0o755)
        return machine.Machine(
            ['-machine', 'none', '-add-fd', 'fd=99,set=7', *args],
            binary=str(script), environment=self.zero.environment)

    def starts(self, *args, **keywords):
        """QEMU starts; return its output."""
        with self.machine(*args, **keywords) as vm:
            self.assertTrue(vm.cmd('query-memdev'))
        return vm.get_log()

    def refused(self, message, *args, **keywords):
        """QEMU does not start, and prints the reason."""
        with self.assertRaisesRegex(RuntimeError, 'did not start') as caught, \
                self.machine(*args, **keywords):
            pass
        self.assertIn(message, str(caught.exception))


class Device(Base):
    """How and when QEMU opens the device."""

    def test_starts(self):
        """QEMU starts without output, by path and by descriptor."""
        for path in '/dev/zero', SET:
            self.assertEqual(self.starts(*self.backend(path=path)), '')

    def test_properties(self):
        """Properties that break the linear mapping are errors in both ways."""
        for path in '/dev/zero', SET:
            for extra in 'share=off', 'readonly=on', 'offset=2M':
                shared = '' if extra == 'share=off' else ',share=on'
                self.refused(f"memory backend 'm0' has {extra.replace('2M', '2097152')}",
                             *self.backend(path=path, extra=extra + shared),
                             opened='<' if extra == 'readonly=on' else None)

    def test_size(self):
        """If the region is too small, the error names both sizes."""
        for path in '/dev/zero', SET:
            self.refused(f"memory backend 'm0': cannot use EGM region zero, "
                         f'mem-path={path}: size=2199023255552 is larger than the '
                         'region of 1099511627776 bytes',
                         *self.backend(path=path, size='2T'))

    def test_other_process(self):
        """The region of another VM is in use, in both ways."""
        for path in '/dev/zero', SET:
            with self.machine(*self.backend(path=path)):
                for other in '/dev/zero', SET:
                    self.refused(IN_USE + 'another process',
                                 *self.backend(path=other))

    def test_other_backend(self):
        """Duplicates of a descriptor share the lock."""
        for path, other in (('/dev/zero', SET), (SET, '/dev/zero'), (SET, SET)):
            self.refused(IN_USE + 'another memory backend',
                         *self.backend(path=path), *self.backend('m1', other))

    def test_other_files(self):
        """A process without a lock that has the device open and mapped does not matter."""
        with open('/dev/zero', 'r+b', buffering=0) as file, \
                mmap.mmap(file.fileno(), MIB):
            self.assertEqual(self.starts(*self.backend()), '')

    @unittest.skipIf(os.getuid() or not os.path.exists('/dev/fuse'), 'needs root and FUSE')
    def test_dead_server(self):
        """QEMU starts although a process has mapped a file of a FUSE server that is gone."""
        nobody, libc = 65534, ctypes.CDLL(None, use_errno=True)
        mapper = ('import mmap, signal, sys; file = open(sys.argv[1], "r+b"); '
                  'area = mmap.mmap(file.fileno(), 0); file.close(); print(flush=True); '
                  'signal.pause()')
        with tempfile.TemporaryDirectory() as directory:
            server = pathlib.Path(directory) / 'server'
            server.mkdir()
            file = server / 'file'
            file.write_bytes(bytes(4096))
            # Copies, because the checkout may be accessible only to root
            program = shutil.copy(BUILD / 'qemu-system-aarch64', directory)
            preload = shutil.copy(self.zero.environment['LD_PRELOAD'], directory)
            for path in pathlib.Path(directory), server, file:
                os.chown(path, nobody, nobody)
            process = subprocess.Popen([sys.executable, '-c', mapper, file],
                                       user=nobody, stdout=subprocess.PIPE)
            process.stdout.readline()
            # No process reads requests from this file, so an access to the path never ends.
            fuse = os.open('/dev/fuse', os.O_RDWR)
            try:
                options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other'
                self.assertEqual(libc.mount(b'egm', bytes(server), b'fuse', 0,
                                            options.encode()), 0, ctypes.get_errno())
                run = subprocess.run(
                    [program, '-machine', 'none', '-display',
                     'none', '-monitor', 'stdio', *self.backend()], user=nobody,
                    env={**os.environ, **self.zero.environment, 'EGM_RETIRED': '/dev/null',
                         'LD_PRELOAD': preload},
                    input=b'quit\n', stdout=subprocess.DEVNULL, timeout=LIMIT,
                    check=False)
                self.assertEqual(run.returncode, 0)
            finally:
                os.close(fuse)
                libc.umount2(bytes(server), 2)      # MNT_DETACH
                process.kill()
                process.communicate()

    def test_unknown_ioctl(self):
        """A driver without the list of retired pages: QEMU warns, and starts."""
        del self.zero.environment['EGM_RETIRED']
        self.assertIn("warning: memory backend 'm0': cannot read the list of retired "
                      'pages: Invalid argument\n', self.starts(*self.backend()))

    def test_object_del(self):
        """When a backend has been deleted, its region can be used at once."""
        add = {'qom-type': 'memory-backend-file', 'id': 'm0', 'size': 64 * MIB,
               'share': True}
        with self.machine() as vm:
            # The fd set keeps its file open, and therefore locked.
            for path in ['/dev/zero'] * 5 + [SET] * 5:
                vm.cmd('object-add', **add, **{'mem-path': path})
                with self.assertRaisesRegex(Exception, IN_USE):
                    vm.cmd('object-add', **{**add, 'id': 'm1'},
                           **{'mem-path': SET})
                vm.cmd('object-del', id='m0')

    def test_ordinary_descriptor(self):
        """A descriptor of an ordinary file is used like a file."""
        with tempfile.NamedTemporaryFile() as file:
            args = self.backend(path=SET, size='1M')
            self.assertEqual(self.starts(*args, opened=f'<> {file.name} 98<>'), '')
            self.assertEqual(os.path.getsize(file.name), MIB)


class Ram(Base):
    """The device as the RAM of a virt machine: memory of a device."""

    NOT_DISCARDED = 'Memory region m0 is the memory of a device: no part of it can be ' \
        'discarded'

    def vm(self, *args, path='/dev/zero', machine_args=''):
        """A VM whose RAM is a file."""
        return self.machine('-machine', f'virt{machine_args}', '-accel', 'qtest',
                            '-m', '64', *self.backend(path=path), '-numa',
                            'node,memdev=m0', *args)

    def test_virtio_mem(self):
        """virtio-mem is refused, because it has to discard memory."""
        self.refused(self.NOT_DISCARDED, '-machine', 'virt', '-m', '64M,maxmem=1G',
                     *self.backend(), '-device', 'virtio-mem-pci,memdev=m0')

    def test_postcopy(self):
        """The destination would have to discard memory, and ends; the source continues."""
        postcopy = [{'capability': 'postcopy-ram', 'state': True}]
        with tempfile.TemporaryDirectory(dir='/dev/shm') as directory:
            uri = f'unix:{directory}/socket'
            with self.vm('-incoming', 'defer') as target, \
                    self.vm(path=f'{directory}/m0') as source:
                for vm in target, source:
                    vm.cmd('migrate-set-capabilities', capabilities=postcopy)
                target.cmd('migrate-incoming', uri=uri)
                source.cmd('migrate', uri=uri)
                source.until('the migration to fail', lambda: source.cmd(
                    'query-migrate')['status'] == 'failed')
                self.assertTrue(source.cmd('query-status')['running'])
                target.until('the end', lambda: not target.is_running())
        self.assertIn(self.NOT_DISCARDED, target.get_log())

    def test_cpr(self):
        """CPR is blocked, because the new QEMU could not map the region."""
        with self.vm(machine_args=',aux-ram-share=on') as vm:
            modes = [m['name'] for schema in vm.cmd('query-qmp-schema')
                     for m in schema.get('members', ())
                     if 'cpr-transfer' in schema.get('values', ())
                     and m['name'].startswith('cpr-') and m['name'] != 'cpr-reboot']
            self.assertIn('cpr-transfer', modes)
            for mode in modes:
                # QEMU 11 requires a command before it checks the memory.
                command = {'cpr-exec-command': ['/nowhere']} if mode == 'cpr-exec' else {}
                vm.cmd('migrate-set-parameters', mode=mode, **command)
                with self.assertRaisesRegex(Exception, 'm0 is not compatible with CPR: it '
                                            'is the memory of a device, which new QEMU '
                                            'cannot map while old QEMU has it'):
                    vm.cmd('migrate', channels=[
                        {'channel-type': kind, 'addr': {
                            'transport': 'socket', 'type': 'unix', 'path': '/nowhere'}}
                        for kind in ('main', 'cpr')])
