# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in Python, the demo and the benchmarks share."""
