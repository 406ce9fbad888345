"""Every change of a history is found, and no history that the ledger wrote is rejected."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from credit_client import (
    Allocation,
    Checkpoint,
    CheckpointRejected,
    CreditTransaction,
    Finding,
    HistoryAltered,
    HistoryVerifier,
    Receipt,
    TransactionType,
    load_checkpoint,
)
from credit_client.cli.commands import app
from credit_client.cli.history import transaction_record
from credit_client.cli.output import record_of
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.verification import verified
from credit_models import ledger
from credit_models.hashes import transaction_hash
from credit_models.translation.messages import receipt_to_message, transaction_to_message
from typer.testing import CliRunner, Result

from tests.client.checkpoints import Operator
from tests.models.ledger.every_kind import every_kind

ENTRIES = every_kind().entries
# All of the user 7: the rows of app 1, with one of app 2 between them.
ROWS = [transaction_to_message(entry) for entry in ENTRIES[7]]
OTHER_APP = next(index for index, row in enumerate(ROWS) if row.app_id == 2)
# Those of requests: their clients have kept the receipts.
RECEIPTS = [
    receipt_to_message(ledger.Receipt(transaction=entry, replayed=False))
    for entry in ENTRIES[7]
    if entry.key
]
NOW = datetime(2026, 11, 30, tzinfo=UTC)
CHECKPOINT = Checkpoint(app_id=1, time=NOW, size=1, heads={7: ROWS[-1].hash})

# Any, here and below: the values of fields have many types.
CHANGED: dict[str, Any] = {
    "id": "0" * 24,
    "user_id": 9,
    "app_id": 3,
    "credits": 1,
    "created_at": NOW,
    "created_by": 99,
    "type": TransactionType.ADJUST,
    "balance_after": 123_456,
    "sequence": 10**6,
    "purchase_id": "1" * 24,
    "idempotency_key": "other",
    "effect": 77,
    "effective_at": NOW,
    "related_id": "2" * 24,
    "allocations": [Allocation(credits=999)],
    "metadata": {"added": "later"},
    "note": "Added later",
    "owed_after": 1,
    "report_id": "other",
    "report_name": "Other",
    "expires_at": NOW,
    "previous_hash": b"\x01" + bytes(32),
    "hash": b"\x01" + bytes(32),
}


def check(
    rows: Sequence[CreditTransaction],
    receipts: Sequence[Receipt] = (),
    checkpoint: Checkpoint | None = None,
) -> HistoryVerifier:
    verifier = HistoryVerifier(receipts=receipts, checkpoint=checkpoint)
    for row in rows:
        verifier.add(row)
    verifier.end()
    return verifier


def found(
    rows: Sequence[CreditTransaction],
    receipts: Sequence[Receipt] = (),
    checkpoint: Checkpoint | None = None,
) -> tuple[Finding, int]:
    with pytest.raises(HistoryAltered) as raised:
        check(rows, receipts, checkpoint)
    error = raised.value
    assert error.sequence == 0 or f"transaction {error.sequence}" in str(error)
    return error.finding, error.sequence


def chained(rows: Sequence[CreditTransaction]) -> list[CreditTransaction]:
    """Return the rows with new hashes, as someone who can write to the database makes them."""
    heads: dict[int, bytes] = {}
    made = []
    for row in rows:
        linked = replace(row, previous_hash=heads.get(row.app_id, b""))
        heads[row.app_id] = transaction_hash(linked)
        made.append(replace(linked, hash=heads[row.app_id]))
    return made


def test_a_history_with_every_kind_of_entry_is_sound() -> None:
    verifier = check(ROWS, RECEIPTS, CHECKPOINT)
    assert (verifier.verified, verifier.unhashed) == (len(ROWS), 0)
    other = [transaction_to_message(entry) for entry in ENTRIES[8]]
    assert check([*ROWS, *other]).verified == len(ROWS) + len(other)
    assert check([row for row in ROWS if row.app_id == 1], (), CHECKPOINT).verified
    assert chained(ROWS) == ROWS


@pytest.mark.parametrize("index", range(len(ROWS)), ids=lambda index: ROWS[index].type.name or "")
def test_a_change_of_each_field_of_each_kind_is_found(index: int) -> None:
    fields = {each.name for each in dataclasses.fields(CreditTransaction)}
    assert fields == CHANGED.keys()
    for name, value in CHANGED.items():
        changed = replace(ROWS[index], **{name: value})
        if changed == ROWS[index]:
            continue
        finding, sequence = found([*ROWS[:index], changed, *ROWS[index + 1 :]])
        assert finding is Finding.CHANGED
        assert sequence == changed.sequence


@pytest.mark.parametrize("index", range(len(ROWS) - 1))
def test_a_row_that_was_removed_is_found_at_the_next_one_of_the_app(index: int) -> None:
    rows = [*ROWS[:index], *ROWS[index + 1 :]]
    following = [row for row in rows[index:] if row.app_id == ROWS[index].app_id]
    if following:
        assert found(rows) == (Finding.CHAIN_BROKEN, following[0].sequence)
    else:
        # The last one of an app: only a receipt or a checkpoint of the app shows it.
        checkpoint = Checkpoint(app_id=2, time=NOW, size=1, heads={7: ROWS[index].hash})
        assert found(rows, (), checkpoint) == (Finding.CHECKPOINT_DIFFERS, 0)


@pytest.mark.parametrize("index", [1, 5, len(ROWS) - 2])
def test_a_row_that_was_inserted_is_found(index: int) -> None:
    inserted = replace(ROWS[index], id="3" * 24, idempotency_key="mine")
    # With a hash that is right, and with the next number.
    inserted = replace(inserted, previous_hash=ROWS[index - 1].hash)
    inserted = replace(inserted, hash=transaction_hash(inserted))
    moved = [replace(row, sequence=row.sequence + 1) for row in ROWS[index:]]
    assert found([*ROWS[:index], inserted, *moved]) == (Finding.CHANGED, moved[0].sequence)
    assert found([*ROWS[:index], inserted, *ROWS[index:]])[0] is Finding.OUT_OF_ORDER
    assert found([*ROWS[:index], inserted, *ROWS[index + 1 :]])[0] is Finding.CHAIN_BROKEN


def test_rows_that_were_swapped_are_found() -> None:
    first, second = ROWS[1:3]
    assert found([ROWS[0], second, first, *ROWS[3:]])[0] is Finding.CHAIN_BROKEN
    renumbered = [replace(second, sequence=2), replace(first, sequence=3)]
    assert found([ROWS[0], *renumbered, *ROWS[3:]]) == (Finding.CHANGED, 2)
    assert found([ROWS[0], ROWS[0]]) == (Finding.OUT_OF_ORDER, 1)


def test_the_end_of_a_history_is_shown_by_a_receipt_or_a_checkpoint() -> None:
    missing = RECEIPTS[-1].sequence
    rows = [row for row in ROWS if row.sequence < missing]
    assert check(rows).verified == len(rows)
    assert found(rows, RECEIPTS) == (Finding.RECEIPT_MISSING, missing)
    assert found(rows, (), CHECKPOINT) == (Finding.CHECKPOINT_DIFFERS, 0)


def test_a_history_that_was_written_again_is_shown_by_a_receipt_or_a_checkpoint() -> None:
    rows = chained([*ROWS[:3], replace(ROWS[3], note="Added later"), *ROWS[4:]])
    assert check(rows).verified == len(rows)
    assert found(rows, RECEIPTS) == (Finding.RECEIPT_DIFFERS, ROWS[3].sequence)
    assert found(rows, RECEIPTS[-1:])[0] is Finding.RECEIPT_DIFFERS
    assert found(rows, (), CHECKPOINT) == (Finding.CHECKPOINT_DIFFERS, 0)


@pytest.mark.parametrize(
    ("heads", "covered"),
    [({}, 0), ({7: ROWS[2].hash}, 3)],
    ids=["a user without transactions", "a user with some"],
)
def test_a_later_transaction_that_is_dated_before_the_checkpoint_is_found(
    heads: dict[int, bytes], covered: int
) -> None:
    assert covered <= OTHER_APP
    first = ROWS[covered].created_at
    assert first is not None
    # The clock of a server can be behind that of the store.
    for ahead in (timedelta(0), timedelta(hours=1)):
        checkpoint = Checkpoint(app_id=1, time=first + ahead, size=len(heads), heads=heads)
        assert check(ROWS, (), checkpoint).verified == len(ROWS)
    late = Checkpoint(app_id=1, time=first + timedelta(hours=2), size=len(heads), heads=heads)
    assert found(ROWS, (), late) == (Finding.CHECKPOINT_DIFFERS, ROWS[covered].sequence)
    # A checkpoint of an app does not cover another one.
    of_other = [row for row in ROWS if row.app_id == 2]
    assert check(of_other, (), replace(late, heads={})).verified == len(of_other)


def test_a_receipt_of_a_changed_history_contradicts_the_first_one() -> None:
    first, again = RECEIPTS[0], replace(RECEIPTS[0], replayed=True)
    assert check(ROWS, [first, again])
    other = replace(again, hash=b"\x01" + bytes(32))
    assert found(ROWS, [first, other]) == (Finding.RECEIPT_DIFFERS, 1)
    assert found(ROWS, [other, first]) == (Finding.RECEIPT_DIFFERS, 1)
    assert found(ROWS, [replace(first, sequence=2)]) == (Finding.RECEIPT_DIFFERS, 1)


def test_balances_that_do_not_add_up_are_found_even_with_right_hashes() -> None:
    wrong = chained([*ROWS[:3], replace(ROWS[3], balance_after=1), *ROWS[4:]])
    assert found(wrong) == (Finding.BALANCE_WRONG, ROWS[3].sequence)


def test_hashes_cannot_be_taken_away() -> None:
    bare = [replace(row, previous_hash=b"", hash=b"") for row in ROWS]
    assert found([*ROWS[:3], *bare[3:]]) == (Finding.HASH_MISSING, ROWS[3].sequence)
    assert found([*bare[:3], *ROWS[3:]]) == (Finding.CHAIN_BROKEN, ROWS[3].sequence)
    # The whole history: as if it was written before the chain began.
    verifier = check(bare)
    assert (verifier.verified, verifier.unhashed) == (0, len(ROWS))
    assert found(bare, RECEIPTS) == (Finding.RECEIPT_DIFFERS, RECEIPTS[0].sequence)
    assert found(bare, (), CHECKPOINT) == (Finding.CHECKPOINT_DIFFERS, 0)
    other_version = replace(ROWS[0], hash=b"\x02" + bytes(32))
    assert found([other_version]) == (Finding.VERSION_UNKNOWN, 1)


def test_a_chain_that_began_later_is_sound_and_what_precedes_it_must_add_up() -> None:
    bare = [replace(row, previous_hash=b"", hash=b"") for row in ROWS[:4]]
    rows = [*bare, *chained(ROWS[4:])]
    verifier = check(rows)
    assert (verifier.verified, verifier.unhashed) == (len(ROWS) - 4, 4)
    assert found([bare[0], *rows[2:]]) == (Finding.BALANCE_WRONG, 3)
    # Servers before 0.3.0 sent no effect.
    assert check([replace(row, effect=0) for row in bare[:2]]).unhashed == 2


def test_a_user_whose_history_was_removed_is_found_if_it_is_expected() -> None:
    verifier = HistoryVerifier(checkpoint=CHECKPOINT)
    verifier.expect(user_id=8)  # the checkpoint does not have this one
    verifier.end()
    verifier.expect(user_id=7)
    with pytest.raises(HistoryAltered) as raised:
        verifier.end()
    assert (raised.value.user_id, raised.value.app_id) == (7, 1)


def test_a_part_of_a_history_can_be_checked() -> None:
    verifier = HistoryVerifier(receipts=RECEIPTS, after_sequence=5)
    for row in ROWS[5:]:
        verifier.add(row)
    verifier.end()
    assert verifier.verified == len(ROWS) - 5
    with pytest.raises(HistoryAltered, match="not in the order"):
        HistoryVerifier(after_sequence=5).add(ROWS[4])


def test_a_checkpoint_is_not_compared_with_a_part_of_a_history() -> None:
    with pytest.raises(ValueError, match="leave out after_sequence"):
        HistoryVerifier(checkpoint=CHECKPOINT, after_sequence=5)


def test_an_empty_history_of_an_unknown_user_is_not_taken_for_a_sound_one() -> None:
    with pytest.raises(ValueError, match="call expect"):
        HistoryVerifier(checkpoint=CHECKPOINT).end()


def test_a_receipt_of_a_dry_run_proves_nothing() -> None:
    dry = Receipt(transaction_id="validated", sequence=99, validated=True)
    assert check(ROWS, [dry]).verified == len(ROWS)


# ---- the client


async def test_the_client_checks_a_list_before_it_returns_a_row() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as credits_:
        who: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 1}
        receipts = [await credits_.add(**who, credits=10) for _ in range(3)]
        replayed = await credits_.add(**who, credits=5, idempotency_key="k")
        assert (await credits_.add(**who, credits=5, idempotency_key="k")).hash == replayed.hash
        assert len({receipt.hash for receipt in receipts}) == 3
        rows = [row async for row in credits_.transactions(user_id=7, verify=True)]
        assert [row.hash for row in rows] == [*(each.hash for each in receipts), replayed.hash]
        verifier = HistoryVerifier(receipts=receipts)
        rows = [row async for row in credits_.transactions(user_id=7, verify=verifier)]
        assert verifier.verified == len(rows) == 4
        rows = [
            row async for row in credits_.transactions(user_id=7, after_sequence=2, verify=True)
        ]
        assert len(rows) == 2

        entries = service.ledger._users[7].entries
        second = receipts[1].transaction_id
        entries[second] = replace(entries[second], credits=11)
        listed = credits_.transactions(user_id=7, verify=True)
        assert (await anext(listed)).sequence == 1
        with pytest.raises(HistoryAltered, match="transaction 2 of user 7 in app 1 was changed"):
            await anext(listed)
        assert len([row async for row in credits_.transactions(user_id=7)]) == 4


async def test_the_client_finds_that_a_whole_history_was_removed() -> None:
    async with fake_credits() as credits_:
        verifier = HistoryVerifier(checkpoint=CHECKPOINT)
        with pytest.raises(HistoryAltered, match="the checkpoint of 2026-11-30 00:00 UTC"):
            _ = [row async for row in credits_.transactions(user_id=7, verify=verifier)]


async def test_leaving_a_loop_early_ends_the_list_and_checks_no_end() -> None:
    closed = []

    async def listed() -> Any:
        try:
            for row in ROWS:
                yield row
        finally:
            closed.append(True)

    rows = verified(listed(), HistoryVerifier(checkpoint=CHECKPOINT))
    assert await anext(rows) == ROWS[0]
    await rows.aclose()
    assert closed == [True]


# ---- the command


def _verify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["verify-history", *map(str, arguments)])


def _lines(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return _lines(tmp_path / "history.json", [transaction_record(row) for row in ROWS])


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_the_command_checks_an_export(history: Path, operator: Operator, tmp_path: Path) -> None:
    result = _verify(history)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"consistent: {len(ROWS)} transactions\n"
    assert "only a receipt or a checkpoint" in result.stderr

    receipts = _lines(tmp_path / "receipts.json", [record_of(receipt) for receipt in RECEIPTS])
    checkpoint = operator.checkpoint(1, {3: b"\x01" * 33, 7: ROWS[-1].hash, 9: b"\x01" * 33})
    signed = ["--checkpoint", checkpoint, "--key", operator.public_key]
    old = {name: value for name, value in record_of(RECEIPTS[0]).items() if name != "hash"}
    result = _verify(history, "--receipts", _lines(tmp_path / "receipts-0.3.0.json", [old]))
    assert result.exit_code == 0, result.output
    result = _verify(history, "--receipts", receipts, *signed, "--user", 7)
    assert result.exit_code == 0, result.output
    expected = f"{len(ROWS)} transactions, compared with {len(RECEIPTS)} receipts"
    assert result.stdout.startswith(f"not changed: {expected} and the checkpoint of ")

    result = _verify(history, "--checkpoint", checkpoint, "--key", operator.private_key)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{operator.private_key}: the key is not a public key in PEM" in result.stderr

    altered = _lines(tmp_path / "altered.json", [transaction_record(row) for row in ROWS[:-1]])
    result = _verify(altered, *signed)
    assert (result.exit_code, result.stdout) == (18, "")
    assert "the history of user 7 in app 1 does not have the transaction" in result.stderr
    empty = _lines(tmp_path / "empty.json", [])
    result = _verify(empty, *signed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Name the user with --user" in result.stderr
    assert _verify(empty, *signed, "--user", 7).exit_code == 18
    result = _verify(empty, "--receipts", receipts)
    assert (result.exit_code, result.stdout) == (18, "")
    assert "does not have transaction 1, which a receipt acknowledged" in result.stderr


@pytest.mark.parametrize("name", CHANGED)
def test_the_command_finds_a_change_of_each_field_of_a_file(history: Path, name: str) -> None:
    records = [json.loads(line) for line in history.read_text().splitlines()]
    records[3][name] = json.loads(json.dumps(_plain(CHANGED[name])))
    result = _verify(_lines(history, records))
    assert result.exit_code == 18, result.output
    assert "was changed: its hash does not match its fields" in result.stderr


def _plain(value: object) -> object:
    return record_of(_Value(value=value))["value"]


@dataclasses.dataclass
class _Value:
    value: object


def test_the_command_reports_rows_without_a_hash(tmp_path: Path) -> None:
    bare = [replace(row, previous_hash=b"", hash=b"") for row in ROWS[:2]]
    path = _lines(tmp_path / "old.json", [transaction_record(row) for row in bare])
    result = _verify(path)
    assert (result.exit_code, result.stdout) == (0, "consistent: 0 transactions\n")
    assert "2 transactions at the beginning without a hash" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,user_id\n1,2\n", "line 1 is not in the format of credit's JSON output"),
        ('{"id": "t"}\n', "line 1 is not in the format of credit's JSON output"),
        ("[]\n", "line 1 is not in the format of credit's JSON output"),
        ("\n\n7\n", "line 3 is not in the format of credit's JSON output"),
    ],
)
def test_a_file_that_is_no_export_is_misuse(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "history"
    path.write_text(content)
    result = _verify(path)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "make the file with -o json" in result.stderr


def test_a_checkpoint_needs_its_key(history: Path, tmp_path: Path) -> None:
    assert _verify(history, "--key", history).exit_code == 2
    assert _verify(history, "--checkpoint", history).exit_code == 2
    assert _verify(tmp_path / "missing").exit_code == 2


# ---- checkpoints

HEADS = {3: b"\x01" + bytes(32), 7: ROWS[-1].hash, 2**32 - 1: b"\x01" * 33}


def test_a_checkpoint_is_read_with_its_key(operator: Operator) -> None:
    file = operator.checkpoint(3, HEADS)
    read = load_checkpoint(file, key=operator.public_key)
    assert (read.app_id, read.size, read.heads) == (3, 3, HEADS)
    assert read.time == operator.time
    some = load_checkpoint(file, key=operator.public_key, user_ids={7, 8})
    assert (some.size, some.heads) == (3, {7: HEADS[7]})
    assert load_checkpoint(operator.checkpoint(4, {}), key=operator.public_key).heads == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "its heads are not those that were signed"),
        (lambda lines: [lines[0], *lines[2:]], "its heads are not those that were signed"),
        (
            lambda lines: [lines[0].replace('"user_id": 3', '"user_id": 4'), *lines[1:]],
            "its heads are not those that were signed",
        ),
        (
            lambda lines: [lines[0].replace("AQAA", "AQAB"), *lines[1:]],
            "its heads are not those that were signed",
        ),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "user 3 is listed after user 7"),
        (lambda lines: [*lines, lines[0]], "there are lines after the signed checkpoint"),
        (lambda lines: lines[:-1], "it is not the checkpoint of an app"),
        (lambda lines: [*lines[:-1], lines[-1].replace("\\n3\\n", "\\n4\\n")], "its signature"),
        (lambda lines: ["no json"], "it is not a checkpoint"),
        (lambda lines: ["[]"], "it is not a checkpoint"),
        (lambda lines: ['{"user_id": 3}'], "it is not a checkpoint"),
        (lambda lines: ['"checkpoint"'], "it is not a checkpoint"),
        (lambda lines: ['{"user_id": Infinity, "hash": ""}'], "it is not a checkpoint"),
        (lambda lines: ["[" * 100_000], "it is not a checkpoint"),
        (lambda lines: ['{"checkpoint": 3}'], "it is not the checkpoint of an app"),
    ],
)
def test_a_checkpoint_that_was_changed_is_rejected(
    operator: Operator, change: Callable[[list[str]], list[str]], message: str
) -> None:
    file = operator.checkpoint(3, HEADS)
    file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))
    with pytest.raises(CheckpointRejected, match=message):
        load_checkpoint(file, key=operator.public_key)


def test_a_checkpoint_of_another_key_is_rejected(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Operator(tmp_path / "other")
    with pytest.raises(CheckpointRejected, match="it is not signed with this key"):
        load_checkpoint(other.checkpoint(3, HEADS), key=operator.public_key)
    with pytest.raises(CheckpointRejected, match="the key is not a public key in PEM"):
        load_checkpoint(other.checkpoint(4, HEADS), key=other.private_key)
    other.make_another_kind_of_key()
    with pytest.raises(CheckpointRejected, match="the key is not an Ed25519 key"):
        load_checkpoint(operator.checkpoint(5, HEADS), key=other.public_key)


def test_the_time_of_a_checkpoint_has_milliseconds(operator: Operator) -> None:
    assert operator.time.microsecond % 1000 == 0
    assert abs(datetime.now(UTC) - operator.time) < timedelta(days=1)
