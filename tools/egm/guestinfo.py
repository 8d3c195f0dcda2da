# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux tells about the machine that it runs on."""

import glob
import os
import pathlib
import re

from . import report

_ADDRESS = re.compile(r'[0-9a-f]{4}:[0-9a-f]{2}:([0-9a-f]{2})\.([0-7])')


def pci_functions(root=''):
    """The PCI functions; NVIDIA's display controllers should have EGM."""
    functions = []
    for path in sorted(glob.glob(f'{root}/sys/bus/pci/devices/*')):
        parts = os.path.realpath(path).split('/')
        bridge = next(p for p in parts if re.fullmatch(r'pci[0-9a-f]{4}:..', p))
        steps = [_ADDRESS.fullmatch(p) for p in parts[parts.index(bridge) + 1:]]

        def read(name, path=path):
            return int(pathlib.Path(path, name).read_text(), 16)

        functions.append(report.Function(
            os.path.basename(path), int(bridge[-2:], 16),
            tuple(int(s.group(1), 16) << 16 | int(s.group(2)) for s in steps),
            gpu=read('vendor') == 0x10de and read('class') >> 16 == 3))
    return functions


def nodes(root=''):
    """How many NUMA nodes the kernel has room for; None if it does not tell."""
    path = pathlib.Path(f'{root}/sys/devices/system/node/possible')
    if not path.exists():
        return None
    count = 0
    for part in path.read_text().strip().split(','):
        first, _, last = part.partition('-')
        count += int(last or first) - int(first) + 1
    return count


def holes(affinities, root=''):
    """What /proc/iomem leaves out of the RAM of SRAT: (base, size)."""
    text = pathlib.Path(f'{root}/proc/iomem').read_text()
    ranges = sorted((int(first, 16), int(last, 16)) for first, last in
                    re.findall('^([0-9a-f]+)-([0-9a-f]+) : ', text, re.M))
    found = []
    if not any(last for _, last in ranges):
        return found        # only root is told the addresses
    for affinity in affinities:
        if not affinity.enabled:
            continue
        at, end = affinity.base, affinity.base + affinity.size
        for first, last in sorted([*ranges, (end, end)]):
            if at < first <= end:
                found.append((at, first - at))
            at = max(at, last + 1)
    return found
