# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process, talked to over QMP."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from lib.qtest import Qtest


# Seconds after which something hangs, even if the machine has much else to do
LIMIT = 300


def source_tree(build):
    """The merged QEMU tree that a build directory was configured with."""
    for line in (pathlib.Path(build) / 'config-host.mak').read_text() \
            .splitlines():
        if line.startswith('SRC_PATH='):
            return pathlib.Path(line.split('=', 1)[1])
    raise RuntimeError(f'{build} is not a configured build directory')


class Machine:
    """Start QEMU with ARGS; a context manager that always ends it.

    QEMU's stderr goes to the file `log` in `directory`.
    """

    def __init__(self, build, args, binary=None, environment=None):
        self.build = pathlib.Path(build).resolve()
        self.binary = binary or str(self.build / 'qemu-system-aarch64')
        self.args = args
        self.environment = environment
        self.directory = tempfile.TemporaryDirectory(prefix='egm-')
        self.log = pathlib.Path(self.directory.name) / 'log'
        self.process = None
        self.qmp = None
        self.text = ''      # of the log, once QEMU has ended

    def __enter__(self):
        sys.path.insert(0, str(source_tree(self.build) / 'python'))
        # pylint: disable=import-outside-toplevel,import-error
        from qemu.qmp.legacy import QEMUMonitorProtocol
        socket = os.path.join(self.directory.name, 'qmp')
        self.qmp = QEMUMonitorProtocol(socket, server=True)
        with open(self.log, 'wb') as log:
            self.process = subprocess.Popen(
                [self.binary, '-nodefaults', '-display', 'none',
                 '-qmp', f'unix:{socket}', *self.args],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment)
        try:
            self.qmp.accept(timeout=LIMIT)
        except Exception as exc:
            self.__exit__(None, None, None)
            raise RuntimeError('QEMU did not start: ' +
                               self.text.strip()) from exc
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            with contextlib.suppress(Exception):
                self.qmp.cmd('quit')
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with contextlib.suppress(Exception):
            self.qmp.close()
        self.text = self.log.read_text(errors='replace')
        self.directory.cleanup()
        if any(exc) and self.text:
            print(*(f'# QEMU: {line}' for line in self.text.splitlines()), sep='\n')

    def cmd(self, name, **arguments):
        """Run a QMP command and give what it returns."""
        return self.qmp.cmd(name, **arguments)

    def events(self):
        """The events since the last call."""
        found = self.qmp.get_events()
        self.qmp.clear_events()
        return found

    def _saved(self, name, **arguments):
        """What a command writes to the file that it is given."""
        path = pathlib.Path(self.directory.name) / 'saved'
        self.cmd(name, filename=str(path), **arguments)
        return path.read_bytes()

    def memory(self, address, size):
        """Guest memory, by guest physical address."""
        return self._saved('pmemsave', val=address, size=size)

    def device_tree(self):
        """The device tree that QEMU has made."""
        return self._saved('dumpdtb')

    def wait(self, what, condition, seconds=LIMIT):
        """Poll CONDITION until it gives something true, and give that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            if self.process.poll() is not None:
                raise RuntimeError(
                    f'QEMU ended while waiting for {what}: '
                    + self.log.read_text(errors='replace'))
            time.sleep(0.1)
        raise RuntimeError(f'no {what} after {seconds} s')


@contextlib.contextmanager
def qtest(machine):
    """Start MACHINE with the qtest protocol: the machine, and a qtest.Qtest."""
    path = os.path.join(machine.directory.name, 'qtest')
    machine.args = [*machine.args, '-qtest', f'unix:{path},server=on,wait=off',
                    '-qtest-log', '/dev/null']
    with machine:
        # pylint: disable=import-outside-toplevel,import-error
        from qemu.machine.qtest import QEMUQtestProtocol
        protocol = QEMUQtestProtocol(path)
        protocol.connect()
        try:
            yield machine, Qtest(protocol)
        finally:
            protocol.close()


def has(build, kind, name):
    """Whether a type of this QEMU has a property."""
    with Machine(build, ['-machine', 'none']) as vm:
        return name in (p['name'] for p in
                        vm.cmd('qom-list-properties', typename=kind))
