# SPDX-License-Identifier: GPL-2.0-or-later
"""A copy of this checkout, to run its scripts in."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]


class Checkout(unittest.TestCase):
    """With a cache of its own, and stand-ins for programs first in PATH."""

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix='egm-setup-')
        self.addCleanup(self.tmp.cleanup)
        self.dir = pathlib.Path(self.tmp.name)
        self.top = self.dir / 'checkout'
        self.top.mkdir()
        for name in ('configure', 'scripts', 'patches', 'ports'):
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

    def base(self, version, virt='int x;\n'):
        """A tree that looks like QEMU to the scripts."""
        tree = self.dir / 'tree'
        (tree / 'hw/arm').mkdir(parents=True)
        (tree / 'VERSION').write_text(version + '\n')
        (tree / 'hw/arm/virt-acpi-build.c').write_text(virt)
        return tree
