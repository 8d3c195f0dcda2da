# SPDX-License-Identifier: GPL-2.0-or-later
"""Distances between the NUMA nodes of a VM.

Linux fills nearer nodes first, so a GPU's own memory is farther away than the DRAM of
any socket, as on the hosts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

LOCAL = 10
SAME_GPU = 11       # nodes of one GPU
OTHER = 40          # other sockets, and GPUs among each other
OWN_GPU = 80        # a socket and its own GPU's memory
OTHER_GPU = 120     # a socket and another's
_END = 254          # the largest distance; 255 means unreachable


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the VM."""
    number: int
    socket: int
    gpu: int | None = None      # whose memory it is; None: the socket's
    domain: int | None = None   # its proximity domain on the host, if that is known


def _usual(nodes: Sequence[Node], sockets: Mapping[tuple[int, int], int]) -> dict:
    """The usual distances of hosts; sockets: the distance between them, if it is known."""
    apart = {key: min(max(value, LOCAL + 1), _END - 80)
             for key, value in sockets.items()}
    own = max(OWN_GPU, max(apart.values(), default=0) + OTHER)

    def distance(a: Node, b: Node) -> int:
        between = apart.get((a.socket, b.socket), OTHER)
        if a.gpu is None and b.gpu is None:
            return between
        if a.gpu is not None and b.gpu is not None:
            return SAME_GPU if a.gpu == b.gpu else OTHER
        return own if a.socket == b.socket else own + OTHER

    return {(a.number, b.number): distance(a, b)
            for a in nodes for b in nodes if a.number < b.number}


def _of_host(nodes: Sequence[Node], slit) -> dict | None:
    """The distances in the host's SLIT; None: it lacks nodes, or GPU memory is
    nearer than a socket in it."""
    if any(n.domain is None or n.domain >= slit.count for n in nodes):
        return None
    found = {(a.number, b.number): slit.distance(a.domain, b.domain)
             for a in nodes for b in nodes if a.number < b.number}
    dram = {n.number for n in nodes if n.gpu is None}
    near = [value for (a, b), value in found.items() if a in dram and b in dram]
    far = [value for (a, b), value in found.items() if (a in dram) != (b in dram)]
    if min(found.values(), default=0) <= LOCAL or \
            (near and far and max(near) >= min(far)):
        return None
    return found


def find(nodes: Sequence[Node], sockets: Mapping[tuple[int, int], int], slit) -> dict:
    """{(node, node): distance}, the smaller number first.

    sockets: distances of the host's sockets, by their numbers in the VM
    slit: the host's SLIT
    """
    return _of_host(nodes, slit) or _usual(nodes, sockets)
