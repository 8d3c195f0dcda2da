# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people and programs: sizes, lists, tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

_UNITS = ('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB')


def _exact(size: int) -> tuple[int, int]:
    """A size as a whole number of the largest unit, and the unit's index."""
    unit = 0
    while size and size % 1024 == 0 and unit + 1 < len(_UNITS):
        size, unit = size // 1024, unit + 1
    return size, unit


def size_text(size: int) -> str:
    """1536 -> 1536 B, 1 << 30 -> 1 GiB; with a decimal if it would be a long number."""
    number, unit = _exact(size)
    if number < 10000:
        return f'{number} {_UNITS[unit]}'
    value = float(number)
    while value >= 1024 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    return f'{value:.1f} {_UNITS[unit]}'


def size_short(size: int) -> str:
    """A size in the form of QEMU's options: 1 << 30 -> 1G; never a fraction."""
    number, unit = _exact(size)
    return f'{number}{_UNITS[unit][0]}' if unit else str(number)


def number_list(numbers: Sequence[int]) -> str:
    """Consecutive numbers of CPUs or nodes: 0-3, or 4."""
    return f'{numbers[0]}-{numbers[-1]}' if len(numbers) > 1 else str(numbers[0])


def range_list(ranges: Iterable[range]) -> str:
    """Numbers of CPUs, in the form of taskset: 0-3,8."""
    return ','.join(map(number_list, ranges))


def printable(text: str) -> str:
    """Text from elsewhere, without control characters and the like."""
    return ''.join(c if c.isprintable() else '?' for c in text)


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of aligned columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(f'{cell:{width}}' for cell, width in
                      zip(row, widths)).rstrip() for row in rows]


def json_text(data: object) -> str:
    """JSON for programs; only ASCII, in every locale."""
    return json.dumps(data, indent=2)
