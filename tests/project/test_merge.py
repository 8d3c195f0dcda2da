#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The merged tree: made of base, patches and port, and written back to them."""

import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / 'tests'))
# pylint: disable=wrong-import-position
from egmtest import tap  # noqa: E402
import checkout  # noqa: E402

FILE = 'hw/arm/virt-acpi-build.c'


def diff(before, after, path=FILE):
    """A patch of one line."""
    return (f'diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n'
            f'@@ -1 +1 @@\n-{before}\n+{after}\n')


class Base(checkout.Checkout):
    """A checkout with a patch of its own, and without ports."""

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.top / 'ports')

    def succeeds(self, *args):
        """Output of a script that succeeds."""
        status, output = self.run_script(*args)
        self.assertEqual(status, 0, output)
        return output

    def one_patch(self, before='int x;', after='int y;'):
        """The series: one patch, and a file of ours."""
        (self.top / 'patches/series').write_text(
            'one.patch\n    own.c\n    two.c\n')
        (self.top / 'own.c').write_text('int own;\n')
        (self.top / 'two.c').write_text('int two;\n')
        (self.top / 'patches/one.patch').write_text(
            'Subject: hw/arm: one\n\nWhy.\n\n---\n' + diff(before, after))

    def port(self, version, name, text):
        """A file of a port."""
        path = self.top / 'ports' / version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Merge(Base):
    """Without a port."""

    def test_not_qemu(self):
        """--qemu-source must be a QEMU tree."""
        (self.dir / 'tree').mkdir()
        self.assert_fails(['scripts/merge', str(self.dir / 'tree')],
                          'is not a QEMU source tree')
        self.assert_fails(['./configure', '--no-install-deps',
                           '--qemu-source=/nonexistent'],
                          'error: --qemu-source=/nonexistent: no such directory')

    def test_patch_does_not_apply(self):
        """The patch, the base and the file are named."""
        self.one_patch(before='long x;')
        tree = self.base('9.9.0')
        self.assert_fails(['scripts/merge', str(tree)],
                          'error: patches/one.patch does not apply to QEMU 9.9.0',
                          FILE, 'the default base is')

    def test_unsaved_changes(self):
        """Changes in the merged tree are not thrown away."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('9.9.0')
        self.assertEqual(self.run_script('scripts/merge', str(tree))[0], 0)
        merged = self.top / 'qemu-9.9.0/hw/arm/virt-acpi-build.c'
        merged.write_text('int y;\n')
        self.assert_fails(['scripts/merge', str(tree)],
                          'qemu-9.9.0/ has changes that are not in patches/',
                          'scripts/refresh-patches')
        self.assertEqual(merged.read_text(), 'int y;\n')

    def test_continues_after_interruption(self):
        """A half-made merged tree is made anew."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('9.9.0')
        (self.top / 'qemu-9.9.0/.git').mkdir(parents=True)
        (self.top / 'qemu-9.9.0/.git/egm-tree').write_text('')
        (self.top / 'qemu-9.9.0/half').write_text('')
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        self.assertFalse((self.top / 'qemu-9.9.0/half').exists())

    def test_not_ours(self):
        """A directory of that name that we did not make stays as it is."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('9.9.0')
        precious = self.top / 'qemu-9.9.0/notes'
        precious.parent.mkdir()
        precious.write_text('')
        self.assert_fails(['scripts/merge', str(tree)],
                          'qemu-9.9.0/ is in the way')
        self.assertTrue(precious.exists())
        shutil.rmtree(precious.parent)
        shutil.move(tree, precious.parent)
        self.assert_fails(['scripts/merge', str(precious.parent)],
                          'qemu-9.9.0/ is in the way')
        self.assertTrue((precious.parent / 'VERSION').exists())

    def test_subprojects(self):
        """Repositories inside of the base belong to it; builds do not."""
        (self.top / 'patches/series').write_text('')
        tree = self.base('9.9.0')
        (tree / 'subprojects/one').mkdir(parents=True)
        (tree / 'subprojects/one/file').write_text('')
        for path in tree, tree / 'subprojects/one':
            self.succeeds('git', 'init', '-q', str(path))
        for name in 'build', 'build-x':
            (tree / name).mkdir()
            (tree / name / 'o').write_text('')
        self.succeeds('scripts/merge', str(tree))
        merged = self.top / 'qemu-9.9.0'
        self.assertTrue((merged / 'subprojects/one/file').is_file())
        self.assertFalse((merged / 'subprojects/one/.git').exists())
        self.assertFalse((merged / 'build').exists())
        self.assertFalse((merged / 'build-x').exists())
        (tree / 'subprojects/one/file').unlink()
        self.succeeds('scripts/merge', str(tree))
        self.assertFalse((merged / 'subprojects/one/file').exists())

    def test_series_line(self):
        """A line of the series that means nothing is not passed over."""
        (self.top / 'patches/series').write_text('# good\none.patch  # bad\n')
        self.assert_fails(['scripts/merge', str(self.base('9.9.0'))],
                          'patches/series:2:one.patch  # bad: not understood')

    def test_refresh_patches(self):
        """A change in the merged tree comes back as a patch that applies."""
        self.one_patch()
        tree = self.base('9.9.0')
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        merged = self.top / 'qemu-9.9.0/hw/arm/virt-acpi-build.c'
        merged.write_text('int z;\n')
        status, output = self.run_script('scripts/refresh-patches', 'qemu-9.9.0')
        self.assertEqual(status, 0, output)
        patch = (self.top / 'patches/one.patch').read_text()
        self.assertTrue(patch.startswith('Subject: hw/arm: one\n\nWhy.\n'))
        self.assertIn('+int z;\n', patch)
        self.assertNotIn('From:', patch)
        status, output = self.run_script('scripts/merge', str(tree))
        self.assertEqual(status, 0, output)
        self.assertEqual(merged.read_text(), 'int z;\n')


class Project(Base):
    """Patches for another program than QEMU."""

    def test_round_trip(self):
        """Merged, edited, refreshed; a submodule is there, but not git's."""
        tree = self.dir / 'tree'
        for name, text in (('meson.build', "project(\n  'libvirt', 'c',\n"
                            "  version: '9.9.0',\n)\n"), (FILE, 'int x;\n'),
                           ('src/qemu/qemu_command.c', 'int q;\n'),
                           ('subprojects/keys/keys.csv', 'A\n')):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        (self.top / 'libvirt').mkdir()
        shutil.copytree(TOP / 'libvirt/patches', self.top / 'libvirt/patches')
        self.one_patch()
        for path in self.top / 'patches/series', self.top / 'patches/one.patch':
            shutil.move(path, self.top / 'libvirt/patches' / path.name)
        for name in 'own.c', 'two.c':
            shutil.move(self.top / name, self.top / 'libvirt' / name)
        merge = 'scripts/merge', '-p', 'libvirt'
        self.assert_fails([*merge, str(self.dir)], 'is not a libvirt source tree')
        self.succeeds(*merge, str(tree))
        merged = self.top / 'libvirt-9.9.0'
        self.assertEqual((merged / FILE).read_text(), 'int y;\n')
        self.assertEqual((merged / 'own.c').resolve(), self.top / 'libvirt/own.c')
        self.assertTrue((merged / 'subprojects/keys/keys.csv').exists())
        known = subprocess.run(['git', 'ls-files'], cwd=merged, text=True,
                               stdout=subprocess.PIPE, check=True).stdout
        self.assertNotIn('keys.csv', known)
        (merged / FILE).write_text('int z;\n')
        self.assert_fails([*merge, str(tree)],
                          'scripts/refresh-patches -p libvirt libvirt-9.9.0')
        self.succeeds('scripts/refresh-patches', '-p', 'libvirt', 'libvirt-9.9.0')
        self.assertIn('+int z;',
                      (self.top / 'libvirt/patches/one.patch').read_text())
        self.assertFalse((self.top / 'patches/one.patch').exists())
        self.succeeds(*merge, str(tree))


class Port(Base):
    """What a base needs instead."""

    def replaces(self, after):
        """A port's patch for a base with other text."""
        common = (self.top / 'patches/one.patch').read_text()
        run = subprocess.run(
            ['git', 'patch-id', '--stable'], input=common, text=True,
            stdout=subprocess.PIPE, check=True)
        return (f'Replaces: {FILE} {run.stdout[:12]}\n---\n'
                + diff('long x;', after))

    def test_choice(self):
        """The newest port that is not newer than the base."""
        self.one_patch()
        for version in '8.2', '8.10', '9.10':
            self.port(version, 'patches/one.patch',
                      self.replaces(f'long v{version.replace(".", "_")};'))
        for version, expected in (('8.1.9', None), ('8.2.0', '8_2'),
                                  ('8.9.50', '8_2'), ('8.11.0', '8_10'),
                                  ('9.9.0', '8_10'), ('10.0.0', '9_10')):
            tree = self.base(version, 'long x;\n' if expected else 'int x;\n')
            self.succeeds('scripts/merge', str(tree))
            text = (self.top / f'qemu-{version}' / FILE).read_text()
            self.assertEqual(
                text, f'long v{expected};\n' if expected else 'int y;\n')
            shutil.rmtree(tree)

    def test_stale(self):
        """The common patch has changed since the port's was written."""
        self.one_patch()
        self.port('8.0', 'patches/one.patch', self.replaces('long y;'))
        self.one_patch(after='int yy;')
        self.assert_fails(['scripts/merge', str(self.base('8.0.1', 'long x;\n'))],
                          'patches/one.patch does not apply to QEMU 8.0.1, with '
                          'ports/8.0', 'replaces an older diff of ' + FILE)
        tree = str(self.dir / 'tree')
        self.succeeds('scripts/merge', '--stale', tree)
        (self.top / 'qemu-8.0.1' / FILE).write_text('long yy;\n')
        self.succeeds('scripts/refresh-patches', 'qemu-8.0.1')
        self.succeeds('scripts/merge', tree)

        # A tree that was made of other patches has nothing to tell about them.
        self.one_patch(after='int yyy;')
        self.assert_fails(['scripts/refresh-patches', 'qemu-8.0.1'],
                          'have changed since qemu-8.0.1/ was made')

    def test_own_files(self):
        """A file of ours with other lines is a copy, a replaced one a link."""
        self.one_patch()
        self.port('8.0', 'files.patch', diff('int own;', 'int port;', 'own.c'))
        tree = self.base('8.0.1')
        self.succeeds('scripts/merge', str(tree))
        merged = self.top / 'qemu-8.0.1/own.c'
        self.assertEqual(merged.read_text(), 'int port;\n')
        self.assertEqual((self.top / 'own.c').read_text(), 'int own;\n')

        before = merged.stat().st_mtime_ns
        self.succeeds('scripts/merge', str(tree))
        self.assertEqual(merged.stat().st_mtime_ns, before)

        # Neither an edit of the copy nor a new copy is lost.
        for edit in merged, self.top / 'qemu-8.0.1/two.c':
            text = edit.read_text()
            edit.unlink()
            edit.write_text('short edit;\n')
            self.assert_fails(['scripts/merge', str(tree)],
                              'has changes that are not in patches/')
            self.assertEqual(edit.read_text(), 'short edit;\n')
            edit.write_text(text)

        shutil.rmtree(self.top / 'qemu-8.0.1')
        (self.top / 'own.c').write_text('long own;\n')
        self.assert_fails(['scripts/merge', str(tree)],
                          'error: ports/8.0/files.patch does not apply')

        (self.top / 'ports/8.0/files.patch').unlink()
        other = self.port('8.0', 'own.c', 'char own;\n')
        self.succeeds('scripts/merge', str(tree))
        self.assertEqual(merged.resolve(), other.resolve())

    def test_refresh(self):
        """Only what differs from the common patches goes to the port."""
        self.one_patch()
        self.port('8.0', 'base.conf', '')
        tree = self.base('8.0.1')
        self.succeeds('scripts/merge', str(tree))
        self.succeeds('scripts/refresh-patches', 'qemu-8.0.1')
        self.assertFalse(list((self.top / 'ports/8.0').rglob('*.patch')))

        common = (self.top / 'patches/one.patch').read_text()
        (self.top / 'qemu-8.0.1' / FILE).write_text('int z;\n')
        own = self.top / 'qemu-8.0.1/own.c'
        own.unlink()
        own.write_text('int port;\n')
        self.succeeds('scripts/refresh-patches', 'qemu-8.0.1')
        self.assertEqual((self.top / 'patches/one.patch').read_text(), common)
        shutil.rmtree(self.top / 'qemu-8.0.1')
        self.succeeds('scripts/merge', str(tree))
        self.assertEqual(
            (self.top / 'qemu-8.0.1' / FILE).read_text(), 'int z;\n')
        self.assertEqual(own.read_text(), 'int port;\n')

        # The copy was made of an older original.
        (self.top / 'own.c').write_text('int newer;\n')
        self.assert_fails(['scripts/refresh-patches', 'qemu-8.0.1'],
                          'have changed since qemu-8.0.1/ was made')

    def test_start_port(self):
        """A new base: git merges, and leaves what conflicts."""
        self.one_patch()
        self.port('8.0', 'files.patch', diff('int own;', 'int port;', 'own.c'))
        self.succeeds('scripts/merge', str(self.base('8.0.1')))
        shutil.rmtree(self.dir / 'tree')
        tree = self.base('9.0.0', 'long x;\n')
        arguments = ['scripts/start-port', str(tree), 'qemu-8.0.1']
        self.assert_fails(arguments, 'mkdir -p ports/9.0/patches')
        (self.top / 'ports/9.0/patches').mkdir(parents=True)
        self.assertEqual(self.run_script(*arguments)[0], 1)
        merged = self.top / 'qemu-9.0.0'
        self.assertIn('<<<<<<<', (merged / FILE).read_text())
        self.assert_fails(['scripts/refresh-patches', 'qemu-9.0.0'],
                          'is in the middle of a rebase or cherry-pick')
        (merged / FILE).write_text('long y;\n')
        self.succeeds('git', '-C', str(merged), 'commit', '-qa', '--no-edit')
        self.succeeds('scripts/refresh-patches', 'qemu-9.0.0')
        shutil.rmtree(merged)
        self.succeeds('scripts/merge', str(tree))
        self.assertEqual((merged / FILE).read_text(), 'long y;\n')
        self.assertEqual((merged / 'own.c').read_text(), 'int port;\n')


if __name__ == '__main__':
    tap.main()
