# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest tests with pages of 64 KiB, as guests on Grace have them.

The kernel is built for this; it supports as many NUMA nodes as QEMU.
"""

from guest import test_driver, test_guest, test_retired

KERNEL = '6.12-64k'


class Topologies64k(test_guest.Topologies):
    """All of them."""

    kernel = KERNEL

    def boot_once(self, case, kernel=None):
        """Boot, and check the kernel's page size as well."""
        report = super().boot_once(case, kernel)
        self.assertEqual(report.page_size, 65536)
        return report

    def test_34_nodes(self):
        """2 sockets, 4 GPUs with 8 nodes each: Linux numbers them as -numa does."""
        report = self.boot_once(test_guest.with_initiators(8))
        self.assertEqual(report.distances, test_guest.distances(34))
        self.assertEqual([report.memory[n] > 0 for n in range(34)],
                         [True] * 2 + [False] * 32)


class Retired64k(test_retired.Retired):
    """With these pages, each retired block is one page."""

    kernel = KERNEL
    test_big_pages = None


class Driver64k(test_driver.Driver):
    """The driver of /dev/egmX in this guest."""

    kernel = KERNEL
