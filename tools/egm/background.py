# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that go on after egm-vm has become QEMU."""

from __future__ import annotations

import os
from collections.abc import Callable


def start(function: Callable[[], None]) -> None:
    """Run a function in a process that is not a child of this one: QEMU would not wait for
    the end of a child that it does not know."""
    child = os.fork()
    if not child:
        status = 1
        try:
            if not os.fork():
                function()
            status = 0
        finally:
            os._exit(status)    # pylint: disable=protected-access
    os.waitpid(child, 0)
