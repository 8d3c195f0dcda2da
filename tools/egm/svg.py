# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of a VM: sockets, regions, nodes, bridges, GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from .format import number_list, size_text
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
  path { fill: none; stroke: #8c959f; stroke-width: 1.5 }
  .link { stroke: #1a7f37; stroke-width: 4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .socket { fill: #151b23; stroke: #3d444d }
    .memory { fill: #12261e; stroke: #3fb950 }
    .gpu { fill: #121d2f; stroke: #4493f8 }
    .bridge { fill: #0d1117; stroke: #656c76 }
    path { stroke: #656c76 }
    .link { stroke: #3fb950 }
  }
'''
_GPU_WIDTH, _GAP, _PAD = 190, 16, 16
_TITLE, _MEMORY, _GPU, _BRIDGE = 34, 76, 76, 52     # heights
_STEP = 40                      # between two layers


def _box(kind: str, x: int, y: int, width: int, height: int,
         *rows: tuple[str, str]) -> Iterator[str]:
    """A rectangle with lines of text: (class, text)."""
    yield (f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" '
           f'height="{height}"/>')
    for i, (style, text) in enumerate(rows):
        yield (f'<text class="{style}" x="{x + 12}" y="{y + 22 + 19 * i}">'
               f'{escape(text)}</text>')


def _memory_text(nodes: list[int]) -> str:
    """The nodes of a GPU's initiators."""
    return f'own memory: node{"s" * (len(nodes) > 1)} {number_list(nodes)}'


def _draw_socket(socket: Socket, base: int, x: int, width: int) -> Iterator[str]:
    """The elements of a socket, at its place."""
    host = f', host node {socket.region.node}' if socket.region.node >= 0 else ''
    memory = _TITLE
    gpus = memory + _MEMORY + _STEP
    bridge = gpus + _GPU + _STEP
    inside, wide = x + _PAD, width - 2 * _PAD
    yield from _box('socket', x, 0, width, bridge + _BRIDGE + _PAD)
    yield (f'<text class="title" x="{inside}" y="23">Socket {socket.node}{host}'
           '</text>')
    yield from _box(
        'memory', inside, memory, wide, _MEMORY,
        ('', f'{socket.region.name}: {size_text(socket.size)}'
         f' = RAM of guest node {socket.node}'),
        ('small mono', f'{base:#x}-{base + socket.size - 1:#x}'),
        ('small', f'vCPU {number_list(socket.cpus)}'))
    for i, gpu in enumerate(socket.gpus):
        left = inside + i * (_GPU_WIDTH + _GAP)
        middle = left + _GPU_WIDTH // 2
        yield (f'<path class="link" d="M{middle} {memory + _MEMORY}V{gpus}"/>')
        if i == 0:
            yield (f'<text class="small" x="{middle + 10}" '
                   f'y="{memory + _MEMORY + 25}">NVLink-C2C</text>')
        yield f'<path d="M{middle} {gpus + _GPU}V{bridge}"/>'
        yield (f'<text class="small mono" x="{middle + 8}" '
               f'y="{gpus + _GPU + 25}">{gpu.port}</text>')
        yield from _box(
            'gpu', left, gpus, _GPU_WIDTH, _GPU,
            ('', gpu.name), ('small mono', gpu.host.address),
            ('small', _memory_text(gpu.initiators)))
        yield from _box(
            'bridge', left, bridge, _GPU_WIDTH, _BRIDGE,
            ('', f'{gpu.bridge}: PCI host bridge'),
            ('small', f'of node {socket.node}, bus {gpu.bus:#x}'))


def picture(vm: Vm) -> str:
    """An SVG document in ASCII that is legible on light and dark backgrounds."""
    body: list[str] = []
    x, base = 0, _RAM_BASE
    for socket in vm.sockets:
        count = max(len(socket.gpus), 2)
        width = count * _GPU_WIDTH + (count - 1) * _GAP + 2 * _PAD
        body += _draw_socket(socket, base, x, width)
        x, base = x + width + _GAP, base + socket.size
    width = x - _GAP
    height = _TITLE + _MEMORY + _GPU + _BRIDGE + 2 * _STEP + _PAD
    label = (f'A VM with {len(vm.sockets)} sockets and {len(vm.gpus)} GPUs on '
             'Extended GPU Memory')
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} '
        f'{height + 2}" width="{width + 2}" height="{height + 2}" role="img" '
        f'aria-label="{label}">', f'<style>{_STYLE}</style>', *body, '</svg>'])
