# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that will run a VM, and firmware for it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import stat
import subprocess

NAME = 'qemu-system-aarch64'
_FIRMWARE = 'edk2-aarch64-code.fd'
# Size of each of the two flash devices of the virt machine
FLASH = 64 << 20
# What the SMMUs of Grace have, as no file reports it: no range invalidation, 20 bits for
# substream IDs, which is `pasid` in NVIDIA's QEMU, and addresses of 48 bits.
_SMMU = {'ril': 'off', 'ssidsize': '20', 'pasid': 'on', 'oas': '48'}


def _find_installed() -> str | None:
    """The QEMU of the prefix that this package is installed in, if it is in one."""
    package = os.path.dirname(os.path.realpath(__file__))
    prefix = package.removesuffix('/share/acpi-egm-memory/egm')
    return shutil.which(f'{prefix}/bin/{NAME}') if prefix != package else None


class Emulator:
    """QEMU and firmware. path: None if there is no QEMU

    wanted: the user's choice of QEMU
    firmware: the user's choice of firmware, else the one that belongs to QEMU
    """

    def __init__(self, wanted: str | None = None, firmware: str | None = None):
        self.wanted = wanted
        path = shutil.which(wanted) if wanted is not None else \
            _find_installed() or shutil.which(NAME)
        # A script or a domain that has them is used in other directories.
        self.path = path and os.path.abspath(path)
        self.firmware = self._find_firmware() if firmware is None else \
            firmware and os.path.abspath(firmware)

    def _find_firmware(self) -> str:
        program = os.path.dirname(os.path.realpath(self.path or f'/usr/bin/{NAME}'))
        found = (f'{os.path.dirname(program)}/share/qemu/{_FIRMWARE}',
                 f'{program}/pc-bios/{_FIRMWARE}',  # not yet installed
                 '/usr/share/AAVMF/AAVMF_CODE.fd')
        return next((path for path in found if os.path.exists(path)), found[-1])

    def check_firmware(self) -> str:
        """The problem with the firmware; empty: none."""
        try:
            status = os.stat(self.firmware)
        except (OSError, ValueError):
            return f'firmware {self.firmware or "of that name"} does not exist'
        if not stat.S_ISREG(status.st_mode):
            return f'firmware {self.firmware} is not a regular file'
        if status.st_size != FLASH:
            return (f'firmware {self.firmware} does not have the 64 MiB of the flash '
                    'device of virt')
        return ''

    def _help(self, *args: str) -> str:
        """The output of QEMU; empty if it cannot be run."""
        try:
            run = subprocess.run([self.path, *args], text=True, check=False,
                                 stdin=subprocess.DEVNULL, errors='replace',
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError:
            return ''
        return run.stdout if run.returncode == 0 else ''

    def has_object(self) -> bool:
        """Whether it has acpi-egm-memory."""
        return 'acpi-egm-memory' in self._help('-object', 'help').split()

    @functools.cached_property
    def smmu_options(self) -> str:
        """Options of an arm-smmuv3 that uses the host's, with ATS; empty if it has no
        such device. What it finds out about the host's is left to it."""
        known = dict(re.findall(r'^ +([a-z-]+)=(.*)',
                                self._help('-device', 'arm-smmuv3,help'), re.M))
        if not known.keys() >= {'accel', 'ats', 'primary-bus'}:
            return ''
        return ','.join(['accel=on', 'ats=on', *(
            f'{name}={value}' for name, value in _SMMU.items()
            if not re.search(r'\bauto\b', known.get(name, 'auto')))])
