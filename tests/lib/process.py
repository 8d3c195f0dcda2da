# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that a test runs."""

import socket
import subprocess
import time

from egm import running
from lib import LIMIT


def output(*command, **keywords):
    """Run a program that must succeed; return its output on stdout.

    keywords: the same as for subprocess.run()
    Raises RuntimeError with all output if the program fails.
    """
    run = subprocess.run([str(word) for word in command], check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
    if run.returncode:
        raise RuntimeError(f'{command[0]}: exit status {run.returncode}\n'
                           f'{run.stdout}{run.stderr}')
    return run.stdout


def monitor(path, vm):
    """The monitor of a VM that can still be starting, on a machine that can be busy.

    vm: its process
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LIMIT)
    end = time.monotonic() + LIMIT
    # QEMU creates the file before it listens.
    while connection.connect_ex(str(path)) and vm.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return running.Socket('QEMU', connection)
