# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a check, of a host or of ACPI tables."""

from __future__ import annotations

import dataclasses

# PROBLEM keeps VMs from starting, or GPUs from their memory. USED is the state of
# what a VM has: another one cannot have it. UNREAD: nobody knows.
PASS, NOTE, USED, UNREAD, PROBLEM = 'pass', 'note', 'used', 'unread', 'problem'


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found."""
    id: str             # names the check, for programs: region-size
    level: str
    text: str           # for people
    subject: str = ''   # the region or GPU that it is about; empty: all of them
    hint: str = ''      # what to do, as a sentence
    command: str = ''   # what to do, as a command of a shell; it lasts

    def as_dict(self) -> dict:
        """For JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items()
                if value or name in ('id', 'level', 'text')}


def lines(findings: list[Finding]) -> list[str]:
    """Problems, then notes, each with what to do."""
    text = []
    for level, word in ((PROBLEM, 'problem'), (UNREAD, 'unread'), (NOTE, 'note')):
        for finding in findings:
            if finding.level != level:
                continue
            text.append(f'{word}: {finding.text}')
            text += [f'    {more}' for more in (
                finding.hint and f'Hint: {finding.hint}', finding.command) if more]
    return text
