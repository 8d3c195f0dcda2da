# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that a test runs, and that must succeed."""

import subprocess


def output(*command, **keywords):
    """Run a program; return its output on stdout.

    keywords: the same as for subprocess.run()
    Raises RuntimeError with all output if the program fails.
    """
    run = subprocess.run([str(word) for word in command], check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
    if run.returncode:
        raise RuntimeError(f'{command[0]}: exit status {run.returncode}\n'
                           f'{run.stdout}{run.stderr}')
    return run.stdout
