#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit tests and qtests of EGM, compiled for arm64, on the arm64 host.

Their cases become ours.
"""

import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
# pylint: disable=wrong-import-position
from host import Host, PLATFORMS  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])


class Cases:
    """Counts, and prints each as TAP."""

    def __init__(self):
        self.number = 0
        self.failed = False

    def case(self, good, name):
        """One that has ended."""
        self.number += 1
        self.failed |= not good
        print('ok' if good else 'not ok', self.number, name, flush=True)

    def program(self, name, status, text):
        """All cases of a program, by what it wrote. One that does not run all that it
        plans, or fails besides, counts as a case that failed.
        """
        planned, ran, bad = None, 0, 0
        for line in text.splitlines():
            if plan := re.fullmatch(r'1\.\.(\d+)', line):
                planned = int(plan[1])
            elif result := re.fullmatch(r'(not )?ok \d+ (.*)', line):
                ran += 1
                bad += bool(result[1])
                self.case(not result[1], result[2])
            else:
                print('#', line)
        if not planned or ran != planned or status and not bad:
            self.case(False, f'{name}: status {status}, {ran} of {planned} cases')


def main():
    """All programs that are there."""
    cases = Cases()
    keep = BUILD / 'host-programs'
    with Host(PLATFORMS[os.environ.get('EGM_HOST', 'arm64')], BUILD, keep) as host:
        host.boot()
        # One makes a terminal.
        host.check('mkdir /dev/pts && mount -t devpts devpts /dev/pts')
        for name in host.check('ls /tests').split():
            cases.program(name, *host.run(
                f'cd /tmp; QTEST_QEMU_BINARY=/bin/qemu-system-aarch64 '
                f'/tests/{name} --tap -k 2>&1', 900))
    if not cases.number:
        cases.case(False, 'there are no programs')
    print(f'1..{cases.number}')
    return cases.failed


if __name__ == '__main__':
    sys.exit(main())
