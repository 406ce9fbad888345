"""Test how a database is verified: by ranges, processes, with progress, by the command line."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64
from credit_server.main import run
from credit_server.store.schema import SCHEMA_VERSION
from credit_server.store.verification import Span, Verification, open_verification
from credit_server.verify import run as run_module
from credit_server.verify.findings import Code
from credit_server.verify.progress_file import ProgressFile, ProgressUnusable
from credit_server.verify.run import Target, verify
from credit_server.verify.span_check import SHOWN_MAX, Found, check_span
from credit_testing.server import migrated
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database

from tests.server.cancelled_connects import sockets_are_collected
from tests.server.store.old_schemas import make_schema
from tests.server.verify.checking import check, contents
from tests.server.verify.histories import LAST

Document = dict[str, Any]  # values of BSON
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(ledger: Target, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command line on the database."""

    def call(*arguments: str) -> tuple[int, str, str]:
        where = ("--mongodb-uri", ledger.uri, "--mongodb-database", ledger.database)
        code = run([arguments[0], *where, *arguments[1:]])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def raise_balance(documents: Database[Document]) -> None:
    documents["user_credits"].update_one(
        {"user_id": LAST}, {"$set": {"balances.0.balance": Int64(7)}}
    )


def test_ranges_and_processes_do_not_change_what_is_found(
    ledger: Target, documents: Database[Document]
) -> None:
    raise_balance(documents)
    documents["credit_transactions"].delete_one({"user_id": 8, "sequence": 5})
    found = [
        verify(ledger, drift=[], jobs=jobs, span_entries=span_entries)
        for jobs, span_entries in ((1, 10**6), (1, 7), (2, 50))
    ]
    for each in found[1:]:
        assert (each.users, each.entries, each.counts) == (
            found[0].users,
            found[0].entries,
            found[0].counts,
        )
        assert set(each.findings) == set(found[0].findings)
    assert found[0].counts[Code.BALANCE] == found[0].counts[Code.SEQUENCE_GAP] == 1


def test_an_interrupted_verification_continues_with_what_is_left(
    ledger: Target,
    documents: Database[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raise_balance(documents)
    path = tmp_path / "progress"
    checked: list[Span] = []

    def interrupted(reader: Verification, span: Span) -> Found:
        if len(checked) == 2:
            raise KeyboardInterrupt
        checked.append(span)
        return check_span(reader, span)

    monkeypatch.setattr(run_module, "check_span", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(ledger, drift=[], jobs=1, progress=ProgressFile(path, "here"), span_entries=50)
    with path.open("a") as file:
        file.write('{"first": 5, "en')  # as a killed process leaves it
    first = checked.copy()

    def checks(reader: Verification, span: Span) -> Found:
        checked.append(span)
        return check_span(reader, span)

    monkeypatch.setattr(run_module, "check_span", checks)
    found = verify(ledger, drift=[], jobs=1, progress=ProgressFile(path, "here"), span_entries=50)
    assert len(set(checked)) == len(checked) > len(first) == 2
    whole = verify(ledger, drift=[], jobs=1)
    assert (found.users, found.entries, found.counts) == (whole.users, whole.entries, whole.counts)
    assert not path.exists()


def test_a_progress_of_another_database_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    ProgressFile(path, "here/credit")
    with pytest.raises(ProgressUnusable, match="another database"):
        ProgressFile(path, "there/credit")
    path.write_text("not JSON\n")
    with pytest.raises(ProgressUnusable, match="is not a progress file of credit-server"):
        ProgressFile(path, "here/credit")
    with pytest.raises(
        ProgressUnusable, match=r"^the progress file .*absent/progress cannot be used: No such"
    ):
        ProgressFile(tmp_path / "absent" / "progress", "here/credit")


def test_a_progress_file_must_be_a_regular_file_because_it_is_removed_at_the_end(
    tmp_path: Path,
) -> None:
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(ProgressUnusable, match="is not a regular file"):
            ProgressFile(path, "here/credit")


@sockets_are_collected
def test_a_progress_continues_on_the_same_collections_alone(
    mongod_uri: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = asyncio.run(migrated(mongod_uri, database))
    path = tmp_path / "progress"
    verify_ = ["verify", *where, "--jobs", "1", "--progress", str(path)]

    def begin() -> None:
        with open_verification(mongod_uri, database, 30) as reader:
            ProgressFile(path, reader.identity())

    begin()
    assert run(verify_) == 0
    begin()
    with MongoClient[Document](mongod_uri) as client:
        client.drop_database(database)
    asyncio.run(migrated(mongod_uri, database))
    assert run(verify_) == 2
    assert "the database was replaced" in capsys.readouterr().err


def test_a_verification_reads_from_the_primary(ledger: Target) -> None:
    uri = f"{ledger.uri}{'&' if '?' in ledger.uri else '?'}readPreference=secondaryPreferred"
    with open_verification(uri, ledger.database, 30) as reader:
        assert reader._database.read_preference == ReadPreference.PRIMARY


def test_many_findings_of_a_kind_are_counted_and_some_are_shown(
    ledger: Target, documents: Database[Document]
) -> None:
    changed = documents["credit_transactions"].update_many(
        {}, {"$set": {"surprise": True}}, bypass_document_validation=True
    )
    assert changed.modified_count > SHOWN_MAX
    found = verify(ledger, drift=[], jobs=1, span_entries=50)
    assert found.counts[Code.UNREADABLE] == changed.modified_count
    shown = [each for each in found.findings if each.code is Code.UNREADABLE]
    assert len(shown) == SHOWN_MAX


def test_the_command_reports_a_sound_database(
    command: Command, documents: Database[Document]
) -> None:
    entries = documents["credit_transactions"].count_documents({})
    assert command("verify", "--jobs", "1") == (
        0,
        f"sound: 4 users, {entries:,} entries; no findings\n",
        "",
    )
    code, out, _ = command("verify", "--jobs", "1", "-o", "json")
    report = json.loads(out)
    assert (code, report["sound"], report["entries"], report["findings"]) == (0, True, entries, [])


def test_the_command_reports_findings_with_their_remedy(
    command: Command, documents: Database[Document]
) -> None:
    raise_balance(documents)
    code, out, _ = command("verify", "--jobs", "1", "--user", str(LAST))
    assert code == 1
    assert out.splitlines() == [
        "balance (1): the account's balance is not the sum of the effects",
        "  user 20, app 2  the balance is 7; the history adds up to 1000",
        "  -> run credit-server repair: it rebuilds the document if the history is sound",
        "NOT SOUND: 1 users, 8 entries; 1 findings of 1 kinds",
    ]
    code, out, _ = command("verify", "--jobs", "1", "-o", "json")
    report = json.loads(out)
    assert (code, report["sound"]) == (1, False)
    assert report["counts"] == {"balance": 1, "app-total": 1}
    found = {each["code"]: each for each in report["findings"]}
    assert (found["balance"]["user_id"], found["balance"]["remedy"]) == (LAST, "rebuild")


def test_a_database_that_cannot_be_read_is_not_reported_as_sound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = "mongodb://127.0.0.1:1/?replicaSet=credit"
    arguments = ["--mongodb-uri", uri, "--store-timeout-seconds", "0.1"]
    assert run(["verify", *arguments]) == 2
    assert "not checked" in capsys.readouterr().err
    assert run(["repair", *arguments, "--created-by", "1", "--reason", "r"]) == 2
    assert "not completed" in capsys.readouterr().err


def test_a_folder_without_a_database_is_not_reported_as_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", "--data-dir", str(tmp_path / "none")]) == 2
    assert "there is no database in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_command_corrects_only_with_apply_and_writes_an_audit_line(
    command: Command, documents: Database[Document], tmp_path: Path
) -> None:
    raise_balance(documents)
    audit = tmp_path / "audit.log"
    options = ("--jobs", "1", "--created-by", "99", "--reason", "disk fault")
    code, out, _ = command("repair", *options)
    assert code == 1
    assert "repeat with --apply" in out
    account = documents["user_credits"].find_one({"user_id": LAST})
    assert account is not None
    assert account["balances"][0]["balance"] == 7
    code, out, _ = command("repair", *options, "--apply", "--audit-log", str(audit))
    assert code == 0, out
    (line,) = [json.loads(text) for text in audit.read_text().splitlines()]
    assert (line["user_id"], line["created_by"], line["note"]) == (LAST, 99, "disk fault")
    assert line["findings"] == "balance"
    assert line["transaction_id"]
    assert command("verify", "--jobs", "1")[0] == 0
    assert command("repair", *options, "--apply") == (0, "nothing to correct\n", "")


@pytest.mark.parametrize("users", [(), ("--user", str(LAST))], ids=["all", "one user"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "run a later release"),
        ({"schema_version": SCHEMA_VERSION - 1}, "run credit-server migrate"),
        ({"import_progress": 1}, "An import into the database is not complete"),
    ],
    ids=["later schema", "earlier schema", "incomplete import"],
)
def test_a_ledger_that_this_release_does_not_write_is_not_repaired(
    command: Command,
    documents: Database[Document],
    change: dict[str, int],
    reason: str,
    users: tuple[str, ...],
) -> None:
    raise_balance(documents)
    documents["user_credits"].update_one(
        {"user_id": LAST}, {"$set": {"new_field": 1}}, bypass_document_validation=True
    )
    for name, version in change.items():
        documents[name].update_one(
            {"_id": "credit"}, {"$set": {"version": Int64(version)}}, upsert=True
        )
    before = contents(documents)
    try:
        options = ("--jobs", "1", "--created-by", "99", "--reason", "disk fault", "--apply")
        code, _, err = command("repair", *options, *users)
        assert code == 2
        assert reason in err
        assert contents(documents) == before
    finally:
        documents.drop_collection("import_progress")


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "verify" in out
    assert "repair" in out


@pytest.mark.parametrize("version", [1, 2])
async def test_a_database_of_an_earlier_release_is_sound_before_and_after_its_migration(
    mongod_uri: str, database: str, version: int
) -> None:
    await make_schema(version, mongod_uri, database)
    earlier = Target(uri=mongod_uri, database=database, timeout_seconds=30)
    found = await check(earlier)
    assert found.entries > 0
    assert set(found.counts) == {Code.SCHEMA}
    await migrated(mongod_uri, database)
    assert (await check(earlier)).findings == []
