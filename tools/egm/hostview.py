# SPDX-License-Identifier: GPL-2.0-or-later
"""A host and what was found on it, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import NOTE, PROBLEM, USED, Finding
from .finding import lines as finding_lines
from .format import size_text, table
from .holders import User
from .hostinfo import Function, Gpu, Host, Nic, Region

_RESULTS = {NOTE: 'WARN', PROBLEM: 'FAIL'}


def _users_text(users: list[User], gpu: Gpu | None) -> str:
    """The users of a region and of a GPU, each once."""
    names = [str(user) for user in users + (gpu.users if gpu else [])]
    return ', '.join(dict.fromkeys(names + (['vGPU'] if gpu and gpu.vgpu else [])))


def _rows(host: Host) -> Iterator[tuple[str, ...]]:
    """A row for each GPU, and for each region without."""
    for region in host.regions:
        size = size_text(region.size) if region.size else '?'
        node = str(region.node) if region.node >= 0 else '-'
        users, none = region.users, '-'
        for gpu in region.gpus or [None]:
            yield (region.name, size, node, _users_text(users, gpu) or none) + (
                ('-',) * 5 if not gpu else
                (gpu.address, f'{gpu.vendor:04x}:{gpu.device:04x}',
                 gpu.driver or '-', gpu.group or '-', gpu.cdev or '-'))
            # The next GPU of the region stands below.
            size = node = none = ''
            users = []


def _nic_row(nic: Nic) -> tuple[str, ...]:
    return (nic.address, ', '.join(nic.interfaces) or '-',
            str(nic.node) if nic.node >= 0 else '-', _users_text(nic.users, None) or '-',
            f'{nic.vendor:04x}:{nic.device:04x}', nic.driver or '-', nic.group or '-',
            nic.cdev or '-')


def host_lines(host: Host, found: list[Finding]) -> list[str]:
    """The host as a table, then problems and notes."""
    text = []
    if host.regions:
        text += table([('region', 'size', 'node', 'used by', 'GPU', 'device',
                        'driver', 'IOMMU group', 'vfio device'), *_rows(host)])
    if host.nics:
        text += ['', *table([('NIC', 'interface', 'node', 'used by', 'device', 'driver',
                              'IOMMU group', 'vfio device'), *map(_nic_row, host.nics)])]
    more = finding_lines(found)
    return text + ([''] if text and more else []) + more


def check_lines(found: list[Finding]) -> list[str]:
    """A line for each check: PASS, WARN or FAIL. What is in use is as it should be."""
    width = max(len(f.id) for f in found)
    text = []
    for finding in found:
        text.append(f'{_RESULTS.get(finding.level, "PASS")}  {finding.id:{width}}  '
                    f'{finding.text}')
        text += [' ' * (8 + width) + more for more in (
            finding.hint and f'Hint: {finding.hint}', finding.command) if more]
    return text


def metric_lines(found: list[Finding]) -> list[str]:
    """The checks as metrics, in the text format of Prometheus. One that found several things
    about a subject has the worst result."""
    levels = {NOTE: 1, PROBLEM: 2}
    results: dict[tuple[str, str], int] = {}
    for f in found:
        key = f.id, f.subject
        results[key] = max(results.get(key, 0), levels.get(f.level, 0))
    in_use = {f.subject: int(f.level == USED) for f in found
              if f.id in ('region-use', 'gpu-use', 'gpu-vgpu')}
    return ['# HELP egm_check Result of a check: 0 PASS, 1 WARN, 2 FAIL',
            '# TYPE egm_check gauge',
            *(f'egm_check{{check="{name}",subject="{subject}"}} {value}'
              for (name, subject), value in results.items()),
            '# HELP egm_in_use Whether a region or GPU is in use',
            '# TYPE egm_in_use gauge',
            *(f'egm_in_use{{subject="{subject}"}} {value}' for subject, value in in_use.items())]


def _users_data(users: list[User]) -> list[dict]:
    return [{'pid': user.pid, 'name': user.name} for user in users]


def _function_data(gpu: Function) -> dict:
    return {'address': gpu.address, 'physical-function': gpu.physical,
            'present': gpu.present, 'vendor': gpu.vendor, 'device': gpu.device,
            'node': gpu.node, 'driver': gpu.driver, 'iommu-group': gpu.group,
            'vfio-device': gpu.cdev, 'users': _users_data(gpu.users), 'free': gpu.free}


def _region_data(region: Region) -> dict:
    return {'name': region.name, 'device': region.device, 'size': region.size,
            'node': region.node, 'users': _users_data(region.users),
            'gpus': [{**_function_data(gpu), 'mediated-devices': gpu.mdevs}
                     for gpu in region.gpus]}


def host_data(host: Host, found: list[Finding]) -> dict:
    """For JSON. Sizes are bytes; a node of -1 and an empty text mean: none."""
    return {'architecture': host.arch, 'kernel': host.kernel,
            'page-size': host.page_size, 'iommufd': host.iommufd,
            'regions': [_region_data(region) for region in host.regions],
            'nics': [{**_function_data(nic), 'interfaces': nic.interfaces}
                     for nic in host.nics],
            'findings': [f.as_dict() for f in found if f.level in (NOTE, PROBLEM)]}


def check_data(found: list[Finding]) -> dict:
    """For JSON: each check with its result."""
    return {'checks': [{'result': _RESULTS.get(f.level, 'PASS'), **f.as_dict()}
                       for f in found]}
