"""Check that each atomic batch took effect as a whole and at one place, or not at all.

Only writes whose keys are in no other batch or call are checked: another call can apply the rest.
Times are not compared, because a server whose clock is behind gives an entry the time of the user's
latest entry.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from credit_models import Receipt

from credit_testing.accounts.journal import Call, Together
from credit_testing.accounts.replay import History
from credit_testing.accounts.rules.requests import Write, is_dry_run

_Key = tuple[int, int, str]
"""The user, the app and the idempotency key of a write."""


def batch_findings(calls: Sequence[Call], histories: Mapping[int, History]) -> Iterator[str]:
    """Yield each atomic batch of which a part took effect, or whose entries are not adjacent.

    Args:
        calls: All calls.
        histories: The histories of all users.
    """
    sent: dict[tuple[_Key, ...], list[Call]] = {}
    for call in calls:
        if keys := tuple(_key(request) for request, _ in call.writes()):
            sent.setdefault(keys, []).append(call)
    senders = Counter(key for keys in sent for key in keys)
    entries = {
        (entry.user_id, entry.app_id, entry.key): entry.sequence
        for history in histories.values()
        for entry in history.entries
        if entry.key
    }
    for attempts in sent.values():
        batch = attempts[0].question
        if isinstance(batch, Together) and all(each.question == batch for each in attempts):
            own = {
                key
                for request in batch.requests
                if request.idempotency_key
                and senders[key := _key(request)] == 1
                and not is_dry_run(request)
            }
            yield from _part_findings(batch, own, entries)
            yield from _gap_findings(batch, own & entries.keys(), entries, histories)
            for attempt in attempts:
                yield from _answer_findings(attempt, own)


def _key(request: Write) -> _Key:
    assert request.user_id is not None
    return request.user_id, request.app_id, request.idempotency_key


def _part_findings(batch: Together, own: set[_Key], entries: Mapping[_Key, int]) -> Iterator[str]:
    missing, applied = own - entries.keys(), own & entries.keys()
    if missing and applied:
        yield f"only a part of {batch} took effect: {applied}, and not {missing}"


def _gap_findings(
    batch: Together,
    applied: Iterable[_Key],
    entries: Mapping[_Key, int],
    histories: Mapping[int, History],
) -> Iterator[str]:
    """Yield a user whose entries of the batch have an entry of another request between them."""
    keys = {_key(request) for request in batch.requests}
    places: dict[int, list[int]] = {}
    for key in applied:
        places.setdefault(key[0], []).append(entries[key])
    for user, own in places.items():
        for entry in histories[user].entries[min(own) - 1 : max(own)]:
            if entry.key and (entry.user_id, entry.app_id, entry.key) not in keys:
                yield f"{entry} is between the entries of {batch}"


def _answer_findings(call: Call, own: set[_Key]) -> Iterator[str]:
    """Yield a call that returns some of the receipts as new and others as replayed."""
    receipts = [
        answer
        for request, answer in call.writes()
        if isinstance(answer, Receipt) and _key(request) in own
    ]
    if len({receipt.replayed for receipt in receipts}) > 1:
        yield f"a part of the batch took effect before its retry: {call}"
