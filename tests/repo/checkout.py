# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of this checkout, to run its scripts in."""

import difflib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from lib import TOP

FILE = 'hw/arm/virt-acpi-build.c'
# Five places, and one that no patch touches
LINES = ''.join(f'int {letter};\n' + '\n' * 9 for letter in 'abcde') + 'int last;\n'

# df for a disk with so many MiB free
DISK = '''#!/bin/sh
echo Filesystem 1M-blocks Used Available Capacity Mounted
echo /dev/disk 100000 1000 {} 1% /
'''


class Base(unittest.TestCase):
    """An assertion that fails with the output of a script."""

    def succeeds(self, *args):
        """Output of a script that succeeds."""
        status, output = self.run_script(*args)
        self.assertEqual(status, 0, output)
        return output


class Checkout(Base):
    """A checkout with its own cache, and with stand-ins for programs first in PATH."""

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
        self.stand_in(df=DISK.format(99000))

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

    def base(self, version, virt=LINES):
        """A tree that looks like QEMU to the scripts."""
        tree = self.dir / 'tree'
        (tree / 'hw/arm').mkdir(parents=True)
        (tree / 'VERSION').write_text(version + '\n')
        (tree / FILE).write_text(virt)
        return tree


class Series(Checkout):
    """With patches a to e in one file, in two layers, and two files of our own."""

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.top / 'patches')
        (self.top / 'patches').mkdir()
        self.text, self.names = LINES, []
        self.tree = self.top / 'work/qemu-9.9.0'
        (self.top / 'own.c').write_text('int own;\n')
        (self.top / 'two.c').write_text('int two;\n')
        for letter in 'abcde':
            layer = '0-fixes' if letter in 'ab' else '1-more'
            self.mail(f'{layer}/{letter}.patch', f'int {letter};', f'int {letter}_patched;')
        with open(self.top / 'patches/series', 'a', encoding='ascii') as series:
            series.write('    own.c\n    two.c\n')
        conf = self.top / 'scripts/qemu.conf'
        conf.write_text(conf.read_text() + 'base_link=\n')

    def mail(self, name, before, after):
        """The next patch of the series."""
        old, self.text = self.text, self.text.replace(before, after)
        self.names.append(name)
        path = self.top / 'patches' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'From {"0" * 40} Mon Sep 17 00:00:00 2001\nFrom: acpi-egm-memory <>\n'
            f'Date: Thu, 1 Jan 1970 00:00:00 +0000\nSubject: hw/arm: {path.stem}\n\n'
            f'Why {path.stem}.\n\nPatch: {name}\n\ndiff --git a/{FILE} b/{FILE}\n' + ''.join(
                difflib.unified_diff(old.splitlines(True), self.text.splitlines(True),
                                     f'a/{FILE}', f'b/{FILE}')) + '\n')
        with open(self.top / 'patches/series', 'a', encoding='ascii') as series:
            series.write(name + '\n')

    def mails(self):
        """The text of each patch."""
        return {name: (self.top / 'patches' / name).read_text() for name in
                (self.top / 'patches/series').read_text().split('\n') if name.endswith('.patch')}

    def make(self):
        """Make the tree of the base."""
        self.succeeds('scripts/tree', str(self.dir / 'tree'))

    def edit(self, before, after):
        """Change QEMU's file in the tree."""
        text = (self.tree / FILE).read_text()
        self.assertIn(before, text)
        text = text.replace(before, after)
        (self.tree / FILE).write_text(text)
        return text

    def in_tree(self, *args):
        """Output of git in the tree, with the identity of a developer."""
        return self.succeeds('git', '-C', str(self.tree), '-c', 'user.name=dev',
                             '-c', 'user.email=dev@localhost', *args)
