# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo prints what it should, and notices when a GPU is not described."""

import subprocess
import unittest

from lib import BUILD, TOP

ROWS = [
    r'gpu0 +\\_SB\.PC20\.S00\.S00 +0000:21:00\.0 +0x40000000-0x5fffffff +'
    r'512 MiB +0 +#4 +yes',
    r'gpu1 +\\_SB\.PC40\.S00\.S00 +0000:41:00\.0 +0x40000000-0x5fffffff +'
    r'512 MiB +0 +#4 +yes',
    r'gpu2 +\\_SB\.PC60\.S00\.S00 +0000:61:00\.0 +0x60000000-0x7fffffff +'
    r'512 MiB +1 +#5 +yes',
    r'gpu3 +\\_SB\.PC80\.S00\.S00 +0000:81:00\.0 +0x60000000-0x7fffffff +'
    r'512 MiB +1 +#5 +yes',
]


class Demo(unittest.TestCase):
    """scripts/demo, run as by a user."""

    def test_output(self):
        """One row for each GPU, all within a page of 100 columns."""
        run = subprocess.run([TOP / 'scripts/demo', BUILD], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             check=False)
        self.assertEqual(run.returncode, 0, run.stdout)
        for row in ROWS:
            self.assertRegex(run.stdout, row)
        lines = run.stdout.splitlines()
        self.assertLessEqual(len(lines), 24)
        self.assertLessEqual(max(map(len, lines)), 100)

    def test_no_build(self):
        """Without a build there is one clear line, not a traceback."""
        run = subprocess.run([TOP / 'scripts/demo', '/nonexistent'], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn('error: ', run.stdout)
        self.assertNotIn('Traceback', run.stdout)
