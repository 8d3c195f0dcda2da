# SPDX-License-Identifier: GPL-2.0-or-later
"""Pictures of a VM and of a host: sockets, regions, GPUs, and what is near them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from .format import number_list, size_text
from .holders import User
from .hostinfo import Gpu, Host, Nic, Region
from .plan import Socket, Vm

_RAM_BASE = 0x40000000          # of the virt machine
_STYLE = '''
  text { font: 13px sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .small { font-size: 11.5px; fill: #59636e }
  .mono { font-family: monospace }
  rect { rx: 6px; fill: none; stroke: #8c959f }
  .socket { fill: #f6f8fa; stroke: #d1d9e0 }
  .memory { fill: #dafbe1; stroke: #1a7f37 }
  .gpu { fill: #ddf4ff; stroke: #0969da }
  .bridge { fill: #fff; stroke: #8c959f }
  .used { fill: #fff8c5; stroke: #9a6700 }
  path { fill: none; stroke: #8c959f; stroke-width: 1.5 }
  .link { stroke: #1a7f37; stroke-width: 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .socket { fill: #151b23; stroke: #3d444d }
    .memory { fill: #12261e; stroke: #3fb950 }
    .gpu { fill: #121d2f; stroke: #4493f8 }
    .bridge { fill: #0d1117; stroke: #656c76 }
    .used { fill: #272115; stroke: #d29922 }
    path { stroke: #656c76 }
    .link { stroke: #3fb950 }
  }
'''
_BOX_WIDTH, _GAP, _PAD = 190, 16, 16
_TITLE, _MEMORY, _BRIDGE = 34, 76, 52   # heights
_LINE = 19                      # height of a line of text
_STEP = 40                      # between two layers
_PAGE_WIDTH = 872               # of a row of sockets, unless one socket is wider
_Row = tuple[str, str]          # a line of text: its class, and the text


@dataclasses.dataclass
class _Frame:
    """The picture of a socket, from its upper left corner."""
    width: int
    height: int
    body: list[str]


def _box(kind: str, x: int, y: int, width: int, height: int, *rows: _Row) -> Iterator[str]:
    """A rectangle that contains lines of text."""
    yield (f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" '
           f'height="{height}"/>')
    for i, (style, text) in enumerate(rows):
        yield (f'<text class="{style}" x="{x + 12}" y="{y + 22 + _LINE * i}">'
               f'{escape(text)}</text>')


def _frame(title: str, columns: int, height: int, body: Iterator[str]) -> _Frame:
    """A socket that has room for a number of boxes beside each other."""
    width = columns * _BOX_WIDTH + (columns - 1) * _GAP + 2 * _PAD
    return _Frame(width, height, [
        *_box('socket', 0, 0, width, height),
        f'<text class="title" x="{_PAD}" y="23">{escape(title)}</text>', *body])


def _place(frames: Sequence[_Frame], label: str) -> str:
    """An SVG document in ASCII that is legible on light and dark backgrounds. Sockets
    continue in another row at the width of a page."""
    body: list[str] = []
    x = y = width = height = 0
    for frame in frames:
        if x and x + frame.width > _PAGE_WIDTH:
            x, y, height = 0, y + height + _GAP, 0
        body += [f'<g transform="translate({x} {y})">', *frame.body, '</g>']
        width, height = max(width, x + frame.width), max(height, frame.height)
        x += frame.width + _GAP
    height += y
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} '
        f'{height + 2}" width="{width + 2}" height="{height + 2}" role="img" '
        f'aria-label="{label}">', f'<style>{_STYLE}</style>', *body, '</svg>'])


def _left(column: int) -> int:
    """The left edge of a column of boxes."""
    return _PAD + column * (_BOX_WIDTH + _GAP)


def _link(column: int, top: int, bottom: int) -> Iterator[str]:
    """The connection of a region and a GPU."""
    middle = _left(column) + _BOX_WIDTH // 2
    yield f'<path class="link" d="M{middle} {top}V{bottom}"/>'
    if column == 0:
        yield f'<text class="small" x="{middle + 10}" y="{top + 25}">NVLink-C2C</text>'


def _memory_text(nodes: list[int]) -> str:
    """The nodes of a GPU's initiators."""
    return f'own memory: node{"s" * (len(nodes) > 1)} {number_list(nodes)}'


def _draw_socket(socket: Socket, base: int, columns: int, height: int) -> Iterator[str]:
    """The elements of a socket of a VM. height: the height of a GPU"""
    gpus = _TITLE + _MEMORY + _STEP
    bridge = gpus + height + _STEP
    yield from _box(
        'memory', _PAD, _TITLE, _left(columns) - _GAP - _PAD, _MEMORY,
        ('', f'{socket.region.name}: {size_text(socket.size)}'
         f' = RAM of guest node {socket.node}'),
        ('small mono', f'{base:#x}-{base + socket.size - 1:#x}'),
        ('small', f'vCPU {number_list(socket.cpus)}'))
    for i, gpu in enumerate(socket.gpus):
        middle = _left(i) + _BOX_WIDTH // 2
        yield from _link(i, _TITLE + _MEMORY, gpus)
        yield f'<path d="M{middle} {gpus + height}V{bridge}"/>'
        yield (f'<text class="small mono" x="{middle + 8}" '
               f'y="{gpus + height + 25}">{gpu.port}</text>')
        part = [('small', f'part of {gpu.host.physical}')] if gpu.host.virtual else []
        yield from _box(
            'gpu', _left(i), gpus, _BOX_WIDTH, height, ('', gpu.name),
            ('small mono', gpu.host.address), *part, ('small', _memory_text(gpu.initiators)))
        yield from _box(
            'bridge', _left(i), bridge, _BOX_WIDTH, _BRIDGE,
            ('', f'{gpu.bridge}: PCI host bridge'),
            ('small', f'of node {socket.node}, bus {gpu.bus:#x}'))


def picture(vm: Vm) -> str:
    """The picture of a VM."""
    height = _height(4 if any(gpu.host.virtual for gpu in vm.gpus) else 3)
    frames, base = [], _RAM_BASE
    for socket in vm.sockets:
        host = f', host node {socket.region.node}' if socket.region.node >= 0 else ''
        columns = max(len(socket.gpus), 2)
        frames.append(_frame(
            f'Socket {socket.node}{host}', columns,
            _TITLE + _MEMORY + height + _BRIDGE + 2 * _STEP + _PAD,
            _draw_socket(socket, base, columns, height)))
        base += socket.size
    return _place(frames, f'A VM with {len(vm.sockets)} sockets and {len(vm.gpus)} GPUs on '
                  'Extended GPU Memory')


def _height(lines: int) -> int:
    """The height of a box with a number of lines."""
    return _LINE * (lines + 1)


def _use(users: Sequence[User], free: str) -> _Row:
    """The users of a device, or its state if it has no users."""
    return 'small', f'{len(users)} processes' if len(users) > 1 else \
        str(users[0]) if users else free


def _gpu_box(gpu: Gpu) -> tuple[str, list[_Row]]:
    """The class and the text of a GPU's box."""
    part = [('small', f'part of {gpu.physical}')] if gpu.virtual else []
    state = 'vGPU' if gpu.vgpu else 'free' if gpu.free else 'not bound to vfio'
    return 'used' if gpu.users or gpu.vgpu else 'gpu', [
        ('', 'GPU'), ('small mono', gpu.address), *part, ('small', gpu.driver or 'no driver'),
        _use(gpu.users, state)]


def _nic_box(nic: Nic) -> tuple[str, list[_Row]]:
    """The class and the text of a NIC's box."""
    return 'used' if nic.users else 'bridge', [
        ('', ' '.join(['NIC', *nic.interfaces[:1]])), ('small mono', nic.address),
        ('small', nic.driver or 'no driver'),
        _use(nic.users, 'free' if nic.free else 'not bound to vfio')]


def _draw_region(region: Region, nics: Sequence[Nic], columns: int, height: int) -> \
        Iterator[str]:
    """The elements of a socket of the host. height: the height of a GPU and of a NIC"""
    yield from _box(
        'used' if region.users else 'memory', _PAD, _TITLE, _left(columns) - _GAP - _PAD,
        _MEMORY, ('', f'{region.name}: {size_text(region.size) if region.size else "?"}'),
        ('small mono', region.device), _use(region.users, 'free'))
    top = _TITLE + _MEMORY + _STEP
    for i, gpu in enumerate(region.gpus):
        kind, rows = _gpu_box(gpu)
        yield from _link(i, _TITLE + _MEMORY, top)
        yield from _box(kind, _left(i), top, _BOX_WIDTH, height, *rows)
    top += height + _GAP if region.gpus else 0
    for i, nic in enumerate(nics):
        kind, rows = _nic_box(nic)
        yield from _box(kind, _left(i % columns), top + i // columns * (height + _GAP),
                        _BOX_WIDTH, height, *rows)


def host_picture(host: Host) -> str:
    """The picture of a host: the sockets that have regions, and the users of each device."""
    height = _height(5 if any(gpu.virtual for gpu in host.gpus) else 4)
    frames = []
    for region in host.regions:
        nics = [nic for nic in host.nics if nic.node == region.node]
        columns = max(len(region.gpus), 2)
        rows = bool(region.gpus) + -(-len(nics) // columns)
        title = f'NUMA node {region.node}' if region.node >= 0 else 'Unknown NUMA node'
        if host.cpus.get(region.node):
            title += (f': {sum(map(len, host.cpus[region.node]))} CPUs, '
                      f'{size_text(host.memory[region.node])} for the host')
        frames.append(_frame(
            title, columns, _TITLE + _MEMORY + _STEP + rows * (height + _GAP),
            _draw_region(region, nics, columns, height)))
    return _place(frames, f'A host with {len(host.regions)} regions of Extended GPU Memory and '
                  f'{len(host.gpus)} GPUs')
