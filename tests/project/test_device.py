#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU does with a character device of class "egm".

/dev/zero is the stand-in: in a mount namespace of its own, QEMU sees a sysfs
that says it is an EGM device. Needs root.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / 'python'))
# pylint: disable=wrong-import-position
from egm import tap  # noqa: E402

BUILD = pathlib.Path(os.environ['EGM_BUILD'])
MIB = 1 << 20


def can_mount():
    """Whether this user may have a mount namespace with a tmpfs in it."""
    return subprocess.run(['unshare', '-m', 'mount', '-t', 'tmpfs', 'none',
                           '/sys/dev/char'], check=False,
                          stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


@unittest.skipUnless(can_mount(), 'needs root and mount namespaces')
class Device(unittest.TestCase):
    """Start QEMU on the device, with different attributes in sysfs."""

    def start(self, attributes, size, share='on'):
        """Exit status and stderr of a QEMU that quits when it is up."""
        with tempfile.TemporaryDirectory(prefix='egm-device-') as sysfs:
            device = pathlib.Path(sysfs, 'egm4')
            device.mkdir()
            pathlib.Path(sysfs, 'class/egm').mkdir(parents=True)
            (device / 'subsystem').symlink_to('../class/egm')
            for name, text in attributes.items():
                (device / name).write_text(text)
            script = ('mount -t tmpfs none /sys/dev/char && '
                      'ln -s "$0" /sys/dev/char/1:5 && echo quit | "$@"')
            run = subprocess.run(
                ['unshare', '-m', 'sh', '-c', script, device,
                 BUILD / 'qemu-system-aarch64', '-machine', 'virt', '-accel',
                 'qtest', '-nodefaults', '-display', 'none', '-monitor',
                 'stdio', '-m', str(size // MIB), '-object',
                 'memory-backend-file,id=m0,mem-path=/dev/zero,'
                 f'size={size},share={share}',
                 '-numa', 'node,nodeid=0,memdev=m0',
                 '-device', 'pcie-root-port,id=rp0',
                 '-device', 'edu,id=dev0,bus=rp0',
                 '-object', 'acpi-egm-memory,id=egm0,pci-dev=dev0,node=0'],
                text=True, check=False, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE)
            return run.returncode, run.stderr

    def test_fits(self):
        """The whole region and part of it: not a word about EGM."""
        for size in (128 * MIB, 256 * MIB):
            status, text = self.start({'egm_size': '0x10000000\n',
                                       'gpu_devices': '0009:01:00.0\n'}, size)
            self.assertEqual(status, 0, text)
            self.assertNotIn('EGM', text)
            self.assertNotIn('egm', text)

    def test_too_large(self):
        """Both sizes and the path are named."""
        status, text = self.start({'egm_size': '0x8000000\n'}, 256 * MIB)
        self.assertEqual(status, 1)
        self.assertIn("acpi-egm-memory 'egm0': node=0: memory backend 'm0': "
                      'size=268435456 is larger than EGM region egm4, '
                      'mem-path=/dev/zero, of 134217728 bytes', text)
        self.assertIn('Use size=134217728 or less.', text)

    def test_unknown(self):
        """A driver that tells nothing: one warning each, and it starts."""
        status, text = self.start({}, 128 * MIB)
        self.assertEqual(status, 0, text)
        self.assertEqual(text.count('does not tell the size of EGM region egm4'),
                         1, text)
        self.assertEqual(text.count('does not tell the GPUs of EGM region egm4'),
                         1, text)

    def test_private(self):
        """The linear mapping rule holds for devices as well."""
        status, text = self.start({'egm_size': '0x10000000\n'}, 128 * MIB,
                                  share='off')
        self.assertEqual(status, 1)
        self.assertIn("memory backend 'm0' has share=off", text)


if __name__ == '__main__':
    tap.main()
