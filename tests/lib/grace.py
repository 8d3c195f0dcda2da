# SPDX-License-Identifier: GPL-2.0-or-later
"""Made-up hosts with EGM: their /sys, /proc and /dev, as trees of files."""

import pathlib
import struct

MIB, GIB = 1 << 20, 1 << 30
NVIDIA, GB200 = 0x10de, 0x2941
# The demo's host
DEMO = {'sockets': 2, 'gpus': 2, 'size': 512 * MIB, 'cpus': 2}
# start, end, flags of /sys/bus/pci/devices/*/resource: 16 MiB, 64-bit prefetchable
_BAR = '0x0000600000000000 0x0000600000ffffff 0x000000000014220c\n'
_NO_BAR = '0x0000000000000000 0x0000000000000000 0x0000000000000000\n'
# The configuration space of a PCI function, with AER and ATS as its extended capabilities
CONFIG = bytes(256) + struct.pack('<I44xI', 0x13020001, 0x0001000f) + bytes(3788)


def write(path, text=''):
    """A file, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def link(path, target):
    """A symbolic link that leads to another place in the tree, or out of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


class Host:
    """A host in a directory, which each case can change."""

    def __init__(self, root, sockets=1, gpus=1, size=447 * GIB, links=True,
                 driver='nvgrace_gpu_vfio_pci', iommufd=True, cpus=72):
        self.root = pathlib.Path(root)
        self.links = links
        self.iommufd = iommufd
        self.gpus = {}          # by number of the socket
        count = 0
        write(self.root / 'proc/sys/kernel/arch', 'aarch64\n')
        write(self.root / 'proc/sys/kernel/osrelease', '6.17.0-1014-nvidia-64k\n')
        write(self.root / 'etc/machine-id', '0123456789abcdef0123456789abcdef\n')
        write(self.root / 'sys/devices/system/cpu/present',
              f'0-{max(sockets * cpus, 1) - 1}\n')
        self.pages(64)
        write(self.root / 'dev/kvm')
        if iommufd:
            write(self.root / 'dev/iommu')
        for s in range(sockets):
            node = self.root / f'sys/devices/system/node/node{s}'
            write(node / 'cpulist', f'{s * cpus}-{(s + 1) * cpus - 1}\n')
            write(node / 'meminfo', f'Node {s} MemTotal:        33554432 kB\n')
            write(node / 'distance', ' '.join(
                '10' if s == other else '40' for other in range(sockets)) + '\n')
            self.gpus[s] = []
            for g in range(gpus):
                # Addresses as on NVIDIA's machines: 0008:01:00.0, 0009:01:00.0, 0018:…
                address = f'{s:03x}{8 + g:x}:01:00.0'
                self.gpus[s].append(address)
                self.pci(address, s, driver, group=count)
                count += 1
            self.region(4 + s, size, self.gpus[s])

    def file(self, path):
        """A file of the host."""
        return self.root / path.lstrip('/')

    def pages(self, kib):
        """The size of the kernel's pages."""
        write(self.root / 'proc/self/smaps',
              '400000-500000 r-xp 00000000 00:00 0 /bin/python3\n'
              f'Size: 1024 kB\nKernelPageSize: {kib:8} kB\n')

    def pci(self, address, node, driver, group, class_=0x030200):
        """A PCI function, with a BAR that is 64-bit and prefetchable."""
        device = self.root / f'sys/devices/pci{address[:-7]}00/{address}'
        for name, text in (('vendor', f'{NVIDIA:#06x}'), ('device', f'{GB200:#06x}'),
                           ('class', f'{class_:#08x}'), ('numa_node', str(node)),
                           ('resource', _BAR + _NO_BAR * 12)):
            write(device / name, text + '\n')
        (device / 'config').write_bytes(CONFIG)
        link(self.root / 'sys/bus/pci/devices' / address, device)
        if group is not None:
            # Each PCI domain has an SMMU.
            domain = int(address.split(':')[0], 16)
            link(device / 'iommu', self.root / f'sys/devices/platform/arm-smmu-v3.{domain}.auto'
                 f'/iommu/smmu3.{0x100000000000 + (domain << 24):#018x}')
            groups = self.root / f'sys/kernel/iommu_groups/{group}'
            link(device / 'iommu_group', groups)
            link(groups / 'devices' / address, device)
            write(self.root / f'dev/vfio/{group}')
        self.bind(address, driver)
        return device

    def bind(self, address, driver):
        """Bind a PCI function to a driver; None: unbind it."""
        device = self.root / 'sys/bus/pci/devices' / address
        (device / 'driver').unlink(missing_ok=True)
        for old in device.glob('vfio-dev/*'):
            old.rmdir()
        if driver:
            place = self.root / 'sys/bus/pci/drivers' / driver
            place.mkdir(parents=True, exist_ok=True)
            link(device / 'driver', place)
        if driver and 'vfio' in driver and self.iommufd:
            group = (device / 'iommu_group').resolve().name
            (device / f'vfio-dev/vfio{group}').mkdir(parents=True)
            write(self.root / f'dev/vfio/devices/vfio{group}')

    def region(self, pxm, size, gpus):
        """An EGM region; size None: the driver does not report it."""
        place = self.root / f'sys/devices/virtual/egm/egm{pxm}'
        write(place / 'dev', f'511:{pxm}\n')
        if size is not None:
            write(place / 'egm_size', f'{size:#x}\n')
        link(self.root / f'sys/class/egm/egm{pxm}', place)
        write(self.root / f'dev/egm{pxm}')
        if not self.links:
            write(place / 'gpu_devices', '\n'.join(gpus) + '\n')
            return
        for address in gpus:
            link(place / address, self.root / 'sys/bus/pci/devices' / address)

    def virtual(self, address, count, driver):
        """Split a GPU into virtual functions; return their addresses."""
        device = self.root / 'sys/bus/pci/devices' / address
        found = []
        for i in range(count):
            part = f'{address[:-4]}{i // 8 + 1:02x}.{i % 8}'
            node = int((device / 'numa_node').read_text())
            place = self.pci(part, node, driver, group=100 + i)
            link(place / 'physfn', device.resolve())
            link(device / f'virtfn{i}', place)
            found.append(part)
        return found

    def mediated(self, address):
        """Add a mediated device of a GPU that stays with the host's driver; return its UUID."""
        name = '5a1c1a6e-95e0-4c4e-8d0e-0a4f7b1f2c55'
        (self.root / 'sys/bus/pci/devices' / address / name).mkdir()
        return name

    def interface(self, name, device=None, bridge=False):
        """A network interface; device: the PCI address of its device"""
        place = self.root / 'sys/class/net' / name
        (place / 'bridge' if bridge else place).mkdir(parents=True)
        if device:
            (self.root / 'sys/bus/pci/devices' / device / 'net' / name).mkdir(parents=True)

    def tables(self, **tables):
        """ACPI tables, as bytes by signature."""
        for name, data in tables.items():
            path = write(self.root / 'sys/firmware/acpi/tables' / name)
            path.write_bytes(data)

    def user(self, name, pid=4711, command='qemu-system-aar', flags='02100002'):
        """A process that has a device open; flags: flags of its descriptor, octal"""
        write(self.root / f'proc/{pid}/comm', command + '\n')
        write(self.root / f'proc/{pid}/maps')
        write(self.root / f'proc/{pid}/fdinfo/12', f'pos:\t0\nflags:\t{flags}\n')
        link(self.root / f'proc/{pid}/fd/12', name)
