# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM as a domain of libvirt, with the memory model that this repository adds."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from .cmdline import TCG_CPU
from .emulator import NAME, Emulator
from .format import number_list, range_list
from .options import Disk, Settings
from .plan import Gpu, Vm


def _add(parent: ET.Element, tag: str, text: object = None,
         **attributes: object) -> ET.Element:
    """A new element; attributes that are not strings become strings."""
    element = ET.SubElement(parent, tag, {k: str(v) for k, v in
                                          attributes.items()})
    element.text = None if text is None else str(text)
    return element


def _add_address(parent: ET.Element, bus: int, slot: int = 0) -> None:
    _add(parent, 'address', type='pci', domain='0x0000', bus=f'{bus:#04x}',
         slot=f'{slot:#04x}', function='0x0')


def _add_kib(parent: ET.Element, tag: str, size: int) -> None:
    _add(parent, tag, size >> 10, unit='KiB')


def _add_cells(numa: ET.Element, vm: Vm) -> None:
    sockets = {s.node: s for s in vm.sockets}
    nodes = [*sockets, *(n for gpu in vm.gpus for n in gpu.initiators)]
    for node in nodes:
        cell = _add(numa, 'cell', id=node)
        if node in sockets:
            cell.set('cpus', number_list(sockets[node].cpus))
        cell.set('memory', str(sockets[node].size >> 10 if node in sockets else 0))
        cell.set('unit', 'KiB')
        if vm.distances:
            distances = _add(cell, 'distances')
            for other in nodes:
                _add(distances, 'sibling', id=other, value=10 if other == node else
                     vm.distances[min(node, other), max(node, other)])


def _add_pinning(tune: ET.Element, vm: Vm) -> None:
    for s in vm.sockets:
        for vcpu in s.cpus if s.host_cpus else ():
            _add(tune, 'vcpupin', vcpu=vcpu, cpuset=range_list(s.host_cpus))


def _add_bridges(devices: ET.Element, vm: Vm) -> None:
    """A device's bus is the index of a controller: first the root, then the pxbs, then
    the root ports in the order of the GPUs."""
    root = _add(devices, 'controller', type='pci', index=0, model='pcie-root')
    if vm.mmio:
        _add_kib(root, 'pcihole64', vm.mmio)
    for s in vm.sockets:
        for gpu in s.gpus:
            pxb = _add(devices, 'controller', type='pci', index=gpu.chassis,
                       model='pcie-expander-bus')
            _add(_add(pxb, 'target', busNr=gpu.bus), 'node', s.node)
            _add_address(pxb, 0, gpu.chassis)
    for gpu in vm.gpus:
        port = _add(devices, 'controller', type='pci', index=_controller(vm, gpu),
                    model='pcie-root-port')
        # Otherwise the guest can eject the GPU.
        _add(port, 'target', chassis=gpu.chassis, port='0x0', hotplug='off')
        _add_address(port, gpu.chassis)


def _controller(vm: Vm, gpu: Gpu) -> int:
    """The index of the controller that a GPU is on."""
    return len(vm.gpus) + gpu.chassis


def _add_smmus(devices: ET.Element, vm: Vm, options: str) -> None:
    """One SMMUv3 for each host bridge, like the devices of a command line. libvirt does
    not have options of NVIDIA's QEMU."""
    values = dict(option.split('=') for option in options.split(',') if option)
    values.pop('pasid', None)
    for gpu in vm.gpus if values else ():
        _add(_add(devices, 'iommu', model='smmuv3'), 'driver', pciBus=gpu.chassis, **values)


def _add_gpus(devices: ET.Element, vm: Vm, iommufd: bool) -> None:
    for gpu in vm.gpus:
        device = _add(devices, 'hostdev', mode='subsystem', type='pci',
                      managed='no')
        driver = _add(device, 'driver', name='vfio')
        if iommufd:
            driver.set('iommufd', 'yes')
        number, bus, rest = gpu.host.address.split(':')
        _add(_add(device, 'source'), 'address', domain=f'0x{number}',
             bus=f'0x{bus}', slot=f'0x{rest[:2]}', function=f'0x{rest[3]}')
        _add(device, 'alias', name=f'ua-{gpu.name}')
        _add(device, 'acpi', nodeset=number_list(gpu.initiators))
        _add_address(device, _controller(vm, gpu))


def _add_memory(devices: ET.Element, vm: Vm) -> None:
    for s in vm.sockets:
        for gpu in s.gpus:
            memory = _add(devices, 'memory', model='egm', access='shared')
            _add(_add(memory, 'source'), 'path', s.region.path)
            target = _add(memory, 'target')
            _add_kib(target, 'size', s.size)
            _add(target, 'node', s.node)
            _add(target, 'pciDev', f'ua-{gpu.name}')


def _add_drive(devices: ET.Element, disk: Disk, kind: str, bus: str, name: str,
               number: int, order: int) -> ET.Element:
    """A disk or CD-ROM, with the address still to be added. number: among those of its
    bus; order: in which the VM tries to boot from it"""
    drive = _add(devices, 'disk', type='block' if disk.block else 'file', device=kind)
    _add(drive, 'driver', name='qemu', type=disk.format)
    _add(drive, 'source').set('dev' if disk.block else 'file', disk.path)
    letters = ('a' if number > 25 else '') + chr(ord('a') + number % 26)
    _add(drive, 'target', dev=name + letters, bus=bus)
    _add(drive, 'boot', order=order)
    return drive


def _add_others(devices: ET.Element, vm: Vm, settings: Settings) -> None:
    net, disks, slot = settings.net, len(settings.disks), len(vm.gpus) + 1
    for i, disk in enumerate(settings.disks):
        _add_address(_add_drive(devices, disk, 'disk', 'virtio', 'vd', i, i + 1), 0, slot + i)
    slot += disks
    for i, disk in enumerate(settings.cdroms):
        _add(_add_drive(devices, disk, 'cdrom', 'scsi', 'sd', i, disks + i + 1), 'readonly')
    if settings.cdroms:
        _add_address(_add(devices, 'controller', type='scsi', index=0, model='virtio-scsi'),
                     0, slot)
        slot += 1
    if net != 'none':
        interface = _add(devices, 'interface',
                         type='user' if net == 'user' else 'bridge')
        if settings.mac:
            _add(interface, 'mac', address=settings.mac)
        if net != 'user':
            _add(interface, 'source', bridge=net)
        _add(interface, 'model', type='virtio')
        _add_address(interface, 0, slot)
    _add(devices, 'console', type='pty')


def domain(vm: Vm, emulator: Emulator, settings: Settings) -> str:
    """Domain XML, as text of ASCII."""
    kvm = settings.accel == 'kvm'
    top = ET.Element('domain', type='kvm' if kvm else 'qemu')
    _add(top, 'name', settings.name)
    if settings.uuid:
        _add(top, 'uuid', settings.uuid)
    _add_kib(top, 'memory', vm.size)
    _add(top, 'vcpu', vm.cpus, placement='static')
    if settings.pin and any(s.host_cpus for s in vm.sockets):
        _add_pinning(_add(top, 'cputune'), vm)
    system = _add(top, 'os')
    _add(system, 'type', 'hvm', arch='aarch64', machine='virt')
    loader = _add(system, 'loader', emulator.firmware,
                  readonly='yes', type='pflash', format='raw')
    if settings.vars:
        _add(system, 'nvram', settings.vars, format='raw')
    else:
        loader.set('stateless', 'yes')
    features = _add(top, 'features')
    _add(features, 'acpi')
    _add(features, 'gic', version=3)
    _add(features, 'ras', state='on')
    if kvm:
        cpu = _add(top, 'cpu', mode='host-passthrough')
    else:
        cpu = _add(top, 'cpu', mode='custom', match='exact', check='none')
        _add(cpu, 'model', TCG_CPU)
    _add(cpu, 'topology', sockets=len(vm.sockets), dies=1, clusters=1,
         cores=vm.cpus // len(vm.sockets), threads=1)
    _add_cells(_add(cpu, 'numa'), vm)
    devices = _add(top, 'devices')
    _add(devices, 'emulator', emulator.path or emulator.wanted or f'/usr/bin/{NAME}')
    _add_bridges(devices, vm)
    _add_gpus(devices, vm, settings.iommufd)
    _add_memory(devices, vm)
    _add_smmus(devices, vm, settings.smmu)
    _add_others(devices, vm, settings)
    ET.indent(top)
    return ET.tostring(top, encoding='unicode').encode(
        'ascii', 'xmlcharrefreplace').decode()
