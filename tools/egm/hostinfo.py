# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the EGM regions of a host, their GPUs, and their users.

Everything is read from /sys, /proc and /dev below `root`. /dev/egmX is never
opened, because its driver would clear the region.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import re
import stat
import struct
from collections.abc import Iterator

from . import holders, srat, sysfs
from .format import printable
from .holders import User
from .iort import Iort
from .slit import Slit

NVIDIA = 0x10de
_NETWORK, _DISPLAY, _BRIDGE = 2, 3, 6       # base classes of PCI
_KVM_CHECK_EXTENSION = 0xae03
_KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED = 243
_IOMMU_VIOMMU_ALLOC = 0x3b90
# Extended capabilities of PCI Express: where they begin, and the one for ATS
_EXTENDED, _ATS = 0x100, 0x0f
# Linux' flags of a resource: memory, prefetchable, 64-bit
_WINDOW = 0x00200 | 0x02000 | 0x100000
# Larger than the address space of any processor
_SIZE_END = 1 << 52


@dataclasses.dataclass
class Neighbour:
    """Another PCI function in the IOMMU group of a GPU, with a driver of the host."""
    address: str
    driver: str
    interfaces: list[str]   # of the network: eth0


@dataclasses.dataclass
class Function:
    """A PCI function that can be passed through."""
    kind = 'PCI function'
    address: str
    physical: str           # the PCI address of its physical function
    present: bool = True
    vendor: int = 0
    device: int = 0
    driver: str = ''
    group: str = ''         # IOMMU group
    cdev: str = ''          # vfio0: its device for iommufd
    iommu: str = ''         # smmu3.0x…: what it is behind; empty: not reported
    ats: bool | None = None     # whether it has the capability; None: not known
    node: int = -1          # NUMA node of the host; -1: the host does not report it
    window: int = 0         # bytes of its 64-bit prefetchable BARs
    neighbours: list[Neighbour] = dataclasses.field(default_factory=list)
    mdevs: list[str] = dataclasses.field(default_factory=list)
    users: list[User] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return f'{self.kind} {self.address}'

    @property
    def bound(self) -> bool:
        """Whether it has a driver of vfio. The host's own driver of vGPUs can be one."""
        return 'vfio' in self.driver or bool(self.cdev)

    @property
    def smmu(self) -> bool:
        """Whether it is behind an SMMUv3."""
        return self.iommu.startswith('smmu3.')

    @property
    def virtual(self) -> bool:
        """Whether it is a virtual function."""
        return self.address != self.physical

    @property
    def vgpu(self) -> str:
        """The reason why the host's own driver has to keep it; empty: there is none."""
        if self.mdevs:
            return f'has mediated devices (vGPU): {", ".join(self.mdevs)}'
        if self.virtual and self.driver == 'nvidia' and not self.bound:
            return 'is a virtual function (vGPU) of the driver nvidia'
        return ''

    @property
    def free(self) -> bool:
        """Whether a VM can have it."""
        return self.present and self.bound and not self.users and not self.vgpu


class Gpu(Function):
    """A GPU, or a part of one. Its region lists the physical function."""
    kind = 'GPU'


@dataclasses.dataclass
class Nic(Function):
    """A network controller."""
    kind = 'NIC'
    interfaces: list[str] = dataclasses.field(default_factory=list)     # eth0


@dataclasses.dataclass
class Region:
    """A region of Extended GPU Memory."""
    name: str               # egm4
    path: str               # of its device, below `root`
    number: str             # of the device, 511:4
    size: int               # bytes; 0: not known
    reported: str           # what the driver reports as its size; may be empty
    gpus: list[Gpu]
    users: list[User] = dataclasses.field(default_factory=list)

    @property
    def device(self) -> str:
        """The device, as the host names it."""
        return f'/dev/{self.name}'

    @property
    def domain(self) -> int:
        """The host's proximity domain of the region."""
        return int(self.name[3:])

    @property
    def node(self) -> int:
        """The host's node, which is that of its GPUs; -1: not known."""
        return max((g.node for g in self.gpus), default=-1)


@dataclasses.dataclass
class Host:
    """What there is."""
    root: str
    regions: list[Region]
    odd_names: list[str]    # in /sys/class/egm, which are no regions
    loose_gpus: list[Gpu]   # GPUs of NVIDIA that no region lists
    nics: list[Nic]         # on the nodes of the regions
    distances: dict[tuple[int, int], int]   # of nodes: as in SLIT
    cpus: dict[int, list[range]]    # node: its CPUs
    memory: dict[int, int]  # node: bytes that the host's kernel has
    cpu_count: int
    gpu_domains: dict[str, list[int]]   # PCI address: domains of the GPU's memory
    cpu_domains: dict[int, int]         # node: its proximity domain
    slit: Slit              # distances of proximity domains
    iort: Iort              # empty: this user cannot read it
    arch: str
    kernel: str             # its release
    page_size: int          # 0: unknown
    machine_id: str
    holders: dict[str, list[User]]

    def path(self, name: str) -> str:
        """A file of the host."""
        return f'{self.root}{name}'

    @property
    def gpus(self) -> list[Gpu]:
        """Those of all regions."""
        return [gpu for region in self.regions for gpu in region.gpus]

    @property
    def iommufd(self) -> bool:
        """Whether the kernel has it, for all GPUs that are bound."""
        return os.path.exists(self.path('/dev/iommu')) and \
            all(g.cdev for g in self.gpus if g.bound)

    def may_use(self, name: str) -> bool:
        """Whether this user can open a file, as far as permissions go."""
        return os.access(self.path(name), os.R_OK | os.W_OK)

    def kvm_maps_egm(self) -> bool | None:
        """Whether KVM reports so; None: it cannot be asked."""
        try:
            with open(self.path('/dev/kvm'), 'rb') as kvm:
                return fcntl.ioctl(kvm, _KVM_CHECK_EXTENSION,
                                   _KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED) > 0
        except OSError:
            return None

    def nests(self) -> bool:
        """Whether iommufd shares an SMMUv3 with VMs, as it says, or else as it should by
        the version of the kernel."""
        with contextlib.suppress(OSError), open(self.path('/dev/iommu'), 'rb') as iommu:
            try:
                # Of a command that it knows, a length of 0 is wrong; nothing is done.
                if stat.S_ISCHR(os.fstat(iommu.fileno()).st_mode):
                    fcntl.ioctl(iommu, _IOMMU_VIOMMU_ALLOC, bytes(4))
            except OSError as error:
                return error.errno == errno.EINVAL
        version = re.match('([0-9]{1,3})[.]([0-9]{1,3})', self.kernel, re.A)
        return version is not None and (int(version[1]), int(version[2])) >= (6, 13)

    def host_memory(self, region: Region) -> bool:
        """Whether a region is RAM of this host's kernel: its node has memory and CPUs.
        (In the firmware's mode for VMs, no node of the kernel has a region's number,
        or one of GPU memory alone.)"""
        return bool(self.cpus.get(region.domain)) and \
            self.memory.get(region.domain, 0) > 0


def _read_window(device: pathlib.Path) -> int:
    """What the 64-bit prefetchable BARs of a device take together."""
    total = 0
    for line in sysfs.read_text(device / 'resource').splitlines()[:6]:
        numbers = [sysfs.parse_number(word, 16) for word in line.split()]
        if len(numbers) == 3 and None not in numbers:
            first, last, flags = numbers
            if flags & _WINDOW == _WINDOW and last >= first:
                total += last - first + 1
    return min(total, _SIZE_END)


def _read_neighbours(device: pathlib.Path) -> list[Neighbour]:
    """The others of its IOMMU group that a driver of the host has."""
    members = device / 'iommu_group/devices'
    found = []
    for address in sysfs.list_names(members):
        driver = sysfs.link_name(members / address / 'driver')
        # Bridges stay with the host.
        bridge = (sysfs.read_number(members / address / 'class', 16) or 0) >> 16 == \
            _BRIDGE
        if address != device.name and driver and 'vfio' not in driver and not bridge:
            found.append(Neighbour(printable(address), printable(driver), [
                printable(n) for n in sysfs.list_names(members / address / 'net')]))
    return found


def _read_ats(device: pathlib.Path) -> bool | None:
    """Whether a PCI function has the capability, which only root may read."""
    config = sysfs.read_bytes(device / 'config')
    if len(config) <= _EXTENDED:
        return None
    at, seen = _EXTENDED, set()
    while _EXTENDED <= at <= len(config) - 4 and at not in seen:
        seen.add(at)
        header, = struct.unpack_from('<I', config, at)
        if header & 0xffff == _ATS:
            return True
        at = header >> 20
    return False


def _read_function(kind: type, root: str, address: str, physical: str) -> Function:
    """A PCI function. kind: Gpu or Nic"""
    device = pathlib.Path(f'{root}/sys/bus/pci/devices/{address}')
    if not device.exists():
        return kind(address, physical, present=False)
    cdevs = [n for n in sysfs.list_names(device / 'vfio-dev')
             if re.fullmatch(r'vfio[0-9]+', n, re.A)]
    node = sysfs.read_number(device / 'numa_node')
    mdevs = [n for n in sysfs.list_names(device)
             if re.fullmatch(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', n, re.A)]
    group = sysfs.link_name(device / 'iommu_group')
    return kind(address, physical, True,
               (sysfs.read_number(device / 'vendor', 16) or 0) & 0xffff,
               (sysfs.read_number(device / 'device', 16) or 0) & 0xffff,
               printable(sysfs.link_name(device / 'driver')),
               group if group.isascii() and group.isdigit() else '',
               cdevs[0] if cdevs else '', printable(sysfs.link_name(device / 'iommu')),
               _read_ats(device),
               node if node is not None and 0 <= node < 1024 else -1,
               _read_window(device), _read_neighbours(device), mdevs)


def _read_parts(root: str, physical: str) -> list[Gpu]:
    """A GPU, or its virtual functions if it has any."""
    device = pathlib.Path(f'{root}/sys/bus/pci/devices/{physical}')
    parts = [sysfs.link_name(device / name) for name in sysfs.list_names(device)
             if name.startswith('virtfn')]
    return [_read_function(Gpu, root, address, physical) for address in
            sorted(p for p in parts if sysfs.PCI_ADDRESS.fullmatch(p)) or [physical]]


def _read_size(entry: pathlib.Path) -> tuple[int, str]:
    """The size of a region, 0 if that makes no sense, and the text that says so."""
    text = printable(sysfs.read_text(entry / 'egm_size'))[:40]
    size = sysfs.parse_number(text) or 0
    return size if 0 < size < _SIZE_END else 0, text


def _region_names(root: str) -> list[str]:
    """All names in /sys/class/egm. If that cannot be read, this is an OSError."""
    try:
        return sorted(os.listdir(f'{root}/sys/class/egm'), key=lambda n: (len(n), n))
    except FileNotFoundError:
        return []


def _read_regions(root: str, names: list[str]) -> list[Region]:
    """The regions of these names, with their GPUs."""
    regions = []
    for name in names:
        entry = pathlib.Path(f'{root}/sys/class/egm/{name}')
        # Links named by PCI address, or a file of addresses: drivers differ.
        named = {*os.listdir(entry),
                 *sysfs.read_text(entry / 'gpu_devices').lower().split()}
        addresses = sorted(a for a in named if sysfs.PCI_ADDRESS.fullmatch(a))
        number = sysfs.read_text(entry / 'dev')
        size, reported = _read_size(entry)
        regions.append(Region(
            name, f'{root}/dev/{name}',
            number if re.fullmatch('[0-9]+:[0-9]+', number, re.A) else '',
            size, reported, [g for a in addresses for g in _read_parts(root, a)]))
    return regions


def _devices(root: str, base_class: int) -> Iterator[pathlib.Path]:
    """The PCI functions of a base class."""
    devices = pathlib.Path(f'{root}/sys/bus/pci/devices')
    for address in sysfs.list_names(devices):
        if sysfs.PCI_ADDRESS.fullmatch(address) and \
                (sysfs.read_number(devices / address / 'class', 16) or 0) >> 16 == base_class:
            yield devices / address


def _read_loose_gpus(root: str, known: set[str]) -> list[Gpu]:
    """GPUs of NVIDIA that no region lists."""
    return [_read_function(Gpu, root, device.name, device.name)
            for device in _devices(root, _DISPLAY) if device.name not in known and
            sysfs.read_number(device / 'vendor', 16) == NVIDIA and
            not sysfs.link_name(device / 'physfn')]


def _read_nics(root: str, nodes: set[int]) -> list[Nic]:
    """The network controllers on these nodes."""
    found = []
    for device in _devices(root, _NETWORK):
        nic = _read_function(Nic, root, device.name,
                             sysfs.link_name(device / 'physfn') or device.name)
        nic.interfaces = [printable(n) for n in sysfs.list_names(device / 'net')]
        if nic.node in nodes:
            found.append(nic)
    return found


def _read_nodes(root: str) -> tuple[dict, dict, dict]:
    """Distances, CPUs and bytes of memory of NUMA nodes."""
    place = pathlib.Path(f'{root}/sys/devices/system/node')
    nodes = sorted(int(n[4:]) for n in sysfs.list_names(place)
                   if re.fullmatch(r'node[0-9]{1,4}', n, re.A))
    distances, cpus, memory = {}, {}, {}
    for node in nodes:
        row = [sysfs.parse_number(word) for word in
               sysfs.read_text(place / f'node{node}/distance').split()]
        for other, value in zip(nodes, row):
            if value is not None and 10 <= value <= 255:
                distances[node, other] = value
        cpus[node] = sysfs.parse_list(sysfs.read_text(place / f'node{node}/cpulist'))
        total = re.search(r'MemTotal:\s*([0-9]{1,18}) kB',
                          sysfs.read_text(place / f'node{node}/meminfo'), re.A)
        memory[node] = int(total[1]) << 10 if total else 0
    return distances, cpus, memory


def _read_domains(tables: str, cpus: dict[int, list[range]]) -> tuple[dict, dict]:
    """The proximity domains of GPUs' own memory and of nodes with CPUs."""
    table = srat.read(sysfs.read_bytes(f'{tables}/SRAT'))
    gpus: dict[str, list[int]] = {}
    for initiator in table.initiators:
        if initiator.enabled and initiator.address:
            gpus.setdefault(initiator.address, []).append(initiator.pxm)
    # Linux numbers the nodes of processors in the order of SRAT.
    nodes = sorted(node for node, ranges in cpus.items() if ranges)
    return gpus, dict(zip(nodes, table.processors))


def _add_users(host: Host) -> None:
    """Who has the regions and the GPUs."""
    for region in host.regions:
        region.users = host.holders.get(region.device, [])
    for gpu in host.gpus + host.loose_gpus + host.nics:
        devices = ([f'/dev/vfio/{gpu.group}'] if gpu.group else []) + \
            ([f'/dev/vfio/devices/{gpu.cdev}'] if gpu.cdev else [])
        gpu.users = sorted({user for device in devices
                            for user in host.holders.get(device, [])})


def read(root: str = '') -> Host:
    """Look at a host; root: where its /sys, /proc and /dev are.

    OSError: there are regions, and this user cannot look at them.
    """
    root = root.rstrip('/')
    names = _region_names(root)
    good = [n for n in names if re.fullmatch(r'egm[0-9]{1,9}', n, re.A)]
    regions = _read_regions(root, good)
    distances, cpus, memory = _read_nodes(root)
    # As far as this user can read the host's tables
    tables = f'{root}/sys/firmware/acpi/tables'
    gpu_domains, cpu_domains = _read_domains(tables, cpus)
    page = re.search(r'^KernelPageSize: +([0-9]{1,9}) kB',
                     sysfs.read_text(f'{root}/proc/self/smaps'), re.M)
    known = {a for r in regions for g in r.gpus for a in (g.address, g.physical)}
    numbers = {r.number or r.device: r.device for r in regions}
    host = Host(
        root, regions, [printable(n) for n in names if n not in good],
        _read_loose_gpus(root, known), _read_nics(root, {r.node for r in regions}),
        distances, cpus, memory,
        sysfs.count_list(sysfs.read_text(f'{root}/sys/devices/system/cpu/present')),
        gpu_domains, cpu_domains, Slit(sysfs.read_bytes(f'{tables}/SLIT')),
        Iort(sysfs.read_bytes(f'{tables}/IORT')),
        printable(sysfs.read_text(f'{root}/proc/sys/kernel/arch')) or os.uname().machine,
        printable(sysfs.read_text(f'{root}/proc/sys/kernel/osrelease')),
        int(page[1]) << 10 if page else 0,
        sysfs.read_text(f'{root}/etc/machine-id'), holders.find(root, numbers))
    _add_users(host)
    return host
