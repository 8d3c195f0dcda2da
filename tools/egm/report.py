# SPDX-License-Identifier: GPL-2.0-or-later
"""What ACPI tables tell a GPU driver about EGM, and what is wrong with it.

Nothing but Python is needed, so that this runs in any guest.
"""

import dataclasses
import uuid

from . import aml, srat
from .format import size_text

_DSD = uuid.UUID('daffd814-6eba-4d8c-8a91-bc9bbf4aa301').bytes_le
_HOST_BRIDGES = {'PNP0A03', 'PNP0A08', 0x030ad041, 0x080ad041}
_PROPERTIES = ('nvidia,egm-base-pa', 'nvidia,egm-size', 'nvidia,egm-pxm')
_GPU_MEMORY = 'nvidia,gpu-mem-'
MIB = 1 << 20
# Pieces in which a GPU maps EGM, the larger one with guest pages of 64 KiB.
_LARGE, _HUGE = 2 * MIB, 512 * MIB


@dataclasses.dataclass
class Function:
    """A PCI function, as the guest or QEMU sees it."""
    address: str        # 0000:21:00.0
    root: int           # number of the root bus
    chain: tuple        # _ADR of each device from the root bus to this one
    name: str = ''      # what the user calls it
    gpu: bool = False   # should have EGM


@dataclasses.dataclass
class Plugged:
    """RAM that SRAT does not tell of: a DIMM."""
    name: str
    base: int
    size: int
    pxm: int


@dataclasses.dataclass
class Gpu:
    """What one GPU is told."""
    path: str           # of its ACPI Device; '' if there is none
    bridge: aml.Device = None   # the host bridge above
    root: int = None    # number of the root bus
    chain: tuple = ()
    base: int = None    # None: there is no such property
    size: int = None
    pxm: int = None
    function: Function = None
    affinity: srat.Affinity = None
    problems: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    @property
    def label(self):
        """The best name there is."""
        if not self.function:
            return self.path
        if not self.function.name:
            return self.function.address
        return f'{self.function.name} ({self.function.address})'

    @property
    def complete(self):
        """Whether it has all properties."""
        return None not in (self.base, self.size, self.pxm)


def _is_host_bridge(device):
    """Whether a Device is a PCI host bridge; _CID can be a list."""
    compatible = device.names.get('_CID')
    ids = compatible if isinstance(compatible, list) else [compatible]
    return any(i in _HOST_BRIDGES for i in [device.names.get('_HID'), *ids])


def _properties(names):
    """Device properties of a _DSD."""
    found, dsd = {}, names.get('_DSD')
    if isinstance(dsd, list):
        for kind, content in zip(dsd[::2], dsd[1::2]):
            if kind == _DSD and isinstance(content, list):
                found.update({p[0]: p[1] for p in content
                              if isinstance(p, list) and len(p) == 2 and
                              isinstance(p[0], str)})
    return found


def _find_bridge(gpu, by_path):
    """Go up from a GPU to its host bridge."""
    parts, chain = gpu.path.split('.'), []
    for i in range(len(parts), 0, -1):
        path = '.'.join(parts[:i])
        step = by_path.get(path)
        if step and _is_host_bridge(step):
            gpu.bridge, gpu.root = step, step.names.get('_BBN', 0)
            break
        if not step or '_ADR' not in step.names:
            gpu.problems.append(f'{path} has no _ADR: Linux does not bind it to '
                                'a PCI function' if step else
                                f'{path} is no Device: there is no PCI host '
                                'bridge above')
            break
        chain.insert(0, step.names['_ADR'])
    gpu.chain = tuple(chain)


def _gpus(devices):
    """The Devices with EGM properties."""
    by_path = {d.path: d for d in devices}
    for device in devices:
        found = _properties(device.names)
        if not any(p in found for p in _PROPERTIES):
            continue
        gpu = Gpu(device.path)
        gpu.base, gpu.size, gpu.pxm = (
            found[p] if isinstance(found.get(p), int) else None
            for p in _PROPERTIES)
        for name, value in zip(_PROPERTIES, (gpu.base, gpu.size, gpu.pxm)):
            if value is None:
                gpu.problems.append(f'there is no integer {name}')
        _find_bridge(gpu, by_path)
        yield gpu


def _check_range(gpu, affinities):
    """Whether SRAT has the memory that a GPU is told of."""
    if gpu.size == 0:
        gpu.problems.append('the size is 0: EGM is disabled')
        return
    own = [a for a in affinities if a.pxm == gpu.pxm]
    inside = [a for a in own if a.base <= gpu.base and
              gpu.base + gpu.size <= a.end]
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


def _check_bridge(gpu):
    """Linux takes the node of a GPU from its host bridge, the driver the memory
    from that."""
    domain = gpu.bridge.names.get('_PXM')
    if domain is None:
        gpu.problems.append(f'{gpu.bridge.path} has no _PXM: Linux gives the GPU '
                            'no NUMA node, and its driver uses no EGM')
    elif domain != gpu.pxm:
        gpu.problems.append(f'{gpu.bridge.path} has _PXM {domain}: the driver '
                            f'takes the memory of domain {domain} for EGM, not '
                            f'of {gpu.pxm}; the GPU would use wrong memory')


def _check_node(gpu, affinities, plugged):
    """Every page of the node counts as EGM, also outside of the range."""
    end = gpu.base + gpu.size
    ram = [(f'SRAT entry #{a.index}', a.base, a.end, a.hot_pluggable)
           for a in affinities if a.enabled and a.pxm == gpu.pxm] + \
        [(p.name, p.base, p.base + p.size, False)
         for p in plugged if p.pxm == gpu.pxm]
    for name, first, last, hot in ram:
        for low, high in ((first, min(last, gpu.base)), (max(first, end), last)):
            if low >= high:
                continue
            where = f'{name}, {low:#x}-{high - 1:#x}, '
            if hot:
                gpu.notes.append(
                    f'{where}is room to plug memory into proximity domain '
                    f'{gpu.pxm}: the GPU would take it for EGM')
            else:
                gpu.problems.append(
                    f'{where}is RAM of proximity domain {gpu.pxm} outside of the '
                    'range: the GPU takes it for EGM')


def _check_alignment(gpu, affinities):
    """A GPU maps EGM in large pieces."""
    def hint(unit):
        for a in sorted(affinities, key=lambda a: a.base):
            if a.enabled and a.end <= gpu.base and a.size % unit:
                return (f'; make the size of node {a.pxm}, {size_text(a.size)}, a '
                        f'multiple of {size_text(unit)}')
        return ''

    if gpu.base % _LARGE:
        gpu.problems.append(f'the base {gpu.base:#x} is no multiple of 2 MiB: '
                            "the GPU's large pages break" + hint(_LARGE))
    elif gpu.base % _HUGE:
        gpu.notes.append(f'the base {gpu.base:#x} is no multiple of 512 MiB: '
                         'guests with pages of 64 KiB lose large pages'
                         + hint(_HUGE))


def _check_initiators(gpu, table):
    """The driver takes nodes of initiators for the GPU's own memory."""
    for i in table.initiators:
        if gpu.function and i.address != gpu.function.address:
            continue
        # Without PCI addresses it can be of another device.
        told, whose = (gpu.problems, '') if gpu.function else \
            (gpu.notes, 'if it is of this GPU, ')
        if i.pxm not in table.domains:
            told.append(f'Generic Initiator #{i.index} is in proximity domain '
                        f'{i.pxm}, which has no node: {whose}the driver drops '
                        'all initiators of the GPU')
        elif i.enabled and i.pxm == gpu.pxm:
            told.append(f'Generic Initiator #{i.index} is in proximity domain '
                        f'{i.pxm}: {whose}the driver takes this RAM for the '
                        "GPU's own memory")


def _match(gpus, functions):
    """Connect Devices and PCI functions by their chains of _ADR."""
    for gpu in gpus:
        gpu.function = next((f for f in functions if
                             (f.root, f.chain) == (gpu.root, gpu.chain)), None)
        if not gpu.function and gpu.bridge:
            gpu.problems.append('its _ADR lead to no PCI function')
    matched = [g.function for g in gpus]
    for function in functions:
        if not function.gpu or function in matched:
            continue
        gpu = Gpu('', None, function.root, function.chain, function=function)
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


def _problems_of_all(tables, devices, gpus, domains, nodes):
    """What is not of one GPU."""
    if not any(tables.get(name) for name in ('DSDT', 'SSDT')):
        yield 'there is no DSDT'
    if not tables.get('SRAT'):
        yield 'there is no SRAT: there are no proximity domains'
    if not gpus:
        yield 'no Device has EGM properties'
    for pxm in sorted({g.pxm for g in gpus if g.pxm is not None}):
        if len({(g.base, g.size) for g in gpus if g.pxm == pxm}) > 1:
            yield (f'the GPUs of proximity domain {pxm} are told different '
                   'ranges')
    for device in devices:
        for name in _properties(device.names):
            if name.startswith(_GPU_MEMORY):
                yield (f'{device.path}: {name} overrides what the driver finds '
                       'itself')
    if nodes is not None and nodes < len(domains):
        yield (f'SRAT has {len(domains)} proximity domains, and this kernel has '
               f'{nodes} nodes: a GPU with an initiator in one of the others '
               'loses all of its initiators')


def analyse(tables, functions=None, plugged=(), nodes=None):
    """Report about tables, a dictionary of bytes by signature; SSDT: a list.

    functions: the PCI functions of the guest, if they are known
    plugged: RAM that SRAT does not tell of
    nodes: how many the guest's kernel has, if that is known
    """
    devices, notes = aml.read(*(t for t in [tables.get('DSDT'),
                                            *tables.get('SSDT', [])] if t))
    table = srat.read(tables.get('SRAT'))
    gpus = list(_gpus(devices))
    if functions is not None:
        _match(gpus, functions)
    for gpu in gpus:
        if not gpu.path:
            _explain_missing(gpu, devices)
        if not gpu.complete:
            continue
        _check_range(gpu, table.affinities)
        if gpu.bridge:
            _check_bridge(gpu)
        if gpu.affinity:
            _check_node(gpu, table.affinities, plugged)
            _check_alignment(gpu, table.affinities)
        _check_initiators(gpu, table)
    return Report(gpus, table.affinities, list(_problems_of_all(
        tables, devices, gpus, table.domains, nodes)), notes)
