# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial console of a VM, or another line to one."""

import contextlib
import pathlib
import socket
import threading
import time

from lib.machine import LIMIT


class Terminal:
    """What is typed, and what comes back; that is kept in the file `console` in
    the directory `keep`.
    """

    def __init__(self, keep):
        self.keep = pathlib.Path(keep)
        self.keep.mkdir(parents=True, exist_ok=True)
        self.text = ''
        self.changed = threading.Condition()
        self.seen = 0

    def attach(self, serial):
        """Talk over a socket, until the other side closes it."""
        self.serial = serial
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def detach(self):
        """The end."""
        self.thread.join(10)
        self.serial.close()
        (self.keep / 'console').write_text(self.text)

    def _read(self):
        with contextlib.suppress(OSError):
            while data := self.serial.recv(1 << 16):
                with self.changed:
                    self.text += data.decode(errors='replace')
                    self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def send(self, line):
        """Type a line."""
        self.serial.sendall(line.encode() + b'\n')

    def expect(self, text, seconds=LIMIT):
        """Wait for TEXT; give what came before it."""
        end = time.monotonic() + seconds
        with self.changed:
            while (at := self.text.find(text, self.seen)) < 0:
                if not self.thread.is_alive() or \
                        not self.changed.wait(max(end - time.monotonic(), 0)):
                    last = self.text.strip().splitlines()[-3:]
                    raise AssertionError(
                        f'no "{text}" on the console, see {self.keep}; '
                        f'the last lines: {last}')
            before = self.text[self.seen:at]
            self.seen = at + len(text)
            return before

    def run(self, line, seconds=LIMIT):
        """Have a line run that the other side's init understands; give its exit status,
        and what it printed.
        """
        self.send(line)
        text = self.expect('EGM done ', seconds)
        status = self.expect('\n')
        return int(status), text.replace('\r', '').lstrip('\n')

    def boot(self):
        """Wait until the VM takes commands, and tell how long that took."""
        begin = time.monotonic()
        self.expect('EGM ready')
        print(f'# boot: {self.keep.name}: {time.monotonic() - begin:.1f} s',
              flush=True)


class Console(Terminal):
    """Connects to a VM's first serial port; a context manager around its life.

    vm: a machine.Machine, not yet started. What its QEMU says is kept in the file
    `qemu`.
    """

    def __init__(self, vm, keep):
        super().__init__(keep)
        self.vm = vm
        # QEMU connects to us: what the firmware says first is not lost.
        path = str(pathlib.Path(vm.directory.name) / 'console')
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        vm.args = [*vm.args, '-serial', f'unix:{path}']

    def __enter__(self):
        self.vm.__enter__()
        self.attach(self.listener.accept()[0])
        return self

    def __exit__(self, *exc):
        self.vm.__exit__(*exc)
        self.detach()
        self.listener.close()
        (self.keep / 'qemu').write_text(self.vm.text)
