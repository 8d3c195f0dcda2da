# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI tables made up for tests of the tools."""

import struct

HOT = 3     # flags: enabled, and memory can be plugged there


def checked(data, at):
    """Data with a checksum in a byte."""
    return data[:at] + bytes([-sum(data[:at] + data[at + 1:]) & 0xff]) + data[at + 1:]


def table(name, body):
    """An ACPI table."""
    return checked(name + struct.pack('<I', 36 + len(body)) + bytes(28) + body, 9)


def affinity(pxm, base, size, flags=1):
    """A Memory Affinity Structure."""
    return struct.pack('<BBIHQQIIQ', 1, 40, pxm, 0, base, size, 0, flags, 0)


def initiator(pxm, bus=0x21, domain=0, flags=1):
    """A Generic Initiator Affinity Structure of device 0 on a bus."""
    handle = struct.pack('<HBB12x', domain, bus, 0)
    return struct.pack('<BBBBI16sII', 5, 32, 0, 1, pxm, handle, flags, 0)


def processor(pxm):
    """A GICC Affinity Structure."""
    return struct.pack('<BBIIII', 3, 18, pxm, 0, 1, 0)


def srat(*entries):
    """SRAT with these entries."""
    return table(b'SRAT', bytes(12) + b''.join(entries))


def iort(*mappings, ats=True, segment=0):
    """IORT with an SMMUv3, and a root complex with mappings of it: (first requester ID,
    how many), and True if they go to the SMMU"""
    def node(kind, body, count=0):
        length = 16 + len(body) + 20 * count
        return struct.pack('<BHBIII', kind, length, 0, 0, count, 16 + len(body)) + body
    its = node(0, bytes(8))
    smmu = node(4, bytes(52))
    place = {False: 48, True: 48 + len(its)}
    root = node(2, struct.pack('<8xIIB3x', ats, segment, 64), len(mappings)) + b''.join(
        struct.pack('<IIIII', first, count - 1, first, place[behind], 0)
        for first, count, behind in mappings)
    return table(b'IORT', struct.pack('<III', 3, 48, 0) + its + smmu + root)


def slit(count, distance):
    """SLIT; distance(a, b) of two proximity domains"""
    return table(b'SLIT', struct.pack('<Q', count) + bytes(
        distance(a, b) for a in range(count) for b in range(count)))
