# SPDX-License-Identifier: GPL-2.0-or-later
"""Our MAINTAINERS, and our entries in QEMU's, name all of our files."""

import fnmatch
import re
import unittest

from lib import TOP, process


def match(pattern, file):
    """Match like scripts/get_maintainer.pl: a directory stands for all files below it, and
    '*' does not match a slash."""
    if pattern.endswith('/'):
        return file.startswith(pattern)
    return file.count('/') == pattern.count('/') and fnmatch.fnmatch(file, pattern)


class Maintainers(unittest.TestCase):
    """Each file has an entry, each entry a file."""

    def assert_complete(self, patterns, files):
        """Patterns and files cover each other."""
        self.assertTrue(files)
        self.assertEqual(
            [], [f for f in files if not any(match(p, f) for p in patterns)],
            'no F: line names these')
        self.assertEqual(
            [], [p for p in patterns if not any(match(p, f) for f in files)],
            'these F: lines name nothing')

    def test_ours(self):
        """All files of the repository."""
        files = process.output('git', '-C', TOP, 'ls-files').splitlines()
        text = (TOP / 'MAINTAINERS').read_text()
        self.assert_complete(re.findall('(?m)^F: (.*)', text), files)

    def test_qemu(self):
        """The files that travel with the series."""
        patches = (TOP / 'patches/series').read_text().split('local/')[0]
        text = ''.join(p.read_text() for p in (TOP / 'patches').rglob('*.patch'))
        self.assert_complete(re.findall(r'(?m)^\+F: (.*)', text),
                             re.findall(r'(?m)^[ \t]+([^#\s]+)$', patches))
