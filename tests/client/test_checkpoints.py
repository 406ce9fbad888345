"""Checkpoints from a call, both with the fake and with a real server, and forged checkpoints."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from credit_client import (
    Checkpoint,
    CheckpointRejected,
    ClientSettings,
    CreditClient,
    Finding,
    HistoryAltered,
    HistoryVerifier,
    load_checkpoint,
)
from credit_client.cli.commands import app
from credit_client.testing import FakeClock, FakeCreditService, FakeLedger, fake_credits
from credit_client.testing.checkpoints import FakeCheckpoints
from credit_models import GetCheckpointRequest, GetCheckpointResponse
from credit_server.checkpoint import write_checkpoint
from credit_server.store.mongo import MongoStore
from credit_testing.server import PATIENT, migrated, running_server
from pymongo import AsyncMongoClient
from typer.testing import CliRunner, Result

from tests.client.checkpoints import Operator

DATABASE = "test_client_checkpoints"
WHO: dict[str, Any] = {"app_id": 1, "created_by": 1}
DAY = timedelta(days=1)


@dataclass
class World:
    """A service with users 5, 7 and 9, and an operator who signs.

    Attributes:
        credits: A client.
        key: The file of the operator's public key.
        sign: Signs a checkpoint of app 1.
    """

    credits: CreditClient
    key: Path
    sign: Callable[[], Any]


@pytest.fixture(params=["fake", "server"])
async def world(
    request: pytest.FixtureRequest, mongod_uri: str, tmp_path: Path
) -> AsyncIterator[World]:
    key = tmp_path / "checkpoint.pub"
    if request.param == "fake":
        service = FakeCreditService()

        async def sign() -> None:
            service.sign_checkpoint(app_id=1, key_file=key)

        async with fake_credits(service) as credits_:
            await _history(credits_)
            yield World(credits_, key, sign)
        return
    operator, files = Operator(tmp_path), iter(range(99))
    store = MongoStore(mongod_uri, database=DATABASE)

    async def sign_stored() -> None:
        file = tmp_path / f"{next(files)}.checkpoint"
        await write_checkpoint(store, 1, key=operator.private_key, file=file)

    options = await migrated(mongod_uri, DATABASE)
    async with (
        running_server(tmp_path, "--log-level", "warning", *PATIENT, *options) as process,
        CreditClient(f"127.0.0.1:{process.port}") as credits_,
    ):
        await _history(credits_)
        yield World(credits_, operator.public_key, sign_stored)
    await store.close()
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


async def _history(credits_: CreditClient) -> None:
    for user_id in (5, 7, 9, 7):
        await credits_.add(user_id=user_id, credits=10, **WHO)


async def test_a_history_is_checked_with_network_access_and_the_key_alone(
    world: World, tmp_path: Path
) -> None:
    credits_ = world.credits
    await world.sign()
    await credits_.add(user_id=7, credits=1, **WHO)
    found = await credits_.checkpoint(app_id=1, user_id=7, key=world.key)
    assert (found.app_id, found.size, set(found.heads)) == (1, 3, {7})
    rows = [each async for each in credits_.transactions(user_id=7, verify=found)]
    assert [row.sequence for row in rows] == [1, 2, 3]
    assert found.head(7) == rows[1].hash

    # A history without the transactions that the checkpoint covers is rejected.
    verifier = HistoryVerifier(checkpoint=found)
    verifier.add(rows[0])
    with pytest.raises(HistoryAltered) as altered:
        verifier.end()
    assert altered.value.finding is Finding.CHECKPOINT_DIFFERS
    # The history of a user for whom the checkpoint has no proof is rejected too.
    with pytest.raises(ValueError, match="without user 9"):
        _ = [each async for each in credits_.transactions(user_id=9, verify=found)]

    saved = tmp_path / "saved"
    found.save(saved)
    assert load_checkpoint(saved, key=world.key) == found
    with pytest.raises(FileExistsError):
        found.save(saved)


async def test_a_user_without_transactions_is_proven_absent(world: World, tmp_path: Path) -> None:
    await world.sign()
    for user_id in (1, 6, 8, 10, 2**32 - 1):
        found = await world.credits.checkpoint(app_id=1, user_id=user_id, key=world.key)
        assert found.head(user_id) is None
        rows = world.credits.transactions(user_id=user_id, verify=found)
        assert [each async for each in rows] == []
        found.save(tmp_path / str(user_id))
        assert load_checkpoint(tmp_path / str(user_id), key=world.key).head(user_id) is None


async def test_checkpoints_are_listed_and_found_by_time(world: World) -> None:
    credits_ = world.credits
    assert await credits_.checkpoints(app_id=1) == []
    await world.sign()
    (first,) = await credits_.checkpoints(app_id=1)
    assert first.has_proofs
    assert first.time is not None
    await credits_.add(user_id=11, credits=1, **WHO)
    await world.sign()
    newest, oldest = await credits_.checkpoints(app_id=1)
    assert oldest == first
    assert newest.time is not None
    assert await credits_.checkpoints(app_id=2) == []
    for at, size in ((None, 4), (newest.time + DAY, 4), (first.time, 3)):
        found = await credits_.checkpoint(app_id=1, user_id=7, key=world.key, at=at)
        assert (found.size, set(found.heads)) == (size, {7})
    app = await credits_.checkpoint(app_id=1, key=world.key, at=first.time)
    assert (app.note, app.heads, app.user_ids) == (first.note, {}, frozenset())
    with pytest.raises(CheckpointRejected, match="no checkpoint"):
        await credits_.checkpoint(app_id=1, user_id=7, key=world.key, at=first.time - DAY)
    later = newest.time + DAY
    with pytest.raises(CheckpointRejected, match="too old"):
        await credits_.checkpoint(app_id=1, key=world.key, not_before=later)


async def test_a_user_may_be_named_by_text(tmp_path: Path) -> None:
    service, key = FakeCreditService(), tmp_path / "key"
    async with fake_credits(service) as credits_:
        await credits_.add(user_id="u-1", credits=1, **WHO)
        service.sign_checkpoint(app_id=1, key_file=key)
        found = await credits_.checkpoint(app_id=1, user_id="u-1", key=key)
        rows = credits_.transactions(user_id=next(iter(found.heads)), verify=found)
        assert len([each async for each in rows]) == 1


async def test_the_empty_history_of_a_user_who_is_named_by_text_is_checked(tmp_path: Path) -> None:
    service, key = FakeCreditService(), tmp_path / "key"
    async with fake_credits(service, settings=ClientSettings(users_app_id=1)) as credits_:
        for user in ("u-1", "u-2"):
            await credits_.resolve_user(app_id=1, external_id=user)
        await credits_.add(user_id="u-3", credits=1, **WHO)
        service.sign_checkpoint(app_id=1, key_file=key)
        found = await credits_.checkpoint(app_id=1, user_id="u-1", key=key)

        async def rows(user_id: str, verify: Checkpoint) -> int:
            listed = credits_.transactions(user_id=user_id, verify=verify)
            return len([each async for each in listed])

        assert await rows("u-1", found) == 0
        for other in ("u-2", "u-3"):
            with pytest.raises(ValueError, match="was loaded without user"):
                await rows(other, found)
        of_third = await credits_.checkpoint(app_id=1, user_id="u-3", key=key)
        assert await rows("u-3", of_third) == 1
        service.ledger._users.clear()
        with pytest.raises(HistoryAltered):
            await rows("u-3", of_third)


async def test_the_time_for_a_call_includes_the_look_up_of_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, key = FakeCreditService(), tmp_path / "key"
    async with fake_credits(service) as credits_:
        await credits_.add(user_id="u-1", credits=1, **WHO)
        service.sign_checkpoint(app_id=1, key_file=key)
        caller = credits_._open_caller
        given: list[float | None] = []

        async def took_four_seconds(*_: object) -> tuple[int, float]:
            return next(iter(found.heads)), 6.0

        async def unary(*arguments: Any, timeout_seconds: float | None) -> Any:
            given.append(timeout_seconds)
            return await made(*arguments, timeout_seconds=timeout_seconds)

        found = await credits_.checkpoint(app_id=1, user_id="u-1", key=key)
        made = caller.unary
        monkeypatch.setattr(caller, "user_number", took_four_seconds)
        monkeypatch.setattr(caller, "unary", unary)
        await credits_.checkpoint(app_id=1, user_id="u-1", key=key, timeout_seconds=10)
    assert given == [6.0]


Change = Callable[[GetCheckpointResponse], GetCheckpointResponse]


class _Forger(FakeCheckpoints):
    """Changes the answers of a server.

    Attributes:
        change: Makes a forged answer from the correct one.
    """

    change: Change

    def get(self, request: GetCheckpointRequest) -> GetCheckpointResponse:
        return self.change(super().get(request))


@asynccontextmanager
async def _forging(
    change: Change, key: Path, service: FakeCreditService | None = None
) -> AsyncIterator[CreditClient]:
    """Open a client of a service that has checkpoints of apps 1 and 2, and changes its answers."""
    service = service or FakeCreditService()
    forger = _Forger(service.ledger)
    forger.change = change
    service._checkpoints = forger
    async with fake_credits(service) as credits_:
        await _history(credits_)
        service.sign_checkpoint(app_id=1, key_file=key)
        yield credits_


def _leaf(**changed: Any) -> Change:
    return lambda reply: replace(reply, leaves=[replace(reply.leaves[0], **changed)])


def _note(old: str, new: str) -> Change:
    def change(reply: GetCheckpointResponse) -> GetCheckpointResponse:
        assert reply.checkpoint is not None
        assert old in reply.checkpoint.note
        note = reply.checkpoint.note.replace(old, new)
        return replace(reply, checkpoint=replace(reply.checkpoint, note=note))

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_note("\n3\n", "\n4\n"), "signature is not valid"),
        (_note("app/1", "app/2"), "not signed with this key"),
        (_note("time 2", "time 3"), "signature is not valid"),
        (_note("credit.v1", "debit.v1"), "it is not the checkpoint of an app"),
        (_leaf(hash=b"\x01" + bytes(32)), "does not lead to the signed root"),
        (_leaf(user_id=8), "does not lead to the signed root"),
        (_leaf(index=2), "does not lead to the signed root"),
        (_leaf(path=[]), "does not lead to the signed root"),
        (_leaf(path=[bytes(32), bytes(32)]), "does not lead to the signed root"),
        (lambda reply: replace(reply, leaves=[]), "no proof for user 7"),
        (lambda _: GetCheckpointResponse(), "no checkpoint of app 1"),
    ],
)
async def test_a_forged_answer_is_rejected(tmp_path: Path, change: Change, why: str) -> None:
    async with _forging(change, tmp_path / "key") as credits_:
        with pytest.raises(CheckpointRejected, match=why):
            await credits_.checkpoint(app_id=1, user_id=7, key=tmp_path / "key")


async def test_the_right_answer_to_another_request_is_rejected(tmp_path: Path) -> None:
    """Test answers that a server could replay: each is signed, but proves something else."""
    kept: list[GetCheckpointResponse] = []
    is_replayed, key = False, tmp_path / "key"

    def change(reply: GetCheckpointResponse) -> GetCheckpointResponse:
        kept.append(reply)
        return kept[0] if is_replayed else reply

    async with _forging(change, key) as credits_:
        await credits_.checkpoint(app_id=1, user_id=7, key=key)
        is_replayed = True
        with pytest.raises(CheckpointRejected, match="no proof for user 5"):
            await credits_.checkpoint(app_id=1, user_id=5, key=key)
        with pytest.raises(CheckpointRejected, match="a checkpoint of app 1, not of app 2"):
            await credits_.checkpoint(app_id=2, user_id=7, key=key)
        # The caller has seen this newest checkpoint, so an older one is a replay.
        now = datetime.now(UTC)
        with pytest.raises(CheckpointRejected, match="too old"):
            await credits_.checkpoint(app_id=1, user_id=7, key=key, not_before=now + DAY)
        with pytest.raises(CheckpointRejected, match="too old"):
            await credits_.checkpoint(app_id=1, user_id=7, key=key, at=now + 3 * DAY)


@pytest.mark.parametrize(("days", "is_found"), [(1, False), (3, True)])
async def test_an_older_signed_checkpoint_is_rejected_after_two_days(
    tmp_path: Path, days: int, is_found: bool
) -> None:
    """Test a server that returns the checkpoint before the newest one, with its valid proof."""
    kept: list[GetCheckpointResponse] = []

    def change(reply: GetCheckpointResponse) -> GetCheckpointResponse:
        kept.append(reply)
        return kept[0]

    key, age = tmp_path / "key", timedelta(days=days)
    service = FakeCreditService(FakeLedger(FakeClock(lambda: datetime.now(UTC) - age)))
    async with _forging(change, key, service) as credits_:
        older = await credits_.checkpoint(
            app_id=1, user_id=7, key=key, not_before=datetime.now(UTC) - age - DAY
        )
        service.clock.advance(age)
        service.sign_checkpoint(app_id=1, key_file=key)
        get = credits_.checkpoint(app_id=1, user_id=7, key=key)
        if is_found:
            with pytest.raises(CheckpointRejected, match="too old"):
                await get
        else:
            assert await get == older
        # A caller who has seen a newer one finds it at once.
        with pytest.raises(CheckpointRejected, match="too old"):
            await credits_.checkpoint(
                app_id=1, user_id=7, key=key, not_before=older.time + timedelta(milliseconds=1)
            )


async def test_a_checkpoint_after_the_requested_time_is_rejected(tmp_path: Path) -> None:
    kept: list[GetCheckpointResponse] = []

    def change(reply: GetCheckpointResponse) -> GetCheckpointResponse:
        kept.append(reply)
        return kept[0]

    key = tmp_path / "key"
    async with _forging(change, key) as credits_:
        newest = await credits_.checkpoint(app_id=1, user_id=7, key=key)
        before = newest.time - timedelta(milliseconds=1)
        with pytest.raises(CheckpointRejected, match="later than the requested time"):
            await credits_.checkpoint(app_id=1, user_id=7, key=key, at=before)


async def test_a_limit_without_a_time_zone_is_rejected_before_the_call(tmp_path: Path) -> None:
    async with _forging(lambda _: pytest.fail("a call was made"), tmp_path / "key") as credits_:
        with pytest.raises(ValueError, match="needs a time zone"):
            await credits_.checkpoint(
                app_id=1, key=tmp_path / "key", not_before=datetime.now(UTC).replace(tzinfo=None)
            )


async def test_another_key_or_no_key_is_rejected(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    async with _forging(lambda reply: reply, tmp_path / "key") as credits_:
        with pytest.raises(CheckpointRejected, match="not signed with this key"):
            await credits_.checkpoint(app_id=1, key=operator.public_key)
        with pytest.raises(CheckpointRejected, match="not a public key"):
            await credits_.checkpoint(app_id=1, key=operator.private_key)
        with pytest.raises(FileNotFoundError):
            await credits_.checkpoint(app_id=1, key=tmp_path / "missing")


_SAVED_LEAF: dict[str, object] = {"user_id": 7, "hash": "", "index": 0, "path": []}


def test_only_what_a_server_returned_is_saved(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    file = operator.checkpoint(1, {7: b"\x01" * 33})
    for users in (None, [], [7], [8], [7, 8]):
        loaded = load_checkpoint(file, key=operator.public_key, user_ids=users)
        with pytest.raises(ValueError, match="that a server returned"):
            loaded.save(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"leaves": []},
        {"leaves": [{"user_id": 7}]},
        {"leaves": 7},
        *({"leaves": [_SAVED_LEAF | {"user_id": user}]} for user in (2**32, -1, 0, float("inf"))),
        {"user_id": 8},
        {"user_id": "7"},
        {"checkpoint": "text"},
    ],
)
async def test_a_saved_checkpoint_that_was_changed_is_rejected(
    tmp_path: Path, change: dict[str, object]
) -> None:
    key, file = tmp_path / "key", tmp_path / "saved"
    async with _forging(lambda reply: reply, key) as credits_:
        (await credits_.checkpoint(app_id=1, user_id=7, key=key)).save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointRejected, match=re.escape(str(file))):
        load_checkpoint(file, key=key)


async def test_the_commands_save_a_checkpoint_and_check_a_history_with_it(
    tmp_path: Path,
    fake_server: Callable[..., AbstractAsyncContextManager[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, key = FakeCreditService(), tmp_path / "key"
    file, history = tmp_path / "saved", tmp_path / "history.json"
    of_app = ("checkpoint", "--app", "1", "--key", str(key), "-o", "json")
    saved = ("--user", "7", "--file", str(file))
    async with fake_server(service) as port, CreditClient(f"127.0.0.1:{port}") as credits_:
        monkeypatch.setenv("CREDIT_TARGET", f"127.0.0.1:{port}")
        await _history(credits_)
        service.sign_checkpoint(app_id=1, key_file=key)
        rows = [each async for each in credits_.transactions(user_id=7)]
        head = b64encode(rows[-1].hash).decode()
        result = await _credit(*of_app, *saved)
        made = json.loads(result.stdout)
        assert (made["app_id"], made["users"], made["hash"]) == (1, 3, head)
        again = await _credit(*of_app, *saved)
        assert "exists; the checkpoint was not saved" in again.output
        late = await _credit(*of_app, "--not-before", "2999-01-01")
        assert (late.exit_code, "too old" in late.output) == (18, True)
        (tmp_path / "no-key").write_text("no key")
        misused = await _credit(*of_app, "--key", str(tmp_path / "no-key"))
        assert (misused.exit_code, "not a public key" in misused.output) == (2, True)
        absent = await _credit(*of_app, "--user", "8")
        assert json.loads(absent.stdout)["hash"] is None
        shown = await _credit(*of_app[:-1], "table", "--user", "8")
        assert "none: no transaction has a hash" in shown.stdout
        await _credit("export", "7", "-o", "json", "--file", str(history))

    checked = ("verify-history", str(history), "--checkpoint", str(file), "--key", str(key))
    sound = await _credit(*checked)
    assert (sound.exit_code, "compared with the checkpoint" in sound.stdout) == (0, True)
    other = await _credit(*checked, "--user", "9")
    assert (other.exit_code, "without user 9" in other.output) == (2, True)
    history.write_text(history.read_text().splitlines()[0])
    assert (await _credit(*checked)).exit_code == 18


async def _credit(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)
