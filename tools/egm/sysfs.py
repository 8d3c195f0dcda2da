# SPDX-License-Identifier: GPL-2.0-or-later
"""Read files of Linux' /sys and /proc, which can be absent or hold anything."""

from __future__ import annotations

import os
import re

# DOMAIN:BUS:DEVICE.FUNCTION, as Linux writes it
PCI_ADDRESS = re.compile(r'[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]')
# No file that is read here is larger. /proc/sys refuses a read of 4 MiB.
_LIMIT = 2 << 20


def read_bytes(path: str | os.PathLike) -> bytes:
    """The content of a file; nothing if it cannot be read."""
    try:
        with open(path, 'rb') as file:
            return file.read(_LIMIT)
    except OSError:
        return b''


def read_text(path: str | os.PathLike) -> str:
    """The same, as text without space around it."""
    return read_bytes(path).decode('utf-8', 'replace').strip()


def parse_number(text: str, base: int = 10) -> int | None:
    """A number as the kernel writes it: decimal, hexadecimal with 0x, or of BASE;
    None if it is something else."""
    if re.fullmatch(r'-?[0-9]{1,20}', text, re.A) and base == 10:
        return int(text)
    if re.fullmatch(r'0x[0-9a-f]{1,16}', text, re.I | re.A):
        return int(text, 16)
    if re.fullmatch(r'[0-9a-f]{1,16}', text, re.I | re.A) and base == 16:
        return int(text, 16)
    return None


def read_number(path: str | os.PathLike, base: int = 10) -> int | None:
    """The number in a file; None if there is none."""
    return parse_number(read_text(path), base)


def link_name(path: str | os.PathLike) -> str:
    """The last part of a link's target; empty if it is not a link."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ''


def list_names(path: str | os.PathLike) -> list[str]:
    """The names in a directory, sorted; none if it cannot be read."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def parse_list(text: str) -> list[range]:
    """A list of CPUs or nodes such as 0-3,8; invalid parts are omitted."""
    ranges = []
    for part in text.split(','):
        match = re.fullmatch(r'([0-9]{1,6})(?:-([0-9]{1,6}))?', part.strip(), re.A)
        if match:
            ranges.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return [part for part in ranges if part]


def count_list(text: str) -> int:
    """The number of entries in such a list."""
    return sum(map(len, parse_list(text)))
