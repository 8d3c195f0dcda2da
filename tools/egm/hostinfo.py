# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host has: EGM regions, their GPUs, who uses them.

Everything is read from /sys, /proc and /dev below `root`. /dev/egmX is never
opened: its driver would clear the region.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import re
import stat

ADDRESS = re.compile(r'[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]', re.I)

_KVM_CHECK_EXTENSION = 0xae03
_KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED = 243
# Linux' flags of a resource: memory, prefetchable, 64-bit
_WINDOW = 0x00200 | 0x02000 | 0x100000


@dataclasses.dataclass
class Gpu:
    """A PCI function that can be passed through: a GPU, or a part of one."""
    address: str
    physical: str           # the PCI address that its region has it by
    vendor: int = 0
    device: int = 0
    driver: str = ''
    group: str = ''         # IOMMU group
    neighbours: tuple = ()  # others of the group that a host driver has
    cdev: str = ''          # vfio0: its device for iommufd
    node: int = -1          # NUMA node of the host
    window: int = 0         # bytes of its 64-bit prefetchable BARs
    present: bool = True

    @property
    def bound(self):
        """Whether a VM can have it."""
        return 'vfio' in self.driver


@dataclasses.dataclass
class Region:
    """A region of Extended GPU Memory."""
    name: str               # egm4
    path: str               # of its device
    number: str             # of the device, 511:0
    size: int               # bytes; 0: the driver does not tell
    gpus: list
    users: list             # who has it open or mapped: 'qemu-system-aar (4711)'

    @property
    def node(self):
        """The host's node, which is that of its GPUs; -1: nobody knows."""
        return max((g.node for g in self.gpus), default=-1)


@dataclasses.dataclass
class Host:
    """What there is."""
    root: str
    regions: list
    distances: dict         # (node, node): as in SLIT
    cpus: dict              # node: how many
    arch: str
    page_size: int          # 0: unknown
    holders: dict           # device: ids of processes that have it open or mapped

    def path(self, name):
        """A file of the host."""
        return f'{self.root}{name}'

    @property
    def gpus(self):
        """Those of all regions."""
        return [gpu for region in self.regions for gpu in region.gpus]

    @property
    def iommufd(self):
        """Whether the kernel has it, for all GPUs that are bound."""
        return os.path.exists(self.path('/dev/iommu')) and \
            all(g.cdev for g in self.gpus if g.bound)

    def may_use(self, name):
        """Whether this user may open a file, as far as permissions go."""
        return os.access(self.path(name), os.R_OK | os.W_OK)

    def kvm_maps_egm(self):
        """Whether KVM says so; None: there is no telling."""
        try:
            with open(self.path('/dev/kvm'), 'rb') as kvm:
                return fcntl.ioctl(kvm, _KVM_CHECK_EXTENSION,
                                   _KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED) > 0
        except OSError:
            return None

    def users(self, name):
        """Who has a device open or mapped, as far as this user may see."""
        found = set(self.holders.get(name, ()))
        # QEMU locks the device; who has a lock everybody may see.
        try:
            status = os.stat(self.path(name))
            device = f'{os.major(status.st_dev):02x}:' \
                f'{os.minor(status.st_dev):02x}:{status.st_ino}'
            found.update(re.findall(rf'FLOCK .* (\d+) {device} ',
                                    _text(self.path('/proc/locks'))))
        except OSError:
            pass
        return [f'{_text(self.path(f"/proc/{pid}/comm")) or "a process"} ({pid})'
                for pid in sorted(found, key=int) if pid != '0']


def _text(path):
    """The content of a file; '' if there is none."""
    try:
        return pathlib.Path(path).read_text(errors='replace').strip()
    except OSError:
        return ''


def _number(path, base=0):
    """The number in a file; 0 if there is none."""
    try:
        return int(_text(path), base)
    except ValueError:
        return 0


def _link(path):
    """The last part of where a link leads; '' if it is none."""
    return os.path.basename(os.readlink(path)) if os.path.islink(path) else ''


def _window(device):
    """What the 64-bit prefetchable BARs of a device take together."""
    total = 0
    for line in _text(device / 'resource').splitlines()[:6]:
        first, last, flags = (int(word, 16) for word in line.split())
        if flags & _WINDOW == _WINDOW:
            total += last - first + 1
    return total


def _gpu(root, address, physical):
    device = pathlib.Path(f'{root}/sys/bus/pci/devices/{address}')
    if not device.exists():
        return Gpu(address, physical, present=False)
    members = device / 'iommu_group/devices'
    neighbours = [] if not members.exists() else [
        m.name for m in sorted(members.iterdir()) if m.name != address and
        # Bridges stay with the host.
        _number(m / 'class') >> 16 != 6 and
        _link(m / 'driver') and 'vfio' not in _link(m / 'driver')]
    cdev = sorted(p.name for p in device.glob('vfio-dev/vfio*'))
    return Gpu(address, physical, _number(device / 'vendor'),
               _number(device / 'device'), _link(device / 'driver'),
               _link(device / 'iommu_group'), tuple(neighbours),
               cdev[0] if cdev else '',
               int(_text(device / 'numa_node') or -1), _window(device))


def _gpus(root, physical):
    """A GPU, or its virtual functions if it has any."""
    device = pathlib.Path(f'{root}/sys/bus/pci/devices/{physical}')
    parts = sorted((_link(p) for p in device.glob('virtfn*')))
    return [_gpu(root, address, physical) for address in parts or [physical]]


def _regions(root):
    for entry in sorted(pathlib.Path(f'{root}/sys/class/egm').glob('egm*'),
                        key=lambda p: (len(p.name), p.name)):
        # Links named by PCI address, or a file of addresses: drivers differ.
        named = {p.name for p in entry.iterdir()} | \
            set(_text(entry / 'gpu_devices').split())
        addresses = sorted(a.lower() for a in named if ADDRESS.fullmatch(a))
        yield Region(entry.name, f'{root}/dev/{entry.name}', _text(entry / 'dev'),
                     _number(entry / 'egm_size'),
                     [g for a in addresses for g in _gpus(root, a)], [])


def _number_of(path):
    """The number of a character device, 511:0; None: it is none, or no access."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISCHR(found.st_mode):
        return None
    return f'{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}'


def _holders(root, regions):
    """The processes that have devices of EGM or vfio open or mapped."""
    nodes = {region.number: f'/dev/{region.name}' for region in regions}
    found = {}
    for process in pathlib.Path(f'{root}/proc').glob('[0-9]*'):
        names = set(re.findall(r's [^/\n]*(/.*)$', _text(process / 'maps'), re.M))
        # A region can have other nodes, too.
        numbers = {_number_of(f'{process}/root{name}') for name in names}
        # What is gone, or another user's, is skipped.
        with contextlib.suppress(OSError):
            for file in (process / 'fd').iterdir():
                numbers.add(_number_of(file))
                with contextlib.suppress(OSError):
                    names.add(os.readlink(file))
        names.update(nodes[number] for number in numbers if number in nodes)
        for name in names:
            if name.startswith(('/dev/egm', '/dev/vfio/')):
                found.setdefault(name, []).append(process.name)
    return found


def _count(cpulist):
    """How many CPUs are in a list such as 0-3,8."""
    ranges = [part.split('-') for part in cpulist.split(',') if part]
    return sum(int(r[-1]) - int(r[0]) + 1 for r in ranges)


def read(root=''):
    """Look at a host; root: where its /sys, /proc and /dev are."""
    nodes = sorted((int(p.name[4:]), p) for p in pathlib.Path(
        f'{root}/sys/devices/system/node').glob('node[0-9]*'))
    distances = {}
    for node, path in nodes:
        row = _text(path / 'distance').split()
        distances.update({(node, other): int(value) for (other, _), value in
                          zip(nodes, row)})
    page = re.search(r'^KernelPageSize: +(\d+) kB',
                     _text(f'{root}/proc/self/smaps'), re.M)
    regions = list(_regions(root))
    host = Host(root, regions, distances,
                {node: _count(_text(path / 'cpulist')) for node, path in nodes},
                _text(f'{root}/proc/sys/kernel/arch') or os.uname().machine,
                int(page.group(1)) << 10 if page else 0,
                _holders(root, regions))
    for region in host.regions:
        region.users = host.users(f'/dev/{region.name}')
    return host
