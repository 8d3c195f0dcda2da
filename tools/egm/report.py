# SPDX-License-Identifier: GPL-2.0-or-later
"""What ACPI tables tell a GPU driver about EGM, and what is wrong with it.

Nothing but Python is needed, so that this runs in any guest.
"""

import dataclasses
import struct
import uuid

from . import aml

_DSD = uuid.UUID('daffd814-6eba-4d8c-8a91-bc9bbf4aa301').bytes_le
_HOST_BRIDGES = {'PNP0A03', 'PNP0A08', 0x030ad041, 0x080ad041}
_PROPERTIES = ('nvidia,egm-base-pa', 'nvidia,egm-size', 'nvidia,egm-pxm')


@dataclasses.dataclass
class Function:
    """A PCI function, as the guest or QEMU sees it."""
    address: str        # 0000:21:00.0
    root: int           # number of the root bus
    chain: tuple        # _ADR of each device from the root bus to this one
    name: str = ''      # what the user calls it
    gpu: bool = False   # should have EGM


@dataclasses.dataclass
class Affinity:
    """A Memory Affinity Structure of SRAT (ACPI 6.5, 5.2.16.2)."""
    index: int          # its place among the entries of SRAT
    base: int
    size: int
    pxm: int
    enabled: bool


@dataclasses.dataclass
class Gpu:
    """What one GPU is told."""
    path: str           # of its ACPI Device; '' if there is none
    root: int = None    # number of the root bus
    chain: tuple = ()
    base: int = None    # None: there is no such property
    size: int = None
    pxm: int = None
    function: Function = None
    affinity: Affinity = None
    problems: list = dataclasses.field(default_factory=list)

    @property
    def label(self):
        """The best name there is."""
        if not self.function:
            return self.path
        if not self.function.name:
            return self.function.address
        return f'{self.function.name} ({self.function.address})'


def _is_host_bridge(device):
    """Whether a Device is a PCI host bridge; _CID can be a list."""
    compatible = device.names.get('_CID')
    ids = compatible if isinstance(compatible, list) else [compatible]
    return any(i in _HOST_BRIDGES for i in [device.names.get('_HID'), *ids])


def _properties(names):
    """EGM properties of a _DSD, or None."""
    dsd = names.get('_DSD')
    if not isinstance(dsd, list):
        return None
    for kind, content in zip(dsd[::2], dsd[1::2]):
        if kind == _DSD and isinstance(content, list):
            found = {p[0]: p[1] for p in content
                     if isinstance(p, list) and len(p) == 2}
            if any(p in found for p in _PROPERTIES):
                return found
    return None


def _gpus(devices):
    """The Devices with EGM properties."""
    by_path = {d.path: d for d in devices}
    for device in devices:
        found = _properties(device.names)
        if found is None:
            continue
        gpu = Gpu(device.path)
        gpu.base, gpu.size, gpu.pxm = (
            found[p] if isinstance(found.get(p), int) else None
            for p in _PROPERTIES)
        for name, value in zip(_PROPERTIES, (gpu.base, gpu.size, gpu.pxm)):
            if value is None:
                gpu.problems.append(f'there is no integer {name}')
        parts, chain = device.path.split('.'), []
        for i in range(len(parts), 0, -1):
            step = by_path.get('.'.join(parts[:i]))
            if step and _is_host_bridge(step):
                gpu.root = step.names.get('_BBN', 0)
                break
            if step and '_ADR' in step.names:
                chain.insert(0, step.names['_ADR'])
            else:
                path = '.'.join(parts[:i])
                gpu.problems.append(f'{path} has no _ADR: Linux does not bind '
                                    'it to a PCI function' if step else
                                    f'{path} is no Device: there is no PCI host '
                                    'bridge above')
                break
        gpu.chain = tuple(chain)
        yield gpu


def _srat(table):
    """Memory affinities, and domains with a Generic Initiator."""
    affinities, initiators = [], set()
    at, index = 48, 0
    while table and at + 2 <= len(table):
        kind, length = table[at], table[at + 1]
        if length < 2 or at + length > len(table):
            break
        entry = table[at:at + length]
        if kind == 1 and length >= 40:
            pxm, base, size, flags = struct.unpack_from('<I2xQQ4xI', entry, 2)
            affinities.append(Affinity(index, base, size, pxm, bool(flags & 1)))
        elif kind == 5 and length >= 32:
            pxm, flags = struct.unpack_from('<I16xI', entry, 4)
            if flags & 1:
                initiators.add(pxm)
        at += length
        index += 1
    return affinities, initiators


def _check_range(gpu, affinities, initiators):
    """What is wrong with the memory that a GPU is told of."""
    if None in (gpu.base, gpu.size, gpu.pxm):
        return
    if gpu.size == 0:
        gpu.problems.append('the size is 0: EGM is disabled')
        return
    own = [a for a in affinities if a.pxm == gpu.pxm]
    inside = [a for a in own if a.base <= gpu.base and
              gpu.base + gpu.size <= a.base + a.size]
    if not own:
        gpu.problems.append(f'SRAT has no memory of proximity domain {gpu.pxm}:'
                            ' the driver finds no node')
    elif not inside:
        gpu.problems.append('the range is not inside one Memory Affinity of '
                            f'proximity domain {gpu.pxm}')
    elif not inside[0].enabled:
        gpu.problems.append(f'SRAT entry #{inside[0].index} is not enabled')
    else:
        gpu.affinity = inside[0]
    if gpu.pxm in initiators:
        gpu.problems.append(
            f'a Generic Initiator is in proximity domain {gpu.pxm}: a driver '
            "would take this RAM for a GPU's own memory")


def _match(gpus, functions):
    """Connect Devices and PCI functions by their chains of _ADR."""
    for gpu in gpus:
        gpu.function = next((f for f in functions if
                             (f.root, f.chain) == (gpu.root, gpu.chain)), None)
        if not gpu.function and not gpu.problems:
            gpu.problems.append('its _ADR lead to no PCI function')
    matched = [g.function for g in gpus]
    for function in functions:
        if not function.gpu or function in matched:
            continue
        gpu = Gpu('', function.root, function.chain, function=function)
        gpu.problems.append('it has no ACPI companion with EGM properties: the '
                            'driver runs without EGM')
        gpus.append(gpu)


def _explain_missing(gpu, devices):
    """How far the Devices lead that should lead to a GPU."""
    paths = [d.path for d in devices if d.names.get('_BBN', 0) == gpu.root and
             _is_host_bridge(d)]
    if not paths:
        gpu.problems.append(f'there is no host bridge with bus {gpu.root:#x}')
        return
    path = paths[0]
    for adr in gpu.chain:
        below = [d.path for d in devices if d.names.get('_ADR') == adr and
                 d.path.rpartition('.')[0] == path]
        if not below:
            gpu.problems.append(f'below {path} there is no Device with '
                                f'_ADR {adr:#x}')
            return
        path = below[0]
    gpu.problems.append(f'{path} has no EGM properties')


@dataclasses.dataclass
class Report:
    """Everything there is to say."""
    gpus: list
    affinities: list
    problems: list      # that are not of one GPU
    notes: list

    @property
    def good(self):
        """Whether every GPU can use its EGM."""
        return not self.problems and not any(g.problems for g in self.gpus)


def analyse(tables, functions=None):
    """Report about tables, a dictionary of bytes by signature; SSDT: a list.

    functions: the PCI functions of the guest, if they are known
    """
    code = [t for t in [tables.get('DSDT'), *tables.get('SSDT', [])] if t]
    devices, notes = aml.read(*code)
    affinities, initiators = _srat(tables.get('SRAT'))
    gpus, problems = list(_gpus(devices)), []
    if not code:
        problems.append('there is no DSDT')
    if not tables.get('SRAT'):
        problems.append('there is no SRAT: there are no proximity domains')
    for gpu in gpus:
        _check_range(gpu, affinities, initiators)
    if functions is not None:
        _match(gpus, functions)
        for gpu in gpus:
            if not gpu.path:
                _explain_missing(gpu, devices)
    if not gpus:
        problems.append('no Device has EGM properties')
    for pxm in sorted({g.pxm for g in gpus if g.pxm is not None}):
        told = {(g.base, g.size) for g in gpus if g.pxm == pxm}
        if len(told) > 1:
            problems.append(f'the GPUs of proximity domain {pxm} are told '
                            'different ranges')
    return Report(gpus, affinities, problems, notes)


def size_text(size):
    """1536 -> 1536 B, 1 << 30 -> 1 GiB."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if size % 1024 or size == 0:
            return f'{size} {unit}'
        size //= 1024
    return f'{size} TiB'


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


def _table(rows):
    """Lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(f'{cell:{width}}' for cell, width in
                      zip(row, widths)).rstrip() for row in rows]


def memory_map(report, backing=None, holes=()):
    """Lines that show guest-physical memory.

    backing: what the memory of a domain is on the host, by domain
    holes: (base, size) that the guest is not told to be RAM
    """
    lines = []
    for affinity in sorted(report.affinities, key=lambda a: a.base):
        if not affinity.enabled or not affinity.size:
            continue
        last = affinity.base + affinity.size - 1
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


def text(report, backing=None, holes=()):
    """The whole report, as lines."""
    lines = []
    if report.gpus:
        lines += _table([('GPU', 'ACPI path', 'PCI address', 'EGM range', 'size',
                          'node', 'SRAT', 'usable'),
                         *(_row(g) for g in report.gpus)])
    picture = memory_map(report, backing, holes)
    if picture:
        lines += ['', 'Guest-physical memory:', *('  ' + p for p in picture)]
    wrong = [f'{g.label}: {p}' for g in report.gpus for p in g.problems] + \
        report.problems
    if wrong:
        lines += ['', *(f'problem: {p}' for p in wrong)]
    lines += [f'note: {n}' for n in report.notes]
    return lines
