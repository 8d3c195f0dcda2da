# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package of make dist, here of the small QEMU for the arm64 host."""

import pathlib
import re
import subprocess
import tempfile
import unittest

from lib import BUILD, TOP, machine
from lib.made import made, need_arm64

SCRIPTS = TOP / 'scripts'


def run(*args):
    """Exit status, stdout, and stderr of a program."""
    done = subprocess.run([str(arg) for arg in args], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout, done.stderr


class Dist(unittest.TestCase):
    """All cases look at one package."""

    @classmethod
    def setUpClass(cls):
        need_arm64()
        made(BUILD, 'egm/tests/images/qemu-system-aarch64.arm64')
        status, text, errors = run(SCRIPTS / 'dist', BUILD / 'arm64')
        if status:
            raise RuntimeError(errors)
        cls.package = pathlib.Path(text.splitlines()[-1])

    def field(self, name):
        """A field of the package's description."""
        return run('dpkg-deb', '-f', self.package, name)[1].strip()

    def test_description(self):
        """Architecture, version, maintainer and dependencies."""
        self.assertEqual(self.field('Architecture'), 'arm64')
        name, email = (run('git', '-C', TOP, 'config', f'user.{key}')[1].strip() or 'unknown'
                       for key in ('name', 'email'))
        self.assertEqual(self.field('Maintainer'), f'{name} <{email}>')
        names = [word.split()[0] for word in self.field('Depends').split(',')]
        for name in 'libc6', 'libglib2.0-0', 'libslirp0', 'python3':
            self.assertIn(name, names)
        # Versions are in the order of releases, and then of commits.
        base = (machine.TREE / 'VERSION').read_text().strip()
        self.assertRegex(self.field('Version'),
                         rf'^{base}\+egm(20\d{{6}}\.\d{{6}}\.[0-9a-f]+)?$')

    def test_files(self):
        """Files are in a directory of the package; the links lead there."""
        with tempfile.TemporaryDirectory(prefix='egm-dist-') as root:
            self.assertEqual(run('dpkg-deb', '-x', self.package, root)[0], 0)
            links = []
            for path in pathlib.Path(root).rglob('*'):
                name = path.relative_to(root)
                if path.is_dir() or str(name).startswith((
                        'opt/acpi-egm-memory/', 'usr/share/doc/qemu-egm/',
                        'usr/share/lintian/overrides/qemu-egm')):
                    continue
                self.assertTrue((root / path.readlink().relative_to('/')).exists(),
                                name)
                links.append(str(name))
            self.assertEqual(sorted(links), [
                'usr/bin/egm-report', 'usr/bin/egm-vm',
                'usr/bin/qemu-system-aarch64-egm',
                'usr/share/bash-completion/completions/egm-report',
                'usr/share/bash-completion/completions/egm-vm',
                'usr/share/man/man1/egm-report.1.gz',
                'usr/share/man/man1/egm-vm.1.gz'])
            qemu = pathlib.Path(root) / 'opt/acpi-egm-memory/bin/qemu-system-aarch64'
            self.assertIn('AArch64', run('readelf', '-h', qemu)[1])
            # Debian 12's C library, wherever it was compiled
            symbols = re.findall(r'GLIBC_2\.(\d+)', run('readelf', '-VW', qemu)[1])
            self.assertLessEqual(max(map(int, symbols)), 36)

    def test_installs(self):
        """It can be installed on both releases, beside their QEMU."""
        for suite in 'bookworm', 'trixie':
            status, text, errors = run(
                SCRIPTS / 'apt-private', suite, 'apt-get', '-s', '-o',
                'APT::Architecture=arm64', '--no-install-recommends', 'install',
                'qemu-system-arm:arm64', self.package)
            self.assertEqual(status, 0, suite + text + errors)
            self.assertIn('Inst qemu-system-arm', text)
            self.assertIn('Inst qemu-egm', text)
            self.assertNotIn('Remv', text)

    def test_prefix(self):
        """A package below /usr/local is refused: it would conflict with others."""
        status, _, errors = run(SCRIPTS / 'dist', BUILD)
        self.assertEqual(status, 1)
        self.assertIn('--prefix=/usr/local', errors)
