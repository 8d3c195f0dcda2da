# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that will run a VM, and firmware for it."""

import os
import shutil
import subprocess

NAME = 'qemu-system-aarch64'
_FIRMWARE = 'edk2-aarch64-code.fd'


def _installed_along():
    """The QEMU of the prefix that this package is installed in, None if it is not."""
    package = os.path.dirname(os.path.realpath(__file__))
    prefix = package.removesuffix('/share/acpi-egm-memory/egm')
    return shutil.which(f'{prefix}/bin/{NAME}') if prefix != package else None


class Emulator:
    """path: None if there is none"""

    def __init__(self, path=None, firmware=None):
        self.path = shutil.which(path) if path else \
            _installed_along() or shutil.which(NAME)
        self.firmware = firmware or self._find_firmware()

    def _find_firmware(self):
        if not self.path:
            return None
        program = os.path.dirname(os.path.realpath(self.path))
        for path in (f'{os.path.dirname(program)}/share/qemu/{_FIRMWARE}',
                     f'{program}/pc-bios/{_FIRMWARE}',  # not yet installed
                     '/usr/share/AAVMF/AAVMF_CODE.fd'):
            if os.path.exists(path):
                return path
        return None

    def _help(self, *args):
        run = subprocess.run([self.path, *args], text=True, check=False,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return run.stdout if run.returncode == 0 else ''

    def has_object(self):
        """Whether it has acpi-egm-memory."""
        return 'acpi-egm-memory' in self._help('-object', 'help').split()
