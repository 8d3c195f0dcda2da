# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on the EGM regions of a host: what belongs where."""

from __future__ import annotations

import collections
import dataclasses
import fractions
import re
from collections.abc import Iterator, Sequence

from . import distances, hostinfo
from .finding import NOTE, Finding
from .format import size_text

MIB, GIB = 1 << 20, 1 << 30
# GPUs map EGM in pieces of this size.
LARGE_PAGE = 2 * MIB
# In guests with pages of 64 KiB, also of this size.
_HUGE_PAGE = 512 * MIB
# By default the next socket begins at a multiple of this size, which is good for both,
# and for KVM's largest blocks. Regions come in steps of 64 MiB.
_STEP = GIB
# What UEFI needs of the first socket
_UEFI = 128 * MIB
# The window that virt has without being asked.
_MMIO = 512 * GIB
# The vfio driver of Grace GPUs adds their memory as a BAR that sysfs does not show, and
# that has the next power of two of its size: GH200 has 96 or 144 GiB, GB200 192 GiB,
# GB300 288 GiB. Unknown ones are taken for large.
_MEMORY_BAR = {0x2342: 256 * GIB, 0x2345: 256 * GIB, 0x2348: 256 * GIB,
               0x2941: 256 * GIB}
_LARGE_MEMORY_BAR = 512 * GIB
_MAX_NODES, _MAX_CPUS, _MAX_INITIATORS = 128, 512, 8
# Host bridges are devices of pcie.0, which has 32 slots: the first one is taken.
SLOTS = 31
# The VM can have a disk and a NIC.
_MAX_GPUS = SLOTS - 2
# CONFIG_NODES_SHIFT=4, the default of Linux on arm64, and Debian's
_USUAL_NODES = 16
_MOST_BUSES = 32        # for pcie.0 and each other host bridge


class Refused(Exception):
    """What would be wrong, one line each."""

    def __init__(self, *reasons: str):
        super().__init__('\n'.join(reasons))
        self.reasons = reasons


@dataclasses.dataclass
class Gpu:
    """A GPU of the VM."""
    name: str           # gpu0
    host: hostinfo.Gpu
    bridge: str         # its PCI host bridge: pxb0
    bus: int            # number of the bridge's bus
    port: str           # its root port: rp0
    chassis: int
    window: int         # bytes of 64-bit prefetchable memory; 0: no more than usual
    initiators: list[int]   # nodes for its own memory


@dataclasses.dataclass
class Nic:
    """A NIC of the host that the VM gets."""
    name: str           # nic0
    host: hostinfo.Nic
    bridge: str         # its PCI host bridge, which can be a GPU's
    bus: int            # number of the bridge's bus; 0: the bridge is a GPU's
    port: str           # its root port
    chassis: int


@dataclasses.dataclass
class Socket:
    """A socket of the VM: a NUMA node on a region, and its GPUs."""
    node: int
    region: hostinfo.Region
    size: int           # bytes
    left: int           # bytes of the region that the VM does not use
    cpus: range
    host_cpus: list[range]  # of its socket; empty: the host does not report them
    gpus: list[Gpu]
    nics: list[Nic]


@dataclasses.dataclass
class Vm:
    """All of it."""
    sockets: list[Socket]
    mmio: int           # bytes of the window for BARs; 0: no more than usual
    distances: dict[tuple[int, int], int]   # of nodes, the smaller one first

    @property
    def gpus(self) -> list[Gpu]:
        """Those of all sockets."""
        return [gpu for socket in self.sockets for gpu in socket.gpus]

    @property
    def nics(self) -> list[Nic]:
        """Those of all sockets."""
        return [nic for socket in self.sockets for nic in socket.nics]

    @property
    def functions(self) -> list[hostinfo.Function]:
        """The PCI functions of the host that are passed through."""
        return [device.host for device in [*self.gpus, *self.nics]]

    @property
    def bridges(self) -> int:
        """The number of PCI host bridges, without pcie.0."""
        return len(self.gpus) + sum(nic.bus > 0 for nic in self.nics)

    @property
    def cpus(self) -> int:
        """How many."""
        return self.sockets[-1].cpus.stop

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return sum(s.size for s in self.sockets)

    @property
    def nodes(self) -> int:
        """How many NUMA nodes."""
        return len(self.sockets) + sum(len(g.initiators) for g in self.gpus)


def parse_size(text: str) -> int:
    """447G or 0.5T -> bytes; a number alone is MiB, as in QEMU's -m."""
    match = re.fullmatch(r'([0-9]{1,12}(?:\.[0-9]{1,6})?)([KMGT]?)(?:i?B)?', text,
                         re.I | re.A)
    size = fractions.Fraction(match[1]) * (1 << {
        'K': 10, '': 20, 'M': 20, 'G': 30, 'T': 40}[match[2].upper()]) if match else None
    if size is None or size.denominator > 1:
        raise Refused(f'--memory {text}: not a size such as 64G')
    return int(size)


def _full_address(text: str) -> str:
    """A PCI address in full: 9:1:0.0 is 0009:01:00.0."""
    match = re.fullmatch(r'(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})'
                         r'\.([0-7])', text.strip(), re.I | re.A)
    if not match:
        return text
    domain, bus, slot = (int(part or '0', 16) for part in match.groups()[:3])
    return f'{domain:04x}:{bus:02x}:{slot:02x}.{match[4]}'


_Choice = list[tuple[hostinfo.Region, list[hostinfo.Gpu]]]


def free(host: hostinfo.Host) -> _Choice:
    """The regions and GPUs that a VM can have."""
    choice = [(r, [g for g in r.gpus if g.free]) for r in host.regions if not r.users]
    return [(region, gpus) for region, gpus in choice if gpus]


def _choose_by_name(candidates: _Choice, names: str) -> _Choice:
    """GPUs by their addresses."""
    known = [g for _, gpus in candidates for g in gpus]
    wanted, reasons = [_full_address(n) for n in names.split(',')], []
    for name in wanted:
        if not name:
            reasons.append(f'--gpus {names!r}: an address is missing')
        elif wanted.count(name) > 1:
            reasons.append(f'GPU {name} is named twice')
        elif name.lower() in ('all', 'free'):
            reasons.append(f'--gpus {names}: {name.lower()} stands alone, in small '
                           'letters')
        elif not any(name == g.address for g in known):
            parts = [g.address for g in known if g.physical == name]
            reasons.append(f'GPU {name} has virtual functions: name some of them: '
                           f'{", ".join(parts)}' if parts else
                           f'{name} is not a GPU of an EGM region; there are '
                           f'{", ".join(dict.fromkeys(g.address for g in known))}')
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    return [(r, [g for g in gpus if g.address in wanted]) for r, gpus in candidates]


def _choose(host: hostinfo.Host, names: str, socket: int | None) -> _Choice:
    """The GPUs of a VM, by region."""
    if not host.regions:
        raise Refused('this host has no EGM region; run egm-vm to see why')
    if not host.gpus:
        raise Refused('no EGM region of this host has a GPU')
    candidates: _Choice = [(r, list(r.gpus)) for r in host.regions]
    if socket is not None:
        candidates = [(r, gpus) for r, gpus in candidates if r.node == socket]
        if not candidates:
            nodes = sorted({r.node for r in host.regions} - {-1})
            raise Refused(f'--socket {socket}: no EGM region is on node {socket}; there '
                          f'are {", ".join(map(str, nodes)) or "none with a node"}')
    if names == 'free':
        available = [(r.name, g.address) for r, gpus in free(host) for g in gpus]
        candidates = [(r, [g for g in gpus if (r.name, g.address) in available])
                      for r, gpus in candidates]
        if not any(gpus for _, gpus in candidates):
            raise Refused('no GPU is free; run egm-vm to see why')
    elif names != 'all':
        candidates = _choose_by_name(candidates, names)
    # A GPU that two regions list is the first one's.
    seen: set[str] = set()
    choice = []
    for region, gpus in candidates:
        gpus = [g for g in gpus if g.address not in seen]
        seen.update(g.address for g in gpus)
        if gpus:
            choice.append((region, gpus))
    return choice


def _choose_nics(host: hostinfo.Host, choice: _Choice, names: str) -> \
        list[list[hostinfo.Nic]]:
    """The NICs for each socket of a VM."""
    nodes = [region.node for region, _ in choice]
    chosen: list[list[hostinfo.Nic]] = [[] for _ in choice]
    reasons = []
    for name in map(_full_address, names.split(',') if names else []):
        nic = next((n for n in host.nics if n.address == name), None)
        if nic is None or nic.node not in nodes:
            there = [n.address for n in host.nics if n.node in nodes]
            reasons.append(f'--nic {name!r} is not a NIC on a socket of the VM; there '
                           f'{"are" if len(there) > 1 else "is"} '
                           f'{", ".join(there) or "none"}')
        elif any(nic in nics for nics in chosen):
            reasons.append(f'{nic} is named twice')
        else:
            chosen[nodes.index(nic.node)].append(nic)
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    return chosen


def _size(region: hostinfo.Region, memory: str, last: bool) -> int:
    """How much of a region."""
    if memory == 'all':
        if region.size < LARGE_PAGE:
            raise Refused(f'{region.name}: the size of the region is not known or less '
                          'than 2 MiB')
        step = LARGE_PAGE if last or region.size < _STEP else _STEP
        return region.size - region.size % step
    size = parse_size(memory)
    if size % LARGE_PAGE or not size:
        near = max(LARGE_PAGE, round(size / LARGE_PAGE) * LARGE_PAGE)
        raise Refused(f'--memory {memory} is not a multiple of 2 MiB; the nearest is '
                      f'{near // MIB}M')
    if region.size and size > region.size:
        raise Refused(f'--memory {memory} is more than {region.name} has: '
                      f'{size_text(region.size)}')
    return size


def _sizes(choice: _Choice, memory: str) -> list[int]:
    """Of each socket; all that is wrong at once."""
    sizes, reasons = [], []
    for region, _ in choice:
        try:
            sizes.append(_size(region, memory, region is choice[-1][0]))
        except Refused as refused:
            reasons += refused.reasons
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    return sizes


def _power_of_2(number: int) -> int:
    """The next one that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


def _window(gpu: hostinfo.Gpu) -> int:
    """What the root port of a GPU has to have room for."""
    size = gpu.window
    if gpu.vendor == hostinfo.NVIDIA:
        size += _MEMORY_BAR.get(gpu.device, _LARGE_MEMORY_BAR)
    return _power_of_2(size) if size else 0


def _default_cpus(host: hostinfo.Host, choice: _Choice) -> int:
    """As many as the sockets of the host have."""
    even = host.cpu_count // len(host.regions) or 1
    total = sum(sum(map(len, host.cpus.get(region.node, []))) or even
                for region, _ in choice)
    return min(max(total - total % len(choice), len(choice)),
               _MAX_CPUS - _MAX_CPUS % len(choice))


def _check_counts(choice: _Choice, nics: list[list[hostinfo.Nic]], cpus: int,
                  initiators: int) -> Iterator[str]:
    """Reasons against these numbers."""
    sockets, gpus = len(choice), sum(len(g) for _, g in choice)
    if cpus < sockets or cpus % sockets:
        yield (f'--cpus {cpus} cannot be divided among {sockets} sockets; '
               f'{max(sockets, cpus - cpus % sockets)} can')
    if cpus > _MAX_CPUS:
        yield f'--cpus {cpus}: the virt machine has at most {_MAX_CPUS}'
    if not 1 <= initiators <= _MAX_INITIATORS:
        yield (f'--initiators {initiators}: a GPU has 1 to {_MAX_INITIATORS}; without '
               'one, its driver does not load')
    elif sockets + gpus * initiators > _MAX_NODES:
        most = (_MAX_NODES - sockets) // gpus
        yield (f'{sockets} sockets and {gpus} GPUs with {initiators} nodes each are more '
               f'than {_MAX_NODES} NUMA nodes' +
               (f'; --initiators {most} fits' if most else ''))
    if gpus > _MAX_GPUS:
        yield f'{gpus} GPUs: there are PCI host bridges for {_MAX_GPUS}'
    elif _bridges(choice, nics) > _MAX_GPUS:
        yield (f'{gpus} GPUs and {_bridges(choice, nics) - gpus} NICs that share no SMMU with '
               f'them: there are PCI host bridges for {_MAX_GPUS}')


def _near(nic: hostinfo.Nic, gpus: list[hostinfo.Gpu]) -> list[int]:
    """The indices of the GPUs that are behind the same SMMU."""
    return [i for i, gpu in enumerate(gpus) if gpu.iommu == nic.iommu]


def _bridges(choice: _Choice, nics: list[list[hostinfo.Nic]]) -> int:
    """The number of PCI host bridges: one for each GPU, and for each NIC without one near."""
    return sum(len(gpus) + sum(not _near(nic, gpus) for nic in members)
               for (_, gpus), members in zip(choice, nics))


def _add_nics(sockets: list[Socket], nics: list[list[hostinfo.Nic]], buses: int) -> None:
    """Put each NIC below the host bridge of a GPU that is behind the same SMMU on the host,
    the GPUs in turn. If there is none, it gets a bridge of its own."""
    gpus = bridges = sum(len(s.gpus) for s in sockets)
    number = 0
    ports: collections.Counter[str] = collections.Counter()
    for socket, members in zip(sockets, nics):
        for member in members:
            near = _near(member, [gpu.host for gpu in socket.gpus])
            if near:
                bridge, bus = min((socket.gpus[i].bridge for i in near), key=ports.__getitem__), 0
            else:
                bridge, bus = f'pxb{bridges}', buses * (bridges + 1)
                bridges += 1
            ports[bridge] += 1
            socket.nics.append(Nic(f'nic{number}', member, bridge, bus, f'rp{gpus + number}',
                                   gpus + number + 1))
            number += 1
    # The bus of the bridge itself, and that of its GPU
    most = max(ports.values(), default=0)
    if most > buses - 2:
        raise Refused(f'{most} NICs share an SMMU with one GPU: with {bridges} PCI host bridges '
                      f'each has bus numbers for {buses - 2}')


def _sockets(host: hostinfo.Host, choice: _Choice, nics: list[list[hostinfo.Nic]],
             sizes: Sequence[int], cpus: int, initiators: int) -> list[Socket]:
    """Sockets are the first nodes; the nodes of initiators come after them.

    Each GPU has a host bridge of its own, as an SMMUv3 belongs to one, and GPUs of a
    socket can have different ones on the host."""
    share, sockets, index = cpus // len(choice), [], 0
    buses = 256 // (_bridges(choice, nics) + 1)
    buses = min(_MOST_BUSES, 1 << buses.bit_length() - 1)
    for i, ((region, members), size) in enumerate(zip(choice, sizes)):
        socket = Socket(i, region, size, max(0, region.size - size),
                        range(i * share, (i + 1) * share),
                        host.cpus.get(region.node, []), [], [])
        for member in members:
            first = len(choice) + index * initiators
            socket.gpus.append(Gpu(
                f'gpu{index}', member, f'pxb{index}', buses * (index + 1),
                f'rp{index}', index + 1, _window(member),
                list(range(first, first + initiators))))
            index += 1
        sockets.append(socket)
    _add_nics(sockets, nics, buses)
    return sockets


def _distances(host: hostinfo.Host, sockets: list[Socket]) -> dict:
    """The distances of all nodes."""
    nodes = [distances.Node(s.node, s.node, None, host.cpu_domains.get(s.region.node))
             for s in sockets]
    for s in sockets:
        for gpu in s.gpus:
            domains = host.gpu_domains.get(gpu.host.physical, [])
            nodes += [distances.Node(number, s.node, gpu.chassis,
                                     domains[i] if i < len(domains) else None)
                      for i, number in enumerate(gpu.initiators)]
    apart = {(a.node, b.node): host.distances[a.region.node, b.region.node]
             for a in sockets for b in sockets
             if a is not b and (a.region.node, b.region.node) in host.distances}
    return distances.find(nodes, apart, host.slit)


def make(host: hostinfo.Host, gpus: str = 'all', memory: str = 'all',
         cpus: int | None = None, initiators: int = 8,
         socket: int | None = None, nics: str = '') -> Vm:
    """A VM, or Refused. Whether the host is fit for it, checks.py knows.

    gpus: 'all', 'free', or PCI addresses with commas between
    memory: of each socket: 'all', or a size
    cpus: how many vCPUs; None: as many as the sockets of the host have
    initiators: how many nodes each GPU gets for its own memory, 1 to 8
    socket: the host's NUMA node whose region and GPUs are used; None: any
    nics: PCI addresses of NICs with commas between; may be empty
    """
    choice = _choose(host, gpus, socket)
    chosen_nics = _choose_nics(host, choice, nics)
    if cpus is None:
        cpus = _default_cpus(host, choice)
    reasons = list(_check_counts(choice, chosen_nics, cpus, initiators))
    sizes: list[int] = []
    try:
        sizes = _sizes(choice, memory)
    except Refused as refused:
        reasons += refused.reasons
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    sockets = _sockets(host, choice, chosen_nics, sizes, cpus, initiators)
    # Some more, for what else is on the bus.
    need = sum(g.window for s in sockets for g in s.gpus) + 64 * GIB
    return Vm(sockets, _power_of_2(need) if need > _MMIO else 0,
              _distances(host, sockets))


def _note_sizes(vm: Vm) -> Iterator[Finding]:
    """What the sizes of sockets cost."""
    for socket in vm.sockets:
        name, size = socket.region.name, size_text(socket.size)
        if 0 < socket.left < _STEP:
            yield Finding('vm-rest', NOTE, f'{name}: {size_text(socket.left)} of '
                          f'{size_text(socket.region.size)} is not used', name)
        if socket is not vm.sockets[-1] and socket.size % _HUGE_PAGE:
            near = socket.size - socket.size % _HUGE_PAGE
            yield Finding(
                'vm-alignment', NOTE, f'{size} of {name} is not a multiple of 512 MiB: '
                'guests with 64 KiB pages cannot use large pages on the next socket' +
                (f'; --memory {near // MIB}M does not' if near else ''), name)
    if vm.sockets[0].size < _UEFI:
        yield Finding('vm-uefi', NOTE, f'{size_text(vm.sockets[0].size)} on the first '
                      'socket: UEFI needs 128 MiB')


def notes(vm: Vm) -> list[Finding]:
    """What is right, but may not be what was wanted."""
    found = list(_note_sizes(vm))
    for socket in vm.sockets:
        others = [g.address for g in socket.region.gpus
                  if g not in [own.host for own in socket.gpus]]
        if others:
            found.append(Finding(
                'vm-shared', NOTE, f'no other VM can have {socket.region.name} with '
                f'{", ".join(others)}: a region belongs to one VM', socket.region.name))
    if vm.nodes > _USUAL_NODES:
        fits = (_USUAL_NODES - len(vm.sockets)) // len(vm.gpus)
        found.append(Finding(
            'vm-nodes', NOTE, f'{vm.nodes} NUMA nodes: with a guest kernel that has 16 '
            '(CONFIG_NODES_SHIFT=4, as Debian\'s), GPUs lose their memory; ' +
            (f'--initiators {fits} fits' if fits else
             'it needs a VM with fewer GPUs')))
    return found
