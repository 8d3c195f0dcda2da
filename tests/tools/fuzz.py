# SPDX-License-Identifier: GPL-2.0-or-later
"""Feed damaged ACPI tables to egm-report, and damaged hosts to egm-vm.

usage: python3 -m tools.fuzz [tables|hosts [COUNT [FIRST-SEED]]]

By default 10000 of each. Each has a seed, which is printed if one fails: there is a
traceback, no end, control characters in what is printed, JSON that is none, or a "yes"
for a table that is damaged.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import random
import signal
import struct
import sys
import tempfile
import unittest.mock

from egm import emulator
from lib import TOP, grace
from tools import acpi_made

GOLDEN = TOP / 'tests/data/acpi/aarch64/virt'
LIMIT = 120         # seconds, of a case; the slowest takes less than one
JUNK = ('', '\n', '-1', '0', '0x', '0x0', 'text', '\x1b[2J', '\0', '1' * 5000, '٣', '0-x',
        '0-999999', '9-0', '1,2,,', '0x' + 'f' * 40, '-0x1', '1e9', ' 7 \n', '../..',
        '0008:01:00.0', '\udcff'.encode('utf-8', 'surrogateescape').decode('latin-1'))


class Hang(BaseException):
    """A case that does not end."""


def load(name):
    """A program of tools/ as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace('-', '_'),
                                                  str(TOP / 'tools' / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(
        loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


PROGRAMS = {name: load(name) for name in ('egm-vm', 'egm-report')}


def run(name, *words):
    """A program in this process: exit status, and what it prints."""
    def hang(*_):
        raise Hang(f'no end after {LIMIT} s: {words}')

    out, err = (io.TextIOWrapper(io.BytesIO(), 'utf-8', 'strict') for _ in range(2))
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
                unittest.mock.patch('sys.argv', [name, *map(str, words)]):
            try:
                status = PROGRAMS[name].program.run(PROGRAMS[name].main)
            except SystemExit as end:
                status = end.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    texts = []
    for stream in out, err:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode('utf-8', 'surrogateescape'))
    return status, *texts


def check_text(text):
    """The output has no control characters."""
    odd = [c for c in text if c != '\n' and not c.isprintable()]
    if odd:
        raise AssertionError(f'control characters: {odd[:5]!r}')


def seal(data):
    """A table with a corrected header."""
    data = bytearray(data)
    struct.pack_into('<I', data, 4, len(data))
    data[9] = 0
    data[9] = -sum(data) & 0xff
    return bytes(data)


def nest(rng, depth):
    """AML of packages, scopes and devices, with lengths that can be wrong."""
    body = bytes(rng.choice((b'\0', b'\1', b'\xff', b'\x0a\x05', b'\x0dab\0')))
    for _ in range(rng.randrange(4)):
        body += nest(rng, depth - 1) if depth else rng.choice((b'\0', b'\x08AAAA\x01'))
    head = rng.choice((b'\x12%s\x01', b'\x13%s\x01', b'\x10%sAAAA', b'\x5b\x82%sBBBB',
                       b'\x08AAAA\x12%s\x02', b'\x11%s\x01', b'\x14%sCCCC\0'))
    length = len(head) + len(body) + rng.choice((0, 0, 0, -1, 1, 3, 60))
    lead = bytes([0x40 | length & 15, length >> 4 & 0xff])
    return head.replace(b'%s', lead) + body


def damage(rng, data):
    """A few changes of a table."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[at:at + rng.choice((1, 2, 4, 100))]
        elif kind == 3:
            data[at:at] = nest(rng, rng.randrange(6))
        elif kind == 4:
            other = rng.randrange(len(data) + 1)
            data[at:at] = data[other:other + rng.choice((4, 40, 400))]
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 40)))
    return bytes(data)


def check_tables(seed):
    """Damaged tables: raises if egm-report does something wrong."""
    rng = random.Random(seed)
    name = rng.choice(('egmgi', 'egmswitch', 'egmroot'))
    tables = {kind: (GOLDEN / f'{kind}.{name}').read_bytes() for kind in ('DSDT', 'SRAT')}
    tables['SLIT'] = seal(b'SLIT' + bytes(32) + struct.pack('<Q', 2) + bytes(
        (10, 40, 40, 10)))
    tables['IORT'] = acpi_made.iort((0, 0x100, False), (0x100, 0xff00, True))
    which = rng.choice(('DSDT', 'DSDT', 'DSDT', 'SRAT', 'SLIT', 'IORT'))
    data = damage(rng, tables[which][36:])
    whole = seal(tables[which][:36] + data)
    sealed = rng.random() < 0.7
    if not sealed:
        whole = damage(rng, whole)
    tables[which] = whole
    with tempfile.TemporaryDirectory(prefix='egm-fuzz-') as directory:
        paths = []
        for kind, table in tables.items():
            paths.append(pathlib.Path(directory, kind))
            paths[-1].write_bytes(table)
        form = rng.choice(([], ['--json']))
        status, out, err = run('egm-report', *form, *paths)
    check_text(out + err)
    right = sum(whole) & 0xff == 0 and \
        (whole[:4], whole[4:8]) == (which.encode(), struct.pack('<I', len(whole)))
    if status not in (0, 1, 2) or status == 0 and not right:
        raise AssertionError(f'exit status {status}: {out}{err}')
    if form and out:
        if (status == 0) != (json.loads(out)['usable'] is True):
            raise AssertionError(f'exit status {status}: {out}')


def change(rng, root):
    """Damage a file, link or directory below `root`."""
    paths = sorted(p for part in ('sys', 'proc', 'dev', 'etc')
                   for p in (root / part).rglob('*') if (root / part).exists())
    path = rng.choice(paths)
    kind = rng.randrange(7)
    is_directory = path.is_dir() and not path.is_symlink()
    with contextlib.suppress(OSError):
        if is_directory:
            if kind < 3:
                path.rename(path.with_name(rng.choice(('x', 'egm', 'egm-1', 'node-1',
                                                       '\x1b[2J', 'egm99', 'a b'))))
            else:
                (path / rng.choice(('egmx', 'egm7', 'virtfn0', 'gpu_devices', 'node9',
                                    '0077:01:00.0', '\x1b', '99'))).symlink_to(
                                        rng.choice(('.', '..', 'x', '\x1b[2J', '/')))
            return
        path.unlink()
        if kind == 0:
            return
        if kind == 1:
            path.mkdir()
        elif kind == 2:
            path.symlink_to(rng.choice(('loop', path.name, '.', '/nonexistent')))
        elif kind == 3:
            path.write_bytes(rng.randbytes(rng.choice((1, 16, 200))))
        else:
            path.write_text(rng.choice(JUNK), encoding='utf-8')


def try_host(directory, seed):
    """Run egm-vm on a damaged host: exit status, and what it prints."""
    rng = random.Random(seed)
    made = grace.Host(directory, rng.randrange(4), rng.randrange(4),
                      links=rng.random() < 0.5, iommufd=rng.random() < 0.7)
    gpus = [address for found in made.gpus.values() for address in found]
    if rng.random() < 0.5:
        made.user(rng.choice(('/dev/egm4', '/dev/vfio/0', '/mnt/x')))
    if gpus and rng.random() < 0.3:
        made.virtual(rng.choice(gpus), 2, rng.choice(('vfio-pci', 'nvidia')))
    if rng.random() < 0.2:
        made.tables(SRAT=rng.randbytes(200), SLIT=rng.randbytes(60),
                    IORT=rng.randbytes(200))
    for _ in range(rng.choice((1, 2, 5, 20))):
        change(rng, made.root)
    what = rng.choice(('host', 'check', 'qemu', 'libvirt', 'svg'))
    words = [what, '--root', directory]
    if what != 'svg':
        words += ['--qemu', '/bin/true']
    if what == 'svg' and rng.random() < 0.5:
        words += ['--host']
    elif what in ('qemu', 'libvirt', 'svg'):
        words += rng.choice(([], ['--gpus', 'free'], ['--socket', '0'], ['--memory', '2G'],
                             ['--cpus', '8'], ['--initiators', '1']))
    if what in ('qemu', 'libvirt'):
        words += rng.choice(([], ['--no-check'], ['--no-check', '--type1']))
    if what in ('host', 'check', 'qemu'):
        words += rng.choice(([], ['--json']))
    with unittest.mock.patch.object(emulator.Emulator, 'has_object', return_value=True), \
            unittest.mock.patch.object(emulator.Emulator, 'check_firmware',
                                       return_value=''), \
            unittest.mock.patch.object(emulator.Emulator, 'smmu_options',
                                       rng.choice(('', 'accel=on,ats=on'))):
        status, out, err = run('egm-vm', *words)
    check_text(err if what == 'libvirt' else out + err)
    if '--json' in words and out:
        json.loads(out)
    return status, out + err


def check_host(seed):
    """A damaged host: raises if egm-vm does something wrong."""
    with tempfile.TemporaryDirectory(prefix='egm-fuzz-') as directory:
        status, text = try_host(directory, seed)
    if status not in (0, 1, 2) or 'Traceback' in text:
        raise AssertionError(f'exit status {status}: {text}')


def main():
    """Exit status 1 at the first case that fails."""
    kinds = {'tables': check_tables, 'hosts': check_host}
    if os.path.isdir('/dev/shm'):
        tempfile.tempdir = '/dev/shm'   # many small files
    words = sys.argv[1:]
    if words and words[0] not in kinds:
        sys.exit(__doc__)
    count, first = (int(w) for w in (words[1:] + ['10000', '0'][len(words[1:]):]))
    for kind in words[:1] or kinds:
        for seed in range(first, first + count):
            try:
                kinds[kind](seed)
            except BaseException:
                print(f'{kind}: seed {seed} fails: {os.path.relpath(__file__)} {kind} 1 '
                      f'{seed}', file=sys.stderr)
                raise
        print(f'{kind}: {count} from seed {first}: none fails')


if __name__ == '__main__':
    main()
