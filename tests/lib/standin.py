# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/zero as an EGM device with retired pages, see tests/vm/egm_zero.c."""

import fcntl
import pathlib
import tempfile

from lib import BUILD


class Zero:
    """The stand-in; a context manager, which only one test at a time can be in.

    All tests of a machine share /dev/zero, and QEMU locks it with flock(). The lock of
    fcntl() is independent of that one.
    """

    path = '/dev/zero'

    def __enter__(self):
        self.device = open(self.path, 'r+b', buffering=0)
        fcntl.lockf(self.device, fcntl.LOCK_EX)
        self.directory = tempfile.TemporaryDirectory(prefix='egm-zero-')
        self.file = pathlib.Path(self.directory.name) / 'retired'
        self.retire()
        self.environment = {'EGM_RETIRED': str(self.file),
                            'LD_PRELOAD': str(BUILD / 'egm/tests/libegm_zero.so')}
        return self

    def __exit__(self, *exc):
        self.directory.cleanup()
        # A process that has opened it for a VM can end later than the VM.
        fcntl.flock(self.device, fcntl.LOCK_EX)
        self.device.close()

    def retire(self, *ranges):
        """Set the retired pages: (offset, size) in bytes."""
        self.file.write_text(''.join(f'{offset:#x} {size:#x}\n'
                                     for offset, size in ranges))
