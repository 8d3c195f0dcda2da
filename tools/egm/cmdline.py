# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of a VM."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from .emulator import NAME, Emulator
from .format import number_list, size_short
from .options import Settings
from .plan import Gpu, Nic, Vm

# `max` is slower, because it emulates pointer authentication.
TCG_CPU = 'neoverse-n1'
_IOMMUFD = 'iommufd0'
Line = tuple[str, ...]


def _value(text: object) -> str:
    """In QEMU's options, a comma is written twice."""
    return str(text).replace(',', ',,')


def _machine_lines(vm: Vm, settings: Settings) -> Iterator[Line]:
    mmio = f',highmem-mmio-size={size_short(vm.mmio)}' if vm.mmio else ''
    yield '-machine', f'virt,accel={settings.accel},gic-version=3,ras=on{mmio}'
    yield '-cpu', 'host' if settings.accel == 'kvm' else TCG_CPU
    sockets = len(vm.sockets)
    yield '-smp', f'{vm.cpus},sockets={sockets}' if sockets > 1 else str(vm.cpus)
    yield '-m', size_short(vm.size)


def _node_lines(vm: Vm, files: Mapping[str, int]) -> Iterator[Line]:
    for number in files.values():
        yield '-add-fd', f'fd={number},set={number}'
    for s in vm.sockets:
        path = f'/dev/fdset/{files[s.region.name]}' if files else _value(s.region.path)
        yield '-object', (f'memory-backend-file,id=m{s.node},mem-path={path},'
                          f'size={size_short(s.size)},share=on,prealloc=on')
    for s in vm.sockets:
        yield '-numa', (f'node,nodeid={s.node},cpus={number_list(s.cpus)},'
                        f'memdev=m{s.node}')
    for gpu in vm.gpus:
        for node in gpu.initiators:
            yield '-numa', f'node,nodeid={node}'
    for (a, b), value in sorted(vm.distances.items()):
        yield '-numa', f'dist,src={a},dst={b},val={value}'


def _bridge_lines(device: Gpu | Nic, node: int, settings: Settings) -> Iterator[Line]:
    """The PCI host bridge above a device, and its SMMU."""
    yield '-device', (f'pxb-pcie,id={device.bridge},bus=pcie.0,bus_nr={device.bus},'
                      f'numa_node={node}')
    if settings.smmu:
        yield '-device', (f'arm-smmuv3,primary-bus={device.bridge},'
                          f'id=smmu{device.bridge[3:]},{settings.smmu}')


def _function_lines(device: Gpu | Nic, settings: Settings, window: int = 0) -> \
        Iterator[Line]:
    """A PCI function of the host, and its root port."""
    reserve = f',pref64-reserve={size_short(window)}' if window else ''
    yield '-device', (f'pcie-root-port,id={device.port},bus={device.bridge},'
                      f'chassis={device.chassis},io-reserve=0{reserve}')
    function = settings.stand_in or f'vfio-pci-nohotplug,host={device.host.address}' + (
        f',iommufd={_IOMMUFD}' if settings.iommufd else '')
    kind, *options = function.split(',')
    yield '-device', ','.join([kind, f'id={device.name}', f'bus={device.port}', *options])


def _device_lines(vm: Vm, settings: Settings) -> Iterator[Line]:
    """GPUs and NICs."""
    for s in vm.sockets:
        for gpu in s.gpus:
            yield from _bridge_lines(gpu, s.node, settings)
            yield from _function_lines(gpu, settings, gpu.window)
    for s in vm.sockets:
        for nic in s.nics:
            if nic.bus:
                yield from _bridge_lines(nic, s.node, settings)
            yield from _function_lines(nic, settings)


def _object_lines(vm: Vm) -> Iterator[Line]:
    for gpu in vm.gpus:
        for node in gpu.initiators:
            yield '-object', (f'acpi-generic-initiator,id=gi{node},'
                              f'pci-dev={gpu.name},node={node}')
    for s in vm.sockets:
        for nic in s.nics:
            yield '-object', (f'acpi-generic-initiator,id=gi-{nic.name},'
                              f'pci-dev={nic.name},node={s.node}')
    for s in vm.sockets:
        for gpu in s.gpus:
            yield '-object', (f'acpi-egm-memory,id=egm{gpu.name[3:]},'
                              f'pci-dev={gpu.name},node={s.node}')


def _other_lines(settings: Settings, monitor: int | None) -> Iterator[Line]:
    for i, disk in enumerate(settings.disks):
        yield '-drive', (f'if=none,id=disk{i},format={disk.format},'
                         f'file={_value(disk.path)}')
        yield '-device', f'virtio-blk-pci,drive=disk{i},bus=pcie.0,bootindex={i + 1}'
    if settings.cdroms:
        # Installers look for a medium that the kernel calls a CD-ROM.
        yield '-device', 'virtio-scsi-pci,id=scsi0,bus=pcie.0'
    for i, disk in enumerate(settings.cdroms):
        boot = len(settings.disks) + i + 1
        yield '-drive', (f'if=none,id=cdrom{i},media=cdrom,readonly=on,format={disk.format},'
                         f'file={_value(disk.path)}')
        yield '-device', f'scsi-cd,drive=cdrom{i},bus=scsi0.0,bootindex={boot}'
    net = settings.net
    if net != 'none':
        yield '-netdev', 'user,id=net0' if net == 'user' else \
            f'bridge,id=net0,br={_value(net)}'
        mac = f',mac={settings.mac}' if settings.mac else ''
        # Without a ROM for network boot, which is not always installed
        yield '-device', f'virtio-net-pci,netdev=net0,bus=pcie.0{mac},romfile='
    if monitor is not None:
        yield '-chardev', f'socket,id=pinning,fd={monitor}'
        yield '-mon', 'chardev=pinning,mode=control'
    if settings.qmp:
        yield '-qmp', f'unix:{_value(settings.qmp)},server=on,wait=off'
    yield '-nodefaults',
    yield '-nographic',
    yield '-serial', 'mon:stdio'


def command(vm: Vm, emulator: Emulator, settings: Settings,
            more: Sequence[str] = (), files: Mapping[str, int] | None = None,
            monitor: int | None = None) -> list[Line]:
    """A list of options, each a tuple of words; the program first.

    more: words at the end
    files: descriptors of the regions, by name, that QEMU inherits; without, it opens the
    regions
    monitor: descriptor of a connection for QMP that QEMU inherits
    """
    lines: list[Line] = [(emulator.path or emulator.wanted or NAME,),
                         ('-name', f'guest={_value(settings.name)}')]
    if settings.uuid:
        lines.append(('-uuid', settings.uuid))
    lines += [*_machine_lines(vm, settings),
              ('-drive', 'if=pflash,format=raw,readonly=on,'
               f'file={_value(emulator.firmware)}')]
    if settings.vars:
        lines.append(('-drive', f'if=pflash,format=raw,file={_value(settings.vars)}'))
    if settings.iommufd and not settings.stand_in:
        lines.append(('-object', f'iommufd,id={_IOMMUFD}'))
    lines += [*_node_lines(vm, files or {}), *_device_lines(vm, settings),
              *_other_lines(settings, monitor), *_object_lines(vm)]
    return lines + ([tuple(more)] if more else [])


def shell_text(lines: Sequence[Line]) -> str:
    """Text to paste into a shell, one option per line; several short options about
    nodes share a line."""
    shown: list[str] = []
    for line in map(shlex.join, lines):
        if line.startswith(('-numa dist', '-numa node')) and \
                'memdev' not in line and shown[-1].startswith(line[:10]) and \
                'memdev' not in shown[-1] and len(shown[-1]) + len(line) < 76:
            shown[-1] += ' ' + line
        else:
            shown.append(line)
    return ' \\\n    '.join(shown)


def words(lines: Sequence[Line]) -> list[str]:
    """The words, to run them."""
    return [word for line in lines for word in line]
