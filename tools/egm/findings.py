# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host lacks for a VM on EGM, with the command that mends it."""

import dataclasses
import os
import pwd

from . import plan
from .format import size_text, table


@dataclasses.dataclass
class Finding:
    """One line; a problem keeps VMs from starting or GPUs from their EGM."""
    problem: bool
    text: str
    command: str = ''


def problem(text, command=''):
    """Something that has to be mended."""
    return Finding(True, text, command)


def note(text, command=''):
    """Something to know."""
    return Finding(False, text, command)


def _permission(host, path, use):
    """Whether this user may open a device."""
    if os.path.exists(host.path(path)) and not host.may_use(path):
        user = pwd.getpwuid(os.geteuid()).pw_name
        yield problem(f'{user} may not open {path}, {use}',
                      f'setfacl -m u:{user}:rw {path}')


def _regions(host):
    if not host.regions:
        loaded = os.path.exists(host.path('/sys/module/nvgrace_egm'))
        yield problem('this host has no EGM region: ' + (
            'the firmware has set no memory aside' if loaded else
            'the driver is not loaded'), '' if loaded else 'modprobe nvgrace-egm')
    for region in host.regions:
        device = f'/dev/{region.name}'
        if not os.path.exists(host.path(device)):
            number = region.number.replace(':', ' ')
            yield problem(f'{device} is missing', f'mknod -m 600 {device} c {number}'
                          if number else '')
        yield from _permission(host, device, 'the memory of a VM')
        if not region.size:
            yield note(f'{region.name}: the driver does not tell its size: '
                       'use --memory')
        elif region.size % plan.LARGE_PAGE:
            yield note(f'{region.name}: {size_text(region.size)} are no multiple of '
                       '2 MiB; the rest is not used')
        if not region.gpus:
            yield problem(f'{region.name} has no GPU')
        if region.users:
            yield problem(f'{region.name} is in use by {", ".join(region.users)}')
        if len({g.node for g in region.gpus}) > 1:
            yield problem(f'the GPUs of {region.name} are on different NUMA nodes')
    for address in sorted({g.address for g in host.gpus}):
        names = [r.name for r in host.regions
                 if any(g.address == address for g in r.gpus)]
        if len(names) > 1:
            yield problem(f'GPU {address} is of several regions: '
                          f'{", ".join(names)}')


def _gpus(host):
    for gpu in host.gpus:
        if not gpu.present:
            yield problem(f'GPU {gpu.address} is not there')
        elif not gpu.group:
            yield problem(f'GPU {gpu.address} has no IOMMU group: the IOMMU is off',
                          'enable the SMMU in the firmware' if host.arch == 'aarch64'
                          else 'boot with intel_iommu=on')
        elif not gpu.bound:
            yield problem(f'GPU {gpu.address} is not bound to a vfio driver but to '
                          f'{gpu.driver or "none"}', plan.bind_command(gpu))
        else:
            device = f'/dev/vfio/devices/{gpu.cdev}' if host.iommufd else \
                f'/dev/vfio/{gpu.group}'
            yield from _permission(host, device, f'GPU {gpu.address}')
        for other in gpu.neighbours:
            yield problem(f'{other} is in the IOMMU group of GPU {gpu.address}, and '
                          'a driver of the host has it',
                          f'echo {other} > /sys/bus/pci/devices/{other}/'
                          'driver/unbind')


def _kernel(host):
    if host.gpus and not host.iommufd:
        yield note('no iommufd: VMs use the type1 container, without nested '
                   'translation', '' if os.path.exists(host.path('/dev/iommu'))
                   else 'modprobe iommufd')
    if host.iommufd:
        yield from _permission(host, '/dev/iommu', 'iommufd')
    if host.page_size == 4096 and host.arch == 'aarch64':
        yield note('the kernel has pages of 4 KiB: to map a region takes 16 times '
                   'as long as with 64 KiB', 'boot a kernel with 64 KiB pages')
    if host.arch != 'aarch64':
        yield note(f'this is {host.arch}: VMs run without KVM, slowly')
    elif not os.path.exists(host.path('/dev/kvm')):
        yield problem('there is no /dev/kvm: VMs run without KVM, slowly',
                      'boot Linux at EL2')
    else:
        yield from _permission(host, '/dev/kvm', 'KVM')
        if host.kvm_maps_egm() is False:
            yield note('KVM does not tell that it maps device memory cacheable '
                       '(capability 243): unless it is a kernel of NVIDIA, a VM '
                       'dies at its first instruction', 'boot Linux 6.17 or newer')


def _emulator(emulator):
    if not emulator.path:
        yield problem('there is no qemu-system-aarch64 in PATH; --qemu names it')
        return
    if not emulator.has_object():
        yield problem(f'{emulator.path} has no object acpi-egm-memory',
                      'build QEMU with acpi-egm-memory, --qemu PATH')
    if not emulator.firmware:
        yield problem('there is no UEFI firmware for guests; --firmware names it',
                      'apt-get install qemu-efi-aarch64')


def find(host, emulator):
    """All there is to say."""
    return [*_regions(host), *_gpus(host), *_kernel(host), *_emulator(emulator)]


def _rows(host):
    for region in host.regions:
        size = size_text(region.size) if region.size else '?'
        node = str(region.node) if region.node >= 0 else '-'
        used = ', '.join(region.users) or '-'
        for gpu in region.gpus or [None]:
            yield (region.name, size, node, used) + (
                ('-',) * 5 if not gpu else
                (gpu.address, f'{gpu.vendor:04x}:{gpu.device:04x}',
                 gpu.driver or '-', gpu.group or '-', gpu.cdev or '-'))
            # The next GPU of the region stands below.
            size = node = used = ''


def lines(host, found):
    """The host as a table, and the findings."""
    text = []
    if host.regions:
        text += table([('region', 'size', 'node', 'used by', 'GPU', 'device',
                        'driver', 'IOMMU group', 'vfio device'), *_rows(host)])
    for finding in sorted(found, key=lambda f: not f.problem):
        text.append(f'{"problem" if finding.problem else "note"}: {finding.text}')
        if finding.command:
            text.append(f'    {finding.command}')
    if host.regions and found:
        text.insert(len(list(_rows(host))) + 1, '')
    return text
