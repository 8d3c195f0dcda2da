# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/host, as a person and as a script use it."""

import os
import re
import subprocess
import tempfile
import unittest

import pexpect

from lib import BUILD, KIB, LIMIT, TOP, process
from lib.made import made, need_arm64

HOST = [str(TOP / 'scripts/host'), '--build', str(BUILD)]


def transcript():
    """The session in the README: pairs of a command and its output as a regular expression;
    the first command is empty. A line of dots stands for output that is left out.
    """
    text = (TOP / 'README.md').read_text()
    shown = re.search(r'(?m)^    \$ make host\n((?:    .*\n)+)', text)[1]
    first, *parts, last = re.split(r'(?m)^(?:grace|guest)#[ \n]', re.sub('(?m)^    ', '', shown))
    assert parts and not last
    commands = [re.match(r'((?:.*\\\n)*.*)\n((?s:.*))', part).groups() for part in parts]
    return [(command, '(?s:.*)'.join(map(re.escape, re.split(r'(?m)^\.\.\.\n', output))))
            for command, output in [('', first), *commands]]


def printed(command, text):
    """The output of a command on a terminal, without its echo, escape sequences and carriage
    returns.
    """
    lines = re.sub(r'\x1b\[[0-9;=?]*[A-Za-z]|\r', '', text)
    return lines.split('\n', command.count('\n') + 1)[-1] if command else lines


class Session(unittest.TestCase):
    """Each case boots a host."""

    @classmethod
    def setUpClass(cls):
        need_arm64()
        made(BUILD, 'egm/tests/images/arm64.initrd')
        cls.directory = cls.enterClassContext(tempfile.TemporaryDirectory(prefix='egm-host-'))
        process.output(*HOST, '--export', cls.directory)

    def run_in_host(self, command, stdin=b'', **variables):
        """Run a command in the exported host; give exit status, output and errors, in bytes."""
        run = subprocess.run(
            [f'{self.directory}/start', command], input=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, check=False, timeout=3 * LIMIT, cwd='/',
            env={**os.environ, 'QEMU': str(BUILD / 'qemu-system-aarch64'), **variables})
        return run.returncode, run.stdout, run.stderr

    def test_command(self):
        """Input, output, errors and exit status are those of the command, whatever the
        console shows and the command leaves running.
        """
        data = os.urandom(300 * KIB)
        status, text, errors = self.run_in_host(
            'echo kernel > /dev/kmsg; echo console > /dev/console; sleep 1000 & '
            'cat; echo "a  \'b\' $((40 + 2))" >&2; echo again > /dev/stderr; '
            '[ -c /dev/egm4 ] && [ -c /dev/egm5 ] && exit 37', data)
        self.assertEqual((status, errors), (37, b"a  'b' 42\nagain\n"))
        self.assertEqual(text, data)

    def test_vm(self):
        """A generation of the driver; a VM, whose tables egm-report reads from outside."""
        status, text, errors = self.run_in_host(
            'cat /sys/class/egm/egm5/gpu_devices; '
            'egm-vm qemu --initiators 3 --smmu off --memory 128M --run '
            '< /dev/null > /tmp/vm 2>&1 & '
            'until egm-report --qmp /run/egm4-egm5.qmp > /tmp/report 2> /tmp/error; do '
            'kill -0 $! || { cat /tmp/vm; exit 1; }; sleep 2; done; cat /tmp/report',
            DRIVER='B')
        self.assertEqual((status, errors), (0, b''), text)
        self.assertEqual(len(re.findall(br'(?m)^gpu\d .* yes$', text)), 4, text)
        self.assertTrue(text.startswith(b'0000:03:00.0\n0000:05:00.0\n'), text)

    def test_failed(self):
        """A host that fails has another exit status than a command."""
        status, text, errors = self.run_in_host('true', DRIVER='X')
        self.assertEqual((status, text), (125, b''))
        self.assertIn(b'error: DRIVER=X is not', errors)
        status, text, errors = self.run_in_host('echo c > /proc/sysrq-trigger')
        self.assertEqual((status, text), (125, b''), errors)
        self.assertIn(b'error: the host ended before the command', errors)

    def test_transcript(self):
        """The README shows what a terminal shows."""
        terminal = pexpect.spawn(HOST[0], HOST[1:], encoding='utf-8', timeout=3 * LIMIT,
                                 dimensions=(50, 120))
        self.addCleanup(terminal.close)
        for command, output in transcript():
            with self.subTest(command):
                if command:
                    terminal.send(command + '\r')
                terminal.expect('(grace|guest)# ')
                text = printed(command, terminal.before)
                self.assertTrue(re.fullmatch(output, text), text)
        terminal.send('\x01x')
        terminal.expect('QEMU: Terminated')
        terminal.expect(pexpect.EOF)
