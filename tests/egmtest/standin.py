# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/zero as an EGM device with retired pages, see tests/project/egm_zero.c."""

import os
import pathlib
import tempfile


class Zero:
    """The stand-in; a context manager. One VM at a time can use it."""

    path = '/dev/zero'

    def __init__(self, build):
        self.library = pathlib.Path(build) / 'egm/tests/project/libegm_zero.so'

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix='egm-zero-')
        self.file = pathlib.Path(self.directory.name) / 'retired'
        self.retire()
        self.environment = {**os.environ, 'EGM_RETIRED': str(self.file),
                            'LD_PRELOAD': str(self.library)}
        return self

    def __exit__(self, *exc):
        self.directory.cleanup()

    def retire(self, *ranges):
        """Set the retired pages: (offset, size) in bytes."""
        self.file.write_text(''.join(f'{offset:#x} {size:#x}\n'
                                     for offset, size in ranges))
