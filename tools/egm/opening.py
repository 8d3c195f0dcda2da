# SPDX-License-Identifier: GPL-2.0-or-later
"""Open the regions of a VM at the same time, as the driver clears each when it is opened.

Some versions of the driver damage the host's kernel if a region is closed that was never
mapped, and some can map it only once. So the process that has opened a region stays until
the VM has mapped it; if the VM ends before, it maps the region itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import mmap
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence

from . import background, sysfs
from .format import size_text
from .hostinfo import Host, Region

# Seconds: how often it is looked whether a VM has mapped a region; how long a process can
# take to end.
_PERIOD, _PATIENCE = 0.1, 2


class Failed(Exception):
    """A region could not be opened. lines: why, and what goes on"""

    def __init__(self, *lines: str):
        super().__init__('\n'.join(lines))
        self.lines = lines


@dataclasses.dataclass
class _Opener:
    """A process that opens a region."""
    region: Region
    socket: socket.socket
    begun: float
    pid: int = 0        # 0: not known yet
    file: int = -1      # the descriptor, when it is open
    error: int = 0      # errno, when it cannot be opened


def _is_mapped(status: os.stat_result, pid: int) -> bool:
    """Whether a process has mapped a file."""
    device = f'{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}'
    return re.search(rf' {device} {status.st_ino} '.encode(),
                     sysfs.read_bytes(f'/proc/{pid}/maps')) is not None


def _serve(path: str, directory: str, theirs: socket.socket, vm: int, vm_file: int) -> None:
    """Open a region, pass the descriptor on, and stay as long as that is needed.

    directory: the region's in sysfs
    vm: the process that will be the VM; vm_file: its pidfd
    """
    os.setsid()         # Ctrl-C on the terminal is not for this process.
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    theirs.send(struct.pack('ii', os.getpid(), 0))
    try:
        # While the driver clears the region, nothing else shows that it is in use.
        fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        file = os.open(path, os.O_RDWR)
        # QEMU has the lock as well, through the same open file.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        theirs.send(struct.pack('ii', 0, errno.EBUSY))
        return
    except OSError as error:
        theirs.send(struct.pack('ii', 0, error.errno or 0))
        return
    status = os.fstat(file)
    with contextlib.suppress(OSError):
        socket.send_fds(theirs, [struct.pack('ii', 0, 0)], [file])
    theirs.close()
    gone = select.poll()
    gone.register(vm_file, select.POLLIN)
    while not _is_mapped(status, vm):
        if gone.poll(_PERIOD * 1000):
            with contextlib.suppress(OSError, ValueError):
                mmap.mmap(file, mmap.PAGESIZE)
            return


def _start(host: Host, region: Region, vm_file: int, openers: list[_Opener]) -> None:
    """Start a process for a region. It is in the list before it starts, so that Ctrl-C finds
    it there."""
    ours, theirs = socket.socketpair()
    openers.append(_Opener(region, ours, time.monotonic()))
    vm = os.getpid()

    def serve() -> None:
        ours.close()
        _serve(region.path, host.path(f'/sys/class/egm/{region.name}'), theirs, vm, vm_file)

    with theirs:
        background.start(serve)


def _receive(opener: _Opener) -> bool:
    """Take a message of a process; gives whether it was the last one."""
    data, files, _, _ = socket.recv_fds(opener.socket, 8, 1)
    if not data:
        opener.error = opener.error or -1
        return True
    pid, opener.error = struct.unpack('ii', data)
    opener.pid = pid or opener.pid
    if files:
        opener.file = files[0]
    return not pid


def _reason(error: int) -> str:
    """What an errno means for a region."""
    if error == errno.EBUSY:
        return 'the region is in use by another process'
    return os.strerror(error) if error > 0 else 'the process that opens it has ended'


def _abandon(host: Host, openers: Sequence[_Opener]) -> list[str]:
    """End what can be ended; gives what the kernel has to finish."""
    waiting = {o.socket: o for o in openers if o.file < 0 and not o.error}
    # Of the drivers, only this one lets a fatal signal end the clearing; with others, the
    # region would then be closed without having been mapped.
    killable = os.path.exists(host.path('/sys/module/egm'))
    end = time.monotonic() + (_PATIENCE if killable else _PERIOD)
    while waiting and time.monotonic() < end:
        for opener in waiting.values():
            if killable and opener.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(opener.pid, signal.SIGKILL)
        for ready in select.select(list(waiting), [], [], _PERIOD)[0]:
            if _receive(waiting[ready]):
                del waiting[ready]
    return [f'the kernel is still clearing {o.region.name} (process {o.pid}), which cannot be '
            'interrupted: until it has finished, the region is in use'
            for o in waiting.values()]


def open_all(host: Host, regions: Sequence[Region]) -> dict[str, int]:
    """Descriptors by names of regions, which a new program inherits; Failed if one cannot
    be opened, and KeyboardInterrupt."""
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    openers: list[_Opener] = []
    vm_file = os.pidfd_open(os.getpid())
    try:
        for region in regions:
            say(f'{region.name}: opening; the driver clears {size_text(region.size)}')
            _start(host, region, vm_file, openers)
        left = {o.socket: o for o in openers}
        while left and not any(o.error for o in openers):
            for ready in select.select(list(left), [], [])[0]:
                opener = left[ready]
                if _receive(opener):
                    del left[ready]
                    if not opener.error:
                        say(f'{opener.region.name}: open after '
                            f'{time.monotonic() - opener.begun:.0f} s')
    except KeyboardInterrupt:
        for line in _abandon(host, openers):
            say(line)
        raise
    finally:
        os.close(vm_file)
    wrong = [f'{o.region.device}: {_reason(o.error)}' for o in openers if o.error]
    if wrong:
        raise Failed(*wrong, *_abandon(host, openers))
    for opener in openers:
        # /proc/locks names the process that took the lock. It has to be this one, which
        # becomes QEMU; only a lock of another kind is taken anew.
        for kind in fcntl.LOCK_SH, fcntl.LOCK_EX:
            fcntl.flock(opener.file, kind | fcntl.LOCK_NB)
        os.set_inheritable(opener.file, True)
        opener.socket.close()
    return {o.region.name: o.file for o in openers}
