# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on the EGM regions of a host: what belongs where."""

import dataclasses
import re

from . import hostinfo
from .format import size_text

MIB, GIB = 1 << 20, 1 << 30
# GPUs map EGM in pieces of this size.
LARGE_PAGE = 2 * MIB
# In guests with pages of 64 KiB, also of this size.
_HUGE_PAGE = 512 * MIB
# The window that virt has without being asked.
_MMIO = 512 * GIB
# The driver of Grace GPUs adds their memory as BARs that sysfs does not show.
_GRACE_WINDOW, _NVIDIA = 512 * GIB, 0x10de
_MAX_NODES = 128
_BUSES = 32             # for each pxb: its own, and one for each root port
_DEFAULT_DISTANCE = 20


class Refused(Exception):
    """What would be wrong, one line each."""

    def __init__(self, *reasons):
        super().__init__('\n'.join(reasons))
        self.reasons = reasons


@dataclasses.dataclass
class Gpu:
    """A GPU of the VM."""
    name: str           # gpu0
    host: hostinfo.Gpu
    port: str           # its root port: rp0
    slot: int           # of the root port on its pxb
    chassis: int
    window: int         # bytes of 64-bit prefetchable memory; 0: no more than usual
    initiators: list    # nodes for its own memory


@dataclasses.dataclass
class Socket:
    """A socket of the VM: a NUMA node on a region, and its GPUs."""
    node: int
    region: hostinfo.Region
    size: int           # bytes
    cpus: range
    bridge: str         # pxb0
    bus: int            # number of the bridge's bus
    gpus: list


@dataclasses.dataclass
class Vm:
    """All of it."""
    sockets: list
    mmio: int           # bytes of the window for BARs; 0: no more than usual
    distances: dict     # (node, node); empty: QEMU's default

    @property
    def gpus(self):
        """Those of all sockets."""
        return [gpu for socket in self.sockets for gpu in socket.gpus]

    @property
    def cpus(self):
        """How many."""
        return self.sockets[-1].cpus.stop

    @property
    def size(self):
        """Bytes of RAM."""
        return sum(s.size for s in self.sockets)


def parse_size(text):
    """447G -> bytes; a number alone is MiB, as in QEMU's -m."""
    match = re.fullmatch(r'(\d+)([KMGT]?)(?:i?B)?', text, re.I)
    if not match:
        raise Refused(f'{text}: not a size such as 64G')
    return int(match[1]) << {'K': 10, '': 20, 'M': 20, 'G': 30,
                             'T': 40}[match[2].upper()]


def bind_command(gpu):
    """Shell that gives a GPU to vfio."""
    module = 'nvgrace-gpu-vfio-pci' if gpu.vendor == _NVIDIA else 'vfio-pci'
    driver = module.replace('-', '_') if gpu.vendor == _NVIDIA else module
    device = f'/sys/bus/pci/devices/{gpu.address}'
    unbind = f'echo {gpu.address} > {device}/driver/unbind; ' if gpu.driver else ''
    return (f'modprobe {module}; echo {driver} > {device}/driver_override; '
            f'{unbind}echo {gpu.address} > /sys/bus/pci/drivers_probe')


def _address(text):
    """A PCI address in full: 9:1:0.0 is 0009:01:00.0."""
    match = re.fullmatch(r'(?:([0-9a-f]+):)?([0-9a-f]+):([0-9a-f]+)\.([0-7])',
                         text.strip(), re.I)
    if not match:
        return text
    domain, bus, slot = (int(part or '0', 16) for part in match.groups()[:3])
    return f'{domain:04x}:{bus:02x}:{slot:02x}.{match[4]}'


def _choose(host, names):
    """The GPUs of a VM by region: [(region, [GPU])]."""
    if not host.regions:
        raise Refused('this host has no EGM region; egm-vm alone tells why')
    if not host.gpus:
        raise Refused('no EGM region of this host has a GPU')
    if names == 'all':
        return [(r, list(r.gpus)) for r in host.regions if r.gpus]
    wanted, reasons = [_address(n) for n in names.split(',')], []
    for name in wanted:
        if wanted.count(name) > 1:
            reasons.append(f'GPU {name} is named twice')
        elif not any(name == g.address for g in host.gpus):
            parts = [g.address for g in host.gpus if g.physical == name]
            reasons.append(f'GPU {name} has virtual functions: name some of them: '
                           f'{", ".join(parts)}' if parts else
                           f'{name} is no GPU of an EGM region; there are '
                           f'{", ".join(g.address for g in host.gpus)}')
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    chosen = [(r, [g for g in r.gpus if g.address in wanted])
              for r in host.regions]
    return [(region, gpus) for region, gpus in chosen if gpus]


def _size(region, memory):
    """How much of a region; reasons against it."""
    if memory == 'all':
        if not region.size:
            return 0, f'{region.name}: the driver does not tell its size: ' \
                'say --memory'
        return region.size - region.size % LARGE_PAGE, None
    size = parse_size(memory)
    if size % LARGE_PAGE or not size:
        near = max(LARGE_PAGE, round(size / LARGE_PAGE) * LARGE_PAGE)
        return 0, f'--memory {memory} is no multiple of 2 MiB; the nearest is ' \
            f'{near // MIB}M'
    if region.size and size > region.size:
        return 0, f'--memory {memory} is more than {region.name} has: ' \
            f'{size_text(region.size)}'
    return size, None


def _check(host, chosen, stand_in):
    """Reasons why these GPUs and regions cannot be had."""
    for region, gpus in chosen:
        if region.users:
            yield (f'{region.name}, the region of {gpus[0].address}, is in use by '
                   f'{", ".join(region.users)}: a region belongs to one VM')
        for gpu in [] if stand_in else gpus:
            if not gpu.present:
                yield f'{region.name} names GPU {gpu.address}, which is not there'
            elif not gpu.bound:
                yield (f'GPU {gpu.address} is not bound to a vfio driver but to '
                       f'{gpu.driver or "none"}: {bind_command(gpu)}')
            else:
                users = host.users(f'/dev/vfio/{gpu.group}') + (
                    host.users(f'/dev/vfio/devices/{gpu.cdev}') if gpu.cdev else [])
                if users:
                    yield (f'GPU {gpu.address} is in use by '
                           f'{", ".join(dict.fromkeys(users))}')


def _power_of_2(number):
    """The next one that is not smaller."""
    return 1 << max(0, number - 1).bit_length()


def _distances(host, sockets):
    """As far apart as the host's; an initiator is one step from its socket."""
    def apart(a, b):
        return host.distances.get((a.region.node, b.region.node))

    between = [apart(a, b) for a in sockets for b in sockets if a is not b]
    if None in between or set(between) <= {_DEFAULT_DISTANCE}:
        return {}
    nodes = [(s.node, s, 0) for s in sockets] + \
        [(n, s, 10) for s in sockets for g in s.gpus for n in g.initiators]
    return {(a, b): min(254, (10 if s is t else apart(s, t)) + step + other)
            for a, s, step in nodes for b, t, other in nodes if a < b}


def _counts(sockets, gpus, cpus, initiators):
    """Reasons against these numbers."""
    if cpus < sockets or cpus % sockets:
        yield (f'--cpus {cpus} cannot be divided among {sockets} sockets; '
               f'{max(sockets, cpus - cpus % sockets)} can')
    if not 0 <= initiators <= 8:
        yield f'--initiators {initiators}: a GPU has 0 to 8'
    number = sum(gpus)
    if sockets + number * initiators > _MAX_NODES:
        yield (f'{sockets} sockets and {number} GPUs with {initiators} nodes each '
               f'are more than {_MAX_NODES} NUMA nodes')
    if sockets > 256 // _BUSES - 1 or max(gpus) >= _BUSES:
        yield (f'{number} GPUs on {sockets} sockets need more PCI buses than there '
               'are')


def _window(gpu):
    """What the root port of a GPU has to have room for."""
    size = max(gpu.window, _GRACE_WINDOW) if gpu.vendor == _NVIDIA else gpu.window
    return _power_of_2(size) if size else 0


def _sockets(chosen, sizes, cpus, initiators):
    """Sockets are the first nodes; the nodes of initiators come after them."""
    share, sockets, index = cpus // len(chosen), [], 0
    for i, ((region, members), size) in enumerate(zip(chosen, sizes)):
        socket = Socket(i, region, size, range(i * share, (i + 1) * share),
                        f'pxb{i}', _BUSES * (i + 1), [])
        for slot, member in enumerate(members):
            first = len(chosen) + index * initiators
            socket.gpus.append(Gpu(
                f'gpu{index}', member, f'rp{index}', slot, index + 1,
                _window(member), list(range(first, first + initiators))))
            index += 1
        sockets.append(socket)
    return sockets


def make(host, gpus='all', memory='all', cpus=None, initiators=8, stand_in=False):
    """A VM, or Refused.

    gpus: 'all', or PCI addresses with commas between
    memory: of each socket: 'all', or a size
    cpus: how many vCPUs; None: as many as the sockets of the host have
    initiators: how many nodes each GPU gets for its own memory
    stand_in: whether something else takes the place of the GPUs
    """
    chosen = _choose(host, gpus)
    if cpus is None:
        cpus = sum(host.cpus.get(region.node, 1) for region, _ in chosen)
        cpus = max(cpus - cpus % len(chosen), len(chosen))
    sizes = [_size(region, memory) for region, _ in chosen]
    reasons = [*_check(host, chosen, stand_in),
               *(reason for _, reason in sizes if reason),
               *_counts(len(chosen), [len(g) for _, g in chosen], cpus, initiators)]
    if reasons:
        raise Refused(*dict.fromkeys(reasons))
    sockets = _sockets(chosen, [size for size, _ in sizes], cpus, initiators)
    # Some more, for what else is on the bus.
    need = sum(g.window for s in sockets for g in s.gpus) + 64 * GIB
    return Vm(sockets, _power_of_2(need) if need > _MMIO else 0,
              _distances(host, sockets))


def notes(vm):
    """What is right, but may not be what was wanted."""
    for socket in vm.sockets:
        if socket is not vm.sockets[-1] and socket.size % _HUGE_PAGE:
            near = socket.size - socket.size % _HUGE_PAGE
            yield (f'{size_text(socket.size)} of {socket.region.name} are no multiple '
                   'of 512 MiB: guests with pages of 64 KiB lose large pages on the '
                   'next socket' + (f'; --memory {near // MIB}M does not' if near
                                    else ''))
        others = [g.address for g in socket.region.gpus
                  if g not in [own.host for own in socket.gpus]]
        if others:
            yield (f'no other VM can have {socket.region.name} with '
                   f'{", ".join(others)}: a region belongs to one VM')
