# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial console of a VM, or another connection to it."""

import pathlib
import time

import pexpect
from pexpect import fdpexpect

from lib import LIMIT


class Terminal:
    """Input and output of a console. The output is kept in the file `console` in the
    directory `keep`.
    """

    def __init__(self, keep):
        self.keep = pathlib.Path(keep)
        self.keep.mkdir(parents=True, exist_ok=True)

    def attach(self, serial):
        """Use a socket as the console."""
        self.line = fdpexpect.fdspawn(
            serial, encoding='utf-8', codec_errors='replace',
            logfile=open(self.keep / 'console', 'w', encoding='utf-8'))
        self.send = self.line.sendline

    def expect(self, text, seconds=LIMIT):
        """Wait for TEXT; return the output before it."""
        try:
            self.line.expect_exact(text, seconds)
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            raise AssertionError(
                f'no "{text}" on the console, see {self.keep}; the last lines: '
                f'{self.line.before.splitlines()[-3:]}') from error
        return self.line.before

    def run(self, line, seconds=LIMIT):
        """Let the init of the other side run a line; return exit status and output."""
        self.send(line)
        text = self.expect('EGM done ', seconds)
        status = self.expect('\n')
        return int(status), text.replace('\r', '').lstrip('\n')

    def boot(self):
        """Wait until the VM accepts commands, and print the time that it took."""
        begin = time.monotonic()
        self.expect('EGM ready')
        print(f'# boot: {self.keep.name}: {time.monotonic() - begin:.1f} s',
              flush=True)


class Console(Terminal):
    """A VM's first serial port; a context manager around the VM's life.

    vm: a machine.Machine that is not started. The output of its QEMU is kept in the file
    `qemu`.
    """

    def __init__(self, vm, keep):
        super().__init__(keep)
        self.vm = vm
        vm.set_console()

    def __enter__(self):
        self.vm.__enter__()
        self.attach(self.vm.console_socket)
        return self

    def __exit__(self, *exc):
        self.vm.__exit__(*exc)
        (self.keep / 'qemu').write_text(self.vm.get_log())
