# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM on the EGM regions of a host: what belongs where."""

import dataclasses
import re

from . import host as hosts
from .text import size_text

MIB, GIB = 1 << 20, 1 << 30
# GPUs map EGM in pieces of this size.
LARGE_PAGE = 2 * MIB
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
    host: hosts.Gpu
    port: str           # its root port: rp0
    slot: int           # of the root port on its pxb
    chassis: int
    window: int         # bytes of 64-bit prefetchable memory; 0: no more than usual
    initiators: list    # nodes for its own memory


@dataclasses.dataclass
class Socket:
    """A socket of the VM: a NUMA node on a region, and its GPUs."""
    node: int
    region: hosts.Region
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
                           f'{", ".join(g.address for g in host.gpus) or "none"}')
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


def make(host, gpus='all', memory='all', cpus=None, initiators=8, stand_in=False):
    """A VM, or Refused.

    gpus: 'all', or PCI addresses with commas between
    memory: of each socket: 'all', or a size
    cpus: how many vCPUs; None: as many as the sockets of the host have
    initiators: how many nodes each GPU gets for its own memory
    stand_in: whether something else takes the place of the GPUs
    """
    chosen = _choose(host, gpus)
    reasons = list(_check(host, chosen, stand_in))
    sizes = []
    for region, _ in chosen:
        size, reason = _size(region, memory)
        sizes.append(size)
        if reason and reason not in reasons:
            reasons.append(reason)
    count = len(chosen)
    number = sum(len(g) for _, g in chosen)
    if not number:
        reasons.append('no EGM region has a GPU')
    if cpus is None:
        cpus = sum(host.cpus.get(r.node, 1) for r, _ in chosen)
        cpus = max(count, cpus - cpus % max(count, 1))
    elif count and (cpus < count or cpus % count):
        near = max(count, cpus - cpus % count)
        reasons.append(f'--cpus {cpus} cannot be divided among {count} sockets; '
                       f'{near} can')
    if not 0 <= initiators <= 8:
        reasons.append(f'--initiators {initiators}: a GPU has 0 to 8')
    if count + number * initiators > _MAX_NODES:
        reasons.append(f'{count} sockets and {number} GPUs with {initiators} nodes '
                       f'each are more than {_MAX_NODES} NUMA nodes')
    if count > 256 // _BUSES - 1 or any(len(g) >= _BUSES for _, g in chosen):
        reasons.append(f'{number} GPUs on {count} sockets need more PCI buses '
                       'than there are')
    if reasons:
        raise Refused(*reasons)

    sockets, index, node = [], 0, count
    for i, ((region, members), size) in enumerate(zip(chosen, sizes)):
        share = cpus // count
        socket = Socket(i, region, size, range(i * share, (i + 1) * share),
                        f'pxb{i}', _BUSES * (i + 1), [])
        for slot, member in enumerate(members):
            window = max(member.window, _GRACE_WINDOW) \
                if member.vendor == _NVIDIA else member.window
            socket.gpus.append(Gpu(
                f'gpu{index}', member, f'rp{index}', slot, index + 1,
                _power_of_2(window) if window else 0,
                list(range(node, node + initiators))))
            index, node = index + 1, node + initiators
        sockets.append(socket)
    # Some more, for what else is on the bus.
    need = sum(g.window for s in sockets for g in s.gpus) + 64 * GIB
    return Vm(sockets, _power_of_2(need) if need > _MMIO else 0,
              _distances(host, sockets))
