"""Test that the audit of a watch finds each kind of fault, and allows uncertain entries."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from credit_models import CreditTransaction
from credit_testing.accounts.replay import History
from credit_testing.accounts.watches import watch_findings

USER, APP, OTHER = 7, 1, 2
BEGAN = 10
# The third entry is of another app. The requests of the last two were sent after the beginning.
APPS, ASKED = (APP, APP, OTHER, APP, APP), (1, 4, 9, 11, 12)
SHOWN = [
    CreditTransaction(id=f"{number}", user_id=USER, app_id=app, sequence=number)
    for number, app in enumerate(APPS, start=1)
]
HISTORY = History(shown=SHOWN, purchases=[], states=[], asked=list(ASKED))


def _entries(*sequences: int) -> list[CreditTransaction]:
    return [SHOWN[sequence - 1] for sequence in sequences]


@pytest.mark.parametrize("came", [(1, 2, 4, 5), (2, 4, 5), (4, 5)])
def test_a_watch_of_an_app_may_return_earlier_entries(came: Sequence[int]) -> None:
    assert not list(watch_findings("it", _entries(*came), HISTORY, app_id=APP, began=BEGAN))


@pytest.mark.parametrize("came", [(), (1,), (5,), (1, 4, 5), (2, 4), (4, 4, 5), (5, 4), (3, 4, 5)])
def test_a_watch_of_an_app_returns_each_later_entry_once_and_in_order(came: Sequence[int]) -> None:
    (finding,) = watch_findings("it", _entries(*came), HISTORY, app_id=APP, began=BEGAN)
    assert finding.startswith(f"it returned {list(came)} of user 7, not ")


@pytest.mark.parametrize(
    ("until", "came", "complete"),
    [
        *((0, (), True), (0, (2,), True), (4, (4,), True), (4, (4, 5), True), (4, (2, 4), True)),
        *((4, (), False), (4, (2,), False), (4, (5,), False)),
    ],
)
def test_a_watch_of_an_app_returns_the_entry_that_is_required(
    until: int, came: Sequence[int], *, complete: bool
) -> None:
    earlier = replace(HISTORY, asked=[BEGAN - 1] * len(SHOWN))
    findings = watch_findings("it", _entries(*came), earlier, app_id=APP, began=BEGAN, until=until)
    assert (not list(findings)) == complete


def test_a_watch_that_has_ended_may_miss_the_last_entries() -> None:
    assert not list(watch_findings("it", _entries(2, 3), HISTORY, revision=1, until=3))
    assert not list(watch_findings("it", _entries(2, 3, 4), HISTORY, revision=1, until=3))
    assert list(watch_findings("it", _entries(2), HISTORY, revision=1, until=3))


@pytest.mark.parametrize("came", [(2, 3, 4, 5), (4, 5), (3, 4), (3, 5), (3, 4, 4, 5), (3, 5, 4)])
def test_a_watch_of_a_user_returns_exactly_what_follows_its_revision(came: Sequence[int]) -> None:
    assert not list(watch_findings("it", _entries(3, 4, 5), HISTORY, revision=2))
    assert list(watch_findings("it", _entries(*came), HISTORY, revision=2))


def test_an_altered_entry_is_named_as_such() -> None:
    came = [*_entries(3, 4), replace(SHOWN[4], credits=1)]
    (finding,) = watch_findings("it", came, HISTORY, revision=2)
    assert finding.endswith("not [3, 4, 5]: an entry differs")


def test_a_watch_of_a_user_without_entries_returns_none() -> None:
    empty = History(shown=[], purchases=[], states=[], asked=[])
    assert not list(watch_findings("it", [], empty, revision=0))
    assert not list(watch_findings("it", [], empty))
