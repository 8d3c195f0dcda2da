# SPDX-License-Identifier: GPL-2.0-or-later
"""Build files that a test needs in addition to QEMU, on demand.

If these files were dependencies of the test, meson would build them before all tests,
and one failed build would keep all tests from running. scripts/check builds as many of
them as possible before the tests.
"""

import fcntl
import functools
import os
import pathlib
import re
import subprocess
import unittest

from lib import BUILD


def ninja(build, *args, **options):
    """Run ninja in a build, one at a time; OPTIONS are those of subprocess.run()."""
    with open(pathlib.Path(build) / '.egm-made', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return subprocess.run(['ninja', '-C', build, *args], check=False, **options)


@functools.lru_cache(maxsize=None)
def made(build, *targets):
    """Let ninja build TARGETS; return the path of the first.

    Raises SkipTest if the mirror no longer has a package that they are built from.
    """
    run = ninja(build, *targets, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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
