# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tools share: the standard library of Python 3.9 or newer only."""

VERSION = '1.0'
