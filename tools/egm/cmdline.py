# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of a VM."""

import shlex

from .format import number_list, size_short

# Not `max`, which is slower: it checks its pointers.
TCG_CPU = 'neoverse-n1'
_IOMMUFD = 'iommufd0'


def _value(text):
    """In QEMU's options, a comma is written twice."""
    return str(text).replace(',', ',,')


def disk_format(disk):
    """qcow2 by its first bytes; what cannot be read is raw."""
    try:
        with open(disk, 'rb') as file:
            return 'qcow2' if file.read(4) == b'QFI\xfb' else 'raw'
    except OSError:
        return 'raw'


def _machine(vm, accel):
    mmio = f',highmem-mmio-size={size_short(vm.mmio)}' if vm.mmio else ''
    yield '-machine', f'virt,accel={accel},gic-version=3,ras=on{mmio}'
    # `max' is much slower: its pointers are signed.
    yield '-cpu', 'host' if accel == 'kvm' else 'neoverse-n1'
    sockets = len(vm.sockets)
    yield '-smp', f'{vm.cpus},sockets={sockets}' if sockets > 1 else str(vm.cpus)
    yield '-m', size_short(vm.size)


def _nodes(vm):
    for s in vm.sockets:
        yield '-object', (f'memory-backend-file,id=m{s.node},'
                          f'mem-path={_value(s.region.path)},'
                          f'size={size_short(s.size)},share=on,prealloc=on')
    for s in vm.sockets:
        yield '-numa', (f'node,nodeid={s.node},cpus={number_list(s.cpus)},'
                        f'memdev=m{s.node}')
    for gpu in vm.gpus:
        for node in gpu.initiators:
            yield '-numa', f'node,nodeid={node}'
    for (a, b), value in sorted(vm.distances.items()):
        yield '-numa', f'dist,src={a},dst={b},val={value}'


def _gpus(vm, iommufd, stand_in):
    for s in vm.sockets:
        yield '-device', (f'pxb-pcie,id={s.bridge},bus=pcie.0,bus_nr={s.bus},'
                          f'numa_node={s.node}')
        for gpu in s.gpus:
            window = f',pref64-reserve={size_short(gpu.window)}' \
                if gpu.window else ''
            yield '-device', (f'pcie-root-port,id={gpu.port},bus={s.bridge},'
                              f'addr={gpu.slot:#x},chassis={gpu.chassis},'
                              f'io-reserve=0{window}')
            device = stand_in or f'vfio-pci-nohotplug,host={gpu.host.address}' + (
                f',iommufd={_IOMMUFD}' if iommufd else '')
            kind, *options = device.split(',')
            yield '-device', ','.join([kind, f'id={gpu.name}', f'bus={gpu.port}',
                                       *options])


def _objects(vm):
    for gpu in vm.gpus:
        for node in gpu.initiators:
            yield '-object', (f'acpi-generic-initiator,id=gi{node},'
                              f'pci-dev={gpu.name},node={node}')
    for s in vm.sockets:
        for gpu in s.gpus:
            yield '-object', (f'acpi-egm-memory,id=egm{gpu.name[3:]},'
                              f'pci-dev={gpu.name},node={s.node}')


def _rest(disk, net):
    if disk:
        yield '-drive', (f'if=none,id=disk0,format={disk_format(disk)},'
                         f'file={_value(disk)}')
        yield '-device', 'virtio-blk-pci,drive=disk0,bus=pcie.0,bootindex=1'
    if net != 'none':
        backend = 'user,id=net0' if net == 'user' else \
            f'bridge,id=net0,br={_value(net)}'
        yield '-netdev', backend
        # Without a ROM for network boot, which is not always installed
        yield '-device', 'virtio-net-pci,netdev=net0,bus=pcie.0,romfile='
    yield '-nodefaults',
    yield '-nographic',
    yield '-serial', 'mon:stdio'


def command(vm, *, emulator, accel, iommufd, name='egm', disk=None, net='user',
            stand_in=None, more=()):
    """A list of options, each a tuple of words; the program first.

    stand_in: the -device that takes the place of the GPUs, for tests
    more: words at the end
    """
    lines = [(str(emulator.path),), ('-name', _value(name)), *_machine(vm, accel),
             ('-drive', 'if=pflash,format=raw,readonly=on,'
              f'file={_value(emulator.firmware)}')]
    if iommufd and not stand_in:
        lines.append(('-object', f'iommufd,id={_IOMMUFD}'))
    lines += [*_nodes(vm), *_gpus(vm, iommufd, stand_in), *_rest(disk, net),
              *_objects(vm)]
    return lines + ([tuple(more)] if more else [])


def text(lines):
    """To paste into a shell, one option a line; of the many short ones about
    nodes, as many as fit."""
    shown = []
    for line in map(shlex.join, lines):
        if line.startswith(('-numa dist', '-numa node')) and \
                'memdev' not in line and shown[-1].startswith(line[:10]) and \
                'memdev' not in shown[-1] and len(shown[-1]) + len(line) < 76:
            shown[-1] += ' ' + line
        else:
            shown.append(line)
    return ' \\\n    '.join(shown)


def words(lines):
    """To run."""
    return [word for line in lines for word in line]

