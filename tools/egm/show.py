# SPDX-License-Identifier: GPL-2.0-or-later
"""A report, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from .finding import NOTE, PROBLEM, UNREAD, Finding
from .format import printable, size_text, table
from .report import Gpu, Report
from .srat import Affinity

_USABLE = {True: 'yes', False: 'no', None: '?'}
Hole = tuple[int, int]      # base, size


def _row(report: Report, gpu: Gpu) -> tuple[str, ...]:
    """A line of the table of GPUs."""
    where, size, node, entry = '-', '-', '-', 'none'
    if gpu.base is not None and gpu.size:
        where = f'{gpu.base:#x}-{gpu.base + gpu.size - 1:#x}'
    if gpu.size is not None:
        size = size_text(gpu.size)
    if gpu.pxm is not None:
        node = str(gpu.pxm)
    if gpu.affinity:
        entry = f'#{gpu.affinity.index}'
    name = gpu.function.name if gpu.function else ''
    address = gpu.function.address if gpu.function else '-'
    return (name or '-', gpu.path or '-', address, where, size, node, entry,
            _USABLE[report.usable(gpu)])


def _affinities(report: Report) -> list[Affinity]:
    """Those of RAM, by address."""
    return sorted((a for a in report.affinities if a.enabled and a.size),
                  key=lambda a: a.base)


def memory_map(report: Report, backing: Mapping[int, str] | None = None,
               holes: Sequence[Hole] = ()) -> list[str]:
    """Lines that show guest-physical memory.

    backing: the EGM region of the host that a range of memory is, by its base
    holes: what the guest does not get
    """
    lines = []
    for affinity in _affinities(report):
        last = affinity.end - 1
        gpus = [g.short_label for g in report.gpus if g.pxm == affinity.pxm]
        text = (f'{affinity.base:#014x}-{last:#014x}  '
                f'{size_text(affinity.size):>8}  node {affinity.pxm}')
        if affinity.hot_pluggable:
            text += '  for RAM that is plugged'
        if gpus:
            text += f'  EGM of {", ".join(gpus)}'
        if (backing or {}).get(affinity.base):
            text += f'  on {backing[affinity.base]}'
        lines.append(text)
        for base, size in holes:
            if affinity.base <= base <= last:
                lines.append(f'  {base:#014x}-{base + size - 1:#014x}  '
                             f'{size_text(size):>6}  hole')
    return lines


def _findings(report: Report) -> list[Finding]:
    """Those of all GPUs, with their names, and the others."""
    return [*(dataclasses.replace(f, text=f'{gpu.label}: {f.text}')
              for gpu in report.gpus for f in gpu.findings), *report.findings]


def lines(report: Report, backing: Mapping[int, str] | None = None,
          holes: Sequence[Hole] = ()) -> list[str]:
    """The whole report."""
    parts = []
    if report.gpus:
        parts.append(table([('GPU', 'ACPI path', 'PCI address', 'EGM range', 'size',
                             'node', 'SRAT', 'usable'),
                            *(_row(report, g) for g in report.gpus)]))
    picture = memory_map(report, backing, holes)
    if picture:
        parts.append(['Guest-physical memory:', *('  ' + p for p in picture)])
    found = _findings(report)
    parts.append([f'{word}: {f.text}' for level, word in (
        (PROBLEM, 'problem'), (UNREAD, 'unread'), (NOTE, 'note'))
                  for f in found if f.level == level])
    text = []
    for part in filter(None, parts):
        text += ([''] if text else []) + part
    # Names come from the guest.
    return [printable(line) for line in text]


def _describe_gpu(report: Report, gpu: Gpu) -> dict:
    """For JSON; null: there is none."""
    function = gpu.function
    return {'name': function.name if function and function.name else None,
            'acpi-path': gpu.path or None,
            'pci-address': function.address if function else None,
            'base': gpu.base, 'size': gpu.size, 'proximity-domain': gpu.pxm,
            'srat-entry': gpu.affinity.index if gpu.affinity else None,
            'usable': report.usable(gpu),
            'findings': [f.as_dict() for f in gpu.findings]}


def data(report: Report, backing: Mapping[int, str] | None = None,
         holes: Sequence[Hole] = ()) -> dict:
    """For JSON. Sizes and addresses are bytes; usable: null if it is unknown."""
    return {'usable': report.good,
            'gpus': [_describe_gpu(report, gpu) for gpu in report.gpus],
            'memory': [{
                'base': a.base, 'size': a.size, 'proximity-domain': a.pxm,
                'region': (backing or {}).get(a.base),
                'holes': [{'base': base, 'size': size} for base, size in holes
                          if a.base <= base < a.end]} for a in _affinities(report)],
            'findings': [f.as_dict() for f in report.findings]}
