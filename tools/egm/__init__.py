# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tools share: Python's standard library only, no file of the tests."""
