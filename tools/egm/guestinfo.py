# SPDX-License-Identifier: GPL-2.0-or-later
"""Read what Linux in a guest reports about its machine."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable

from . import report, smbios, sysfs
from .hostinfo import NVIDIA
from .srat import Affinity

_DISPLAY = 3            # base class of PCI
_BRIDGE = re.compile(r'pci([0-9a-f]{4,8}):([0-9a-f]{2})')


def _read_function(device: str) -> report.Function | None:
    """A PCI function; None: it is not below a host bridge."""
    parts = os.path.realpath(device).split('/')
    bridge = next((b for b in map(_BRIDGE.fullmatch, parts) if b), None)
    if not bridge:
        return None
    steps = parts[parts.index(bridge[0]) + 1:]
    if not all(sysfs.PCI_ADDRESS.fullmatch(step) for step in steps):
        return None
    kind = sysfs.read_number(f'{device}/class', 16) or 0
    return report.Function(
        os.path.basename(device), int(bridge[1], 16) << 8 | int(bridge[2], 16),
        tuple(int(step[-4:-2], 16) << 16 | int(step[-1]) for step in steps),
        gpu=sysfs.read_number(f'{device}/vendor', 16) == NVIDIA and
        kind >> 16 == _DISPLAY)


def pci_functions(root: str | os.PathLike = '') -> list[report.Function]:
    """The PCI functions; NVIDIA's display controllers should have EGM."""
    place = f'{root}/sys/bus/pci/devices'
    found = (_read_function(f'{place}/{name}') for name in sysfs.list_names(place))
    return [function for function in found if function]


def nodes(root: str | os.PathLike = '') -> int | None:
    """The number of NUMA nodes that the kernel supports; None if it is not reported."""
    return sysfs.count_list(sysfs.read_text(
        f'{root}/sys/devices/system/node/possible')) or None


def virtual(root: str | os.PathLike = '') -> bool | None:
    """Whether SMBIOS says that this is a VM; None if it cannot be read."""
    return smbios.find_virtual(sysfs.read_bytes(f'{root}/sys/firmware/dmi/tables/DMI'))


def holes(affinities: Iterable[Affinity],
          root: str | os.PathLike = '') -> list[tuple[int, int]]:
    """What /proc/iomem leaves out of the RAM of SRAT: (base, size)."""
    text = pathlib.Path(f'{root}/proc/iomem').read_text(encoding='ascii',
                                                        errors='replace')
    ranges = sorted((int(first, 16), int(last, 16)) for first, last in
                    re.findall('^([0-9a-f]{1,16})-([0-9a-f]{1,16}) : ', text, re.M))
    found: list[tuple[int, int]] = []
    if not any(last for _, last in ranges):
        return found        # only root is shown the addresses
    for affinity in affinities:
        # Where RAM can be plugged, there may be none.
        if not affinity.enabled or affinity.hot_pluggable:
            continue
        at, end = affinity.base, affinity.base + affinity.size
        for first, last in sorted([*ranges, (end, end)]):
            if at < first <= end:
                found.append((at, first - at))
            at = max(at, last + 1)
    return found
