# SPDX-License-Identifier: GPL-2.0-or-later
"""The unit tests and qtests of EGM, compiled for arm64, on the arm64 host."""

import re
import unittest

from host.test_host import HOST, HostTest


@unittest.skipIf(HOST.inner == 'qemu-system-aarch64', 'they run on this machine')
class Programs(HostTest):
    """Each program runs all of its cases, and none fails."""

    def test_programs(self):
        """The programs in tests/images/meson.build."""
        # One makes a terminal.
        self.host.check('mkdir /dev/pts && mount -t devpts devpts /dev/pts')
        self.addCleanup(self.host.check, 'umount /dev/pts && rmdir /dev/pts')
        programs = self.host.check('ls /tests').split()
        self.assertTrue(programs)
        for name in programs:
            with self.subTest(name):
                status, text = self.host.run(
                    'cd /tmp; QTEST_QEMU_BINARY=/bin/qemu-system-aarch64 '
                    f'/tests/{name} --tap -k 2>&1', 3600)
                planned, = re.findall(r'(?m)^1\.\.(\d+)$', text)
                passed = re.findall(r'(?m)^ok \d+', text)
                self.assertEqual((status, len(passed)), (0, int(planned)), text)
