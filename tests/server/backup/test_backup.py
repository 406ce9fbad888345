"""Test backups: one moment, the same digest after an import, and a continuation at every step."""

import asyncio
import gzip
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_server.backup import command, manifest
from credit_server.backup.errors import BackupError, BackupUnusable, LedgerDamaged
from credit_server.backup.export import Advance, export
from credit_server.backup.folder import MARKER
from credit_server.backup.manifest import Manifest
from credit_server.backup.restoring import ImportedDiffers, compare_imported, import_
from credit_server.embedded import DataDirectoryInUse
from credit_server.embedded.data_directory import DataDirectory
from credit_server.settings import StoreSettings
from credit_server.store import leases
from credit_server.store.importing import LedgerWriter
from credit_server.store.mongo import MongoStore
from credit_server.store.port import StoreError, StoreMisconfigured
from credit_testing.ledger_check import findings
from pydantic import SecretStr
from pymongo import MongoClient, ReadPreference

from tests.server.backup.ledgers import SECRET, Ledger
from tests.server.store.old_schemas import make_schema

Document = dict[str, Any]  # values of BSON


class Stopped(Exception):
    """Stands for the end of a process."""


def stop_after(steps: int) -> Callable[[int], None]:
    """Return a receiver of progress that ends the work at a step."""
    remaining = itertools.count(steps, -1)

    def advance(_: int) -> None:
        if next(remaining) <= 0:
            raise Stopped

    return advance


def exported(
    ledger: Ledger, folder: Path, *, secrets: bool = False, advance: Advance = lambda _: None
) -> Manifest:
    with ledger.reader() as reader:
        return export(reader, folder, secrets=secrets, advance=advance)


def settings(ledger: Ledger) -> StoreSettings:
    return StoreSettings(mongodb_uri=SecretStr(ledger.uri), mongodb_database=ledger.database)


def imported(ledger: Ledger, folder: Path) -> Manifest:
    return command.run_import(settings(ledger), folder)


@pytest.mark.parametrize("secrets", [False, True])
def test_an_import_has_the_documents_and_the_digest_of_the_export(
    ledger: Ledger, target: Ledger, tmp_path: Path, secrets: bool
) -> None:
    made = exported(ledger, tmp_path / "first", secrets=secrets)
    assert datetime.fromisoformat(made.header.moment).tzinfo is UTC
    digest = made.digest
    assert imported(target, tmp_path / "first").digest == digest
    assert exported(target, tmp_path / "second", secrets=secrets).digest == digest
    expected = ledger.documents()
    # No event of an alert is old enough to be removed.
    empty = {name for name, documents in expected.items() if not documents}
    assert empty <= {"removed_events"}, "the ledger has documents of every kind"
    if not secrets:
        expected.update(webhooks=[], webhook_deliveries=[])
    assert target.documents() == expected
    with MongoClient[Document](ledger.uri) as client:
        assert findings(client[target.database]) == []

    async def serves() -> None:
        async with target.committing() as (store, _):
            await store.verify_schema()
            assert await store.app_total(2) == 1
        await target.grow()

    asyncio.run(serves())


def test_a_backup_has_the_secrets_of_webhooks_only_on_request(
    ledger: Ledger, tmp_path: Path
) -> None:
    def text(folder: Path) -> str:
        return "".join(gzip.open(path, "rt").read() for path in sorted(folder.glob("*.gz")))

    exported(ledger, tmp_path / "without")
    exported(ledger, tmp_path / "with", secrets=True)
    assert SECRET not in text(tmp_path / "without")
    assert SECRET in text(tmp_path / "with")
    assert (tmp_path / "with").stat().st_mode & 0o077 == 0


def test_a_backup_of_a_restored_ledger_has_the_gaps_of_earlier_imports(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    newest = max(each["position"] for each in ledger.documents()["alert_events"])
    folders = [tmp_path / str(number) for number in range(3)]
    made = exported(ledger, folders[0])
    assert made.header.event_gaps == []
    for folder, next_folder in itertools.pairwise(folders):
        earlier = manifest.load(folder).header.event_gaps
        with MongoClient[Document](target.uri) as client:
            client.drop_database(target.database)
            before = client.admin.command("hello")["localTime"].replace(tzinfo=UTC)
        imported(target, folder)
        again = exported(target, next_folder)
        assert again.digest == made.digest
        *kept, added = again.header.event_gaps
        assert kept == earlier
        assert added.last == newest
        assert added.next >= before.timestamp() * 1_000_000
        assert manifest.load(next_folder) == again


@pytest.mark.parametrize(
    ("gaps", "error"), [({}, ""), ({"event_gaps": [7]}, "damaged"), ({"event_gaps": 7}, "damaged")]
)
def test_the_gaps_of_a_manifest_may_be_missing_but_not_malformed(
    ledger: Ledger, tmp_path: Path, gaps: Document, error: str
) -> None:
    made = exported(ledger, tmp_path)
    path = tmp_path / manifest.NAME
    first, *lines = path.read_text().splitlines(keepends=True)
    header = json.loads(first)
    del header["event_gaps"]
    path.write_text("".join([json.dumps(header | gaps) + "\n", *lines]))
    if error:
        with pytest.raises(BackupUnusable, match=error):
            manifest.load(tmp_path)
    else:
        assert manifest.load(tmp_path) == made


def test_what_is_written_during_an_export_is_not_part_of_it(
    changing: Ledger, tmp_path: Path
) -> None:
    before = exported(changing, tmp_path / "before").digest
    chunks = iter(range(1000))

    def grow(_: int) -> None:
        # After a chunk of the snapshot, and after a chunk of histories.
        if next(chunks) in (1, 8):
            asyncio.run(changing.grow())

    assert exported(changing, tmp_path / "during", advance=grow).digest == before
    assert next(chunks) > 9
    assert exported(changing, tmp_path / "after").digest != before


def test_an_export_that_stops_at_any_step_continues_with_the_same_digest(
    ledger: Ledger, tmp_path: Path
) -> None:
    digest = exported(ledger, tmp_path / "whole").digest
    for steps in itertools.count():
        folder = tmp_path / str(steps)
        try:
            exported(ledger, folder, advance=stop_after(steps))
        except Stopped:
            with pytest.raises(BackupUnusable, match=r"not a backup|incomplete"):
                manifest.load(folder)
            leave_what_a_killed_process_leaves(folder)
            assert exported(ledger, folder).digest == digest
        else:
            break
    assert steps > 10


def leave_what_a_killed_process_leaves(folder: Path) -> None:
    """Leave a chunk that is not complete, and cut off the last line of the manifest if any."""
    (folder / "purchases-000001.ndjson.gz.part").write_bytes(b"half")
    if (folder / manifest.NAME).exists():
        with (folder / manifest.NAME).open("ab") as file:
            file.write(b'{"file": "credit_')


def test_an_export_continues_at_its_moment_although_the_ledger_has_grown(
    changing: Ledger, tmp_path: Path
) -> None:
    digest = exported(changing, tmp_path / "whole").digest
    with pytest.raises(Stopped):
        exported(changing, tmp_path / "part", advance=stop_after(9))
    assert (tmp_path / "part" / manifest.NAME).exists(), "it stopped among the histories"
    asyncio.run(changing.grow())
    assert exported(changing, tmp_path / "part").digest == digest


def test_an_import_that_stops_at_any_step_continues(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    backup = exported(ledger, tmp_path / "backup")
    with MongoClient[Document](ledger.uri) as client:
        client[target.database]["leases"].insert_one({"_id": "of a server that found it empty"})
    for attempt in itertools.count():
        try:
            with target.writer() as writer:
                # The first step is what was complete before; a chunk has two batches.
                import_(writer, backup, stop_after(1 + attempt % 3))
        except Stopped:
            asyncio.run(refused(target))
        else:
            break
    assert attempt > 10
    asyncio.run(refused(target))  # it was not compared yet
    assert imported(target, tmp_path / "backup").digest == backup.digest
    assert target.documents() == {**ledger.documents(), "webhooks": [], "webhook_deliveries": []}


async def refused(target: Ledger) -> None:
    """Check that neither a server nor a migration nor an export accepts half of a ledger."""
    store = MongoStore(target.uri, database=target.database)
    with pytest.raises(StoreMisconfigured, match="import into it is not complete"):
        await store.verify_schema()
    with pytest.raises(StoreMisconfigured, match="Repeat credit-server import"):
        await store.migrate()
    await store.close()
    with target.reader() as reader, pytest.raises(StoreMisconfigured, match="not complete"):
        reader.schema_version()


def damaged_files(folder: Path) -> dict[str, Callable[[Path], None]]:
    """Return what can happen to a file."""

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def replace(path: Path) -> None:
        lines = gzip.decompress(path.read_bytes()).replace(b"7", b"8")
        path.write_bytes(gzip.compress(lines))

    return {"cut off": cut, "one bit": flip, "replaced": replace, "removed": Path.unlink}


@pytest.mark.parametrize("damage", damaged_files(Path()))
def test_a_damaged_file_is_named_before_anything_is_written(
    ledger: Ledger, target: Ledger, tmp_path: Path, damage: str
) -> None:
    backup = exported(ledger, tmp_path)
    for chunk in backup.chunks[::4]:
        path = tmp_path / chunk.file
        content = path.read_bytes()
        damaged_files(tmp_path)[damage](path)
        with pytest.raises(BackupUnusable, match=chunk.file):
            command.run_check(tmp_path)
        with pytest.raises(BackupUnusable, match=chunk.file):
            imported(target, tmp_path)
        path.write_bytes(content)
    assert target.documents() == {}
    assert command.run_check(tmp_path).digest == backup.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "is incomplete"),
        (lambda lines: lines[:3] + lines[4:], "its digest is not that of its chunks"),
        (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "its digest is not that of"),
        (lambda lines: ["{}", *lines[1:]], "is damaged"),
        (lambda lines: ["[]", *lines[1:]], "is damaged"),
        (lambda lines: [lines[0].replace("backup\": 1", "backup\": 2")], "later release"),
        (lambda lines: [lines[0].replace('"schema": 4', '"schema": 5'), *lines[1:]], "or later"),
    ],
)  # fmt: skip
def test_a_manifest_that_was_changed_is_rejected(
    ledger: Ledger, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    exported(ledger, tmp_path)
    path = tmp_path / manifest.NAME
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(BackupUnusable, match=message):
        command.run_check(tmp_path)


def test_a_folder_with_something_else_is_rejected(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(BackupUnusable, match="not a backup"):
        command.run_check(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BackupUnusable, match="other files"):
        exported(ledger, tmp_path)
    exported(ledger, tmp_path / "backup")
    with pytest.raises(BackupUnusable, match="complete backup"):
        exported(ledger, tmp_path / "backup")
    (tmp_path / "backup").chmod(0o500)
    with pytest.raises(BackupUnusable, match=r"cannot be used: Not a directory; name a new"):
        exported(ledger, tmp_path / "notes.txt" / "backup")
    with pytest.raises(BackupUnusable, match=r"notes\.txt cannot be used: File exists; name a new"):
        exported(ledger, tmp_path / "notes.txt")


CHUNK = "purchases-000001.ndjson.gz"


@pytest.mark.parametrize(
    "names",
    [
        ["note.txt", "precious.ndjson.gz"],
        ["precious.ndjson.gz", MARKER],
        ["precious-000001.ndjson.gz", MARKER],
        [CHUNK],  # without a marker it is not of an export that was interrupted
        [CHUNK + ".part"],
        [manifest.NAME + ".part"],
        [CHUNK + ".old", CHUNK, MARKER],
    ],
)
def test_an_export_keeps_files_that_are_not_its_own(
    ledger: Ledger, tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(BackupUnusable, match=r"other files \(.*none was changed"):
        exported(ledger, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "precious"
    )


def test_an_export_that_runs_excludes_another_one_from_its_folder(
    ledger: Ledger, tmp_path: Path
) -> None:
    digest = exported(ledger, tmp_path / "alone").digest
    refused = 0

    def again(_: int) -> None:
        nonlocal refused
        with pytest.raises(BackupUnusable, match="another export writes to"):
            exported(ledger, tmp_path / "shared")
        refused += 1

    made = exported(ledger, tmp_path / "shared", advance=again)
    assert (made.digest, refused) == (digest, len(made.chunks))
    assert command.run_check(tmp_path / "shared").digest == digest
    # Nothing is left but the backup, and an export into it leaves nothing either.
    with pytest.raises(BackupUnusable, match="complete backup"):
        exported(ledger, tmp_path / "shared")
    left = {path.name for path in (tmp_path / "shared").iterdir()}
    assert left == {manifest.NAME, *(chunk.file for chunk in made.chunks)}


def test_an_export_of_another_database_or_with_other_options_does_not_continue(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        exported(ledger, tmp_path, advance=stop_after(9))
    with pytest.raises(StoreMisconfigured, match="continue it with the same options"):
        exported(ledger, tmp_path, secrets=True)
    exported(ledger, tmp_path)
    imported(target, tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(Stopped):
        exported(ledger, tmp_path / "other", advance=stop_after(9))
    with pytest.raises(StoreMisconfigured, match="continue it with the same options"):
        exported(target, tmp_path / "other")


def test_a_database_that_is_not_empty_is_rejected(
    changing: Ledger, target: Ledger, tmp_path: Path
) -> None:
    backup = exported(changing, tmp_path / "backup")
    documents = changing.documents()
    with pytest.raises(StoreMisconfigured, match=r"is not empty .*nothing was written"):
        imported(changing, tmp_path / "backup")
    assert changing.documents() == documents
    asyncio.run(changing.grow())
    exported(changing, tmp_path / "later")
    with target.writer() as writer, pytest.raises(Stopped):
        import_(writer, backup, stop_after(3))
    with pytest.raises(StoreMisconfigured, match=f"another backup.*{backup.digest}"):
        imported(target, tmp_path / "later")


def test_an_import_detects_what_another_process_wrote_meanwhile(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    backup = exported(ledger, tmp_path)
    with target.writer() as writer:
        import_(writer, backup, lambda _: None)
    with MongoClient[Document](ledger.uri) as client:
        client[target.database]["directory"].delete_one({})
    with pytest.raises(ImportedDiffers, match="directory-000001"):
        imported(target, tmp_path)
    asyncio.run(refused(target))


def test_an_import_that_runs_excludes_another_one(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    backup = exported(ledger, tmp_path)
    refused: list[str] = []

    def again(_: int) -> None:
        with pytest.raises(StoreMisconfigured, match="has written nothing") as error:
            imported(target, tmp_path)
        refused.append(str(error.value))

    with target.writer() as writer, target.reader() as reader:
        import_(writer, backup, again)
        compare_imported(writer, reader, backup, again)
        writer.finish([])
    assert len(refused) > len(backup.chunks)
    with pytest.raises(StoreMisconfigured, match="not empty"):
        imported(target, tmp_path)


def _insert(writer: LedgerWriter, ledger: Ledger, _: Manifest) -> None:
    purchases = ledger.documents()["purchases"]
    list(writer.insert("purchases", purchases, may_exist=True))


def _compare(writer: LedgerWriter, ledger: Ledger, backup: Manifest) -> None:
    with ledger.reader() as reader:
        compare_imported(writer, reader, backup, lambda _: None)


STEPS: dict[str, Callable[[LedgerWriter, Ledger, Manifest], object]] = {
    "begin": lambda writer, _, backup: writer.begin(backup.digest),
    "insert": _insert,
    "advance": lambda writer, _, backup: writer.advance(len(backup.chunks)),
    "build": lambda writer, _ledger, _backup: writer.build(),
    "compare": _compare,
    "finish": lambda writer, _ledger, _backup: writer.finish([]),
}


def _end_lease(database: Any) -> None:  # Any: a database
    ended = datetime(2000, 1, 1, tzinfo=UTC)
    database["leases"].update_one({"_id": "import"}, {"$set": {"until": ended}})


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lease", ["taken", "free"])
def test_an_import_that_paused_writes_nothing_after_another_one_completed_it(
    ledger: Ledger,
    target: Ledger,
    tmp_path: Path,
    step: str,
    lease: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "_RENEWAL_SECONDS", 3600.0)  # as if the process were paused
    backup = exported(ledger, tmp_path)
    with (
        MongoClient[Document](ledger.uri) as client,
        target.writer() as paused,
    ):
        database = client[target.database]
        import_(paused, backup, lambda _: None)
        _end_lease(database)
        imported(target, tmp_path)
        asyncio.run(target.grow())  # servers run on it
        if lease == "taken":
            taken = {"owner": "another", "until": datetime(2100, 1, 1, tzinfo=UTC)}
            database["leases"].update_one({"_id": "import"}, {"$set": taken})
        names = sorted(set(database.list_collection_names()) - {"leases"})
        before = {name: list(database[name].find().sort("_id")) for name in names}
        with pytest.raises(StoreError) as error:
            STEPS[step](paused, target, backup)
        assert "drop the database" not in str(error.value)
        assert {name: list(database[name].find().sort("_id")) for name in names} == before
        assert findings(database) == []


def test_a_repeated_chunk_keeps_the_documents_that_exist(
    ledger: Ledger, target: Ledger, tmp_path: Path
) -> None:
    backup = exported(ledger, tmp_path)
    with MongoClient[Document](ledger.uri) as client, target.writer() as writer:
        writer.begin(backup.digest)
        accounts = ledger.documents()["user_credits"]
        list(writer.insert("user_credits", accounts, may_exist=False))
        newer = {"_id": accounts[0]["_id"]}
        stored = client[target.database]["user_credits"]
        stored.update_one(newer, {"$set": {"revision": Int64(99)}})
        list(writer.insert("user_credits", accounts, may_exist=True))
        assert [each["revision"] for each in stored.find(newer)] == [99]
        with pytest.raises(StoreError, match="does not accept a document"):
            list(writer.insert("user_credits", accounts, may_exist=False))
        with pytest.raises(StoreError, match="does not accept a document"):
            list(writer.insert("user_credits", [{"_id": ObjectId()}], may_exist=True))


def test_a_script_sees_that_an_import_compares(
    ledger: Ledger, target: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = exported(ledger, tmp_path).records
    imported(target, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    for work in ("import", "compare"):
        shown = [line for line in lines if line.startswith(work)]
        assert shown[0] == f"{work}: 0 of about {records} documents"
        assert shown[-1] == f"{work}: {records} of about {records} documents"
        assert len(shown) <= 11


def test_an_export_and_an_import_read_from_the_primary(target: Ledger) -> None:
    separator = "&" if "?" in target.uri else "?"
    target.uri += f"{separator}readPreference=secondaryPreferred"
    with target.reader() as reader, target.writer() as writer:
        for database in (reader._database, writer._database, writer._stepping):
            assert database.read_preference == ReadPreference.PRIMARY


def _without_entry(database: Any) -> None:  # Any: a database
    database["credit_transactions"].delete_one({"user_id": 7, "sequence": 2})


def _without_last_entry(database: Any) -> None:
    database["credit_transactions"].delete_one({"user_id": 8, "sequence": 3})


def _without_account(database: Any) -> None:
    database["user_credits"].delete_one({"user_id": 9})


def _without_history(database: Any) -> None:
    database["credit_transactions"].delete_many({"user_id": 4294967295})


def _other_balance(database: Any) -> None:
    database["user_credits"].update_one(
        {"user_id": 9}, {"$set": {"balances.0.balance": Int64(4711)}}
    )


def _unknown_type(database: Any) -> None:
    database.command({"collMod": "directory", "validator": {}})
    database["directory"].update_one({}, {"$set": {"text": {"$regularExpression": 1}}})
    database["directory"].update_one({}, [{"$set": {"n": {"$toDecimal": 1}}}])


def _account_without_revision(database: Any) -> None:
    database.command({"collMod": "user_credits", "validator": {}})
    database["user_credits"].update_one({"user_id": 9}, {"$unset": {"revision": 1}})


def _entry_without_user(database: Any) -> None:
    database.command({"collMod": "credit_transactions", "validator": {}})
    entry = {"_id": ObjectId(), "user_id": "7", "sequence": Int64(1)}
    database["credit_transactions"].insert_one(entry)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_entry, "user 7: there is no entry 2"),
        (_without_last_entry, "user 8: there is no entry 3"),
        (_without_account, "user 9: there are entries but no account"),
        (_without_history, "user 4294967295: there is no entry 1"),
        (_other_balance, "user 9: a balance differs from that of its last entry"),
        (_unknown_type, "of directory cannot be exported"),
        (_account_without_revision, "the account .* is damaged"),
        (_entry_without_user, "has no valid user or sequence"),
    ],
)
def test_no_backup_is_made_of_a_ledger_that_does_not_add_up(
    changing: Ledger, tmp_path: Path, damage: Callable[[Any], None], message: str
) -> None:
    with MongoClient[Document](changing.uri) as client:
        damage(client[changing.database])
    with pytest.raises((LedgerDamaged, StoreError), match=message):
        exported(changing, tmp_path)
    with pytest.raises(BackupError):
        manifest.load(tmp_path)


def test_a_snapshot_that_mongodb_no_longer_keeps_ends_the_export_with_the_remedy(
    ledger: Ledger, tmp_path: Path
) -> None:
    point: Document = {"configureFailPoint": "failCommand"}
    fault = {"failCommands": ["find"], "errorCode": 239, "appName": "credit-server backup"}
    with MongoClient[Document](ledger.uri) as client:
        client.admin.command({**point, "mode": {"skip": 3}, "data": fault})
        try:
            with pytest.raises(StoreError, match="minSnapshotHistoryWindowInSeconds"):
                exported(ledger, tmp_path)
        finally:
            client.admin.command({**point, "mode": "off"})
    assert exported(ledger, tmp_path).digest


@pytest.mark.parametrize("version", [1, 2])
def test_a_database_of_an_earlier_release_is_exported_and_imported_into_this_one(
    mongod_uri: str, database: str, target: Ledger, tmp_path: Path, version: int
) -> None:
    asyncio.run(make_schema(version, mongod_uri, database))
    backup = exported(Ledger(mongod_uri, database), tmp_path)
    assert json.loads((tmp_path / manifest.NAME).read_text().splitlines()[0])["schema"] == version
    assert imported(target, tmp_path).digest == backup.digest
    with MongoClient[Document](mongod_uri) as client:
        assert findings(client[target.database]) == []


def test_a_database_without_a_ledger_is_not_exported(target: Ledger, tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="has no ledger"):
        exported(target, tmp_path)


def test_an_import_does_not_write_to_the_database_of_a_running_server(
    ledger: Ledger, tmp_path: Path
) -> None:
    exported(ledger, tmp_path / "backup")
    directory = DataDirectory.at(tmp_path / "data")
    directory.create()
    lock = directory.lock()
    try:
        with pytest.raises(DataDirectoryInUse):
            command.run_import(StoreSettings(data_dir=tmp_path / "data"), tmp_path / "backup")
    finally:
        lock.release()
