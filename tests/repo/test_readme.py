# SPDX-License-Identifier: GPL-2.0-or-later
"""README.md names the programs that make check runs."""

import fnmatch
import json
import platform
import re
import unittest

from lib import BUILD, TOP, machine, process

DOCUMENTS = ['README.md', *(str(p.relative_to(TOP)) for p in sorted(TOP.glob('docs/*.md')))]


class Documents(unittest.TestCase):
    """What they name for developers is there."""

    def test_paths(self):
        """Files and directories of this repository, of QEMU's tree, or of libvirt's set."""
        roots = TOP, TOP / 'libvirt', machine.source_tree(BUILD)
        tops = '|'.join(process.output('git', '-C', TOP, 'ls-tree', '-d', '--name-only',
                                       'HEAD').split())
        for document in DOCUMENTS:
            paths = re.findall(rf'`((?:{tops})/[\w./+-]+)`', (TOP / document).read_text())
            for path in paths:
                with self.subTest(document, path=path):
                    # LAYER and VERSION stand for names.
                    self.assertTrue(re.search(r'\.\.\.|/[A-Z]+/', path) or
                                    any((root / path).exists() for root in roots))

    def test_cases(self):
        """Cases that tests/run is given."""
        loader = unittest.TestLoader()
        for document in DOCUMENTS:
            text = (TOP / document).read_text().replace('\\\n', ' ')
            for names in re.findall('tests/run build (.*)', text):
                suite = loader.loadTestsFromNames(names.split())
                self.assertEqual(loader.errors, [])
                self.assertGreaterEqual(suite.countTestCases(), len(names.split()))


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
