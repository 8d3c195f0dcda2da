# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the processes that have a device open, mapped or locked.

Nothing of another process is followed: its descriptors are read as links, and only
files in this process' own /dev are looked at. The file that a descriptor is open on can
be on a server that does not answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import stat

from . import sysfs
from .format import printable

# Devices that are recognized by name, in each mount namespace
_DEVICE = re.compile(r'/dev/(?:egm[0-9]+|vfio/(?:devices/)?\w+|nvidia[0-9]+)')
_MAPPED = re.compile(rb' (/dev/[^\n]*)$', re.M)
_O_PATH = 0o10000000


@dataclasses.dataclass(frozen=True, order=True)
class User:
    """A process."""
    pid: int
    name: str

    def __str__(self) -> str:
        return f'{self.name} ({self.pid})'


def device_number(path: str) -> str:
    """The number of a character device, 511:4; empty if the file is not one."""
    try:
        found = os.stat(path)
    except OSError:
        return ''
    if not stat.S_ISCHR(found.st_mode):
        return ''
    return f'{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}'


class _Devices:
    """The devices that count, by the names that processes have them by."""

    def __init__(self, root: str, numbers: dict[str, str]):
        self.root = root
        self.numbers = numbers
        self.names: dict[str, str] = {}     # '': does not count

    def find(self, name: str) -> str:
        """The device of a name in /dev."""
        if name not in self.names:
            found = name if _DEVICE.fullmatch(name) else ''
            # A node with another name. Only root can mount something here.
            if not found and name.count('/') == 2:
                found = self.numbers.get(device_number(f'{self.root}{name}'), '')
            self.names[name] = found
        return self.names[name]


class _Process:
    """A process, whose files can vanish at any time."""

    def __init__(self, root: str, pid: str):
        self.root = root
        self.path = f'{root}/proc/{pid}'

    def _counts(self, number: str, device: str) -> bool:
        """Whether a descriptor reaches the device: not one of O_PATH, which needs no
        permission, and no file of that name that a user has made up: in a user
        namespace, devices are the host's own files."""
        info = sysfs.read_text(f'{self.path}/fdinfo/{number}')
        flags = re.search(r'^flags:\s*([0-7]+)$', info, re.M)
        if flags and int(flags[1], 8) & _O_PATH:
            return False
        inode = re.search(r'^ino:\s*([0-9]{1,20})$', info, re.M)
        own = sysfs.link_name(f'{self.root}/proc/self/ns/user')
        if inode and sysfs.link_name(f'{self.path}/ns/user') not in ('', own):
            with contextlib.suppress(OSError):
                return os.stat(f'{self.root}{device}').st_ino == int(inode[1])
            return False
        return True

    def open(self, devices: _Devices) -> set[str]:
        """The devices that it has open."""
        found: set[str] = set()
        try:
            directory = os.open(f'{self.path}/fd', os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return found
        try:
            for number in os.listdir(directory):
                try:
                    name = os.readlink(number, dir_fd=directory)
                except OSError:
                    continue
                if name.startswith('/dev/'):
                    device = devices.find(name)
                    if device and device not in found and \
                            self._counts(number, device):
                        found.add(device)
        except OSError:
            pass
        finally:
            os.close(directory)
        return found

    def mapped(self, devices: _Devices) -> set[str]:
        """The devices that it has mapped."""
        maps = sysfs.read_bytes(f'{self.path}/maps')
        if b' /dev/' not in maps:
            return set()
        names = {os.fsdecode(name) for name in _MAPPED.findall(maps)}
        return {devices.find(name) for name in names} - {''}


def _locks(root: str) -> dict[tuple[int, int, int], set[str]]:
    """The processes with locks, which all users can see, by device and inode of the
    file system."""
    found: dict[tuple[int, int, int], set[str]] = {}
    for pid, major, minor, inode in re.findall(
            r' FLOCK .* ([0-9]{1,10}) ([0-9a-f]{1,8}):([0-9a-f]{1,8}):([0-9]{1,20}) ',
            sysfs.read_text(f'{root}/proc/locks')):
        if pid != '0':      # of another PID namespace
            found.setdefault((int(major, 16), int(minor, 16), int(inode)),
                             set()).add(pid)
    return found


def find(root: str, numbers: dict[str, str]) -> dict[str, list[User]]:
    """The users of devices: /dev/egmX, those of vfio, and those of NVIDIA's driver.

    root: where /proc and /dev are
    numbers: the devices that are known by their number, too: {'511:4': '/dev/egm4'}
    """
    devices = _Devices(root, numbers)
    regions = set(numbers.values())
    found: dict[str, set[str]] = {}
    for pid in sysfs.list_names(f'{root}/proc'):
        if not (pid.isascii() and pid.isdigit()):
            continue
        process = _Process(root, pid)
        used = process.open(devices)
        # If a process has the region open, do not read its mappings as well: the kernel
        # may be busy with exactly this mapping.
        if not any(device in regions for device in used):
            used |= process.mapped(devices)
        for device in used:
            found.setdefault(device, set()).add(pid)
    locks = _locks(root)
    for device in regions if locks else ():
        # egm-vm locks the directory while the driver clears the region.
        for path in device, device.replace('/dev/', '/sys/class/egm/'):
            with contextlib.suppress(OSError):
                status = os.stat(f'{root}{path}')
                found.setdefault(device, set()).update(locks.get(
                    (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino), ()))
    return {device: sorted(User(int(pid), printable(
        sysfs.read_text(f'{root}/proc/{pid}/comm')) or 'a process') for pid in pids)
            for device, pids in found.items() if pids}
