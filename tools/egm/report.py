# SPDX-License-Identifier: GPL-2.0-or-later
"""What a GPU driver makes of ACPI tables, as far as EGM is concerned, and what is wrong
with them.

Nothing but Python is needed, so that this runs in any guest.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator

from . import aml, srat
from .finding import NOTE, PROBLEM, UNREAD, Finding
from .format import size_text
from .iort import Iort
from .slit import Slit
from .srat import Affinity, Srat
from .tables import Tables

_DSD = uuid.UUID('daffd814-6eba-4d8c-8a91-bc9bbf4aa301').bytes_le
# PNP0A03 and PNP0A08, as strings and as numbers
_HOST_BRIDGES = ('PNP0A03', 'PNP0A08', 0x030ad041, 0x080ad041)
_PROPERTIES = ('nvidia,egm-base-pa', 'nvidia,egm-size', 'nvidia,egm-pxm')
_GPU_MEMORY = 'nvidia,gpu-mem-'
MIB = 1 << 20
# Pieces in which a GPU maps EGM, the larger one with guest pages of 64 KiB.
_LARGE, _HUGE = 2 * MIB, 512 * MIB
# CONFIG_NODES_SHIFT=4, the default of Linux on arm64, and Debian's
_USUAL_NODES = 16
# No machine has more; and the time that a report takes has an end.
_MOST_GPUS = 256
_MOST_NOTES = 8


@dataclasses.dataclass
class Function:
    """A PCI function, as the guest or QEMU sees it."""
    address: str        # 0000:21:00.0
    root: int           # its host bridge: segment << 8 | bus
    chain: tuple[int, ...]  # _ADR of each device from the root bus to this one
    name: str = ''      # what the user calls it
    gpu: bool = False   # should have EGM


@dataclasses.dataclass
class Plugged:
    """RAM that SRAT does not describe: a DIMM."""
    name: str
    base: int
    size: int
    pxm: int | None


@dataclasses.dataclass
class Gpu:
    """What the tables say of one GPU."""
    path: str           # of its ACPI Device; '' if there is none
    bridge: aml.Device | None = None    # the host bridge above
    root: int | None = None             # as of a function
    chain: tuple[int, ...] = ()
    base: int | None = None             # None: there is no such property
    size: int | None = None
    pxm: int | None = None
    function: Function | None = None
    affinity: Affinity | None = None
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def problem(self, check: str, text: str) -> None:
        """The GPU cannot use its EGM. check: its id"""
        self.findings.append(Finding(check, PROBLEM, text, self.label))

    def note(self, check: str, text: str) -> None:
        """Something to know."""
        self.findings.append(Finding(check, NOTE, text, self.label))

    @property
    def bad(self) -> bool:
        """Whether there is a problem."""
        return any(f.level == PROBLEM for f in self.findings)

    @property
    def label(self) -> str:
        """The best name there is."""
        if not self.function:
            return self.path
        if not self.function.name:
            return self.function.address
        return f'{self.function.name} ({self.function.address})'

    @property
    def short_label(self) -> str:
        """Its name, without its address."""
        return self.function.name if self.function and self.function.name else self.label

    @property
    def complete(self) -> bool:
        """Whether it has all properties."""
        return None not in (self.base, self.size, self.pxm)


@dataclasses.dataclass
class Report:
    """Everything there is to say."""
    gpus: list[Gpu]
    affinities: list[Affinity]
    findings: list[Finding]     # that are not about one GPU

    @property
    def unread(self) -> bool:
        """Whether something could not be read, so that nobody knows."""
        return any(f.level == UNREAD for f in self.findings)

    def usable(self, gpu: Gpu) -> bool | None:
        """Whether a GPU can use its EGM; None: that cannot be told."""
        if gpu.bad:
            return False
        return None if self.unread else True

    @property
    def good(self) -> bool | None:
        """Whether every GPU can use its EGM; None: that cannot be told."""
        if any(gpu.bad for gpu in self.gpus) or \
                any(f.level == PROBLEM for f in self.findings):
            return False
        return None if self.unread else True


def _integer(device: aml.Device, name: str) -> int | None:
    """The value of a name, if it is a number."""
    value = device.names.get(name)
    return value if isinstance(value, int) else None


def _is_host_bridge(device: aml.Device) -> bool:
    """Whether a Device is a PCI host bridge; _CID can be a list."""
    compatible = device.names.get('_CID')
    ids = compatible if isinstance(compatible, list) else [compatible]
    return any(i in _HOST_BRIDGES for i in [device.names.get('_HID'), *ids])


def _root(bridge: aml.Device) -> int:
    """Segment and bus number of a host bridge."""
    return (_integer(bridge, '_SEG') or 0) << 8 | (_integer(bridge, '_BBN') or 0)


def _properties(device: aml.Device) -> dict[str, object]:
    """Device properties of a _DSD."""
    found: dict[str, object] = {}
    dsd = device.names.get('_DSD')
    if isinstance(dsd, list):
        for kind, content in zip(dsd[::2], dsd[1::2]):
            if kind == _DSD and isinstance(content, list):
                found.update({p[0]: p[1] for p in content
                              if isinstance(p, list) and len(p) == 2 and
                              isinstance(p[0], str)})
    return found


def _find_bridge(gpu: Gpu, by_path: dict[str, aml.Device]) -> None:
    """Go up from a GPU to its host bridge."""
    parts = gpu.path.split('.')
    chain: list[int] = []
    for i in range(len(parts), 0, -1):
        path = '.'.join(parts[:i])
        step = by_path.get(path)
        if step and _is_host_bridge(step):
            gpu.bridge, gpu.root = step, _root(step)
            break
        adr = _integer(step, '_ADR') if step else None
        if adr is None:
            gpu.problem('gpu-adr', f'{path} has no _ADR: Linux does not bind it to '
                        'a PCI function' if step else
                        f'{path} is not a Device: there is no PCI host bridge above')
            break
        chain.insert(0, adr)
    gpu.chain = tuple(chain)


def _find_gpus(devices: list[aml.Device]) -> Iterator[Gpu]:
    """The Devices with EGM properties."""
    by_path = {d.path: d for d in devices}
    for device in devices:
        found = _properties(device)
        if not any(p in found for p in _PROPERTIES):
            continue
        gpu = Gpu(device.path)
        gpu.base, gpu.size, gpu.pxm = (
            found[p] if isinstance(found.get(p), int) else None
            for p in _PROPERTIES)
        for name, value in zip(_PROPERTIES, (gpu.base, gpu.size, gpu.pxm)):
            if value is None:
                gpu.problem('gpu-properties', f'there is no integer {name}')
        _find_bridge(gpu, by_path)
        yield gpu


def _check_range(gpu: Gpu, affinities: list[Affinity]) -> None:
    """Whether SRAT has the memory that a GPU has by its properties."""
    if gpu.size == 0:
        gpu.problem('gpu-range', 'the size is 0: EGM is disabled')
        return
    own = [a for a in affinities if a.pxm == gpu.pxm]
    inside = [a for a in own if a.base <= gpu.base and
              gpu.base + gpu.size <= a.end]
    if not own:
        gpu.problem('gpu-range', f'SRAT has no memory of proximity domain {gpu.pxm}:'
                    ' the driver finds no node')
    elif not inside:
        gpu.problem('gpu-range', 'the range is not inside one Memory Affinity of '
                    f'proximity domain {gpu.pxm}')
    elif not inside[0].enabled:
        gpu.problem('gpu-range', f'SRAT entry #{inside[0].index} is not enabled')
    else:
        gpu.affinity = inside[0]


def _check_bridge(gpu: Gpu) -> None:
    """Linux takes the node of a GPU from its host bridge, the driver the memory
    from that."""
    domain = _integer(gpu.bridge, '_PXM')
    if domain is None:
        gpu.problem('gpu-bridge', f'{gpu.bridge.path} has no _PXM: Linux gives the GPU '
                    'no NUMA node, and its driver uses no EGM')
    elif domain != gpu.pxm:
        gpu.problem('gpu-bridge', f'{gpu.bridge.path} has _PXM {domain}: the driver '
                    f'treats the memory of domain {domain} as EGM, not '
                    f'of {gpu.pxm}; the GPU would use wrong memory')


def _check_ram(gpu: Gpu, affinities: list[Affinity], plugged: Iterable[Plugged]) -> None:
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
                gpu.note('gpu-window', f'{where}is room to plug memory into proximity '
                         f'domain {gpu.pxm}: the GPU would treat it as EGM')
            else:
                gpu.problem('gpu-ram', f'{where}is RAM of proximity domain {gpu.pxm} '
                            'outside of the range: the GPU treats it as EGM')


def _check_alignment(gpu: Gpu, affinities: list[Affinity]) -> None:
    """A GPU maps EGM in large pieces."""
    def hint(unit: int) -> str:
        for a in sorted(affinities, key=lambda a: a.base):
            if a.enabled and a.end <= gpu.base and a.size % unit:
                return (f'; make the size of node {a.pxm}, {size_text(a.size)}, a '
                        f'multiple of {size_text(unit)}')
        return ''

    if gpu.base % _LARGE:
        gpu.problem('gpu-alignment', f'the base {gpu.base:#x} is not a multiple of 2 MiB: '
                    "the GPU's large pages break" + hint(_LARGE))
    elif gpu.base % _HUGE:
        gpu.note('gpu-alignment', f'the base {gpu.base:#x} is not a multiple of 512 MiB: '
                 'guests with 64 KiB pages cannot use large pages' + hint(_HUGE))


def _check_initiators(gpu: Gpu, table: Srat) -> None:
    """The driver takes nodes of initiators for the GPU's own memory."""
    elsewhere = any(f.id == 'gpu-function' for f in gpu.findings)
    if gpu.chain and gpu.chain[-1] and not elsewhere:
        gpu.problem('gpu-initiators', 'it is not device 0, function 0 of its bus: its '
                    'driver does not look for its Generic Initiators, and does not load')
    own = [i for i in table.initiators
           if not gpu.function or i.address == gpu.function.address]
    if not any(i.enabled for i in own):
        gpu.problem('gpu-initiators', 'SRAT has no Generic Initiator for it: its driver does '
                    'not load')
    ram = {a.pxm for a in table.affinities
           if a.enabled and a.size and not a.hot_pluggable}
    # Without PCI addresses it can be of another device.
    told, whose = (gpu.problem, '') if gpu.function else \
        (gpu.note, 'if it is of this GPU, ')
    for i in own:
        if i.pxm not in table.domains:
            told('gpu-initiators', f'Generic Initiator #{i.index} is in proximity domain '
                 f'{i.pxm}, which has no node: {whose}the driver drops '
                 'all initiators of the GPU')
        elif i.enabled and i.pxm in ram:
            told('gpu-initiators', f'Generic Initiator #{i.index} is in proximity domain '
                 f"{i.pxm}: {whose}the driver takes this RAM for the GPU's own memory")


def _match(gpus: list[Gpu], functions: list[Function]) -> None:
    """Connect Devices and PCI functions by their chains of _ADR."""
    places = {(f.root, f.chain): f for f in reversed(functions)}
    for gpu in gpus:
        gpu.function = places.get((gpu.root, gpu.chain))
        if not gpu.function and gpu.bridge:
            gpu.problem('gpu-function', 'its _ADR chain matches no PCI function')
    matched = {(g.function.root, g.function.chain) for g in gpus if g.function}
    for function in functions:
        if not function.gpu or (function.root, function.chain) in matched:
            continue
        gpu = Gpu('', None, function.root, function.chain, function=function)
        gpu.problem('gpu-companion', 'it has no ACPI companion with EGM properties: the '
                    'driver runs without EGM')
        gpus.append(gpu)


def _explain_missing(gpus: list[Gpu], devices: list[aml.Device]) -> None:
    """How far the Devices lead that should lead to a GPU."""
    bridges = {_root(d): d.path for d in reversed(devices) if _is_host_bridge(d)}
    below: dict[tuple[str, int | None], str] = {}
    for device in devices:
        below.setdefault((device.path.rpartition('.')[0], _integer(device, '_ADR')),
                         device.path)
    for gpu in gpus:
        path = bridges.get(gpu.root)
        if path is None:
            gpu.problem('gpu-companion', f'there is no host bridge with bus {gpu.root:#x}')
            continue
        for adr in gpu.chain:
            if (path, adr) not in below:
                gpu.problem('gpu-companion', f'below {path} there is no Device with '
                            f'_ADR {adr:#x}')
                break
            path = below[path, adr]
        else:
            gpu.problem('gpu-companion', f'{path} has no EGM properties')


def _check_tables(tables: Tables, devices: list[aml.Device], notes: list[str],
                  table: Srat, slit: Slit, iort: Iort) -> Iterator[Finding]:
    """Whether everything is there and can be read."""
    if not any(tables.get(name) for name in ('DSDT', 'SSDT')):
        yield Finding('tables', PROBLEM, 'there is no DSDT')
    if not tables.get('SRAT'):
        yield Finding('tables', PROBLEM,
                      'there is no SRAT: there are no proximity domains')
    for text in notes[:_MOST_NOTES]:
        yield Finding('aml', UNREAD, text)
    if len(notes) > _MOST_NOTES:
        yield Finding('aml', UNREAD, f'{len(notes) - _MOST_NOTES} more parts like these')
    if table.damage:
        yield Finding('srat', UNREAD, f'cannot read all of SRAT: {table.damage}')
    if slit.damaged:
        yield Finding('slit', UNREAD, 'cannot read SLIT: its length is wrong')
    if iort.damage:
        yield Finding('iort', UNREAD, f'cannot read all of IORT: {iort.damage}')
    for device in devices:
        for name in _properties(device):
            if name.startswith(_GPU_MEMORY):
                yield Finding('gpu-memory', PROBLEM, f'{device.path}: {name} overrides '
                              'what the driver finds itself')


def _check_nodes(table: Srat, nodes: int | None) -> Iterator[Finding]:
    """Linux has a limited number of nodes."""
    count = len(table.domains)
    if nodes is not None and nodes < count:
        yield Finding('nodes', PROBLEM, f'SRAT has {count} proximity domains, and this '
                      f'kernel has {nodes} nodes: a GPU with an initiator in one of the '
                      'others loses all of its initiators')
    elif nodes is None and count > _USUAL_NODES:
        yield Finding('nodes', NOTE, f'SRAT has {count} proximity domains: a kernel with 16 '
                      "nodes (CONFIG_NODES_SHIFT=4, as Debian's) drops initiators of GPUs")


def _check_memory_domains(table: Srat, slit: Slit) -> Iterator[Finding]:
    """Domains of initiators alone, which are those of GPUs' own memory."""
    ram = {a.pxm for a in table.affinities
           if a.enabled and a.size and not a.hot_pluggable}
    own = {i.pxm for i in table.initiators if i.enabled} - ram - set(table.processors)
    for a in table.affinities:
        if a.enabled and a.hot_pluggable and a.pxm in own:
            yield Finding('window', NOTE, f'SRAT entry #{a.index}, {a.base:#x}-'
                          f'{a.end - 1:#x}, is room to plug memory into proximity domain '
                          f"{a.pxm}, which is a GPU's own")
    for here in sorted(ram):
        others = [(slit.distance(here, b), b) for b in ram if b != here]
        near = [(slit.distance(here, b), b) for b in own]
        if others and near and min(near) <= (max(others)[0], 1 << 32):
            yield Finding(
                'distances', NOTE, f'to proximity domain {here}, the memory of a GPU in '
                f'domain {min(near)[1]} ({min(near)[0]}) is not farther than the DRAM of '
                f'domain {max(others)[1]} ({max(others)[0]}): Linux puts ordinary memory '
                'there first')
            return


def _check_all_gpus(gpus: list[Gpu]) -> Iterator[Finding]:
    """What GPUs have in common."""
    if not gpus:
        yield Finding('gpus', PROBLEM, 'no Device has EGM properties')
    ranges: dict[int, set] = {}
    for gpu in gpus:
        if gpu.pxm is not None:
            ranges.setdefault(gpu.pxm, set()).add((gpu.base, gpu.size))
    for pxm in sorted(pxm for pxm, found in ranges.items() if len(found) > 1):
        yield Finding('ranges', PROBLEM, f'the GPUs of proximity domain {pxm} have '
                      'different ranges')


def _check_smmu(gpus: list[Gpu], iort: Iort) -> Iterator[Finding]:
    """The driver of a GPU wants ATS, which takes an SMMU."""
    without: dict[str, list[str]] = {}
    for gpu in gpus:
        if gpu.root is None:
            continue
        segment, requester = gpu.root >> 8, (gpu.root & 0xff) << 8
        if gpu.function:
            bus, slot = gpu.function.address[-7:].split(':')
            requester = int(bus, 16) << 8 | int(slot[:2], 16) << 3 | int(slot[3])
        if not iort.has_smmu(segment, requester):
            without.setdefault('smmu', []).append(gpu.short_label)
        elif not iort.has_ats(segment):
            without.setdefault('ats', []).append(gpu.short_label)
    for check, text in (('smmu', 'IORT has no SMMUv3'),
                        ('ats', 'IORT has an SMMUv3 without ATS')):
        if check in without:
            yield Finding(check, NOTE, f'{text} for {", ".join(without[check])}: the '
                          'driver, in its default mode, may not load')


def analyse(tables: Tables, functions: list[Function] | None = None,
            plugged: Iterable[Plugged] = (), nodes: int | None = None,
            virtual: bool | None = None) -> Report:
    """Report about tables, lists of bytes by signature. ValueError: there are too many
    GPUs.

    functions: the PCI functions of the guest, if they are known
    plugged: RAM that SRAT does not describe
    nodes: how many the guest's kernel has, if that is known
    virtual: whether SMBIOS says that this is a VM, if that is known
    """
    devices, notes = aml.read(*tables.get('DSDT', []), *tables.get('SSDT', []))
    table = srat.read(tables['SRAT'][0] if tables.get('SRAT') else None)
    slit = Slit(tables['SLIT'][0] if tables.get('SLIT') else None)
    iort = Iort(tables['IORT'][0] if tables.get('IORT') else None)
    gpus = list(_find_gpus(devices))
    if functions is not None:
        _match(gpus, functions)
    if len(gpus) > _MOST_GPUS:
        raise ValueError(f'there are {len(gpus)} GPUs; this program supports {_MOST_GPUS}')
    _explain_missing([g for g in gpus if not g.path], devices)
    for gpu in gpus:
        if not gpu.complete:
            continue
        _check_range(gpu, table.affinities)
        if gpu.bridge:
            _check_bridge(gpu)
        if gpu.affinity:
            _check_ram(gpu, table.affinities, plugged)
            _check_alignment(gpu, table.affinities)
        _check_initiators(gpu, table)
    found = [*_check_tables(tables, devices, notes, table, slit, iort),
             *_check_all_gpus(gpus), *_check_nodes(table, nodes),
             *_check_memory_domains(table, slit)]
    # A file of a table that is not given can be somewhere.
    if (functions is not None or tables.get('IORT')) and not iort.damage:
        found += _check_smmu(gpus, iort)
    if virtual is False:
        found.append(Finding('smbios', PROBLEM, 'SMBIOS does not say that this is a VM '
                             '(type 0, extension byte 2, bit 4): the driver of a GPU does '
                             'not load'))
    return Report(gpus, table.affinities, found)
