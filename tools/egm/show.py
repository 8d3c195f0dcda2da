# SPDX-License-Identifier: GPL-2.0-or-later
"""A report, as lines of text."""

from .format import size_text, table


def _row(gpu):
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
            'no' if gpu.problems else 'yes')


def memory_map(report, backing=None, holes=()):
    """Lines that show guest-physical memory.

    backing: what the memory of a domain is on the host, by domain
    holes: (base, size) that the guest is not told to be RAM
    """
    lines = []
    for affinity in sorted(report.affinities, key=lambda a: a.base):
        if not affinity.enabled or not affinity.size:
            continue
        last = affinity.end - 1
        gpus = [g.function.name or g.label if g.function else g.label
                for g in report.gpus if g.pxm == affinity.pxm]
        text = (f'{affinity.base:#014x}-{last:#014x}  '
                f'{size_text(affinity.size):>8}  node {affinity.pxm}')
        if gpus:
            text += f'  EGM of {", ".join(gpus)}'
        if (backing or {}).get(affinity.pxm):
            text += f'  on {backing[affinity.pxm]}'
        lines.append(text)
        for base, size in holes:
            if affinity.base <= base <= last:
                lines.append(f'  {base:#014x}-{base + size - 1:#014x}  '
                             f'{size_text(size):>6}  withheld')
    return lines


def lines(report, backing=None, holes=()):
    """The whole report."""
    text = []
    if report.gpus:
        text += table([('GPU', 'ACPI path', 'PCI address', 'EGM range', 'size',
                        'node', 'SRAT', 'usable'),
                       *(_row(g) for g in report.gpus)])
    picture = memory_map(report, backing, holes)
    if picture:
        text += ['', 'Guest-physical memory:', *('  ' + p for p in picture)]
    findings = [*(f'problem: {g.label}: {p}' for g in report.gpus
                  for p in g.problems),
                *(f'problem: {p}' for p in report.problems),
                *(f'note: {g.label}: {n}' for g in report.gpus for n in g.notes),
                *(f'note: {n}' for n in report.notes)]
    return text + ['', *findings] if findings else text
