# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory and devices, by guest physical address, over QEMU's qtest protocol."""

import struct


class Qtest:
    """protocol: a qemu.machine.qtest.QEMUQtestProtocol that is connected"""

    def __init__(self, protocol):
        self.protocol = protocol

    def command(self, text):
        """Run a command; return its answer."""
        answer = self.protocol.cmd(text)
        if not answer.startswith('OK'):
            raise AssertionError(f'{text}: {answer}')
        return answer

    def read(self, address, length):
        """Read bytes of memory or of a device."""
        return bytes.fromhex(
            self.command(f'read {address:#x} {length:#x}').split()[1][2:])

    def write(self, address, data):
        """Write bytes to memory or to a device."""
        self.command(f'write {address:#x} {len(data):#x} 0x{data.hex()}')

    def writel(self, address, value):
        """Write a register of 32 bits."""
        self.write(address, struct.pack('<I', value))
