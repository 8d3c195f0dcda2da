# SPDX-License-Identifier: GPL-2.0-or-later
"""Read SLIT, the table of distances between proximity domains (ACPI 6.5, 5.2.17)."""

from __future__ import annotations

import struct

# What Linux takes for the distance of two nodes if there is no SLIT
LOCAL, REMOTE = 10, 20


class Slit:
    """Distances. Without a table, those that Linux assumes."""

    def __init__(self, table: bytes | None = None):
        self.table = table or b''
        self.count = 0
        if len(self.table) >= 44:
            self.count, = struct.unpack_from('<Q', self.table, 36)
            if len(self.table) < 44 + self.count ** 2:
                self.count = 0

    @property
    def damaged(self) -> bool:
        """Whether there is a table that cannot be read."""
        return bool(self.table) and not self.count

    def distance(self, a: int, b: int) -> int:
        """From one proximity domain to another."""
        if a < self.count and b < self.count:
            return self.table[44 + a * self.count + b]
        return LOCAL if a == b else REMOTE
