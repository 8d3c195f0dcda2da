# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI tables, as iasl reads them."""

import dataclasses
import pathlib
import re
import subprocess

@dataclasses.dataclass(frozen=True)
class Device:
    """An ACPI Device with EGM properties."""
    path: str           # \_SB.PC20.S00.S00
    bus: int            # number of the root bus, _BBN of the host bridge
    adrs: tuple         # _ADR of each Device below the host bridge
    base: int           # bytes
    size: int           # bytes
    pxm: int


@dataclasses.dataclass(frozen=True)
class MemoryAffinity:
    """A Memory Affinity Structure of SRAT (ACPI 6.5, 5.2.16.2)."""
    index: int          # its place among the entries of SRAT
    base: int
    size: int
    pxm: int
    enabled: bool


def decode(directory, name, data):
    """Write a table to DIRECTORY and give the text that iasl makes of it."""
    path = pathlib.Path(directory) / f'{name.lower()}.aml'
    path.write_bytes(data)
    run = subprocess.run(['iasl', '-d', path.name], cwd=directory, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         check=False)
    text = path.with_suffix('.dsl')
    if run.returncode != 0 or not text.exists():
        raise RuntimeError(f'iasl cannot decode {path}:\n{run.stdout}')
    return text.read_text()


def _integer(text):
    """An integer as iasl writes it."""
    names = {'Zero': 0, 'One': 1, 'Ones': 2 ** 64 - 1}
    return names[text] if text in names else int(text, 16)


def _nodes(dsl):
    """(path, body) of each Scope and Device in the text of iasl."""
    opening = re.compile(r'\b(Scope|Device) \((\\?[\w.]+)\)\s*$')
    stack, bodies, pending = [], {}, None
    for line in dsl.splitlines():
        line = line.split('//')[0]
        match = opening.search(line)
        if match:
            pending = match.group(2)
        for brace in re.findall(r'[{}]', re.sub(r'"[^"]*"', '', line)):
            if brace == '{':
                stack.append(pending)
                pending = None
            else:
                stack.pop()
        names = [name for name in stack if name]
        path = '.'.join(names).replace('.\\', '\\')
        bodies.setdefault(path, []).append(line)
    return {path: '\n'.join(body) for path, body in bodies.items()}


def egm_devices(dsl):
    """The Devices with EGM properties, in the order of the table."""
    nodes = _nodes(dsl)

    def name(path, key):
        found = re.search(rf'Name \({key}, (\w+)\)', nodes.get(path, ''))
        return _integer(found.group(1)) if found else None

    result = []
    for path, body in nodes.items():
        prop = dict(re.findall(r'"nvidia,egm-([a-z-]+)",\s*(\w+)', body))
        if not prop:
            continue
        parts = path.split('.')
        bridge = next(i for i in range(1, len(parts) + 1)
                      if name('.'.join(parts[:i]), '_BBN') is not None)
        result.append(Device(
            path, name('.'.join(parts[:bridge]), '_BBN'),
            tuple(name('.'.join(parts[:i]), '_ADR')
                  for i in range(bridge + 1, len(parts) + 1)),
            _integer(prop['base-pa']), _integer(prop['size']),
            _integer(prop['pxm'])))
    return result


def memory_affinities(dsl):
    """The Memory Affinity Structures of SRAT, in the order of the table."""
    fields = re.findall(r'^(?:\[[^]]*\])? +(.*?) : (.*)$', dsl, re.M)
    entries = []
    for key, value in fields:
        if key == 'Subtable Type':
            entries.append({'type': value})
        elif entries:
            entries[-1].setdefault(key, value)
    return [MemoryAffinity(i, int(e['Base Address'], 16),
                           int(e['Address Length'], 16),
                           int(e['Proximity Domain'], 16),
                           e['Enabled'].strip() == '1')
            for i, e in enumerate(entries) if 'Memory Affinity' in e['type']]
