#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The series for qemu-devel can be written, and its check can fail."""

import difflib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import sys
import unittest
from unittest import mock

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = os.environ['EGM_BUILD']
sys.path.insert(0, str(TOP / 'tests'))
# pylint: disable=wrong-import-position
from egmtest import machine, tap  # noqa: E402
import checkout  # noqa: E402

FILE = 'hw/arm/virt-acpi-build.c'

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
        files = sorted(self.directory.rglob('*.patch'))
        self.assertGreater(len(files), 10)
        for file in files:
            text = file.read_text(errors='replace')
            self.assertRegex(text, r'Subject: \[PATCH v2[] ]')
            self.assertNotRegex(text, r'(?m)^(Signed-off|Reviewed|Acked)-by:')
            self.assertNotIn('Patch: ', text.split('\n---\n')[0])
            self.assertNotIn('*** BLURB', text)

    def test_goldens(self):
        """New tables: empty and allowed, then the test, then filled."""
        subjects = [re.search('Subject: (.*)', f.read_text(errors='replace'))[1]
                    for f in sorted(self.directory.rglob('*.patch'))]
        first = next(i for i, s in enumerate(subjects) if 'allow new' in s)
        self.assertIn('bios-tables-test', subjects[first + 1])
        self.assertIn('add the tables', subjects[first + 2])

    def broken(self, before, after):
        """What check-series says when a patch of MAINTAINERS has other text."""
        copy = pathlib.Path(self.tmp.name) / 'broken'
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.directory, copy)
        file = next(file for file in sorted(copy.rglob('*MAINTAINERS*'))
                    if before in file.read_text())
        file.write_text(file.read_text().replace(before, after, 1))
        status, text = run('check-series', '--no-build', copy)
        self.assertEqual(status, 1, text)
        return text

    def test_broken(self):
        """Style, context and content."""
        self.assertIn('checkpatch', self.broken('\n+S: Maintained\n',
                                                '\n+S: Maintained \n'))
        self.assertIn('git am', self.broken('\n F: hw/acpi/viot.h\n',
                                            '\n F: hw/acpi/viot.x\n'))
        self.assertIn('merged tree', self.broken('\n+S: Maintained\n',
                                                 '\n+S: Supported\n'))

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


class Layers(checkout.Checkout):
    """A series for each layer."""

    def setUp(self):
        super().setUp()
        identity = mock.patch.dict(os.environ, ENVIRONMENT)
        identity.start()
        self.addCleanup(identity.stop)
        shutil.rmtree(self.top / 'ports')
        shutil.rmtree(self.top / 'patches/local')
        self.text = 'int a;\n' + '\n' * 9 + 'int b;\n'
        base = self.base('9.9.0', self.text)
        (base / 'scripts').mkdir()
        shutil.copy(machine.source_tree(BUILD) / 'scripts/checkpatch.pl',
                    base / 'scripts')
        (self.top / 'patches/series').write_text('')
        build = self.top / 'build/meson-info'
        build.mkdir(parents=True)
        (build / 'meson-info.json').write_text(
            f'    "source": "{self.top}/qemu-9.9.0"\n')

    def patch(self, name, before, after):
        """The next patch of the series."""
        old, self.text = self.text, self.text.replace(before, after)
        lines = difflib.unified_diff(old.splitlines(True), self.text.splitlines(True),
                                     f'a/{FILE}', f'b/{FILE}')
        path = self.top / 'patches' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'Subject: hw/arm: {path.stem}\n\nWhy.\n\n---\n'
                        f'diff --git a/{FILE} b/{FILE}\n' + ''.join(lines))
        with open(self.top / 'patches/series', 'a', encoding='ascii') as series:
            series.write(name + '\n')

    def succeeds(self, *args):
        """Output of a script that succeeds."""
        status, output = self.run_script(*args)
        self.assertEqual(status, 0, output)
        return output

    def test_export(self):
        """A directory each; only those with a letter are numbered."""
        self.patch('0-fixes/one.patch', 'int a;', 'int one;')
        self.patch('0-fixes/two.patch', 'int b;', 'int two;')
        self.patch('1-more/three.patch', 'int one;', 'int three;')
        (self.top / 'patches/1-more/cover-letter').write_text('More\n\nof it.\n')
        self.succeeds('scripts/merge', str(self.dir / 'tree'))
        output = self.succeeds('scripts/check-series', '--no-build')
        self.assertIn('series/0-fixes: 2 patches apply\n', output)
        self.assertIn('series/1-more: 1 patches apply\n', output)
        series = self.top / 'build/series/9.9.0'
        subjects = {file.relative_to(series).as_posix():
                    re.search('Subject: (.*)', file.read_text())[1]
                    for file in series.rglob('*.patch')}
        self.assertEqual(subjects, {
            '0-fixes/0001-hw-arm-one.patch': '[PATCH] hw/arm: one',
            '0-fixes/0002-hw-arm-two.patch': '[PATCH] hw/arm: two',
            '1-more/0000-cover-letter.patch': '[PATCH 0/1] More',
            '1-more/0001-hw-arm-three.patch': '[PATCH 1/1] hw/arm: three'})

    def test_alone(self):
        """What has no letter must not need what comes before it."""
        self.patch('0-fixes/one.patch', 'int a;', 'int one;')
        self.patch('0-fixes/two.patch', 'int one;', 'int two;')
        self.succeeds('scripts/merge', str(self.dir / 'tree'))
        self.assert_fails(['scripts/check-series', '--no-build'],
                          'error: 0002-hw-arm-two.patch needs a patch before it')


if __name__ == '__main__':
    tap.main()
