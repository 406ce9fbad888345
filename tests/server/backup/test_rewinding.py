"""Test that a backup of an earlier moment equals an export at that moment."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64
from credit_models.ledger import Kind, Transaction
from credit_server import main
from credit_server.backup import chunk
from credit_server.backup.errors import BackupUnusable
from credit_server.backup.export import export
from credit_server.backup.manifest import Manifest
from credit_server.backup.rewinding import Rewound, _Ledger, rewind
from credit_server.store.exporting import open_reader
from credit_server.store.extended_json import from_line
from credit_server.verify.run import Target
from credit_testing.server import migrated
from pymongo import MongoClient

from tests.server.verify.checking import check
from tests.server.verify.histories import Histories
from tests.server.verify.stored import store

Document = dict[str, Any]  # values of BSON

SECOND = timedelta(seconds=1)


class World:
    """A ledger that grows, and its backups.

    Attributes:
        histories: The histories.
    """

    def __init__(self, uri: str, database: str, folder: Path, seed: int) -> None:
        self.uri, self.database, self._folder = uri, database, folder
        self.histories = Histories(seed)
        self._numbers = itertools.count(1)

    def folder(self) -> Path:
        """Return the name of a new folder."""
        return self._folder / f"backup-{next(self._numbers)}"

    def export(self, *, secrets: bool = True) -> Manifest:
        """Store the histories, and export them."""
        asyncio.run(migrated(self.uri, self.database))
        with MongoClient[Document](self.uri, tz_aware=True) as client:
            for name in client[self.database].list_collection_names():
                if name != "schema_version":
                    client[self.database][name].delete_many({})
            store(client[self.database], self.histories)
            self.add(client[self.database])
        with open_reader(self.uri, database=self.database, timeout_seconds=30) as reader:
            return export(reader, self.folder(), secrets=secrets, advance=lambda _: None)

    def add(self, database: Any) -> None:  # Any: a database
        """Add documents that have no history."""

    def rewind(self, source: Manifest, until: datetime) -> Rewound:
        return rewind(source, self.folder(), until, lambda _: None)


@pytest.fixture
def world(mongod_uri: str, database: str, tmp_path: Path, seed: int) -> World:
    return World(mongod_uri, database, tmp_path, seed)


def _documents(manifest: Manifest) -> dict[str, list[Document]]:
    """Return the documents of a backup, without the ids that the database generated."""
    found: dict[str, list[Document]] = {}
    for each in manifest.chunks:
        lines = chunk.read_lines(manifest.folder, each)
        found.setdefault(each.collection, []).extend(map(from_line, lines))
    for name in ("user_credits", "app_policies", "webhooks"):
        for document in found.get(name, ()):
            del document["_id"]
    return found


def test_the_backup_of_an_earlier_moment_is_what_was_exported_then(world: World) -> None:
    histories = world.histories
    histories.play(300)
    histories.end()
    until, before = histories.now, world.export()
    histories.now += SECOND
    histories.play(300)
    later = world.export()
    expected = _documents(before)
    kinds = {each["type"] for each in expected["credit_transactions"]}
    assert {Kind.USE.value, Kind.HOLD.value, Kind.TRANSFER_IN.value} <= kinds
    for at in (until, until + SECOND - timedelta(microseconds=1)):
        assert _documents(world.rewind(later, at).manifest) == expected
    # All of it, and nothing of it.
    now = datetime.fromisoformat(later.header.moment)
    assert _documents(world.rewind(later, now).manifest) == _documents(later)
    with pytest.raises(BackupUnusable, match="has no entry of 2020-01-01T"):
        world.rewind(later, datetime(2020, 1, 1, tzinfo=UTC))


def test_the_command_imports_an_earlier_moment_which_is_sound(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    histories = world.histories
    histories.play(200)
    histories.end()
    until, before = histories.now, world.export()
    histories.now += SECOND
    histories.play(200)
    later = world.export()
    with MongoClient[Document](world.uri) as client:
        client.drop_database(world.database)
    monkeypatch.setenv("CREDIT_MONGODB_URI", world.uri)
    common = ["import", "--folder", str(later.folder), "--mongodb-database", world.database]
    for wrong in ("yesterday", "2026-11-30T12:00"):
        assert main.run([*common, "--until", wrong]) == 2
        assert f"{wrong!r} is not a time such as" in capsys.readouterr().err
    assert main.run([*common, "--until", until.isoformat(), "--check"]) == 2
    capsys.readouterr()
    assert main.run([*common, "--until", until.isoformat()]) == 0
    shown = capsys.readouterr().out
    moment = until.isoformat(timespec="milliseconds")
    assert f"imported {before.records} documents, as of {moment}" in shown
    entries = [len(_documents(each)["credit_transactions"]) for each in (before, later)]
    assert f"kept {entries[0]} of {entries[1]} entries\n" in shown
    assert "newest event of alerts: position " in shown
    ledger = Target(uri=world.uri, database=world.database, timeout_seconds=30)
    found = asyncio.run(check(ledger))
    assert (found.findings, found.entries) == ([], len(_documents(before)["credit_transactions"]))


class _WithOthers(World):
    """A world with documents of the kinds that have no history.

    Attributes:
        time: The time of the documents.
    """

    time = datetime(2026, 1, 1, tzinfo=UTC)

    def add(self, database: Any) -> None:
        common: Document = {"created_at": self.time, "created_by": Int64(1)}
        database["directory"].insert_one(
            {"_id": Int64(100), "app_id": Int64(1), "external_id": "u", "created_at": self.time}
        )
        events = database.get_collection("alert_events")
        for position, time in ((10**6, self.time - SECOND), (10**6 + 1, self.time)):
            event = {"position": Int64(position), "created_at": time}
            events.insert_one(event, bypass_document_validation=True)
        database["webhooks"].insert_one(
            {"app_id": Int64(1), "url": "https://example.org", "secret": "s", **common}
        )
        for app_id, revision in ((5, 1), (6, 2)):
            database["app_policies"].insert_one(
                {
                    "app_id": Int64(app_id),
                    "allow_negative": False,
                    "revision": Int64(revision),
                    "updated_at": self.time,
                    "updated_by": Int64(1),
                }
            )


def test_what_has_no_history_is_left_out_if_it_was_made_later_or_kept_as_it_is(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    world = _WithOthers(mongod_uri, database, tmp_path, 1)
    world.histories.play(100)
    world.histories.end()
    world.time = world.histories.now + 2 * SECOND
    made = world.export()
    all_ = _documents(made)
    same = world.rewind(made, world.time)
    assert (same.policies, same.newest_event) == ([], 10**6 + 1)
    assert _documents(same.manifest) == all_
    earlier = world.rewind(made, world.time - SECOND)
    assert earlier.newest_event == 10**6
    assert {5, 6} & set(earlier.policies) == {6}
    found = _documents(earlier.manifest)
    assert set(all_) - set(found) == {"webhooks"}
    assert {5, 6} & {each["app_id"] for each in found["app_policies"]} == {6}
    # Apps keep the numbers of users, so a number stays that of its user.
    assert found["directory"] == all_["directory"]


def test_a_moment_after_the_backup_is_rejected(world: World) -> None:
    world.histories.play(100)
    world.histories.end()
    made = world.export()
    later = datetime.fromisoformat(made.header.moment) + SECOND
    with pytest.raises(BackupUnusable, match="name an earlier time"):
        world.rewind(made, later)


def test_a_damaged_account_is_rebuilt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.histories.play(100)
    world.histories.end()
    made = world.export()
    expected = _documents(made)

    def damaged(line: bytes) -> Document:
        document = from_line(line)
        return {**document, "balances": "none"} if "balances" in document else document

    monkeypatch.setattr("credit_server.backup.rewinding.from_line", damaged)
    assert _documents(world.rewind(made, world.histories.now).manifest) == expected


def test_entries_that_are_referred_to_are_read_in_few_passes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.histories.play(300)
    world.histories.end()
    made = world.export()
    expected = _documents(made)
    passes: list[int] = []

    def counted(ledger: _Ledger, user_id: int) -> Iterator[Transaction]:
        passes.append(user_id)
        return transactions(ledger, user_id)

    transactions = _Ledger.transactions
    monkeypatch.setattr(_Ledger, "transactions", counted)
    monkeypatch.setattr("credit_server.verify.user_book._KEPT_MAX", 1)
    assert _documents(world.rewind(made, world.histories.now).manifest) == expected
    users = Counter(passes)
    # Two passes, and again where the book is made again, which is itself a pass.
    assert users
    assert max(users.values()) <= 5
    # Also if each pass finds few of them.
    monkeypatch.setattr("credit_server.backup.rewinding._SOUGHT_MAX", 2)
    assert _documents(world.rewind(made, world.histories.now).manifest) == expected


def test_an_error_names_each_user_whose_history_is_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.histories.play(100)
    world.histories.end()
    made = world.export()
    users = {each["user_id"] for each in _documents(made)["credit_transactions"]}

    def changed(line: bytes) -> Document:
        document = from_line(line)
        return {**document, "note": "changed"} if "sequence" in document else document

    monkeypatch.setattr("credit_server.backup.rewinding.from_line", changed)
    with pytest.raises(BackupUnusable) as raised:
        world.rewind(made, world.histories.now)
    assert len(users) > 1
    assert all(f"history of user {user} is damaged" in str(raised.value) for user in users)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"created_at": None}, "a document is damaged"),
        ({"created_at": datetime(2026, 11, 1, tzinfo=UTC)}, "because a clock was wrong"),
        ({"note": "changed"}, "is damaged"),
        ({"type": "unknown"}, "cannot be read"),
    ],
)
def test_histories_from_which_no_account_follows_are_rejected(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Document, why: str
) -> None:
    world.histories.play(100)
    world.histories.end()
    made = world.export()

    def changed(line: bytes) -> Document:
        document = from_line(line)
        return {**document, **change} if document.get("sequence") == 2 else document

    monkeypatch.setattr("credit_server.backup.rewinding.from_line", changed)
    with pytest.raises(BackupUnusable, match=why):
        world.rewind(made, world.histories.now)


def test_a_moment_between_the_sides_of_a_transfer_is_rejected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.histories.play(300)
    made = world.export()
    entries = {each["_id"]: each for each in _documents(made)["credit_transactions"]}
    taken, added = next(
        (entries[each["related_id"]], each)
        for each in entries.values()
        if each["type"] == "transfer_in"
        and entries[each["related_id"]]["user_id"] != each["user_id"]
    )

    def late(line: bytes) -> Document:
        """Return a document. Entries of the transfer's target get a time some weeks later."""
        document = from_line(line)
        is_of_target = document.get("user_id") == added["user_id"]
        if is_of_target and document.get("sequence", 0) >= added["sequence"]:
            document["created_at"] += timedelta(days=50)
        return document

    monkeypatch.setattr("credit_server.backup.rewinding.from_line", late)
    with pytest.raises(BackupUnusable, match="transfers have one side before"):
        world.rewind(made, taken["created_at"])
