# SPDX-License-Identifier: GPL-2.0-or-later
"""A DSDT as the reference interpreter, ACPICA's acpiexec, loads and evaluates it."""

import dataclasses
import functools
import pathlib
import re
import tempfile
import uuid

from lib import process

# Device Properties UUID For _DSD
_PROPERTIES = uuid.UUID('daffd814-6eba-4d8c-8a91-bc9bbf4aa301').bytes_le
_NAMES = ['nvidia,egm-base-pa', 'nvidia,egm-size', 'nvidia,egm-pxm']


@dataclasses.dataclass(frozen=True)
class Device:
    """An ACPI Device with EGM properties."""
    path: str           # \_SB.PC20.S00.S00
    bus: int            # _BBN of the host bridge: the number of its root bus
    node: int           # _PXM of the host bridge, None: it has none
    adrs: tuple         # _ADR of each Device below the host bridge
    base: int           # bytes
    size: int           # bytes
    pxm: int


def _acpiexec(dsdt, *commands):
    """The output of acpiexec. It is an error if acpiexec complains about a table."""
    with tempfile.TemporaryDirectory(prefix='egm-acpi-') as directory:
        path = pathlib.Path(directory) / 'dsdt.aml'
        path.write_bytes(dsdt)
        # The argument of -b is limited to 1023 characters.
        text = process.output('acpiexec', '-l', path,
                              input='\n'.join((*commands, 'quit', '')))
    complaint = re.search(r'.*\b(AE_[A-Z_]+|Error|Warning)\b.*', text)
    if complaint:
        raise AssertionError(f'acpiexec: {complaint[0]}')
    return text


@functools.lru_cache(maxsize=None)
def namespace(dsdt):
    r"""All objects: type and value by path, \_SB.PC20._BBN."""
    path, found = [], {}
    for depth, name, kind, value in re.findall(
            r'(?m)^ ?(\d+) +(\w{4}) (\w+) +0x\w+ \d+ ?(.*)$',
            _acpiexec(dsdt, 'namespace')):
        path[int(depth):] = [name.rstrip('_')]
        # Addresses in acpiexec's own memory differ each time.
        found['\\' + '.'.join(path)] = kind, re.sub(r'0x\w+', '', value)
    return found


def _value(kind, text):
    """The value of an object that is not a package."""
    if kind == 'Integer':
        return int(text.split()[1], 16)
    if kind == 'String':
        return text.split('"')[1]
    if kind == 'Buffer':        # its first 16 bytes, as in a UUID
        return bytes.fromhex(re.search('0000: ((?:[0-9A-F]{2} )+)', text)[1])
    raise AssertionError(f'acpiexec: [{kind}] {text}')


def _values(text):
    """The objects that `evaluate` prints, packages as lists."""
    result = []
    packages = [(-1, result)]   # those that an object can be in, by indentation
    for indent, kind, rest in re.findall(r'(?m)^( *)\[(\w+)\] (.*)$', text):
        while packages[-1][0] >= len(indent):
            packages.pop()
        value = [] if kind == 'Package' else _value(kind, rest)
        packages[-1][1].append(value)
        if kind == 'Package':
            packages.append((len(indent), value))
    return result


def _evaluate(dsdt, *names):
    """The values of all objects of these names, by path."""
    paths = [path for path in namespace(dsdt) if path.rsplit('.', 1)[-1] in names]
    text = _acpiexec(dsdt, *(f'evaluate {path}' for path in paths))
    return dict(zip(paths, _values(text), strict=True))


def egm_devices(dsdt):
    """The Devices with EGM properties. Such a Device has these three and no other."""
    values = _evaluate(dsdt, '_ADR', '_BBN', '_DSD', '_PXM')
    result = []
    for path, value in values.items():
        if not path.endswith('._DSD') or 'nvidia,' not in str(value):
            continue
        if len(value) != 2 or value[0] != _PROPERTIES or \
                [name for name, _ in value[1]] != _NAMES:
            raise AssertionError(f'{path} is {value}')
        device, parts = path[:-len('._DSD')], path.split('.')[:-1]
        ways = ['.'.join(parts[:count]) for count in range(1, len(parts) + 1)]
        bridge, = (way for way in ways if f'{way}._BBN' in values)
        result.append(Device(
            device, values[f'{bridge}._BBN'], values.get(f'{bridge}._PXM'),
            tuple(values.get(f'{way}._ADR') for way in ways if len(way) > len(bridge)),
            *(number for _, number in value[1])))
    return result
