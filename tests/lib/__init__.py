# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the tests in Python, the demo and the benchmarks."""

import os
import pathlib

TOP = pathlib.Path(__file__).resolve().parents[2]
# The build whose QEMU is tested
BUILD = pathlib.Path(os.environ.get('EGM_BUILD', TOP / 'build'))
# Seconds after which a program counts as hanging, even on a busy machine
LIMIT = 900

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# The address at which the RAM of a virt machine starts
RAM_BASE = 0x40000000
