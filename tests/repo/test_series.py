# SPDX-License-Identifier: GPL-2.0-or-later
"""The series for qemu-devel can be written, and its check can fail."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from unittest import mock

from lib import BUILD, TOP, machine
from repo import checkout

# The sender of the series
IDENTITY = {f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER')
            for what, value in (('NAME', 'test'), ('EMAIL', 'test@localhost'))}


class Series(checkout.Base):
    """The series of this repository, exported once for all cases."""

    def run_script(self, *args):
        run = subprocess.run(args, cwd=TOP, text=True, check=False, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env={**os.environ, **IDENTITY})
        return run.returncode, run.stdout

    def test_form(self):
        """Options reach git; the sender is the author; no tags are made up; no names of
        ours are in it. New tables: empty and allowed, then the test, then filled."""
        with tempfile.TemporaryDirectory(prefix='egm-series-') as tmp:
            self.succeeds('scripts/series', 'export', '-b', BUILD, '-o', tmp, '-v2')
            files = sorted(pathlib.Path(tmp).rglob('*.patch'))
            texts = [file.read_text(errors='replace') for file in files]
        self.assertGreater(len(files), 10)
        for text in texts:
            self.assertRegex(text, r'Subject: \[PATCH v2[] ]')
            self.assertIn('\nFrom: test <test@localhost>\n', text)
            self.assertNotRegex(text, r'(?m)^(Signed-off|Reviewed|Acked)-by:')
            self.assertNotRegex(text.split('\n---\n')[0], r'(?m)^(Patch|Replaces): |acpi-egm-memory <')
            self.assertNotIn('*** BLURB', text)
        subjects = [re.search('Subject: (.*)', text)[1] for text in texts]
        first = next(i for i, s in enumerate(subjects) if 'allow new' in s)
        self.assertIn('bios-tables-test', subjects[first + 1])
        self.assertIn('add the tables', subjects[first + 2])


class Check(checkout.Series):
    """Correct and wrong series."""

    def setUp(self):
        super().setUp()
        identity = mock.patch.dict(os.environ, IDENTITY)
        identity.start()
        self.addCleanup(identity.stop)
        (self.top / 'patches/1-more/cover-letter').write_text('More\n\nof it.\n')
        base = self.base('9.9.0')
        (base / 'scripts').mkdir()
        shutil.copy(machine.TREE / 'scripts/checkpatch.pl', base / 'scripts')
        (self.top / 'two.c').write_text('/* SPDX-License-Identifier: GPL-2.0-or-later */\n')
        (self.top / 'own.c').write_text('/* SPDX-License-Identifier: GPL-2.0-or-later */\n')
        info = self.top / 'build/meson-info/meson-info.json'
        info.parent.mkdir(parents=True)
        info.write_text(f'    "source": "{self.tree}"\n')
        self.make()
        self.series = self.top / 'build/series/9.9.0'

    def test_good(self):
        """A directory for each series; only those with a letter are numbered; our files are
        included."""
        output = self.succeeds('scripts/check-series', '--no-build')
        self.assertIn('0-fixes: 2 patches apply\n', output)
        self.assertIn('checkpatch: 0 errors, 0 warnings\n', output)
        self.assertIn('the end state is the tree\n', output)
        texts = {file.relative_to(self.series).as_posix(): file.read_text()
                 for file in self.series.rglob('*.patch')}
        self.assertEqual({name: re.search('Subject: (.*)', text)[1] for name, text in texts.items()}, {
            '0-fixes/0001-hw-arm-a.patch': '[PATCH] hw/arm: a',
            '0-fixes/0002-hw-arm-b.patch': '[PATCH] hw/arm: b',
            '1-more/0000-cover-letter.patch': '[PATCH 0/3] More',
            '1-more/0001-hw-arm-c.patch': '[PATCH 1/3] hw/arm: c',
            '1-more/0002-hw-arm-d.patch': '[PATCH 2/3] hw/arm: d',
            '1-more/0003-hw-arm-e.patch': '[PATCH 3/3] hw/arm: e'})
        self.assertIn('+++ b/own.c\n', texts['1-more/0003-hw-arm-e.patch'])

    def test_bad(self):
        """Errors: style, context or content of a patch, and no identity of a sender."""
        self.succeeds('scripts/series', 'export')
        for before, after, message in (
                ('+int c_patched;', '+int c_patched; ', 'checkpatch: 0001-hw-arm-c.patch'),
                ('-int c;', '-int x;', 'git am: '),
                ('+int c_patched;', '+int c_other;', 'the series do not end in the tree')):
            copy = self.dir / 'copy'
            shutil.copytree(self.series, copy)
            file = copy / '1-more/0001-hw-arm-c.patch'
            file.write_text(file.read_text().replace(before, after))
            with self.subTest(after):
                self.assert_fails(['scripts/check-series', '--no-build', str(copy)], message)
            shutil.rmtree(copy)
        nobody = {'HOME': str(self.dir), 'XDG_CONFIG_HOME': str(self.dir), 'GIT_CONFIG_NOSYSTEM': '1'}
        with mock.patch.dict(os.environ, nobody):
            for name in IDENTITY:
                del os.environ[name]
            status, output = self.run_script('scripts/series', 'export')
        self.assertNotEqual(status, 0)
        self.assertIn('tell me who you are', output)
        self.assertEqual(len(list(self.series.rglob('*.patch'))), 6)

    def test_alone(self):
        """A patch without a letter does not need one before it."""
        self.edit('b_patched', 'b_edited')
        series = self.top / 'patches/series'
        series.write_text(series.read_text() + '2-last/bb.patch\n')
        self.in_tree('commit', '-qam', 'hw/arm: bb\n\nPatch: 2-last/bb.patch')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        self.assert_fails(['scripts/check-series', '--no-build'],
                          'error: 0001-hw-arm-bb.patch needs a patch before it')
