# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of a base and the patches, and how changes get back to patches/."""

import os
import pathlib
import re
import shutil
from unittest import mock

from lib import TOP
from repo import checkout

FILE = checkout.FILE
LINES = checkout.LINES


class Patches(checkout.Series):
    """Without a port."""

    def test_not_a_source(self):
        """--qemu-source must be a QEMU tree."""
        (self.dir / 'other').mkdir()
        self.assert_fails(['scripts/tree', str(self.dir / 'other')], 'is not a QEMU source tree')
        self.assert_fails(['./configure', '--no-install-deps', '--qemu-source=/nonexistent'],
                          'error: --qemu-source=/nonexistent: no such directory')

    def test_does_not_apply(self):
        """The patch, the base and the file are named."""
        base = self.base('9.9.0', LINES.replace('int b;', 'long b;'))
        self.assert_fails(['scripts/tree', str(base)], f'error: patches/{self.names[1]} does not '
                          'apply to QEMU 9.9.0', FILE)

    def test_in_the_way(self):
        """A directory of that name that we did not make is not changed."""
        base = self.base('9.9.0')
        self.tree.mkdir(parents=True)
        (self.tree / 'notes').write_text('')
        self.assert_fails(['scripts/tree', str(base)], 'work/qemu-9.9.0/ is in the way')
        self.assertTrue((self.tree / 'notes').exists())

    def test_subprojects(self):
        """Repositories in the base belong to it; builds do not."""
        base = self.base('9.9.0')
        (base / 'subprojects/one').mkdir(parents=True)
        (base / 'subprojects/one/file').write_text('')
        for path in base, base / 'subprojects/one':
            self.succeeds('git', 'init', '-q', str(path))
        for name in 'build', 'build-x':
            (base / name).mkdir()
            (base / name / 'o').write_text('')
        self.make()
        self.assertTrue((self.tree / 'subprojects/one/file').is_file())
        self.assertEqual(list(self.tree.glob('build*')), [])
        (base / 'subprojects/one/file').unlink()
        self.make()
        self.assertFalse((self.tree / 'subprojects/one/file').exists())

    def test_series_line(self):
        """A line of the series that has no meaning is an error."""
        (self.top / 'patches/series').write_text('# good\none.patch  # bad\n')
        self.assert_fails(['scripts/tree', str(self.base('9.9.0'))],
                          'patches/series:2:one.patch  # bad: not understood')

    def test_git_am(self):
        """The patches are mails that git applies without our scripts."""
        base = self.base('9.9.0')
        self.make()
        git = ['git', '-C', str(base), '-c', 'user.name=a', '-c', 'user.email=b']
        self.succeeds(*git, 'init', '-q')
        self.succeeds(*git, 'add', '.')
        self.succeeds(*git, 'commit', '-q', '-m', 'base')
        self.succeeds(*git, 'am', *self.succeeds('scripts/series', 'list').split())
        self.assertEqual((base / FILE).read_text(), (self.tree / FILE).read_text())

    def test_edits(self):
        """Each edit goes into the patch that introduced the line, and nowhere else."""
        self.base('9.9.0')
        self.make()
        old = self.mails()
        times = {path: path.stat().st_mtime_ns for path in self.tree.rglob('*.c')}
        self.edit('patched', 'edited')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        for name, letter in zip(self.names, 'abcde'):
            self.assertEqual(re.findall(r'^\+int .*_edited;', self.mails()[name], re.M),
                             [f'+int {letter}_edited;'])
            self.assertIn('From: acpi-egm-memory <>\n', self.mails()[name])
        self.assertEqual(self.in_tree('status', '--porcelain'), '')

        # Only files that differ are written, in patches/ and in the tree.
        old = {name: (self.top / 'patches' / name).stat().st_mtime_ns for name in old}
        self.edit('c_edited', 'c_again')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        new = {name: (self.top / 'patches' / name).stat().st_mtime_ns for name in old}
        self.assertEqual([name for name in old if new[name] != old[name]][0], self.names[2])
        self.assertEqual(new[self.names[0]], old[self.names[0]])
        for path, time in times.items():
            if path.name != pathlib.Path(FILE).name:
                self.assertEqual(path.stat().st_mtime_ns, time, path)
        self.make()

    def test_unclear(self):
        """An edit of lines that no patch introduced is an error, and is not lost."""
        self.base('9.9.0')
        self.make()
        old = self.mails()
        text = self.edit('int last;', 'int other;')
        self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], 'no single patch introduced', FILE,
                          'git commit --fixup=COMMIT')
        self.assertEqual((self.mails(), (self.tree / FILE).read_text()), (old, text))
        self.in_tree('commit', '-qam', 'fixup! hw/arm: b')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        self.assertIn('+int other;', self.mails()[self.names[1]])

    def test_new(self):
        """A new patch is a commit that names its file."""
        self.base('9.9.0')
        self.make()
        self.edit('int last;', 'int new;')
        self.in_tree('commit', '-qam', 'hw/arm: new')
        self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], "'hw/arm: new' has no line 'Patch: ")
        self.in_tree('commit', '-q', '--amend', '-m', 'hw/arm: new\n\nPatch: 1-more/new.patch')
        self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], '< 1-more/new.patch')
        with open(self.top / 'patches/series', 'a', encoding='ascii') as series:
            series.write('1-more/new.patch\n')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        self.assertIn('+int new;', self.mails()['1-more/new.patch'])

    def test_overlap(self):
        """If a later patch changes the same lines, the user has to resolve it."""
        self.base('9.9.0')
        self.mail('1-more/again.patch', 'a_patched', 'a_again')
        self.make()
        first = self.in_tree('log', '--format=%H', '--grep=hw/arm: a$').strip()
        self.edit('a_again', 'a_edited')
        self.in_tree('commit', '-qam', f'fixup! {first}')
        self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], 'overlap between patches',
                          'git rebase -i --autosquash own')
        self.assertIn('a_edited', (self.tree / FILE).read_text())
        self.assert_fails(['scripts/tree', str(self.dir / 'tree')], 'has changes')

    def test_pull(self):
        """If patches/ has changed in the meantime, nothing is lost, and the advice works."""
        self.base('9.9.0')
        self.make()
        for edit in 'a_patched', 'b_patched':
            self.edit(edit, edit + '2')
            if edit[0] == 'a':
                self.in_tree('commit', '-qam', 'fixup! hw/arm: a')
        path = self.top / 'patches' / self.names[3]
        path.write_text(path.read_text().replace('+int d_patched', '+int d_pulled'))
        self.assert_fails(['scripts/tree', str(self.dir / 'tree')], 'has changes')
        output = self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], 'has changed since')
        commands = re.findall(r'(?m)(?:: |^ *)((?:git|scripts).*)', output)
        self.assertEqual(len(commands), 5)
        # Edits that were taken over before are not part of it.
        self.in_tree('branch', 'edits', 'own')
        # The user of git has a name; a machine that runs tests has none.
        names = [f'GIT_{who}_{what}=user@localhost' for who in ('AUTHOR', 'COMMITTER')
                 for what in ('NAME', 'EMAIL')]
        for command in commands:
            where = self.top if command.startswith('scripts') else self.tree
            self.succeeds('env', '-C', str(where), *names, 'sh', '-c', command)
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        text = (self.tree / FILE).read_text()
        for name in 'a_patched2', 'b_patched2', 'c_patched', 'd_pulled':
            self.assertIn(name, text)

    def test_interrupted(self):
        """A run that was interrupted is continued."""
        base = self.base('9.9.0')
        (self.tree / '.git').mkdir(parents=True)
        (self.tree / '.git/egm-tree').write_text('')
        (self.tree / 'half').write_text('')
        self.make()
        self.assertFalse((self.tree / 'half').exists())
        # Interrupted while files were written
        old = self.in_tree('rev-parse', 'HEAD').strip()
        self.edit('a_patched', 'a_edited')
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        self.in_tree('reset', '-q', '--soft', old)
        self.in_tree('update-ref', 'refs/egm/saved', old)
        self.succeeds('scripts/tree', str(base))
        self.assertIn('a_edited', (self.tree / FILE).read_text())
        # Interrupted while patches were written: one of them is written, the other is
        # not. Another change of patches/ is not overwritten.
        path = self.top / 'patches' / self.names[0]
        before = path.read_text()
        self.edit('a_edited', 'a_again')
        self.stand_in(install='#!/bin/sh\nkill -KILL $PPID\n')
        self.assertEqual(self.run_script('scripts/save', 'work/qemu-9.9.0')[0], -9)
        (self.dir / 'bin/install').unlink()
        path.write_text(before.replace('Why a.', 'Why.'))
        self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], 'has changed since')
        path.write_text(before)
        self.succeeds('scripts/save', 'work/qemu-9.9.0')
        self.assertIn('a_again', path.read_text())
        self.make()

    def test_meanwhile(self):
        """An edit while the tree is made again is not lost."""
        base = self.base('9.9.0')
        self.make()
        path = self.top / 'patches' / self.names[0]
        path.write_text(path.read_text().replace('+int a_patched', '+int a_pulled'))
        file = self.tree / FILE
        self.stand_in(mktemp=f'#!/bin/sh\nsed -i s/b_patched/b_edited/ {file}\n'
                      'exec /usr/bin/mktemp "$@"\n')
        self.assert_fails(['scripts/tree', str(base)], 'was changed in the meantime')
        self.assertIn('b_edited', file.read_text())

    def test_configuration(self):
        """The user's git configuration does not change the patches."""
        self.base('9.9.0')
        (self.dir / 'gitconfig').write_text(
            '[diff]\nnoprefix = true\ncontext = 5\n[format]\nattach = true\nsignOff = true\n'
            '[commit]\ngpgsign = true\n[user]\nname = me\nemail = me@localhost\n')
        with mock.patch.dict(os.environ, GIT_CONFIG_GLOBAL=str(self.dir / 'gitconfig')):
            self.make()
            self.edit('a_patched', 'a_edited')
            self.succeeds('scripts/save', 'work/qemu-9.9.0')
        text = self.mails()[self.names[0]]
        self.assertIn('--- a/', text)
        self.assertNotRegex(text, 'Signed-off-by|multipart')

    def test_message(self):
        """A message that git am would cut is refused."""
        self.base('9.9.0')
        self.make()
        old = self.mails()
        for subject, body in ('[x] hw/arm: e', 'Why.'), ('hw/arm: e', 'Why.\n\n---\n\nMore.'):
            self.in_tree('commit', '-q', '--amend', '-m',
                         f'{subject}\n\n{body}\n\nPatch: {self.names[4]}')
            self.assert_fails(['scripts/save', 'work/qemu-9.9.0'], 'git am would cut the message')
        self.assertEqual(self.mails(), old)

    def test_project(self):
        """Patches for another program, with a submodule that git does not know."""
        (self.top / 'libvirt').mkdir()
        for name in 'patches', 'own.c', 'two.c':
            shutil.move(self.top / name, self.top / 'libvirt' / name)
        base = self.base('9.9.0')
        for name, text in (('meson.build', "project(\n  'libvirt', 'c',\n  version: '9.9.0',\n)\n"),
                           ('src/qemu/qemu_command.c', ''), ('subprojects/keys/keys.csv', 'A\n')):
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            (base / name).write_text(text)
        (base / 'VERSION').unlink()
        tree = ['scripts/tree', '-p', 'libvirt', str(base)]
        self.tree = pathlib.Path(self.succeeds(*tree).strip())
        # The checks of this program accept only regular files.
        self.assertTrue(self.in_tree('ls-tree', 'HEAD', 'own.c').startswith('100644'))
        (self.top / 'libvirt/own.c').write_text('int other;\n')
        self.succeeds(*tree)
        self.assertEqual((self.tree / 'own.c').read_text(), 'int other;\n')
        self.assertTrue((self.tree / 'subprojects/keys/keys.csv').exists())
        self.assertNotIn('keys.csv', self.in_tree('ls-files'))
        self.edit('a_patched', 'a_edited')
        self.assert_fails(tree, 'scripts/save -p libvirt work/libvirt-9.9.0')
        self.succeeds('scripts/save', '-p', 'libvirt', 'work/libvirt-9.9.0')
        self.assertIn('a_edited', (self.top / 'libvirt/patches' / self.names[0]).read_text())
        self.succeeds(*tree)


class Ports(checkout.Series):
    """Patches for a base that is not the base of the common patches."""

    OLD = LINES.replace('int b;', 'long b;')

    def setUp(self):
        super().setUp()
        (self.top / 'patches/8.0').mkdir()
        self.tree = self.top / 'work/qemu-8.0.1'

    def begin(self):
        """A port whose patch b differs, and whose own.c has another line."""
        base = self.base('8.0.1', self.OLD)
        self.succeeds('scripts/tree', '--no-patches', str(base))
        self.make_common()
        self.in_tree('fetch', '-q', str(self.top / 'work/qemu-10.2.0'), '+own:from-own', '+egm:from')
        status, _ = self.run_script('git', '-C', str(self.tree), '-c', 'user.name=dev', '-c',
                                    'user.email=dev@localhost', 'cherry-pick', 'from-own..from')
        self.assertEqual(status, 1)
        self.assert_fails(['scripts/save', 'work/qemu-8.0.1'], 'in the middle of a rebase')
        text = re.sub(r'<<<<<<<.*?=======\n.*?>>>>>>>[^\n]*\n', 'long b_patched;\n',
                      (self.tree / FILE).read_text(), flags=re.S)
        (self.tree / FILE).write_text(text)
        self.in_tree('commit', '-qa', '--no-edit')
        self.in_tree('cherry-pick', '--continue')
        own = self.tree / 'own.c'
        own.unlink()
        own.write_text('int port;\n')
        self.in_tree('add', 'own.c')
        self.in_tree('commit', '-q', '-m', 'own files: 8.0\n\nPatch: own-files.patch')
        self.succeeds('scripts/save', 'work/qemu-8.0.1')

    def make_common(self):
        """The tree of the base that the common patches are for."""
        base = self.dir / 'common'
        (base / FILE).parent.mkdir(parents=True)
        (base / 'VERSION').write_text('10.2.0\n')
        (base / FILE).write_text(LINES)
        self.succeeds('scripts/tree', str(base))

    def port(self):
        """The files of the port."""
        port = self.top / 'patches/8.0'
        return {path.relative_to(port).as_posix(): path.read_text()
                for path in port.rglob('*.patch')}

    def test_begin(self):
        """A new base: git merges, and the port has only patches that differ."""
        self.begin()
        self.assertEqual(set(self.port()), {self.names[1], 'own-files.patch'})
        self.assertIn('+long b_patched;', self.port()[self.names[1]])
        self.assertIn('-int own;\n+int port;', self.port()['own-files.patch'])
        shutil.rmtree(self.tree)
        self.make()
        self.assertEqual((self.tree / 'own.c').read_text(), 'int port;\n')
        self.assertEqual((self.top / 'own.c').read_text(), 'int own;\n')
        self.assertTrue((self.tree / 'two.c').is_symlink())
        listed = self.succeeds('scripts/series', 'list', '8.0.1')
        self.assertIn(f'patches/8.0/{self.names[1]}', listed)
        self.assertNotIn('own-files', listed)
        # An edit of a copy belongs to the port as well.
        (self.tree / 'own.c').write_text('int edited;\n')
        self.assert_fails(['scripts/tree', str(self.dir / 'tree')], 'has changes')
        self.succeeds('scripts/save', 'work/qemu-8.0.1')
        self.assertIn('+int edited;', self.port()['own-files.patch'])

    def test_stale(self):
        """The common patch has changed since the patch of the port was made."""
        self.begin()
        path = self.top / 'patches' / self.names[1]
        path.write_text(path.read_text().replace('Why b.', 'Why not b.'))
        self.assert_fails(['scripts/tree', str(self.dir / 'tree')],
                          f'patches/8.0/{self.names[1]} replaces an older patches/{self.names[1]}')
        self.succeeds('scripts/tree', '--stale', str(self.dir / 'tree'))
        self.succeeds('scripts/save', 'work/qemu-8.0.1')
        self.assertIn('Why not b.', self.port()[self.names[1]])
        self.make()

    def test_choice(self):
        """The newest port that is not newer than the base; none for the common base."""
        self.begin()
        for port in '8.10', '11':
            shutil.copytree(self.top / 'patches/8.0', self.top / 'patches' / port)
        for version, port in (('7.9.9', ''), ('8.0.0', '8.0'), ('8.11.0', '8.10'),
                              ('10.1.50', ''), ('10.2.3', ''), ('10.2.50', '11'), ('11.1.0', '11'),
                              ('11.0.91', '11')):
            first = self.succeeds('scripts/series', 'list', version).split()[1]
            self.assertEqual(first, str(self.top / 'patches' / port / self.names[1]))


class Repository(checkout.Base):
    """The patches of this repository."""

    def test_ports_say_the_same(self):
        """Messages and lines of documents and of the schema are equal to the common patches."""
        def text(path):
            mail = path.read_text(errors='replace')
            lines = [line for line in mail.split('diff --git ')[0].splitlines()[3:]
                     if not line.startswith('Replaces: ')]
            for part in re.split(r'^diff --git a/\S+ b/', mail, flags=re.M)[1:]:
                if re.match(r'docs/|qapi/|qemu-options', part):
                    lines += re.findall(r'^[+][^+].*', part, flags=re.M)
            return '\n'.join(lines).strip()

        ports = sorted((TOP / 'patches').glob('[0-9]*/*/*.patch'))
        self.assertTrue(ports)
        for path in ports:
            common = TOP / 'patches' / pathlib.Path(*path.parts[-2:])
            with self.subTest(path.name):
                self.assertEqual(text(path), text(common))

    def test_named(self):
        """Every patch is in the series, and is by the project."""
        for project in TOP, TOP / 'libvirt':
            series = (project / 'patches/series').read_text().split('\n')
            for path in (project / 'patches').rglob('*.patch'):
                self.assertTrue(path.name == 'own-files.patch' or
                                '/'.join(path.parts[-2:]) in series, path)
                self.assertEqual(path.read_text().split('\n')[1], 'From: acpi-egm-memory <>')
