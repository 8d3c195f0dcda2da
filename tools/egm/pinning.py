# SPDX-License-Identifier: GPL-2.0-or-later
"""Pin the vCPUs of each NUMA node to the CPUs of its socket on the host.

QEMU cannot do that itself, and knows its threads only when it runs. So a process asks it for
them through a monitor of its own: the VM's QMP socket takes one client at a time.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

from . import background
from .format import range_list
from .plan import Vm
from .running import Monitor, Socket


def pin(monitor: Monitor, vm: Vm) -> list[str]:
    """Pin the vCPUs of a VM that runs; returns errors."""
    wanted = {index: s.host_cpus for s in vm.sockets for index in s.cpus}
    threads: dict[int, list[range]] = {}
    # TCG can run all vCPUs in one thread.
    for cpu in monitor.command('query-cpus-fast'):
        threads.setdefault(cpu['thread-id'], []).extend(wanted.get(cpu['cpu-index'], []))
    errors = {}
    for thread, cpus in threads.items():
        try:
            if cpus:
                os.sched_setaffinity(thread, [number for part in cpus for number in part])
        except (OSError, ValueError) as error:
            errors[range_list(cpus)] = getattr(error, 'strerror', None) or error
    return [f'cannot pin vCPUs to CPUs {cpus} of the host: {error}'
            for cpus, error in errors.items()]


def start(vm: Vm, files: Iterable[int]) -> int | None:
    """Start a process that pins the vCPUs. Returns the descriptor of a monitor that QEMU has
    to serve; None: the host does not report the CPUs of any socket of the VM.

    files: descriptors that are for QEMU alone
    """
    if not any(s.host_cpus for s in vm.sockets):
        return None
    ours, theirs = socket.socketpair()

    def serve() -> None:
        for number in (theirs.fileno(), *files):
            os.close(number)
        try:
            monitor = Socket('QEMU', ours)
        except RuntimeError:
            return      # It has ended, with an error of its own.
        try:
            errors = pin(monitor, vm)
        except RuntimeError as error:
            errors = [f'cannot pin vCPUs: {error}']
        for error in errors:
            print(f'note: {error}', file=sys.stderr, flush=True)

    background.start(serve)
    ours.close()
    os.set_inheritable(theirs.fileno(), True)
    return theirs.detach()
