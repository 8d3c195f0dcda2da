# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own class for a VM, from the tree of the build, with additions for our tests."""

import contextlib
import pathlib
import re
import sys
import threading
import time

from lib import BUILD, LIMIT
from lib.qtest import Qtest

# The merged QEMU tree of the build
TREE = pathlib.Path(re.search(r'(?m)^SRC_PATH=(.*)',
                              (BUILD / 'config-host.mak').read_text())[1])
sys.path.append(str(TREE / 'python'))
# pylint: disable=wrong-import-position
from qemu.machine.machine import AbnormalShutdown, QEMUMachine, VMLaunchFailure  # noqa: E402
from qemu.machine.qtest import QEMUQtestProtocol  # noqa: E402


class Machine(QEMUMachine):
    """A context manager that starts QEMU with ARGS and always ends it.

    environment: variables in addition to those of this process
    """

    def __init__(self, args, binary=BUILD / 'qemu-system-aarch64', environment=None):
        variables = (f'{name}={value}' for name, value in (environment or {}).items())
        super().__init__(str(binary), ['-nodefaults', *args],
                         wrapper=['env', *variables] if environment else ())

    def __enter__(self):
        # If QEMU hangs, launch() would wait endlessly.
        watchdog = threading.Timer(LIMIT, lambda: self._popen.kill())
        watchdog.start()
        try:
            self.launch()
        except VMLaunchFailure as failure:
            raise RuntimeError(f'QEMU did not start: {failure.output}') from failure
        finally:
            watchdog.cancel()
        self._qmp.settimeout(LIMIT)
        return self

    def __exit__(self, *exc):
        # QEMU may have ended by itself.
        with contextlib.suppress(AbnormalShutdown):
            self.shutdown(timeout=LIMIT)
        if any(exc):
            print(*(f'# QEMU: {line}' for line in self.get_log().splitlines()), sep='\n')

    def hmp(self, line):
        """Run a command of the human monitor; return its output."""
        return self.cmd('human-monitor-command', command_line=line)

    def _saved(self, name, **arguments):
        """The data that a command writes to its file."""
        path = pathlib.Path(self.temp_dir) / 'saved'
        self.cmd(name, filename=str(path), **arguments)
        return path.read_bytes()

    def memory(self, address, size):
        """Guest memory, by guest physical address."""
        return self._saved('pmemsave', val=address, size=size)

    def device_tree(self):
        """The device tree that QEMU has built."""
        return self._saved('dumpdtb')

    def until(self, what, condition, seconds=LIMIT):
        """Poll CONDITION until its value is true, and return this value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            alive = self.is_running()
            value = condition()
            if value:
                return value
            if not alive:
                raise RuntimeError(f'QEMU ended before: {what}')
            time.sleep(0.1)
        raise RuntimeError(f'no {what} after {seconds} s')


@contextlib.contextmanager
def qtest(vm):
    """Start a Machine with the qtest protocol: the machine, and a qtest.Qtest."""
    path = f'{vm.temp_dir}/qtest'
    vm.add_args('-qtest', f'unix:{path},server=on,wait=off', '-qtest-log', '/dev/null')
    with vm:
        protocol = QEMUQtestProtocol(path)
        protocol.settimeout(LIMIT)
        protocol.connect()
        try:
            yield vm, Qtest(protocol)
        finally:
            protocol.close()


def has(kind, name):
    """Whether a type of this QEMU has a property."""
    with Machine(['-machine', 'none']) as vm:
        return name in (p['name'] for p in vm.cmd('qom-list-properties', typename=kind))
