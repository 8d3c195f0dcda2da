# SPDX-License-Identifier: GPL-2.0-or-later
"""Run our functional test for QEMU without QEMU's runner and downloads.

The runner, pycotap, is not in Debian 12. The assets are files of one version of Debian's
installer. The test boots the files of the current version instead.
"""

import os
import pathlib
import runpy
import subprocess
import sys
import types

import tap.runner

TOP = pathlib.Path(__file__).resolve().parents[2]


def _runner(**_):
    """A replacement for pycotap.TAPTestRunner."""
    runner = tap.runner.TAPTestRunner()
    runner.set_stream(True)
    return runner


def main():
    """usage: functional.py TREE, with the environment of QEMU's functional tests"""
    functional = pathlib.Path(sys.argv[1]) / 'tests/functional'
    sys.path[:0] = [str(functional / '../../python'), str(functional),
                    str(functional / 'aarch64')]
    sys.modules['pycotap'] = types.SimpleNamespace(
        TAPTestRunner=_runner, LogMode=types.SimpleNamespace(LogToError=None))
    # pylint: disable=import-outside-toplevel,import-error
    from qemu_test import Asset
    run = subprocess.run([TOP / 'scripts/fetch', 'installer'], check=False, text=True,
                         stdout=subprocess.PIPE)
    if run.returncode == 77:
        print('1..0 # SKIP the mirror does not have debian-installer-13-netboot-arm64')
        return
    run.check_returncode()
    directory = pathlib.Path(run.stdout.strip())
    Asset.available = lambda self: True
    Asset.fetch = lambda self: str(directory / os.path.basename(self.url))
    test = functional / 'aarch64/test_egm_memory.py'
    sys.argv = [str(test)]
    runpy.run_path(str(test), run_name='__main__')


if __name__ == '__main__':
    main()
