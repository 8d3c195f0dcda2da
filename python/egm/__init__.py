# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demo and the tests in Python share."""
