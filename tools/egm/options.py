# SPDX-License-Identifier: GPL-2.0-or-later
"""Check names, files and numbers that the user sets for a VM."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import socket
import stat
import uuid
from collections.abc import Iterator, Sequence

from .emulator import FLASH
from .hostinfo import Host
from .plan import SLOTS, Vm

# The namespace of the UUIDs of VMs
_NAMESPACE = uuid.UUID('6f0d3a0e-6f7a-5a39-9c35-0a4f7b1f2c55')
# sun_path of a UNIX socket, without the byte that ends it
_SOCKET_LENGTH = 107


@dataclasses.dataclass
class Disk:
    """A disk or CD-ROM of a VM."""
    path: str           # absolute
    block: bool         # a block device, not a file
    format: str         # qcow2 or raw

    def is_in(self, disks: Sequence[Disk]) -> bool:
        """Whether one of these disks is the same file."""
        return any(os.path.samefile(self.path, other.path) for other in disks)


@dataclasses.dataclass
class Settings:
    """The settings of a VM except its sockets."""
    name: str
    accel: str = 'kvm'              # or tcg
    iommufd: bool = True            # else type1
    disks: list[Disk] = dataclasses.field(default_factory=list)     # in the order of booting
    cdroms: list[Disk] = dataclasses.field(default_factory=list)
    vars: str = ''                  # path of UEFI's variables; empty: they are not kept
    net: str = 'user'               # or none, or a bridge
    uuid: str = ''                  # empty: QEMU's default
    mac: str = ''                   # of its NIC; empty: QEMU's default
    qmp: str = ''                   # path of its QMP socket; empty: none
    stand_in: str = ''              # a -device in the place of the GPUs, for tests
    pin: bool = True                # vCPUs, to the CPUs of their socket on the host
    smmu: str = ''                  # options of the GPUs' SMMUs; empty: they have none


def default_name(vm: Vm) -> str:
    """The regions, each of which belongs to one VM: egm4-egm5."""
    return '-'.join(socket.region.name for socket in vm.sockets)


def default_qmp(name: str) -> str:
    """The default path of a VM's QMP socket; empty if no directory is suitable."""
    directory = '/run' if os.geteuid() == 0 else os.environ.get(
        'XDG_RUNTIME_DIR', f'/run/user/{os.geteuid()}')
    path = os.path.join(directory, re.sub(r'[^\w.+-]', '_', name, flags=re.A) + '.qmp')
    return path if os.path.isdir(directory) and \
        len(os.fsencode(path)) <= _SOCKET_LENGTH else ''


def identity(host: Host, name: str) -> tuple[str, str]:
    """UUID and MAC address: always the same for a VM, and others on each host."""
    own = uuid.uuid5(_NAMESPACE, f'{host.machine_id or os.uname().nodename} {name}')
    return str(own), '52:54:00:' + ':'.join(f'{byte:02x}' for byte in own.bytes[-3:])


def check_text(option: str, text: str) -> Iterator[str]:
    """Errors: text that neither XML nor a line of shell can contain."""
    if not text:
        yield f'{option} is empty'
    elif not text.isprintable():
        yield f'{option} {text!r} has characters that cannot be printed'


def check_name(name: str) -> Iterator[str]:
    """Errors: names that libvirt or QEMU's -name does not accept."""
    yield from check_text('--name', name)
    if '/' in name or (name and not name.strip()):
        yield f'--name {name!r}: a name must not contain a slash or consist of spaces'


def check_net(host: Host, net: str) -> Iterator[str]:
    """A bridge has to be there."""
    if net in ('user', 'none'):
        return
    place = host.path('/sys/class/net')
    names = sorted(os.listdir(place)) if os.path.isdir(place) else []
    bridges = [n for n in names if os.path.isdir(f'{place}/{n}/bridge')]
    if net not in bridges:
        yield (f'--net {net!r} is not user, none or a bridge of this host; there '
               f'{"are" if len(bridges) > 1 else "is"} '
               f'{", ".join(bridges) or "no bridge"}')


def check_bridge_helper(net: str, program: str) -> Iterator[str]:
    """Errors: bridges that QEMU's helper does not let VMs use. It reads the configuration
    of its prefix.

    program: an installed QEMU; of one in a build directory, nothing is known
    """
    directory = os.path.dirname(os.path.realpath(program))
    if net in ('user', 'none') or os.path.basename(directory) != 'bin':
        return
    prefix = os.path.dirname(directory)
    path = f'{"" if prefix == "/usr" else prefix}/etc/qemu/bridge.conf'
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            allowed = re.search(rf'^\s*(allow\s+(all|{re.escape(net)})\s*$|include\s)',
                                file.read(), re.M)
    except FileNotFoundError:
        allowed = None
    except OSError:
        return
    if not allowed:
        yield (f'--net {net}: {path} does not allow VMs to use this bridge: mkdir -p '
               f'{os.path.dirname(path)}; echo allow {net} >> {path}')


def check_running(path: str) -> Iterator[str]:
    """Errors: a QMP socket of a VM that runs, which QEMU would replace."""
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.connect(path)
        yield f'a VM runs that has the QMP socket {path}: use another --name or --qmp'


def check_qmp(path: str) -> Iterator[str]:
    """Errors: paths where QEMU cannot create a socket."""
    if path == 'none':
        return
    yield from check_text('--qmp', path)
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        yield f'--qmp {path}: {directory} is not a directory'
    elif len(os.fsencode(os.path.abspath(path))) > _SOCKET_LENGTH:
        yield f'--qmp {path} is longer than {_SOCKET_LENGTH} bytes'


def check_vars(path: str, opened: bool) -> Iterator[str]:
    """Errors: files that cannot be the flash device with UEFI's variables.

    opened: the VM opens it as this user; libvirt's VMs run as another one
    """
    reasons = list(check_text('--vars', path))
    if reasons:
        yield from reasons
    elif not os.path.exists(path):
        yield (f'--vars {path} does not exist; for a new VM, create it: '
               f'truncate -s 64M {shlex.quote(path)}')
    elif not os.path.isfile(path) or os.path.getsize(path) != FLASH:
        yield f'--vars {path} is not a file of 64 MiB'
    elif opened and not os.access(path, os.R_OK | os.W_OK):
        yield f'--vars {path}: this user cannot write to it'


def read_disks(option: str, paths: Sequence[str], written: bool) -> \
        tuple[list[Disk], list[str]]:
    """Disks, and errors. written: the VM writes to them as this user"""
    disks, reasons = [], []
    for path in paths:
        disk, wrong = read_disk(option, path, written)
        reasons += wrong
        if disk and disk.is_in(disks):
            reasons.append(f'{option} {path}: this disk is given twice')
        elif disk:
            disks.append(disk)
    return disks, reasons


def check_slots(vm: Vm, settings: Settings) -> Iterator[str]:
    """Errors: more devices than pcie.0 has slots for."""
    most = SLOTS - vm.bridges - (settings.net != 'none') - bool(settings.cdroms)
    if len(settings.disks) > most:
        yield (f'{len(settings.disks)} disks: the bus pcie.0 has room for {max(most, 0)} '
               f'with {vm.bridges} PCI host bridges')


def read_disk(option: str, path: str, written: bool) -> tuple[Disk | None, list[str]]:
    """A disk, and errors. Only files and block devices are opened."""
    reasons = list(check_text(option, path))
    if reasons:
        return None, reasons
    where = os.path.abspath(path)
    try:
        mode = os.stat(where).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            return None, [f'{option} {path} is not a file or a block device']
        with open(where, 'rb') as file:
            kind = 'qcow2' if file.read(4) == b'QFI\xfb' else 'raw'
        if written and not os.access(where, os.W_OK):
            return None, [f'{option} {path}: this user cannot write to it']
    except FileNotFoundError:
        return None, [f'{option} {path} does not exist']
    except OSError as error:
        return None, [f'{option} {path}: cannot read the file to detect its format: '
                      f'{error.strerror}']
    return Disk(where, stat.S_ISBLK(mode), kind), []
