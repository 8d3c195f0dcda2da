# SPDX-License-Identifier: GPL-2.0-or-later
"""Build files that a test needs in addition to QEMU, on demand.

As a dependency of the test, meson would make it beforehand, and one that
cannot be made would keep all other tests from running. scripts/check makes
beforehand what it can.
"""

import fcntl
import functools
import os
import pathlib
import re
import subprocess
import unittest

from lib import BUILD


@functools.lru_cache(maxsize=None)
def made(build, *targets):
    """Have ninja make TARGETS; give the path of the first.

    Raises SkipTest if a package that they are made of is not on the mirror any more.
    """
    with open(pathlib.Path(build) / '.egm-made', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)    # one ninja at a time
        run = subprocess.run(['ninja', '-C', build, *targets], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             check=False)
    if run.returncode and 'the mirror does not have it' in run.stdout:
        raise unittest.SkipTest(re.search('error: (.*)', run.stdout)[1])
    if run.returncode:
        raise RuntimeError(f'cannot make {targets[0]}:\n{run.stdout}')
    return pathlib.Path(build) / targets[0]


def need_arm64():
    """Skip cases that need QEMU for arm64, unless `make arm64` has built it."""
    if os.uname().machine != 'aarch64' and \
            not (BUILD / 'arm64/qemu-system-aarch64').exists():
        raise unittest.SkipTest('there is no QEMU for arm64: make arm64')
