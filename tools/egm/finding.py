# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a check, of a host or of ACPI tables."""

from __future__ import annotations

import dataclasses

# PROBLEM: VMs do not start, or GPUs cannot use their memory. USED: a VM has the
# device, so another VM cannot have it. UNREAD: the state is unknown.
PASS, NOTE, USED, UNREAD, PROBLEM = 'pass', 'note', 'used', 'unread', 'problem'


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""
    id: str             # names the check, for programs: region-size
    level: str
    text: str           # for people
    subject: str = ''   # the region or GPU that it is about; empty: all of them
    hint: str = ''      # what to do, as a sentence
    command: str = ''   # what to do, as a shell command with a permanent effect

    def as_dict(self) -> dict:
        """For JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items()
                if value or name in ('id', 'level', 'text')}


def lines(findings: list[Finding]) -> list[str]:
    """Lines with problems, then notes, each with its command or hint."""
    text = []
    for level, word in ((PROBLEM, 'problem'), (UNREAD, 'unread'), (NOTE, 'note')):
        for finding in findings:
            if finding.level != level:
                continue
            text.append(f'{word}: {finding.text}')
            text += [f'    {more}' for more in (
                finding.hint and f'Hint: {finding.hint}', finding.command) if more]
    return text
