# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: sizes and tables."""


def size_text(size):
    """1536 -> 1536 B, 1 << 30 -> 1 GiB."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if size % 1024 or size == 0:
            return f'{size} {unit}'
        size //= 1024
    return f'{size} TiB'


def size_short(size):
    """As QEMU's options take it: 1 << 30 -> 1G; never a fraction."""
    number, unit = size_text(size).split()
    return number if unit == 'B' else number + unit[0]


def number_list(numbers):
    """Of CPUs or nodes that follow each other: 0-3, or 4."""
    return f'{numbers[0]}-{numbers[-1]}' if len(numbers) > 1 else str(numbers[0])


def table(rows):
    """Lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(f'{cell:{width}}' for cell, width in
                      zip(row, widths)).rstrip() for row in rows]
