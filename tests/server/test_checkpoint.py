"""Checkpoints: what the command writes is what a consumer can check."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from credit_client import HistoryAltered, HistoryVerifier, load_checkpoint
from credit_models import CreditTransaction
from credit_models.codec import decode
from credit_models.ledger import Add, Receipt
from credit_models.translation.messages import receipt_to_message
from credit_server import app
from credit_server.access import FileUnusable
from credit_server.api.convert import transactions_to_wire
from credit_server.checkpoint import write_checkpoint
from credit_server.commit import Committer
from credit_server.embedded import EmbeddedMongod, NoDatabase
from credit_server.settings import StoreSettings
from credit_server.store.checkpoints import MemoryCheckpoints, StoredCheckpoint
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import (
    ClockReading,
    Head,
    Store,
    StoreMisconfigured,
    StoreUnavailable,
)
from credit_testing.stores import FailingStore
from pymongo import AsyncMongoClient

from tests.client.checkpoints import Operator
from tests.server.cancelled_connects import sockets_are_collected


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


async def _add(committer: Committer, store: Store, user_id: int, app_id: int = 3) -> Receipt:
    common: dict[str, Any] = {"key": "", "transaction_id": store.new_id(), "created_by": 1}
    receipt = await committer.submit(Add(user_id=user_id, app_id=app_id, credits=10, **common))
    assert isinstance(receipt, Receipt)
    return receipt


def _files(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


async def _rows(store: Store, user_id: int) -> Sequence[CreditTransaction]:
    return [
        decode(CreditTransaction, data)
        async for page in store.list_transactions(user_id)
        for data in transactions_to_wire(page)
    ]


async def test_a_consumer_can_check_what_the_command_writes(
    operator: Operator, tmp_path: Path
) -> None:
    store, file = MemoryStore(), tmp_path / "app-3.checkpoint"
    async with Committer(store) as committer:
        heads = {}
        for user_id in (9, 7, 2**32 - 1, 8):
            for app_id in (3, 4):
                receipt = await _add(committer, store, user_id, app_id)
                if app_id == 3:
                    heads[user_id] = receipt.transaction.hash
        await _add(committer, store, 5, 4)
        made = await write_checkpoint(store, 3, key=operator.private_key, file=file, page_size=2)
        assert made.size == 4
        read = load_checkpoint(file, key=operator.public_key)
        assert (read.app_id, read.time, read.heads) == (3, made.time, heads)
        assert _files(tmp_path) == {"app-3.checkpoint", "checkpoint.key", "checkpoint.pub"}

        # What is written later is not covered, and does not disturb.
        later = await _add(committer, store, 7)
        verifier = HistoryVerifier(checkpoint=read, receipts=[receipt_to_message(later)])
        rows = await _rows(store, 7)
        for row in rows:
            verifier.add(row)
        verifier.end()
        verifier = HistoryVerifier(checkpoint=read)
        verifier.add(rows[1])
        with pytest.raises(HistoryAltered):
            verifier.end()


async def test_the_checkpoint_of_an_app_without_users_is_empty(
    operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "empty"
    await write_checkpoint(MemoryStore(), 3, key=operator.private_key, file=file)
    assert load_checkpoint(file, key=operator.public_key).heads == {}


@sockets_are_collected
async def test_an_embedded_database_is_read_with_and_without_its_server(
    operator: Operator, tmp_path: Path
) -> None:
    settings = StoreSettings(data_dir=tmp_path / "data")

    async def made(name: str) -> int:
        file = tmp_path / name
        return (await app.checkpoint(settings, 3, key=operator.private_key, file=file)).size

    with pytest.raises(NoDatabase):
        await made("none")
    assert not settings.data_dir.exists()
    async with EmbeddedMongod(data_dir=settings.data_dir) as mongod:
        with pytest.raises(StoreMisconfigured):
            await made("not-migrated")
        client: AsyncMongoClient[dict[str, Any]]
        async with AsyncMongoClient(mongod.uri) as client:
            assert await client[settings.mongodb_database].list_collection_names() == []
    async with app.open_store(settings) as opened, Committer(opened.store) as committer:
        await _add(committer, opened.store, 7)
        assert await made("running") == 1
    assert await made("stopped") == 1


async def test_without_the_store_there_is_no_file(operator: Operator, tmp_path: Path) -> None:
    store, file = FailingStore(StoreUnavailable("away")), tmp_path / "new" / "file"
    file.parent.mkdir()
    with pytest.raises(StoreUnavailable):
        await write_checkpoint(store, 3, key=operator.private_key, file=file)
    assert _files(file.parent) == set()


class _FailingAt(MemoryCheckpoints):
    """Checkpoints of a store that becomes unavailable at a step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    async def add(self, checkpoint: StoredCheckpoint) -> None:
        if self._step == "add":
            raise StoreUnavailable("away")
        await super().add(checkpoint)

    async def prune(self, app_id: int) -> None:
        if self._step == "prune":
            raise StoreUnavailable("away")
        await super().prune(app_id)


@pytest.mark.parametrize(("step", "is_stored"), [("add", False), ("prune", True)])
async def test_what_servers_return_is_also_in_a_file(
    operator: Operator, tmp_path: Path, step: str, is_stored: bool
) -> None:
    store, file = MemoryStore(), tmp_path / "file"
    store.checkpoints = _FailingAt(step)
    expected = contextlib.nullcontext() if is_stored else pytest.raises(StoreUnavailable)
    with expected:
        await write_checkpoint(store, 3, key=operator.private_key, file=file)
    assert len(await store.checkpoints.newest(3, 10)) == is_stored
    assert load_checkpoint(file, key=operator.public_key).app_id == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"text", "is not a private key in PEM without a password"),
    ],
)
async def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, key: bytes | None, message: str
) -> None:
    path = tmp_path / "checkpoint.key"
    if key is not None:
        path.write_bytes(key)
    with pytest.raises(FileUnusable, match=message) as raised:
        await write_checkpoint(MemoryStore(), 3, key=path, file=tmp_path / "file")
    assert str(path) in str(raised.value)


async def test_a_key_of_another_kind_or_an_existing_file_cannot_be_used(
    operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("yesterday's")
    other = tmp_path / "file.part"  # for example of another run
    other.write_text("another run's")
    with pytest.raises(FileUnusable, match="exists"):
        await write_checkpoint(MemoryStore(), 3, key=operator.private_key, file=file)
    assert file.read_text() == "yesterday's"
    assert other.read_text() == "another run's"
    for path, why in (
        (tmp_path / "no" / "folder", "No such file"),
        (file / "below", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(FileUnusable, match=f"cannot be written: {why}"):
            await write_checkpoint(MemoryStore(), 3, key=operator.private_key, file=path)
    operator.make_another_kind_of_key()
    with pytest.raises(FileUnusable, match="not an Ed25519 key"):
        await write_checkpoint(MemoryStore(), 3, key=operator.private_key, file=tmp_path / "f")


class _TimedStore(MemoryStore):
    """A store whose answer about its time takes a while, and which records what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def ping(self) -> ClockReading:
        self.asked.append("time")
        return ClockReading(store_seconds=1_000.0, asked_at=5.0, answered_at=7.5)

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        self.asked.append("heads")
        async for page in super().heads(app_id, page_size=page_size):
            yield page


async def test_the_time_is_the_earliest_one_of_the_store_before_the_heads_are_read(
    operator: Operator, tmp_path: Path
) -> None:
    store = _TimedStore()
    made = await write_checkpoint(store, 3, key=operator.private_key, file=tmp_path / "file")
    assert made.time == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1_000 - 2.5)
    assert store.asked == ["time", "heads"]


@pytest.mark.parametrize("wrong_by", [timedelta(days=-999), timedelta(days=999)])
async def test_a_wrong_clock_of_the_machine_does_not_matter(
    operator: Operator, tmp_path: Path, wrong_by: timedelta
) -> None:
    right = (datetime.now(UTC) + wrong_by).replace(microsecond=0)
    store = MemoryStore(clock=right.timestamp)
    made = await write_checkpoint(store, 3, key=operator.private_key, file=tmp_path / "file")
    assert made.time == right


async def test_a_checkpoint_of_a_real_database_has_its_time_and_its_heads(
    operator: Operator, tmp_path: Path, mongod_uri: str, migrated_database: str
) -> None:
    store, file = MongoStore(mongod_uri, database=migrated_database), tmp_path / "file"
    before = await store.ping()
    async with Committer(store) as committer:
        added = [await _add(committer, store, user_id) for user_id in (7, 8)]
        made = await write_checkpoint(store, 3, key=operator.private_key, file=file, page_size=1)
    after = await store.ping()
    await store.close()
    assert before.store_earliest(before.asked_at) - 1 < made.time.timestamp() < after.store_seconds
    read = load_checkpoint(file, key=operator.public_key)
    assert read.heads == {one.transaction.user_id: one.transaction.hash for one in added}


class _ChangingStore(MemoryStore):
    """A store in which a user writes between two reads of the heads."""

    def __init__(self, committer: list[Committer]) -> None:
        super().__init__()
        self._committer = committer

    async def heads(self, app_id: int, *, page_size: int) -> AsyncIterator[Sequence[Head]]:
        async for page in super().heads(app_id, page_size=page_size):
            for user_id in (1, 100):
                await _add(self._committer[0], self, user_id)
            yield page


async def test_writes_during_the_reads_do_no_harm(operator: Operator, tmp_path: Path) -> None:
    committers: list[Committer] = []
    store, file = _ChangingStore(committers), tmp_path / "file"
    async with Committer(store) as committer:
        committers.append(committer)
        before = {user_id: await _add(committer, store, user_id) for user_id in range(1, 8)}
        await write_checkpoint(store, 3, key=operator.private_key, file=file, page_size=2)
    read = load_checkpoint(file, key=operator.public_key)
    assert read.heads.keys() == {*range(1, 8), 100}
    for user_id in read.heads:
        verifier = HistoryVerifier(checkpoint=read)
        rows = await _rows(store, user_id)
        for row in rows:
            verifier.add(row)
        verifier.end()
    assert read.heads[1] == before[1].transaction.hash
