# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks of a host for VMs on EGM.

`egm-vm host` shows it, `check` prints a line for each, and `qemu` and `libvirt` refuse a
VM that a problem concerns.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

from . import plan
from .emulator import NAME, Emulator
from .finding import NOTE, PASS, PROBLEM, USED, Finding
from .format import size_text
from .hostinfo import NVIDIA, Function, Gpu, Host, Nic, Region
from .plan import Vm

_SYSFS = '/sys/class/egm'


def _user_name() -> str:
    """The name of this process's user, or the number of a user without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _driver(gpu: Function) -> str:
    """The vfio driver for a PCI function."""
    grace = isinstance(gpu, Gpu) and gpu.vendor == NVIDIA and not gpu.virtual
    return 'nvgrace_gpu_vfio_pci' if grace else 'vfio-pci'


def _load(module: str) -> str:
    """A shell command that loads a module now and after each reboot."""
    return f'echo {module} > /etc/modules-load.d/{module}.conf; modprobe {module}'


def _bind(gpu: Function) -> str:
    """A shell command that binds a GPU to vfio now and after each reboot."""
    return f'driverctl set-override {gpu.address} {_driver(gpu)}'


def _rule(match: str, name: str, user: str) -> str:
    """A shell command that makes a user the owner of a device now and after each reboot."""
    return (f"echo '{match}, OWNER=\"{user}\"' > /etc/udev/rules.d/70-egm-{name}.rules; "
            'udevadm control --reload; udevadm trigger')


def _check_access(host: Host, check: str, path: str, subject: str = '') -> \
        Iterator[Finding]:
    """Whether this user can open a device. check: its id"""
    if not os.path.exists(host.path(path)):
        return
    if host.may_use(path):
        yield Finding(check, PASS, f'{path} can be opened', subject)
        return
    user = _user_name()
    rules = {'/dev/egm': ('SUBSYSTEM=="egm"', 'regions'),
             '/dev/vfio/devices/': ('SUBSYSTEM=="vfio-dev"', 'vfio-devices'),
             '/dev/vfio/': ('SUBSYSTEM=="vfio"', 'vfio-groups'),
             '/dev/iommu': ('KERNEL=="iommu"', 'iommufd')}
    command = next((_rule(*rule, user) for start, rule in rules.items()
                    if path.startswith(start)), f'usermod -a -G kvm {user}')
    yield Finding(check, PROBLEM, f'user {user}: no access to {path}', subject,
                  command=command)


def _binding(host: Host, gpu: Function) -> dict[str, str]:
    """What to do so that vfio has a GPU: the hint and the command of a finding."""
    hint = _users_hint(host, gpu)
    return {'hint': hint, 'command': '' if hint else _bind(gpu)}


def _check_none(host: Host) -> Finding:
    """The reason why there is no region."""
    unbound = [g for g in host.loose_gpus if not g.bound and not g.vgpu]
    if unbound:
        return Finding(
            'regions', PROBLEM, 'this host has no EGM region: some drivers create one only '
            f'when its GPUs have a vfio driver; {", ".join(g.address for g in unbound)} '
            'have none', hint=_users_hint(host, unbound[0]),
            command='; '.join(_bind(g) for g in unbound)
            if not _users_hint(host, unbound[0]) else '')
    if not any(os.path.exists(host.path(f'/sys/module/{name}'))
               for name in ('nvgrace_egm', 'egm')):
        return Finding('regions', PROBLEM, 'this host has no EGM region: the driver is '
                       'not loaded', hint='only NVIDIA\'s kernels have it',
                       command='for m in nvgrace-egm egm; do modprobe $m && '
                       'echo $m > /etc/modules-load.d/egm.conf; done')
    return Finding(
        'regions', PROBLEM, 'this host has no EGM region: the firmware has set no memory '
        'aside', hint='in the menu of the firmware, "EGM" turns it on, and "EGM '
        'Hypervisor reserved memory per socket" sets the memory that the host keeps')


def _check_regions(host: Host) -> Iterator[Finding]:
    """All regions."""
    if not host.regions:
        yield _check_none(host)
    else:
        yield Finding('regions', PASS, ', '.join(r.name for r in host.regions))
    for name in host.odd_names:
        yield Finding('region-name', NOTE, f'{_SYSFS}/{name} does not have the name of a region, '
                      'egm and a number: it is ignored')
    for region in host.regions:
        yield _check_device(host, region)
        yield from _check_access(host, 'region-access', region.device, region.name)
        yield _check_memory(host, region)
        yield _check_size(region)
        yield from _check_members(region)
        yield _check_region_use(region)
    for gpu in host.loose_gpus if host.regions else ():
        if not gpu.vgpu:
            yield _check_loose(host, gpu)


def _check_loose(host: Host, gpu: Gpu) -> Finding:
    """A GPU that VMs on EGM cannot have."""
    if gpu.bound:
        return Finding('gpu-region', NOTE, f'no region lists {gpu}', gpu.address,
                       hint='some drivers only know the GPUs that were present when they '
                       'were loaded')
    return Finding('gpu-region', NOTE, f'no region lists {gpu}: some drivers do so only when '
                   'it has a vfio driver', gpu.address, **_binding(host, gpu))


def _check_device(host: Host, region: Region) -> Finding:
    """The node in /dev, which the kernel makes."""
    if os.path.exists(host.path(region.device)):
        return Finding('region-device', PASS, f'{region.device} exists', region.name)
    return Finding('region-device', PROBLEM, f'{region.device} is missing', region.name,
                   hint='in a container, pass this device to it; elsewhere, load the '
                   'driver again')


def _check_memory(host: Host, region: Region) -> Finding:
    """Whether it is set aside at all."""
    if not host.host_memory(region):
        return Finding('region-memory', PASS, f'{region.name} is not RAM of the host',
                       region.name)
    return Finding(
        'region-memory', PROBLEM, f'{region.name} is RAM of this host (NUMA node '
        f'{region.domain} has CPUs and memory): opening {region.device} would clear it',
        region.name, hint='do not open it; in the menu of the firmware, set "EGM '
        'Hypervisor reserved memory per socket", so that EGM is set aside')


def _check_size(region: Region) -> Finding:
    """The size that the driver reports."""
    if not region.reported:
        return Finding('region-size', PROBLEM, f'{region.name}: the driver does not '
                       'report the size of the region, so QEMU refuses it',
                       region.name, hint='use a newer version of the driver')
    if region.size < plan.LARGE_PAGE:
        return Finding('region-size', PROBLEM, f'{region.name}: egm_size is '
                       f'{region.reported}, which is not the size of a region',
                       region.name)
    if region.size % plan.LARGE_PAGE:
        return Finding('region-size', NOTE, f'{region.name}: {size_text(region.size)} '
                       f'({region.reported}) is not a multiple of 2 MiB; the rest is '
                       'not used', region.name)
    return Finding('region-size', PASS, f'{region.name} has {size_text(region.size)}',
                   region.name)


def _check_members(region: Region) -> Iterator[Finding]:
    """The GPUs of a region."""
    if not region.gpus:
        yield Finding('region-gpus', PROBLEM, f'{region.name} has no GPU', region.name,
                      hint='some drivers only know the GPUs that were present when they '
                      'were loaded')
        return
    yield Finding('region-gpus', PASS, f'{region.name} has '
                  f'{", ".join(g.address for g in region.gpus)}', region.name)
    nodes = sorted({g.node for g in region.gpus if g.present})
    if len(nodes) > 1:
        yield Finding('region-node', PROBLEM, f'the GPUs of {region.name} are on different '
                      f'NUMA nodes: {", ".join(map(str, nodes))}', region.name)


def _check_region_use(region: Region) -> Finding:
    """Whether a VM has it."""
    if not region.users:
        return Finding('region-use', PASS, f'{region.name} is free', region.name)
    return Finding('region-use', USED, f'{region.name} is in use by '
                   f'{", ".join(map(str, region.users))}', region.name)


def _check_gpus(host: Host, iommufd: bool) -> Iterator[Finding]:
    """Each GPU once, although several regions can list it."""
    for address in dict.fromkeys(g.address for g in host.gpus):
        gpu = next(g for g in host.gpus if g.address == address)
        names = [r.name for r in host.regions
                 if any(g.address == address for g in r.gpus)]
        if len(names) > 1:
            yield Finding('gpu-region', PROBLEM, f'GPU {address} is listed by several '
                          f'regions: {", ".join(names)}', address)
        yield from check_function(host, gpu, iommufd)


def check_function(host: Host, gpu: Function, iommufd: bool) -> Iterator[Finding]:
    """A PCI function that a VM is given: a GPU or a NIC. iommufd: whether the VM uses it"""
    if not gpu.present:
        yield Finding('gpu-present', PROBLEM, f'{gpu} not found', gpu.address)
        return
    if gpu.vgpu:
        yield Finding('gpu-vgpu', USED, f'{gpu} {gpu.vgpu}', gpu.address)
        return
    yield _check_use(gpu)
    if not gpu.group:
        yield _check_no_group(host, gpu)
        return
    yield _check_driver(host, gpu)
    yield from _check_neighbours(gpu)
    if host.arch == 'aarch64':
        yield _check_smmu(gpu)
        yield from _check_ats(host, gpu)
    if gpu.bound:
        device = f'/dev/vfio/devices/{gpu.cdev}' if iommufd and gpu.cdev else \
            f'/dev/vfio/{gpu.group}'
        yield from _check_access(host, 'gpu-access', device, gpu.address)


def _check_smmu(gpu: Function) -> Finding:
    """An SMMUv3 is what a VM can share."""
    if gpu.smmu:
        return Finding('gpu-smmu', PASS, f'{gpu} is behind {gpu.iommu}',
                       gpu.address)
    return Finding('gpu-smmu', NOTE, f'{gpu} is not behind an SMMUv3 but behind '
                   f'{gpu.iommu or "an IOMMU that the kernel does not name"}', gpu.address,
                   hint='enable the SMMU in the firmware')


def _check_ats(host: Host, gpu: Function) -> Iterator[Finding]:
    """What the driver of the GPU insists on, in its default mode."""
    if gpu.ats is False:
        yield Finding('gpu-ats', NOTE, f'{gpu} has no capability for ATS',
                      gpu.address, hint='its firmware or a setting of the host\'s firmware '
                      'has turned it off')
    elif host.iort.roots and not host.iort.has_ats(int(gpu.address.split(':')[0], 16)):
        yield Finding('gpu-ats', NOTE, f'{gpu}: IORT of the host says that its '
                      'root complex does not support ATS', gpu.address,
                      hint='enable ATS in the firmware, or use a newer firmware')
    elif gpu.ats and host.iort.roots:
        yield Finding('gpu-ats', PASS, f'{gpu} has ATS', gpu.address)


def _check_use(gpu: Function) -> Finding:
    """Whether a VM has it."""
    if not gpu.users:
        return Finding('gpu-use', PASS, f'{gpu} is free', gpu.address)
    return Finding('gpu-use', USED, f'{gpu} is in use by '
                   f'{", ".join(map(str, gpu.users))}', gpu.address)


def _check_no_group(host: Host, gpu: Function) -> Finding:
    """A GPU that no IOMMU isolates."""
    return Finding('gpu-iommu', PROBLEM, f'{gpu} has no IOMMU group: the IOMMU '
                   'is off', gpu.address, hint='enable the SMMU in the firmware'
                   if host.arch == 'aarch64' else 'boot Linux with intel_iommu=on')


def _users_hint(host: Host, gpu: Function) -> str:
    """A hint with the users of the driver that a GPU is taken from; empty: none."""
    users = sorted({u for name, found in host.holders.items()
                    if name.startswith('/dev/nvidia') for u in found})
    if gpu.driver != 'nvidia' or not users:
        return ''
    return (f'end the users of the driver first: {", ".join(map(str, users))}; then '
            f'bind the GPU to {_driver(gpu)}')


def _check_driver(host: Host, gpu: Function) -> Finding:
    """Whether vfio has it."""
    if gpu.bound and gpu.driver == 'vfio-pci' != _driver(gpu):
        return Finding('gpu-driver', NOTE, f'{gpu} is bound to vfio-pci, which does not give '
                       "a VM the GPU's own memory", gpu.address, command=_bind(gpu))
    if gpu.bound:
        return Finding('gpu-driver', PASS, f'{gpu} is bound to {gpu.driver}',
                       gpu.address)
    used = f' (interface {", ".join(gpu.interfaces)})' \
        if isinstance(gpu, Nic) and gpu.interfaces else ''
    return Finding('gpu-driver', PROBLEM, f'{gpu} is not bound to a vfio driver '
                   f'but to {gpu.driver or "none"}{used}', gpu.address,
                   **_binding(host, gpu))


def _check_neighbours(gpu: Function) -> Iterator[Finding]:
    """Other devices in its IOMMU group."""
    for other in gpu.neighbours:
        known = ', '.join([*other.interfaces, f'driver {other.driver}'])
        yield Finding('gpu-group', PROBLEM, f'{other.address} ({known}) is in the IOMMU group '
                      f'of {gpu}, and is bound to a driver of the host',
                      gpu.address, hint='the host may need it; pass both devices to the VM, '
                      'or bind this device to vfio-pci')


def _check_kernel(host: Host, iommufd: bool) -> Iterator[Finding]:
    """The kernel's support for VMs."""
    if host.gpus:
        yield _check_iommufd(host)
    if iommufd:
        yield from _check_access(host, 'iommufd-access', '/dev/iommu')
        if host.arch == 'aarch64':
            yield _check_nesting(host)
    if host.page_size == 4096 and host.arch == 'aarch64':
        yield Finding('page-size', NOTE, 'the kernel has pages of 4 KiB: mapping a region '
                      'takes 16 times as long as with pages of 64 KiB')
    if host.arch != 'aarch64':
        yield Finding('kvm', NOTE, f'this is {host.arch}: VMs run without KVM, slowly')
    elif not os.path.exists(host.path('/dev/kvm')):
        yield Finding('kvm', PROBLEM, 'there is no /dev/kvm: VMs would run slowly, '
                      'without KVM', hint='Linux has to boot at EL2; in a container, pass '
                      'this device to it')
    else:
        yield Finding('kvm', PASS, '/dev/kvm exists')
        yield from _check_access(host, 'kvm-access', '/dev/kvm')
        maps = host.kvm_maps_egm()
        if maps is not None:
            yield _check_mapping(maps)


def _check_iommufd(host: Host) -> Finding:
    """How GPUs are passed through."""
    without = [g.address for g in host.gpus if g.bound and not g.cdev]
    if not os.path.exists(host.path('/dev/iommu')):
        return Finding('iommufd', NOTE, 'no iommufd: VMs use the type1 container',
                       command=_load('iommufd'))
    if without:
        return Finding('iommufd', NOTE, f'{", ".join(without)} cannot be used with '
                       'iommufd: VMs use the type1 container', hint='the kernel needs '
                       'CONFIG_VFIO_DEVICE_CDEV')
    if 'nvidia' not in host.kernel:
        return Finding('iommufd', NOTE, f'iommufd of this kernel ({host.kernel or "?"}) may '
                       'not map EGM; NVIDIA\'s kernels do', hint='if QEMU says so, use '
                       '--type1')
    return Finding('iommufd', PASS, 'the kernel has iommufd')


def _check_nesting(host: Host) -> Finding:
    """Whether a VM can share the SMMU of the host."""
    if host.nests():
        return Finding('iommufd-nesting', PASS, 'iommufd shares an SMMUv3 with VMs')
    return Finding('iommufd-nesting', NOTE, f'iommufd of this kernel ({host.kernel or "?"}) '
                   'does not share an SMMUv3 with VMs', hint='Linux 6.13 and newer does')


def _check_mapping(maps: bool) -> Finding:
    """Whether a guest can run on a region."""
    if maps:
        return Finding('kvm-maps-egm', PASS, 'KVM maps device memory cacheable')
    return Finding('kvm-maps-egm', NOTE, 'KVM does not report that it maps device memory '
                   'cacheable (capability 243): unless this is one of NVIDIA\'s kernels, a VM '
                   'hangs at its first instruction')


def _check_emulator(emulator: Emulator) -> Iterator[Finding]:
    """QEMU and its firmware."""
    if not emulator.path:
        yield Finding('qemu', PROBLEM, f'{emulator.wanted or NAME} not found' +
                      ('' if emulator.wanted else ' in PATH'), hint='use --qemu PATH')
    elif not emulator.has_object():
        yield Finding('qemu', PROBLEM, f'{emulator.path} has no object acpi-egm-memory',
                      hint='use --qemu PATH')
    else:
        yield Finding('qemu', PASS, f'{emulator.path} has acpi-egm-memory')
        yield _check_emulated_smmu(emulator)
    wrong = emulator.check_firmware()
    if wrong:
        yield Finding('firmware', PROBLEM, wrong, hint='use --firmware FILE; Debian 13\'s '
                      'package qemu-efi-aarch64 has one')
    else:
        yield Finding('firmware', PASS, f'{emulator.firmware} is UEFI for guests')


def _check_emulated_smmu(emulator: Emulator) -> Finding:
    """Without it, a guest has no ATS."""
    if emulator.smmu_options:
        return Finding('qemu-smmu', PASS, f'{emulator.path} has arm-smmuv3 with accel=on')
    return Finding('qemu-smmu', NOTE, f'{emulator.path} has no arm-smmuv3 with accel=on',
                   hint='QEMU 11 and newer have it')


def why_no_smmu(found: list[Finding], vm: Vm) -> str:
    """What keeps a VM from an SMMUv3 with ATS; empty: nothing."""
    gpus = {'', *(f.address for f in vm.functions)}
    return next((f.text for f in found if f.subject in gpus and f.level != PASS and
                 f.id in ('qemu-smmu', 'gpu-smmu', 'iommufd-nesting')), '')


def find(host: Host, emulator: Emulator, iommufd: bool | None = None) -> list[Finding]:
    """All findings. iommufd: whether VMs use it; None: if the host has it"""
    iommufd = host.iommufd if iommufd is None else iommufd
    return [*_check_regions(host), *_check_gpus(host, iommufd),
            *_check_kernel(host, iommufd), *_check_emulator(emulator)]


def refuse(found: list[Finding], vm: Vm, skip: tuple[str, ...] = ()) -> list[str]:
    """The reasons against a VM, one line each; skip: checks that do not concern it."""
    subjects = {'', *(s.region.name for s in vm.sockets),
                *(f.address for f in vm.functions)}
    reasons = []
    for finding in found:
        if finding.level in (PROBLEM, USED) and finding.subject in subjects and \
                finding.id not in skip:
            more = finding.command or finding.hint
            if finding.id == 'region-use':
                more = 'a region belongs to one VM'
            reasons.append(f'{finding.text}{": " * bool(more)}{more}')
    return reasons
