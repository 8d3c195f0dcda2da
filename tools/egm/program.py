# SPDX-License-Identifier: GPL-2.0-or-later
"""What the two programs have in common: options, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from . import VERSION
from .format import printable


class Once(argparse.Action):
    """An option that can be given once: of two values, one would do nothing."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = namespace.__dict__.setdefault('given', set())
        if self.dest in given:
            parser.error(f'{option_string} is given twice')
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """Options are written out, so that new ones do not change the meaning of old
    command lines."""

    def __init__(self, *args, **keywords):
        super().__init__(*args, allow_abbrev=False, **keywords)
        self.register('action', None, Once)
        self.register('action', 'store', Once)


def add_version(parser: argparse.ArgumentParser) -> None:
    """--version"""
    parser.add_argument('--version', action='version',
                        version=f'%(prog)s (acpi-egm-memory) {VERSION}',
                        help='show the version')


def run(main: Callable[[], int]) -> int:
    """The exit status of a program; 2 and a line if it cannot tell."""
    # Any text can be shown, in any locale. What is copied from the command line stays
    # as it is.
    sys.stderr.reconfigure(errors='backslashreplace')
    try:
        status = main()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Nobody reads the rest, not even at the end of Python.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except UnicodeEncodeError as error:
        print(f'error: {error.object[error.start:error.end]!r} cannot be written in '
              f'{error.encoding}, the encoding of this locale', file=sys.stderr)
    except (OSError, RuntimeError, ValueError) as error:
        print(printable(f'error: {error}'), file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2
