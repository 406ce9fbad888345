"""Test how lists read ahead, and how little of them is held for a client that is slow."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from credit_models import CreditTransaction, UserId
from credit_models.codec import encode
from credit_models.ledger import Kind
from credit_server.admission.list_slots import ListSlots
from credit_server.store.history import TransactionRow
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.http2_client import Connection
from grpclib.const import Status

from tests.server.serving import serving, until

PAGE = 20
HEADERS = call_headers(SERVICE + "ListUserTransactions")
OWN = b"\x0a\x18"
"""How each message begins: an id of 24 bytes."""
REQUEST = framed(encode(UserId(user_id=7)))


class Counter:
    """Counts rows.

    Attributes:
        read: The rows that were read so far.
        held: The rows that exist now.
        held_max: The most rows that existed at once.
    """

    def __init__(self) -> None:
        self.read = self.held = self.held_max = 0


class CountedRow(TransactionRow):
    counter: Counter

    def __del__(self) -> None:
        self.counter.held -= 1


class CountingStore(MemoryStore):
    """Return a long history, and count its rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows
        self.counter = Counter()

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        for start in range(after_sequence, self._rows, PAGE):
            yield [self._row(user_id, start + number) for number in range(1, PAGE + 1)]

    def _row(self, user_id: int, sequence: int) -> TransactionRow:
        counter = self.counter
        counter.read += 1
        counter.held += 1
        counter.held_max = max(counter.held_max, counter.held)
        row = CountedRow(f"{sequence:024x}", user_id, 1, 5, 0, 9, Kind.ADD, 5, sequence, "", "")
        row.counter = counter
        return row


async def test_a_list_reads_one_page_ahead_of_a_client_that_takes_nothing() -> None:
    store, slots = CountingStore(100 * PAGE), ListSlots(at_once=1)
    async with (
        serving(store, list_slots=slots) as served,
        Connection.connect(served.port, window=10) as wire,
        Connection.connect(served.port) as other,
    ):
        _, answer = wire.begin(HEADERS, REQUEST)
        await until(lambda: store.counter.read == 2 * PAGE)
        assert len((await other.call("ListUserTransactions", UserId(user_id=8))).data)
        assert store.counter.read == 102 * PAGE, "the first list has read no further"
        assert store.counter.held == 0, "pages are held as bytes"
        assert len(answer.data) == 10


async def test_a_long_list_with_a_slow_client_holds_no_more_than_two_pages() -> None:
    store = CountingStore(200 * PAGE)
    async with (
        serving(store) as served,
        Connection.connect(served.port, window=10) as wire,
    ):
        stream, answer = wire.begin(HEADERS, REQUEST)
        await answer.begun()
        while not answer.ended.is_set():
            await wire.settled()
            taken = answer.data.count(OWN)  # the prefixes and first bytes of messages
            assert store.counter.read - taken <= 2 * PAGE
            wire.grow(stream, 5_000)
    assert answer.status is Status.OK
    assert [row.sequence for row in answer.messages(CreditTransaction)] == [
        *range(1, 200 * PAGE + 1)
    ]
    assert store.counter.held_max == PAGE


async def test_rows_before_an_error_of_the_store_are_sent() -> None:
    class BreakingStore(CountingStore):
        async def list_transactions(
            self,
            user_id: int,
            apps: frozenset[int] | None = None,
            *,
            after_sequence: int = 0,
            stored_sequence: int = 0,
        ) -> AsyncIterator[Sequence[TransactionRow]]:
            pages = super().list_transactions(user_id, apps)
            yield await anext(pages)
            yield await anext(pages)
            raise StoreUnavailable("gone")

    async with (
        serving(BreakingStore(5 * PAGE)) as served,
        Connection.connect(served.port) as wire,
    ):
        answer = await wire.call("ListUserTransactions", UserId(user_id=7))
    assert answer.status is Status.UNAVAILABLE
    assert [row.sequence for row in answer.messages(CreditTransaction)] == [*range(1, 2 * PAGE + 1)]


@pytest.mark.parametrize("window", [10, None], ids=["while it sends", "while it waits"])
async def test_a_list_that_is_reset_ends_the_page_that_it_reads(window: int | None) -> None:
    reading, ended = asyncio.Event(), asyncio.Event()

    class HangingStore(CountingStore):
        async def list_transactions(
            self,
            user_id: int,
            apps: frozenset[int] | None = None,
            *,
            after_sequence: int = 0,
            stored_sequence: int = 0,
        ) -> AsyncIterator[Sequence[TransactionRow]]:
            yield await anext(super().list_transactions(user_id, apps))
            reading.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

    slots = ListSlots(at_once=1)
    async with (
        serving(HangingStore(5 * PAGE), list_slots=slots) as served,
        Connection.connect(served.port, window=window) as wire,
    ):
        stream, answer = wire.begin(HEADERS, REQUEST)
        await answer.begun()
        await reading.wait()
        wire.reset(stream)
        await ended.wait()
        await until(lambda: slots._free == 1)
        await served.wait_quiet()


async def test_a_page_that_failed_while_its_list_was_reset_is_not_an_error_of_the_loop() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    class FailingStore(CountingStore):
        async def list_transactions(
            self,
            user_id: int,
            apps: frozenset[int] | None = None,
            *,
            after_sequence: int = 0,
            stored_sequence: int = 0,
        ) -> AsyncIterator[Sequence[TransactionRow]]:
            yield await anext(super().list_transactions(user_id, apps))
            raise StoreUnavailable("gone")

    try:
        async with (
            serving(FailingStore(5 * PAGE)) as served,
            Connection.connect(served.port, window=10) as wire,
        ):
            stream, answer = wire.begin(HEADERS, REQUEST)
            await answer.begun()
            await wire.settled()
            wire.reset(stream)
            await served.wait_quiet()
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert faults == []
