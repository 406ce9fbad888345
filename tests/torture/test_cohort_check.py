"""Test that the check finds each kind of fault in a record, and none in a correct record."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from credit_client.settings import ClientSettings
from credit_client.testing import FakeCreditService, fake_transport
from credit_models import CreditTransaction, Receipt, TransactionType, UserCredits
from credit_torture import main
from credit_torture.clients import Clients
from credit_torture.cohort import Cohort
from credit_torture.cohort_check import check_cohort
from credit_torture.counts import Counts
from credit_torture.record import Line, lines, message_line, message_of

OPERATIONS, PAUSE_SECONDS, SEED = 120, 0.002, 3
COHORTS_MAX = 50
SOME_ENTRIES = 4
"""So many that some were acknowledged before a read that shows all of them."""
USER = 100
OUTCOMES = {"acknowledged", "replayed", "refused", "unknown", "shown"}


@dataclass(kw_only=True, slots=True)
class Recorded:
    """The recorded lines of a cohort, which a test may change."""

    calls: list[Line]
    watches: dict[str, list[Line]]

    def save(self, folder: Path) -> None:
        for name, own in {"cohort-0000": self.calls, **self.watches}.items():
            text = "".join(json.dumps(line) + "\n" for line in own)
            (folder / f"{name}.ndjson").write_text(text)

    def read(self, kind: str) -> list[Line]:
        """Return the messages of the last read of a user."""
        last: list[Line] = [
            line["answer"]["messages"]
            for line in self.calls
            if line["question"].get("read") == kind and line["question"]["user"] == USER
        ][-1]
        return last

    def read_before_the_end(self) -> Line:
        """Return a read of the balances of a user after some entries."""
        return next(
            line
            for line in self.calls
            if line["question"].get("read") == "GetUserCredits"
            and not line.get("final")
            and line["answer"]["kind"] == "shown"
            and message_of(line["answer"]["messages"][0]).revision > SOME_ENTRIES
        )

    def read_of_a_revision(self) -> Line:
        """Return the first read that required a revision."""
        return next(line for line in self.calls if "min_revision" in line)

    def atomic_batch(self) -> Line:
        """Return the first atomic batch that had an effect and whose keys are in no other call."""
        calls = Counter(key for line in self.calls for key in _keys(line))
        return next(
            line
            for line in self.calls
            if line["answer"]["kind"] == "together"
            and all(_is_new(part) for part in line["answer"]["parts"])
            and all(calls[key] == 1 for key in _keys(line))
        )

    def purchases(self) -> list[Line]:
        """Return the purchases of the first user who has some, of the last read of this user."""
        last: dict[int, list[Line]] = {
            line["question"]["user"]: line["answer"]["messages"]
            for line in self.calls
            if line["question"].get("read") == "ListUserPurchases"
        }
        return next(rows for rows in last.values() if rows)

    def holds(self) -> Line:
        """Return the message of the first read that shows a hold."""
        shown: list[Line] = [
            message
            for line in self.calls
            if line["question"].get("read") == "ListHolds"
            for message in line["answer"]["messages"]
        ]
        return next(message for message in shown if message_of(message).holds)

    def acknowledged(self) -> list[Line]:
        """Return the additions that were sent once, in order, of the user with the most of them."""
        sent: dict[tuple[int, int, str], list[Line]] = {}
        for line in self.calls:
            for one in line["question"].get("requests", ()):
                request = message_of(one)
                key = request.user_id, request.app_id, request.idempotency_key
                sent.setdefault(key, []).append(line)
        found: dict[int, list[Line]] = {}
        for (user, _, _), (line, *again) in sent.items():
            (request, *_) = line["question"]["requests"]
            if not again and request["type"] == "CreditRequest" and _is_acknowledged(line):
                found.setdefault(user, []).append(line)
        return max(found.values(), key=len)


def _is_new(answer: Line) -> bool:
    """Return whether an answer is the receipt of a write that has just taken effect."""
    if answer["kind"] != "receipt":
        return False
    receipt = message_of(answer)
    return not receipt.replayed and not receipt.validated


def _keys(line: Line) -> set[str]:
    """Return the idempotency keys of a call."""
    return {message_of(one).idempotency_key for one in line["question"].get("requests", ())}


def _is_acknowledged(line: Line) -> bool:
    return bool(line["answer"]["kind"] == "receipt" and not message_of(line["answer"]).replayed)


@pytest.fixture(scope="module")
async def folder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Return the folder of a cohort that has called a ledger in this process.

    What the calls find depends on their order, which no seed decides. So cohorts are recorded until
    one has everything that the tests alter.
    """
    async with AsyncExitStack() as stack:
        for seed in range(SEED, SEED + COHORTS_MAX):
            folder = tmp_path_factory.mktemp("recorded")
            await _record(folder, seed, stack)
            if _is_complete(folder):
                yield folder
                return
    pytest.fail(f"none of {COHORTS_MAX} cohorts has a call of each kind")


async def _record(folder: Path, seed: int, stack: AsyncExitStack) -> None:
    service = FakeCreditService()
    transports = [
        await stack.enter_async_context(fake_transport(service, ClientSettings())) for _ in range(2)
    ]
    cohort = Cohort(0, folder, Clients(transports, Random(seed)), Counts(), Random(seed))
    await cohort.run(OPERATIONS, PAUSE_SECONDS, asyncio.Event())
    await cohort.finish()


def _recorded(folder: Path) -> Recorded:
    return Recorded(
        calls=list(lines(folder / "cohort-0000.ndjson")),
        watches={path.stem: list(lines(path)) for path in folder.glob("watch-*.ndjson")},
    )


def _is_complete(folder: Path) -> bool:
    recorded = _recorded(folder)
    try:
        recorded.read_before_the_end()
        recorded.read_of_a_revision()
        recorded.atomic_batch()
        recorded.purchases()
        recorded.holds()
    except (IndexError, StopIteration):
        return False
    return len(recorded.acknowledged()) > 2 and _outcomes(folder) >= OUTCOMES


def _outcomes(folder: Path) -> set[str]:
    return {outcome for _, outcome in check_cohort(folder, 0, []).calls}


@pytest.fixture
def recorded(folder: Path) -> Recorded:
    return _recorded(folder)


def test_a_sound_record_has_no_findings(folder: Path) -> None:
    checked = check_cohort(folder, 0, [])
    assert checked.findings == []
    assert checked.unchecked == 0
    assert checked.entries > OPERATIONS / 3
    assert checked.watched > 0


def _change(line: Line, **changes: Any) -> None:
    """Change fields of the message of a line. Any: fields have many types.

    `value ^ 1` is another value of the field, also if the value is the greatest one.
    """
    message = message_of(line)
    for name, value in changes.items():
        assert getattr(message, name) != value
        setattr(message, name, value)
    line.update(message_line(message))


def lose_an_acknowledged_entry(recorded: Recorded) -> None:
    """Remove the end of a history, starting with its last entry of a request.

    Later entries were due by time, and no call has acknowledged them.
    """
    rows = recorded.read("ListUserTransactions")
    requested = [index for index, row in enumerate(rows) if message_of(row).idempotency_key]
    del rows[requested[-1] :]


def lose_an_entry_in_the_middle(recorded: Recorded) -> None:
    del recorded.read("ListUserTransactions")[2]


def write_an_entry_twice(recorded: Recorded) -> None:
    rows = recorded.read("ListUserTransactions")
    rows.insert(1, rows[0])


def swap_two_entries(recorded: Recorded) -> None:
    rows = recorded.read("ListUserTransactions")
    rows[0], rows[1] = rows[1], rows[0]


def credit_other_than_was_acknowledged(recorded: Recorded) -> None:
    rows = recorded.read("ListUserTransactions")
    entry = next(row for row in rows if message_of(row).type is TransactionType.ADD)
    _change(entry, credits=message_of(entry).credits ^ 1)


def write_what_was_not_requested(recorded: Recorded) -> None:
    rows = recorded.read("ListUserTransactions")
    entry = message_of(rows[-1])
    assert isinstance(entry, CreditTransaction)
    entry.sequence, entry.idempotency_key = entry.sequence + 1, "unsent"
    rows.append(message_line(entry))


def refuse_what_took_effect(recorded: Recorded) -> None:
    line = recorded.acknowledged()[0]
    metadata = [["balance", "0"], ["credits", "1"]]
    line["answer"] = {"kind": "refused", "reason": "BALANCE_OVERFLOW", "metadata": metadata}


def deny_the_effect(recorded: Recorded) -> None:
    recorded.acknowledged()[0]["answer"] = {"kind": "no effect"}


def acknowledge_twice_as_new(recorded: Recorded) -> None:
    line = recorded.acknowledged()[0]
    recorded.calls.append({**line, "began": line["began"] + 1, "ended": line["ended"] + 1})


def apply_a_part_of_a_batch_before_its_retry(recorded: Recorded) -> None:
    line = recorded.atomic_batch()
    unanswered = {**line, "ended": line["began"], "answer": {"kind": "unknown"}}
    recorded.calls.append({**unanswered, "began": line["began"] - 1})
    _change(line["answer"]["parts"][0], replayed=True)


def apply_a_batch_in_two_transactions(recorded: Recorded) -> None:
    first, *_, last = recorded.acknowledged()
    recorded.calls.remove(last)
    first["ended"] = last["ended"]
    first["question"] = {
        "kind": "together",
        "requests": [*first["question"]["requests"], *last["question"]["requests"]],
    }
    first["answer"] = {"kind": "together", "parts": [first["answer"], last["answer"]]}


def acknowledge_a_write_that_is_nowhere(recorded: Recorded) -> None:
    _change(recorded.acknowledged()[0]["answer"], sequence=4_000)


def acknowledge_another_balance(recorded: Recorded) -> None:
    answer = recorded.acknowledged()[0]["answer"]
    receipt = message_of(answer)
    assert isinstance(receipt, Receipt)
    _change(answer, balance=receipt.balance ^ 1)


def acknowledge_in_another_order_than_time(recorded: Recorded) -> None:
    first, *_, last = recorded.acknowledged()
    for name in ("began", "ended"):
        first[name], last[name] = last[name], first[name]


def answer_with_an_internal_error(recorded: Recorded) -> None:
    recorded.calls[5]["answer"] = {"kind": "unforeseen", "error": "INTERNAL: a bug"}


def read_another_balance(recorded: Recorded) -> None:
    (balance,) = recorded.read("GetUserCredits")
    shown = message_of(balance)
    shown.balances[0].balance ^= 1
    balance.update(message_line(shown))


def read_less_than_the_required_revision(recorded: Recorded) -> None:
    recorded.read_of_a_revision()["min_revision"] += 1000


def lose_a_purchase(recorded: Recorded) -> None:
    del recorded.purchases()[0]


def lose_a_hold(recorded: Recorded) -> None:
    held = recorded.holds()
    message = message_of(held)
    del message.holds[0]
    held.update(message_line(message))


def total_another_sum(recorded: Recorded) -> None:
    (total,) = recorded.read("GetAppBalance of all")
    _change(total, balance=message_of(total).balance ^ 1)


def _of_user(recorded: Recorded) -> list[Line]:
    events = recorded.watches["watch-0000-0"]
    assert sum("entry" in event for event in events) > 3
    return events


def drop_an_event(recorded: Recorded) -> None:
    del _of_user(recorded)[2]


def drop_the_last_event(recorded: Recorded) -> None:
    events = _of_user(recorded)
    events.remove([event for event in events if "entry" in event][-1])


def send_an_event_twice(recorded: Recorded) -> None:
    events = _of_user(recorded)
    events.insert(2, events[2])


def swap_two_events(recorded: Recorded) -> None:
    events = _of_user(recorded)
    events[2], events[3] = events[3], events[2]


def alter_an_event(recorded: Recorded) -> None:
    entry = _of_user(recorded)[2]["entry"]
    _change(entry, credits=message_of(entry).credits ^ 1)


def end_a_watch(recorded: Recorded) -> None:
    recorded.watches["watch-0000-1"].insert(1, {"failed": "Unavailable()"})


def drop_an_event_of_an_app(recorded: Recorded) -> None:
    del recorded.watches["watch-0000-1"][4]


PLANTS: list[Callable[[Recorded], None]] = [
    lose_an_acknowledged_entry,
    lose_an_entry_in_the_middle,
    write_an_entry_twice,
    swap_two_entries,
    credit_other_than_was_acknowledged,
    write_what_was_not_requested,
    refuse_what_took_effect,
    deny_the_effect,
    acknowledge_twice_as_new,
    apply_a_part_of_a_batch_before_its_retry,
    apply_a_batch_in_two_transactions,
    acknowledge_a_write_that_is_nowhere,
    acknowledge_another_balance,
    acknowledge_in_another_order_than_time,
    answer_with_an_internal_error,
    read_another_balance,
    read_less_than_the_required_revision,
    lose_a_purchase,
    lose_a_hold,
    total_another_sum,
    drop_an_event,
    drop_the_last_event,
    send_an_event_twice,
    swap_two_events,
    alter_an_event,
    end_a_watch,
    drop_an_event_of_an_app,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_each_planted_fault_is_found(
    recorded: Recorded, tmp_path: Path, plant: Callable[[Recorded], None]
) -> None:
    plant(recorded)
    recorded.save(tmp_path)
    assert check_cohort(tmp_path, 0, []).findings


def _read_in_a_fault(recorded: Recorded) -> tuple[Line, list[tuple[int, int]]]:
    """Return the message of a read before the end, and a fault during this read."""
    line = recorded.read_before_the_end()
    (shown,) = line["answer"]["messages"]
    return shown, [(line["began"], line["ended"])]


def test_a_read_during_a_fault_may_show_an_earlier_state(
    recorded: Recorded, tmp_path: Path
) -> None:
    shown, faults = _read_in_a_fault(recorded)
    message = message_of(shown)
    shown.update(message_line(UserCredits(user_id=message.user_id)))
    recorded.save(tmp_path)
    assert check_cohort(tmp_path, 0, []).findings
    assert not check_cohort(tmp_path, 0, faults).findings


def test_a_read_during_a_fault_shows_no_state_that_never_existed(
    recorded: Recorded, tmp_path: Path
) -> None:
    shown, faults = _read_in_a_fault(recorded)
    message = message_of(shown)
    message.balances[0].balance = 4_000_000_000
    shown.update(message_line(message))
    recorded.save(tmp_path)
    (finding,) = check_cohort(tmp_path, 0, faults).findings
    assert "is none of the allowed" in finding


@pytest.mark.parametrize("broken", [False, True], ids=["sound", "broken"])
def test_the_command_checks_a_record_again(
    recorded: Recorded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: bool,
) -> None:
    if broken:
        lose_an_acknowledged_entry(recorded)
    journal = tmp_path / "journal"
    journal.mkdir()
    recorded.save(journal)
    monkeypatch.setattr(sys, "argv", ["credit-torture", "check", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == int(broken)
    shown = capsys.readouterr().out
    assert ("wrong: " in shown) is broken
    assert f"{len(recorded.calls):,} calls" in shown


def test_the_command_rejects_a_folder_without_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["credit-torture", "check", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert "is not a folder" in capsys.readouterr().err
