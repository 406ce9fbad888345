"""Check what was recorded of one cohort against its histories."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from credit_models import Receipt
from credit_testing.accounts.auditor import audit_replayed
from credit_testing.accounts.journal import Call, Journal, Read, Together, Written
from credit_testing.accounts.replay import History, Inexplicable, Replay
from credit_testing.accounts.rules.decision import Refused
from credit_testing.accounts.rules.requests import users_of
from credit_testing.accounts.windows import Windows

from credit_torture.cohort import path_of, users_of_cohort
from credit_torture.counts import kind_of, outcome_of
from credit_torture.record import Line, call_of, lines
from credit_torture.watch_check import watch_findings

SKEW = timedelta(seconds=4)
"""How far the clocks of two servers may differ: each may be 2 s from that of MongoDB."""
_STATES_MAX = 3000
"""The most combinations of states in which a rejection is checked. See `_is_too_wide`."""
_AFTERMATH_NANOSECONDS = 15 * 10**9
"""How long after a fault a read may return old data: a primary that was cut off or suspended does
not detect at once that there is a new primary."""

Interval = tuple[int, int]


@dataclass(kw_only=True, slots=True)
class Checked:
    """The result of the check of one or more cohorts.

    Attributes:
        findings: One sentence for each violation.
        calls: The calls by kind and outcome.
        acknowledged: When writes were acknowledged, in nanoseconds.
        entries: The entries of the histories.
        reads: The reads that were compared with the histories.
        watched: The events of watches.
        unchecked: Rejections that were not checked, because too many states were possible.
    """

    findings: list[str] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    acknowledged: list[int] = field(default_factory=list)
    entries: int = 0
    reads: int = 0
    watched: int = 0
    unchecked: int = 0

    def add(self, other: "Checked") -> None:
        """Add the result of another cohort."""
        self.findings += other.findings
        self.calls += other.calls
        self.acknowledged += other.acknowledged
        self.entries += other.entries
        self.reads += other.reads
        self.watched += other.watched
        self.unchecked += other.unchecked


def check_cohort(folder: Path, number: int, faults: Collection[Interval]) -> Checked:
    """Check the calls and watches of a cohort.

    Args:
        folder: The folder with the files of the run.
        number: The number of the cohort.
        faults: When there were faults, in nanoseconds.
    """
    recorded = sorted(lines(path_of(folder, number)), key=lambda line: line["began"])
    checked = Checked()
    journal = Journal()
    for line in recorded:
        call = call_of(line)
        journal.calls.append(call)
        checked.calls[kind_of(call), outcome_of(call)] += 1
        if isinstance(call.question, Read):
            call.loose = not line.get("final") and _is_disturbed(call, faults)
            checked.reads += not call.loose
            checked.findings += _behind(call, line)
        elif isinstance(call.answer, Receipt) and call.ended is not None:
            checked.acknowledged.append(call.ended)
    try:
        replay = Replay(journal, users_of_cohort(number), {}, clocks_differ=True)
    except Inexplicable as finding:
        checked.findings.append(f"cohort {number}: {finding}")
        return checked
    checked.entries = sum(len(history.entries) for history in replay.histories.values())
    checked.unchecked = _set_aside(journal.calls, replay.histories)
    checked.findings += audit_replayed(journal, replay, skew=SKEW)
    for path in sorted(folder.glob(f"watch-{number:04}-*.ndjson")):
        events = list(lines(path))
        checked.watched += sum("entry" in event for event in events)
        checked.findings += watch_findings(path.stem, events, replay.histories)
    return checked


def _is_disturbed(call: Call, faults: Collection[Interval]) -> bool:
    return call.ended is None or any(
        began <= call.ended and call.began <= ended + _AFTERMATH_NANOSECONDS
        for began, ended in faults
    )


def _behind(call: Call, line: Line) -> Iterator[str]:
    """Yield each read whose answer is older than the revision that it required."""
    required = line.get("min_revision")
    if required is None or not isinstance(call.answer, list):
        return
    for message in call.answer:
        if message.revision < required:
            yield f"a read that required revision {required} returned {message}"


def _set_aside(calls: Sequence[Call], histories: Mapping[int, History]) -> int:
    """Exclude rejections for which too many states are possible; return how many there are.

    A rejection is checked in each combination of the states of its users. If a call of several
    users waited for a whole fault, there are too many combinations.
    """
    journal = Journal()
    journal.calls.extend(calls)
    windows = Windows(journal, histories, SKEW)
    wide = [call for call in calls if _is_rejected(call) and _is_too_wide(call, windows)]
    for call in wide:
        call.loose = True
    return len(wide)


def _is_rejected(call: Call) -> bool:
    if isinstance(call.answer, tuple):
        return any(isinstance(one, Refused) for one in call.answer)
    return isinstance(call.answer, Refused)


def _is_too_wide(call: Call, windows: Windows) -> bool:
    requests = (
        [call.question.request]
        if isinstance(call.question, Written)
        else call.question.requests
        if isinstance(call.question, Together)
        else []
    )
    users = {user for request in requests for user in users_of(request)}
    bounds = [windows.bounds(call, user) for user in users]
    return math.prod(last - first + 1 for first, last in bounds) > _STATES_MAX
