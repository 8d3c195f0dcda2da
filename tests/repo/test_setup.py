# SPDX-License-Identifier: GPL-2.0-or-later
"""configure and its scripts: each failure gives one clear message.

Stand-ins for apt-get, df and so on bring the failures about.
"""

import os
import pathlib
import shutil
import unittest
from unittest import mock

from lib import TOP, made, process
from repo import checkout

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
NO_PACKAGE = APT_TARGETS + '''
case "$*" in
*update*) exit 0 ;;
*) echo "E: Failed to fetch http://mirror.test/debian/pool/x.deb  404  Not Found"; exit 100 ;;
esac
'''
NO_NAME = '#!/bin/sh\n'
NO_MIRROR = '#!/bin/sh\nexit 0\n'
NOTHING_INSTALLED = '#!/bin/sh\nexit 1\n'
OLD_MESON = '''#!/bin/sh
case "$*" in
*meson) echo 'installed 1.0.1-5' ;;
*) echo installed ;;
esac
'''
NOT_ROOT = '#!/bin/sh\necho 1000\n'
NO_SUDO = '#!/bin/sh\nexit 1\n'


class Setup(checkout.Checkout):
    """One failure per test."""

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
        """Packages for this machine also come from its own sources."""
        self.stand_in(apt_get=NO_SOURCES)
        status, output = self.run_script(
            'scripts/apt-private', 'host', 'cat',
            str(self.dir / 'cache/apt/host/sources.list'))
        self.assertEqual(status, 0, output)
        self.assertIn(pathlib.Path('/etc/apt/sources.list').read_text(), output)

    def test_disk_full(self):
        """A full disk is detected before anything is written."""
        self.stand_in(df=checkout.DISK.format(10))
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
        """An old meson is not sufficient; a newer one counts as missing."""
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

    def test_newer_source(self):
        """A newer release of the series is used, with a warning."""
        self.stand_in(apt_get=NO_NETWORK)
        newer = self.dir / 'cache/source/qemu_10.0.99+ds-1'
        newer.mkdir(parents=True)
        (newer / 'VERSION').write_text('10.0.99\n')
        (newer / '.sealed').write_text(process.output('sha256sum', 'VERSION', cwd=newer))
        status, output = self.run_script('scripts/fetch', 'source')
        self.assertEqual(status, 0, output)
        self.assertIn('warning: the base is qemu 10.0.99+ds-1; the patches were '
                      'tested with qemu 10.0.', output)
        self.assertTrue(output.endswith(f'{newer}\n'))

        # A damaged copy is not used.
        (newer / 'VERSION').write_text('10.0.98\n')
        self.assert_fails(['scripts/fetch', 'source'], 'error: cannot fetch')

    def test_not_served(self):
        """If the mirror does not have a package any more: status 77, with the reason."""
        self.stand_in(apt_get=NO_PACKAGE, apt_cache=NO_NAME)
        for args, message in (
                (('source', '10.2'), "cannot download source package 'qemu'"),
                (('kernel', '6.12-16k'), 'has no kernel package linux-image-arm64-16k'),
                (('sysroot',), 'cannot download the libraries of QEMU for arm64')):
            status, output = self.run_script('scripts/fetch', *args)
            self.assertEqual(status, 77, output)
            self.assertIn(message, output)
            self.assertIn('the mirror does not have it', output)
            self.assertEqual(output.count('error: '), 1, output)

    def test_skipped(self):
        """A case that needs it is skipped; a case whose file could not be made fails."""
        (self.dir / 'build.ninja').write_text(
            f'rule fetch\n command = {self.top}/scripts/fetch kernel 6.1-4k\n'
            'build 6.1-4k.initrd: fetch\n')
        for apt_get, error in ((NO_PACKAGE, unittest.SkipTest), (NO_NETWORK, RuntimeError)):
            self.stand_in(apt_get=apt_get, apt_cache=NO_NAME)
            made.made.cache_clear()
            with mock.patch.dict(os.environ, EGM_CACHE=f'{self.dir}/cache',
                                    PATH=f'{self.dir}/bin:{os.environ["PATH"]}'), \
                    self.assertRaisesRegex(error, 'Debian'):
                made.made(self.dir, '6.1-4k.initrd')

    def test_ci(self):
        """CI continues without a base that the mirror does not have any more."""
        for name in '.ci', 'libvirt/patches':
            shutil.copytree(TOP / name, self.top / name)
        self.stand_in(apt_get=NO_PACKAGE, apt_cache=NO_NAME, ccache='#!/bin/sh\n',
                      make='#!/bin/sh\necho make "$@"\n')
        status, output = self.run_script('.ci/run')
        self.assertEqual(status, 0, output)
        self.assertIn('SKIPPED: scripts/fetch source 10.2', output)
        self.assertNotIn('BASE=10.2', output)
        self.assertRegex(output, r'\n\d+ passed, 0 failed, 2 skipped\n$')

    def test_bad_firmware(self):
        """An image that is not padded does not fit into a flash chip."""
        small = self.dir / 'QEMU_EFI.fd'
        small.write_bytes(b'\0' * 1024)
        self.assert_fails(['./configure', '--no-install-deps',
                           f'--qemu-source={self.base("9.9.0")}',
                           f'--firmware={small}'],
                          'not a 64 MiB flash image')

    def test_cross(self):
        """An architecture that is not supported."""
        self.assert_fails(['./configure', '--no-install-deps', '--cross=mips'],
                          'error: --cross=mips: there is no such machine')

    def test_dist(self):
        """A package for arm64 is cross-compiled if necessary."""
        shutil.copy(TOP / 'Makefile', self.top)
        shutil.copytree(TOP / 'configs', self.top / 'configs')
        for machine, option in (('x86_64', '--cross=arm64'),
                                ('aarch64', '--prefix=/opt/acpi-egm-memory')):
            self.stand_in(uname=f'#!/bin/sh\necho {machine}\n')
            status, output = self.run_script('make', '-n', 'BASE=', 'BUILD=build',
                                             'dist')
            self.assertEqual(status, 0, output)
            self.assertRegex(output, rf'/configure +{option};')
            self.assertIn('scripts/dist work/build-arm64', output)
