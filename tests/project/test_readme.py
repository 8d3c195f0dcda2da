# SPDX-License-Identifier: GPL-2.0-or-later
"""README.md names the programs that make check runs."""

import fnmatch
import json
import platform
import re
import unittest

from egmtest import BUILD, TOP


class Readme(unittest.TestCase):
    """Its table and meson's list."""

    def test_programs(self):
        """Names, or patterns, in the first column; some are not everywhere."""
        table = re.search(r'\| Programs \|.*\n\| ---.*\n((?:\|.*\n)+)',
                          (TOP / 'README.md').read_text())
        named = [name for row in table[1].splitlines()
                 for name in re.findall(r'`([^`]+)`', row.split('|')[1])]
        tests = json.loads((BUILD / 'meson-info/intro-tests.json').read_text())
        programs = [t['name'] for t in tests
                    if any(s.endswith(':egm') for s in t['suite'])]
        self.assertEqual([], [p for p in programs if not any(
            fnmatch.fnmatch(p, name) for name in named)], 'README has not')
        project = json.loads(
            (BUILD / 'meson-info/intro-projectinfo.json').read_text())
        elsewhere = [pattern for pattern, here in (
            ('functional', project['version'] >= '10.2'),
            ('dist', platform.machine() == 'x86_64'),
            ('libvirt*', project['version'].startswith('10.0.'))) if not here]
        self.assertEqual([], [name for name in named
                              if not fnmatch.filter(programs, name) and
                              not any(fnmatch.fnmatch(name, pattern)
                                      for pattern in elsewhere)],
                         'README has more')
