# SPDX-License-Identifier: GPL-2.0-or-later
"""README.md and docs/*.md name files, tests and programs that exist."""

import fnmatch
import json
import platform
import re
import subprocess
import tempfile
import unittest

from lib import BUILD, TOP, grace, machine, process

DOCUMENTS = ['README.md', *(str(p.relative_to(TOP)) for p in sorted(TOP.glob('docs/*.md')))]


class Documents(unittest.TestCase):
    """Names in documents."""

    def test_paths(self):
        """Files and directories exist in this repository, in QEMU's tree, or in libvirt/."""
        roots = TOP, TOP / 'libvirt', machine.TREE
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
        """Arguments of tests/run are names of cases."""
        for document in DOCUMENTS:
            text = (TOP / document).read_text().replace('\\\n', ' ')
            for names in re.findall('tests/run build ([a-z].*)', text):
                assert_cases(self, names.split())

    def test_links(self):
        """Files that links lead to exist, and have the heading."""
        for document in DOCUMENTS:
            text = (TOP / document).read_text()
            for path, heading in re.findall(r'\]\((?!https?:)([^)#\s]*)#?([^)]*)\)', text):
                with self.subTest(document, path=path, heading=heading):
                    target = (TOP / document).parent / path if path else TOP / document
                    self.assertTrue(target.exists())
                    if heading:
                        self.assertIn(heading, anchors(target.read_text()))


def assert_cases(test, names):
    """Each name belongs to a case, a class, or a module with cases."""
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(names)
    test.assertEqual(loader.errors, [])
    test.assertGreaterEqual(suite.countTestCases(), len(names))


def anchors(text):
    """The anchors of the headings of a page, as GitHub makes them."""
    return [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
            for heading in re.findall(r'^#+ (.*)', text, re.M)]


def rows(page, header):
    """The rows below the header of a table, as lists of cells."""
    table = re.search(rf'^\| {re.escape(header)} \|.*\n\| ---.*\n((?:\|.*\n)+)',
                      (TOP / page).read_text(), re.M)
    return [[cell.strip() for cell in row.strip('|').split(' |')]
            for row in table[1].splitlines()]


class Operators(unittest.TestCase):
    """docs/operators.md"""

    def test_what_happens(self):
        """The tests that show what happens exist; rows without one are few."""
        table = rows('docs/operators.md', 'When')
        self.assertGreaterEqual(len(table), 20)
        self.assertEqual({len(row) for row in table}, {5})
        self.assertLessEqual(sum(not row[4] for row in table), 3)
        for what, *_, tests in table:
            with self.subTest(what):
                names = re.findall('`([^`]+)`', tests)
                self.assertEqual(re.sub('`[^`]+`', '', tests).strip(), '')
                assert_cases(self, [name for name in names if '.test_' in name])
                for name in names:
                    if name.startswith('scripts/'):
                        self.assertTrue((TOP / name).exists())
                    elif '.test_' not in name:
                        program, case = name.split(': ')
                        self.assertIn(f'"{case}"',
                                      (TOP / f'tests/qtest/{program}.c').read_text())

    def test_check(self):
        """`egm-vm check` prints these lines for a host with 2 sockets and 4 GPUs."""
        page = (TOP / 'docs/operators.md').read_text()
        shown = re.search(r'^    \$ egm-vm check\n((?:    .*\n)+)', page, re.M)[1]
        with tempfile.TemporaryDirectory(prefix='egm-repo-') as root:
            grace.Host(root, sockets=2, gpus=2)
            text = subprocess.run(
                [TOP / 'tools/egm-vm', 'check', '--root', root], text=True, check=False,
                stdout=subprocess.PIPE, timeout=machine.LIMIT).stdout.replace(root, '')
        # The width of the second column depends on the ids that there are.
        lines, shown = ([line.split() for line in part.splitlines()]
                        for part in (text, shown))
        self.assertEqual([line for line in lines if line in shown], shown)
        self.assertEqual({check for _, check, *_ in shown},
                         {check for result, check, *_ in lines if result == 'PASS'} -
                         {'qemu', 'firmware'})

    def test_checks(self):
        """The checks exist that the page explains."""
        manual = (TOP / 'tools/egm-vm.1').read_text().replace('\\-', '-')
        for check, *_ in rows('docs/operators.md', 'Check'):
            name, result = re.match('`([a-z-]+)` ([A-Z]+)', check).groups()
            self.assertIn(f'\n.B {name}\n', manual)
            self.assertIn(result, ('FAIL', 'WARN'))


class Programs(unittest.TestCase):
    """The table of programs in docs/developing.md, and meson's list."""

    def test_programs(self):
        """The first column has names or patterns; some programs do not exist everywhere."""
        named = [name for programs, *_ in rows('docs/developing.md', 'Programs')
                 for name in re.findall(r'`([^`]+)`', programs)]
        tests = json.loads((BUILD / 'meson-info/intro-tests.json').read_text())
        programs = [t['name'] for t in tests
                    if any(s.endswith(':egm') for s in t['suite'])]
        self.assertEqual([], [p for p in programs if not any(
            fnmatch.fnmatch(p, name) for name in named)], 'the table lacks')
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
                         'there is no such program')
