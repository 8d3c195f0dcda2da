#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The series for qemu-devel can be written, and its check can fail."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import sys
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ['EGM_BUILD']
sys.path.insert(0, str(TOP / 'tests'))
# pylint: disable=wrong-import-position
from egmtest import tap  # noqa: E402

# Whoever runs the tests: nobody sends this series.
ENVIRONMENT = {**os.environ, **{
    f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER')
    for what, value in (('NAME', 'test'), ('EMAIL', 'test@localhost'))}}


def run(*args, environment=None):
    """Exit status and output of a script."""
    command = [TOP / 'scripts' / args[0], '-b', BUILD, *args[1:]]
    result = subprocess.run(command, text=True, check=False, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT,
                            env=environment or ENVIRONMENT)
    return result.returncode, result.stdout


class Series(unittest.TestCase):
    """Export once, look at it from all sides."""

    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory(prefix='egm-series-')
        cls.directory = pathlib.Path(cls.tmp.name) / 'series'
        status, text = run('export-series', '-o', cls.directory, '-v2')
        assert status == 0, text

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()

    def test_good(self):
        """It applies, checkpatch is silent, the end state is right."""
        status, text = run('check-series', '--no-build', self.directory)
        self.assertEqual(status, 0, text)

    def test_form(self):
        """Options reach git; no tags are made up; nothing of ours leaks."""
        files = sorted(self.directory.iterdir())
        self.assertGreater(len(files), 10)
        for file in files:
            text = file.read_text(errors='replace')
            self.assertRegex(text, r'Subject: \[PATCH v2 \d\d/')
            self.assertNotRegex(text, r'(?m)^(Signed-off|Reviewed|Acked)-by:')
            self.assertNotIn('Patch: ', text.split('\n---\n')[0])
        self.assertNotIn('BLURB', files[0].read_text())

    def test_goldens(self):
        """New tables: empty and allowed, then the test, then filled."""
        subjects = [re.search('Subject: (.*)', f.read_text(errors='replace'))[1]
                    for f in sorted(self.directory.iterdir())]
        first = next(i for i, s in enumerate(subjects) if 'allow new' in s)
        self.assertIn('bios-tables-test', subjects[first + 1])
        self.assertIn('add the tables', subjects[first + 2])

    def broken(self, change):
        """What check-series says to a series with a change in each patch."""
        copy = pathlib.Path(self.tmp.name) / 'broken'
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.directory, copy)
        for file in copy.glob('*hw-core-add-holes*'):
            file.write_text(change(file.read_text()))
        status, text = run('check-series', '--no-build', copy)
        self.assertEqual(status, 1, text)
        return text

    def test_broken(self):
        """Style, context and content."""
        self.assertIn('checkpatch', self.broken(lambda t: t.replace(
            '+    return size;\n', '+    return size; \n', 1)))
        self.assertIn('git am', self.broken(lambda t: t.replace(
            "\n   'numa.c',", "\n   'numb.c',")))
        self.assertIn('merged tree', self.broken(lambda t: t.replace(
            '+#define RAM_HOLES_MAX 768', '+#define RAM_HOLES_MAX 769')))

    def test_who(self):
        """Without an identity git is not asked to invent one."""
        clean = {k: v for k, v in os.environ.items()
                 if not k.startswith('GIT_')}
        status, text = run(
            'export-series', '-o', f'{self.tmp.name}/none', environment={
                **clean, 'HOME': self.tmp.name, 'GIT_CONFIG_NOSYSTEM': '1',
                'XDG_CONFIG_HOME': self.tmp.name, 'GIT_CONFIG_COUNT': '2',
                'GIT_CONFIG_KEY_0': 'user.name', 'GIT_CONFIG_VALUE_0': '',
                'GIT_CONFIG_KEY_1': 'user.email', 'GIT_CONFIG_VALUE_1': ''})
        self.assertEqual(status, 1, text)
        self.assertIn('git does not know who you are', text)
        self.assertFalse(os.path.exists(f'{self.tmp.name}/none'))


if __name__ == '__main__':
    tap.main()
