#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""configure and its scripts: each failure gives one clear message.

The scripts run in a copy of this checkout, with a cache of their own, and find
stand-ins for apt-get, df and so on first in PATH.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / 'python'))
# pylint: disable=wrong-import-position
from egm import tap  # noqa: E402

APT_TARGETS = '''#!/bin/sh
case "$*" in
*indextargets*) echo 'http://mirror.test/debian/ bookworm main'
                echo 'http://mirror.test/debian/ trixie main'; exit 0 ;;
esac
'''
NO_NETWORK = APT_TARGETS + '''
echo "E: Failed to fetch http://mirror.test/debian/dists/trixie/InRelease"
exit 100
'''
NO_SOURCES = APT_TARGETS + '''
case "$*" in
*update*) exit 0 ;;
*) echo "E: Unable to find a source package for qemu"; exit 100 ;;
esac
'''
NO_MIRROR = '#!/bin/sh\nexit 0\n'
FULL_DISK = '''#!/bin/sh
echo Filesystem 1M-blocks Used Available Capacity Mounted
echo /dev/full 1000 990 10 99% /
'''
NOTHING_INSTALLED = '#!/bin/sh\nexit 1\n'
OLD_MESON = '''#!/bin/sh
case "$*" in
*meson) echo 'installed 1.0.1-5' ;;
*) echo installed ;;
esac
'''
NOT_ROOT = '#!/bin/sh\necho 1000\n'
NO_SUDO = '#!/bin/sh\nexit 1\n'


class Setup(unittest.TestCase):
    """One failure a test."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-setup-')
        self.addCleanup(self.tmp.cleanup)
        self.dir = pathlib.Path(self.tmp.name)
        self.top = self.dir / 'checkout'
        self.top.mkdir()
        for name in ('configure', 'scripts', 'patches'):
            copy = shutil.copytree if (TOP / name).is_dir() else shutil.copy
            copy(TOP / name, self.top / name)
        (self.dir / 'bin').mkdir()

    def stand_in(self, **scripts):
        """Put programs first into PATH; apt_get=TEXT stands in for apt-get."""
        for name, text in scripts.items():
            path = self.dir / 'bin' / name.replace('_', '-')
            path.write_text(text)
            path.chmod(0o755)

    def run_script(self, *args):
        """Run a script of the copied checkout; its status and output."""
        env = dict(os.environ, EGM_CACHE=str(self.dir / 'cache'),
                   PATH=f"{self.dir / 'bin'}:{os.environ['PATH']}")
        run = subprocess.run(args, cwd=self.top, env=env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             check=False)
        return run.returncode, run.stdout

    def assert_fails(self, args, *messages):
        """The script fails with these messages and names no mirror."""
        status, output = self.run_script(*args)
        self.assertEqual(status, 1, output)
        for message in messages:
            self.assertIn(message, output)
        self.assertEqual(output.count('error: '), 1, output)
        return output

    def test_no_network(self):
        """The mirror does not answer."""
        self.stand_in(apt_get=NO_NETWORK)
        self.assert_fails(
            ['./configure', '--no-install-deps'],
            'error: cannot fetch the package lists of Debian trixie',
            '--qemu-source=DIR')

    def test_no_source_packages(self):
        """The mirror has no deb-src."""
        self.stand_in(apt_get=NO_SOURCES)
        self.assert_fails(
            ['./configure', '--no-install-deps'],
            "error: cannot download source package 'qemu' of Debian trixie",
            'deb-src', '--qemu-source=DIR')

    def test_no_mirror(self):
        """apt is not configured at all."""
        self.stand_in(apt_get=NO_MIRROR)
        self.assert_fails(['./configure', '--no-install-deps'],
                          'error: no Debian mirror is configured')

    @unittest.skipUnless(os.path.exists('/etc/apt/sources.list'),
                         'this machine has no sources.list')
    def test_sources_list(self):
        """Packages for this machine come from its own sources too."""
        self.stand_in(apt_get=NO_SOURCES)
        status, output = self.run_script(
            'scripts/apt-private', 'host', 'cat',
            str(self.dir / 'cache/apt/host/sources.list'))
        self.assertEqual(status, 0, output)
        self.assertIn(pathlib.Path('/etc/apt/sources.list').read_text(), output)

    def test_disk_full(self):
        """Found out before anything is written."""
        self.stand_in(df=FULL_DISK)
        self.assert_fails(['./configure', '--no-install-deps'],
                          'error: the QEMU source needs 1500 MiB in ',
                          'only 10 MiB are free')

    def test_not_root(self):
        """Missing packages are named in one line to copy."""
        self.stand_in(dpkg_query=NOTHING_INSTALLED, id=NOT_ROOT, sudo=NO_SUDO,
                      apt_get=NO_SOURCES)
        output = self.assert_fails(
            ['./configure'],
            'error: these packages are missing, and only root can install them')
        line = next(l for l in output.splitlines() if 'apt-get install' in l)
        for package in ('ninja-build', 'libglib2.0-dev', 'meson'):
            self.assertIn(package, line)

    def test_old_meson(self):
        """An old meson is not good enough; a newer one is what is missing."""
        self.stand_in(dpkg_query=OLD_MESON, id=NOT_ROOT, sudo=NO_SUDO,
                      apt_get=NO_SOURCES)
        output = self.assert_fails(['./configure'], 'packages are missing')
        line = next(l for l in output.splitlines() if 'apt-get install' in l)
        self.assertRegex(line, r'--no-install-recommends meson(/\S+)?$')

    def test_install_fails(self):
        """apt's own reason is shown."""
        self.stand_in(dpkg_query=OLD_MESON, id='#!/bin/sh\necho 0\n',
                      apt_get=NO_SOURCES)
        self.assert_fails(['./configure'],
                          'error: apt-get could not install: meson')

    def base(self, version, virt='int x;\n'):
        """A tree that looks like QEMU to the scripts."""
        tree = self.dir / 'tree'
        (tree / 'hw/arm').mkdir(parents=True)
        (tree / 'VERSION').write_text(version + '\n')
        (tree / 'hw/arm/virt-acpi-build.c').write_text(virt)
        return tree

    def test_not_qemu(self):
        """--qemu-source must be a QEMU tree."""
        (self.dir / 'tree').mkdir()
        self.assert_fails(['scripts/merge', str(self.dir / 'tree')],
                          'is not a QEMU source tree')
        self.assert_fails(['./configure', '--no-install-deps',
                           '--qemu-source=/nonexistent'],
                          'error: --qemu-source=/nonexistent: no such directory')

    def test_patch_does_not_apply(self):
        """The patch, the base and the file are named."""
        tree = self.base('99.0.0')
        self.assert_fails(['scripts/merge', str(tree)],
                          'does not apply to QEMU 99.0.0',
                          'error: patches/', 'hw/arm/virt-acpi-build.c',
                          'the default base is')

    def test_unsaved_changes(self):
        """Changes in the merged tree are not thrown away."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('99.0.0')
        self.assertEqual(self.run_script('scripts/merge', str(tree))[0], 0)
        merged = self.top / 'qemu-99.0.0/hw/arm/virt-acpi-build.c'
        merged.write_text('int y;\n')
        self.assert_fails(['scripts/merge', str(tree)],
                          'qemu-99.0.0/ has changes that are not in patches/',
                          'scripts/refresh-patches')
        self.assertEqual(merged.read_text(), 'int y;\n')

    def test_continues_after_interruption(self):
        """A half-made merged tree is made anew."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('99.0.0')
        (self.top / 'qemu-99.0.0').mkdir()
        (self.top / 'qemu-99.0.0/half').write_text('')
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        self.assertFalse((self.top / 'qemu-99.0.0/half').exists())

    def test_refresh_patches(self):
        """A change in the merged tree comes back as a patch that applies."""
        (self.top / 'patches/series').write_text('one.patch\n')
        (self.top / 'patches/one.patch').write_text(
            'Subject: hw/arm: one\n\nWhy.\n\n---\n'
            '--- a/hw/arm/virt-acpi-build.c\n+++ b/hw/arm/virt-acpi-build.c\n'
            '@@ -1 +1 @@\n-int x;\n+int y;\n')
        tree = self.base('99.0.0')
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        merged = self.top / 'qemu-99.0.0/hw/arm/virt-acpi-build.c'
        merged.write_text('int z;\n')
        status, output = self.run_script('scripts/refresh-patches')
        self.assertEqual(status, 0, output)
        patch = (self.top / 'patches/one.patch').read_text()
        self.assertTrue(patch.startswith('Subject: hw/arm: one\n\nWhy.\n'))
        self.assertIn('+int z;\n', patch)
        self.assertNotIn('From:', patch)
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        self.assertEqual(merged.read_text(), 'int z;\n')

    def test_newer_source(self):
        """A newer release of the series is used, with a warning."""
        self.stand_in(apt_get=NO_NETWORK)
        newer = self.dir / 'cache/source/qemu_10.0.99+ds-1'
        newer.mkdir(parents=True)
        (newer / 'VERSION').write_text('10.0.99\n')
        subprocess.run('sha256sum VERSION > .sealed', shell=True, cwd=newer,
                       check=True)
        status, output = self.run_script('scripts/fetch', 'source')
        self.assertEqual(status, 0, output)
        self.assertIn('warning: the base is qemu 10.0.99+ds-1; the patches were '
                      'tested with qemu 10.0.', output)
        self.assertTrue(output.endswith(f'{newer}\n'))

        # A damaged copy is not used.
        (newer / 'VERSION').write_text('10.0.98\n')
        self.assert_fails(['scripts/fetch', 'source'], 'error: cannot fetch')

    def test_bad_firmware(self):
        """The unpadded image does not fit into a flash chip."""
        small = self.dir / 'QEMU_EFI.fd'
        small.write_bytes(b'\0' * 1024)
        self.assert_fails(['./configure', '--no-install-deps',
                           f'--qemu-source={self.base("99.0.0")}',
                           f'--firmware={small}'],
                          'not a 64 MiB flash image')


if __name__ == '__main__':
    tap.main()
