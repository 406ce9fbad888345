"""`Watch`, as a client sees it on the wire."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from credit_models import CreditTransaction, WatchResponse
from credit_models.ledger import Account
from credit_server.access import Identity, Unauthenticated
from credit_server.api import watch, watch_hub
from credit_server.api.watch_hub import Feed, WatchHub
from credit_server.api.watch_token import Scope, log_token, sequence_token
from credit_server.store.history import Page, TransactionQuery, TransactionRow
from credit_server.store.memory import MemoryStore
from credit_server.store.port import LogPosition, StoreUnavailable
from credit_testing.calls import call_headers
from credit_testing.http2_client import Connection
from credit_testing.stores import LaggingStore
from grpclib.const import Status

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import PATHS
from tests.server.serving import serving, until
from tests.server.watching import begin

ONE = replace(EVERYTHING, name="one", apps=frozenset({1}))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def caller(store: MemoryStore) -> AsyncIterator[WireCaller]:
    async with open_wire(store) as caller:
        yield caller


async def add(caller: WireCaller, number: int = 1, **changed: Any) -> None:
    for _ in range(number):
        await caller.write("AddCredits", **changed)


class TestUser:
    """A stream of a user's transactions."""

    async def test_it_begins_with_a_snapshot_and_goes_on_without_a_gap(
        self, caller: WireCaller
    ) -> None:
        await add(caller, 2)
        watched = await begin(caller, user_id=7)
        (first,) = watched.events
        assert first.snapshot is not None
        assert (first.snapshot.revision, first.snapshot.balances[0].balance) == (2, 100)
        await add(caller, 3)
        await caller.write("UseCredits", credits=20)
        await add(caller, user_id=8)
        await watched.has_transactions(4)
        assert watched.sequences == [(7, number) for number in range(3, 7)]

    async def test_an_event_has_the_transaction_of_a_list(self, caller: WireCaller) -> None:
        watched = await begin(caller, user_id=7)
        await caller.write("GrantCredits", metadata={"order": "42"}, note="a gift")
        await watched.has_transactions(1)
        listed = await caller.read("QueryTransactions")
        assert [watched.events[-1].transaction] == listed.transactions

    async def test_a_user_without_history_has_an_empty_snapshot(self, caller: WireCaller) -> None:
        watched = await begin(caller, user_id=7)
        assert watched.events[0].snapshot is not None
        assert watched.events[0].snapshot.balances == []

    @pytest.mark.parametrize("at", range(5))
    async def test_it_continues_after_any_event(self, caller: WireCaller, at: int) -> None:
        watched = await begin(caller, user_id=7)
        await add(caller, 4)
        await watched.has_transactions(4)
        token = watched.events[at].resume_token
        resumed = await begin(caller, user_id=7, resume_token=token)
        await add(caller, 2)
        await resumed.has_transactions(6 - at)
        assert resumed.sequences == [(7, number) for number in range(at + 1, 7)]
        assert not any(each.snapshot for each in resumed.events)

    async def test_it_continues_on_another_server(self, store: MemoryStore) -> None:
        async with open_wire(store) as one, open_wire(store) as two:
            watched = await begin(one, user_id=7)
            await add(one, 2)
            await watched.has_transactions(2)
            resumed = await begin(two, user_id=7, resume_token=watched.token)
            await add(one)
            await resumed.has_transactions(1)
            assert resumed.sequences == [(7, 3)]

    async def test_one_app_has_its_balances_and_transactions(self, caller: WireCaller) -> None:
        await add(caller)
        await add(caller, app_id=2)
        watched = await begin(caller, user_id=7, app_id=2)
        assert watched.events[0].snapshot is not None
        assert [each.app_id for each in watched.events[0].snapshot.balances] == [2]
        await add(caller)
        await add(caller, app_id=2)
        await watched.has_transactions(1)
        resumed = await begin(
            caller, user_id=7, app_id=2, resume_token=watched.events[0].resume_token
        )
        await add(caller)
        await add(caller, app_id=2)
        await watched.has_transactions(2)
        await resumed.has_transactions(2)
        assert watched.sequences == resumed.sequences == [(7, 4), (7, 6)]

    async def test_it_can_end_when_it_is_current(self, caller: WireCaller) -> None:
        watched = await begin(caller, user_id=7, end_when_current=True)
        assert (await watched.ended()).status is Status.OK
        await add(caller, 2)
        resumed = await begin(caller, user_id=7, resume_token=watched.token, end_when_current=True)
        assert (await resumed.ended()).status is Status.OK
        assert resumed.sequences == [(7, 1), (7, 2)]
        again = await begin(caller, user_id=7, resume_token=resumed.token, end_when_current=True)
        assert (await again.ended()).status is Status.OK
        assert again.events == [WatchResponse(resume_token=resumed.token)]


class TestApp:
    """A stream of the transactions in an app."""

    async def test_it_has_all_users_in_the_order_of_commits(self, caller: WireCaller) -> None:
        await add(caller)
        watched = await begin(caller, app_id=1)
        assert watched.events[0].snapshot is None
        for user in (8, 7, 9, 8):
            await add(caller, user_id=user)
            await add(caller, user_id=user, app_id=2)
        await watched.has_transactions(4)
        assert watched.sequences == [(8, 1), (7, 2), (9, 1), (8, 3)]

    @pytest.mark.parametrize("at", range(4))
    async def test_it_continues_after_any_event(self, caller: WireCaller, at: int) -> None:
        watched = await begin(caller, app_id=1)
        for user in (8, 7, 9):
            await add(caller, user_id=user)
        await watched.has_transactions(3)
        token = watched.events[at].resume_token
        resumed = await begin(caller, app_id=1, resume_token=token)
        await add(caller, user_id=5)
        await resumed.has_transactions(4 - at)
        assert resumed.sequences == [(8, 1), (7, 1), (9, 1), (5, 1)][at:]

    async def test_a_token_goes_on_while_others_write(
        self, caller: WireCaller, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "_PROGRESS_SECONDS", 0.001)
        watched = await begin(caller, app_id=1)
        await add(caller, app_id=2)
        await watched.has(lambda it: it.token != it.events[0].resume_token)
        store.truncate_log()
        resumed = await begin(caller, app_id=1, resume_token=watched.token)
        await add(caller)
        await resumed.has_transactions(1)

    async def test_a_token_that_is_too_old_is_expired(
        self, caller: WireCaller, store: MemoryStore
    ) -> None:
        watched = await begin(caller, app_id=1)
        await add(caller)
        store.truncate_log()
        again = await begin(caller, app_id=1, resume_token=watched.events[0].resume_token)
        assert reason_of(await again.ended()) == "RESUME_TOKEN_EXPIRED"


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "AAAA",
        sequence_token(Scope(8, 0), 1),
        sequence_token(Scope(7, 1), 1),
        sequence_token(Scope(7, 0), 2**64 - 1),
        log_token(Scope(7, 0), b"short"),
        log_token(Scope(7, 0), b""),
        log_token(Scope(0, 1), bytes(8)),
    ],
)
async def test_a_token_of_another_stream_is_rejected(caller: WireCaller, token: str) -> None:
    watched = await begin(caller, user_id=7, resume_token=token)
    assert reason_of(await watched.ended()) == "RESUME_TOKEN_INVALID"


async def test_a_token_beyond_the_history_is_rejected(
    caller: WireCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_STALE_READ_SECONDS", 0.0)
    await add(caller)
    token = sequence_token(Scope(7, 0), 2)
    watched = await begin(caller, user_id=7, resume_token=token)
    assert reason_of(await watched.ended()) == "RESUME_TOKEN_INVALID"


@pytest.mark.parametrize("identity", [replace(ONE, apps=None), ONE], ids=["all apps", "one app"])
async def test_a_token_beyond_the_reads_of_an_old_primary_is_not_rejected(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the watch return transactions again."""
    monkeypatch.setattr(watch, "_STALE_READ_SECONDS", 0.0)
    store = LaggingStore()
    async with open_wire(store, authenticator=FakeAuthenticator({"one": identity})) as wire:
        caller = WireCaller(wire.wire, "one")
        await add(caller)
        await store.remember(7)
        await add(caller)
        store.lag = 5
        token = sequence_token(Scope(7, 0), 2)
        watched = await begin(caller, user_id=7, resume_token=token)
        if identity.apps is None:
            assert reason_of(await watched.ended()) == "STORE_UNAVAILABLE"
            store.lag = 0
            watched = await begin(caller, user_id=7, resume_token=token)
        await add(caller)
        await watched.has_transactions(1)
        assert watched.sequences == [(7, 3)]


class OldPrimary(LaggingStore):
    """The log is read from the new primary. Accounts are old unless they must include an entry."""

    async def account_since(self, user_id: int, position: LogPosition) -> Account | None:
        account = await MemoryStore.account(self, user_id)
        assert account is not None
        # The log has only this user's entries, so its positions are revisions.
        return account if position.time >= account.revision else await self.account(user_id)


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_watch_includes_everything_before_its_part_of_the_log(resumed: bool) -> None:
    """An old primary's account would hide the latest transactions until the user's next one."""
    store = OldPrimary()
    async with open_wire(store) as caller:
        await add(caller)
        await store.remember(7)
        await add(caller)
        store.lag = 100
        token = sequence_token(Scope(7, 0), 1) if resumed else ""
        watched = await begin(caller, user_id=7, resume_token=token, end_when_current=True)
        assert (await watched.ended()).status is Status.OK
    if resumed:
        assert watched.sequences == [(7, 2)]
    else:
        assert watched.events[0].snapshot is not None
        assert watched.events[0].snapshot.revision == 2


class StaleStore(MemoryStore):
    """Its lists miss the newest transaction, as right after a change of primary."""

    def __init__(self) -> None:
        super().__init__()
        self.stale = False

    async def list_transactions(
        self,
        user_id: int,
        apps: frozenset[int] | None = None,
        *,
        after_sequence: int = 0,
        stored_sequence: int = 0,
    ) -> AsyncIterator[Sequence[TransactionRow]]:
        rows: list[TransactionRow] = []
        async for page in super().list_transactions(user_id, apps, after_sequence=after_sequence):
            rows += page
        if self.stale and rows and stored_sequence == rows.pop().sequence:
            raise StoreUnavailable("stale")
        yield rows

    async def query_transactions(self, query: TransactionQuery) -> Page[TransactionRow]:
        found = await super().query_transactions(query)
        if not self.stale or not found.rows:
            return found
        missed = found.rows[0].sequence
        return await super().query_transactions(replace(query, before_sequence=missed))


@pytest.mark.parametrize("app_id", [None, 1])
async def test_a_list_that_misses_transactions_does_not_move_the_stream_on(
    app_id: int | None,
) -> None:
    store = StaleStore()
    async with open_wire(store) as caller:
        watched = await begin(caller, user_id=7, app_id=app_id, end_when_current=True)
        await add(caller, 3)
        store.stale = True
        token = watched.token
        stale = await begin(caller, user_id=7, app_id=app_id, resume_token=token)
        assert reason_of(await stale.ended()) == "STORE_UNAVAILABLE"
        store.stale = False
        resumed = await begin(caller, user_id=7, app_id=app_id, resume_token=token)
        await resumed.has_transactions(3)
        assert resumed.sequences == [(7, 1), (7, 2), (7, 3)]


class TestSlowReaders:
    """A client that reads slowly misses nothing, and holds little."""

    @pytest.mark.parametrize("scope", [{"user_id": 7}, {"app_id": 1}], ids=str)
    async def test_what_has_no_room_is_read_from_the_store(
        self, store: MemoryStore, scope: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch_hub, "_WAITING_MAX", 3)
        monkeypatch.setattr(watch, "_PAGE_SIZE", 2)
        async with (
            serving(store) as served,
            Connection.connect(served.port) as writing,
            Connection.connect(served.port, window=300) as slow,
        ):
            caller = WireCaller(writing)
            watched = await begin(caller, wire=slow, **scope)
            await add(caller, 20)
            assert len(watched.sequences) < 20
            slow.grow(watched.stream, 2**20)
            await watched.has_transactions(20)
            await add(caller)
            await watched.has_transactions(21)
            assert watched.sequences == [(7, number) for number in range(1, 22)]

    async def test_bytes_are_bounded_too(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch_hub, "_WAITING_BYTES_MAX", 100)
        async with open_wire(store) as caller:
            watched = await begin(caller, user_id=7)
            await caller.write("GrantCredits", note="n" * 256)
            await add(caller)
            await watched.has_transactions(2)
            assert watched.sequences == [(7, 1), (7, 2)]


class ScriptedAuthenticator(FakeAuthenticator):
    """Accepts a token until the test changes what it stands for."""

    def __init__(self, identity: Identity) -> None:
        super().__init__({})
        self.identity: Identity | None = identity

    def authenticate(self, credentials: Any) -> Identity:
        if self.identity is None:
            raise Unauthenticated("the token has expired")
        return self.identity


class TestAccess:
    """What an identity may watch."""

    @pytest.fixture(autouse=True)
    def at_each_event(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "_ACCESS_SECONDS", 0.0)

    @asynccontextmanager
    async def open(
        self, store: MemoryStore, identity: Identity
    ) -> AsyncIterator[tuple[WireCaller, WireCaller, ScriptedAuthenticator]]:
        """Yield a caller with the identity, one that may do everything, and the authenticator."""
        authenticator = ScriptedAuthenticator(identity)
        async with (
            open_wire(store, authenticator=authenticator) as own,
            open_wire(store) as other,
        ):
            yield own, other, authenticator

    async def test_other_apps_are_not_seen(self, store: MemoryStore) -> None:
        async with self.open(store, ONE) as (own, other, _):
            await add(other, app_id=2)
            watched = await begin(own, user_id=7)
            assert watched.events[0].snapshot is not None
            assert watched.events[0].snapshot.balances == []
            await add(other, app_id=2)
            await add(other)
            await watched.has_transactions(1)
            token = watched.events[0].resume_token
            resumed = await begin(own, user_id=7, resume_token=token, end_when_current=True)
            assert watched.sequences == resumed.sequences == [(7, 3)]

    async def test_a_token_does_not_reveal_transactions_in_other_apps(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch, "_PROGRESS_SECONDS", 0.001)
        scope = Scope(7, 0)
        async with self.open(store, ONE) as (own, other, _):
            await add(other, 5, app_id=2)
            watched = await begin(own, user_id=7)
            assert watched.token == sequence_token(scope, 0)
            await add(other, app_id=2)
            before = len(watched.events)
            await watched.has(lambda it: len(it.events) > before + 2)
            assert watched.token == sequence_token(scope, 0)
            await add(other)
            await watched.has_transactions(1)
            await add(other, 2, app_id=2)
            before = len(watched.events)
            await watched.has(lambda it: len(it.events) > before + 2)
            assert watched.token == sequence_token(scope, 7)
            again = await begin(own, user_id=7, end_when_current=True)
            assert [each.resume_token for each in again.events] == [sequence_token(scope, 7)]
            resumed = await begin(own, user_id=7, resume_token=again.token)
            await add(other)
            await resumed.has_transactions(1)
            assert resumed.sequences == [(7, 10)]

    async def test_the_first_token_does_not_depend_on_a_read_that_misses_transactions(self) -> None:
        store = StaleStore()
        async with self.open(store, ONE) as (own, other, _):
            await add(other, 2)
            store.stale = True
            watched = await begin(own, user_id=7)
            assert reason_of(await watched.ended()) == "STORE_UNAVAILABLE"
            store.stale = False
            watched = await begin(own, user_id=7)
            assert watched.token == sequence_token(Scope(7, 0), 2)

    @pytest.mark.parametrize("forged", [3, 5, 6, 2**63 - 1])
    async def test_a_forged_token_does_not_reveal_transactions_in_other_apps(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, forged: int
    ) -> None:
        monkeypatch.setattr(watch, "_STALE_READ_SECONDS", 0.0)
        scope = Scope(7, 0)
        async with self.open(store, ONE) as (own, other, _):
            await add(other, 2)
            await add(other, 3, app_id=2)
            token = sequence_token(scope, forged)
            resumed = await begin(own, user_id=7, resume_token=token)
            assert resumed.token == sequence_token(scope, 2)
            await add(other)
            await resumed.has_transactions(1)
            assert resumed.sequences == [(7, 6)]

    @pytest.mark.parametrize("scope", [{"app_id": 2}, {"user_id": 7, "app_id": 2}], ids=str)
    async def test_another_app_is_not_allowed(
        self, store: MemoryStore, scope: dict[str, Any]
    ) -> None:
        async with self.open(store, ONE) as (own, _, _):
            watched = await begin(own, **scope)
            assert reason_of(await watched.ended()) == "APP_NOT_ALLOWED"

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (None, "UNAUTHENTICATED"),
            (replace(ONE, scopes=frozenset()), "SCOPE_MISSING"),
            (replace(ONE, apps=frozenset({2})), "APP_NOT_ALLOWED"),
        ],
    )
    async def test_an_identity_that_loses_its_permission_loses_the_stream(
        self, store: MemoryStore, changed: Identity | None, reason: str
    ) -> None:
        async with self.open(store, ONE) as (own, other, authenticator):
            watched = await begin(own, app_id=1)
            authenticator.identity = changed
            await add(other)
            assert reason_of(await watched.ended()) == reason
            assert watched.sequences == []

    async def test_an_app_that_is_withdrawn_is_no_longer_seen(self, store: MemoryStore) -> None:
        both = replace(ONE, apps=frozenset({1, 2}))
        async with self.open(store, both) as (own, other, authenticator):
            watched = await begin(own, user_id=7)
            await add(other, app_id=2)
            await watched.has_transactions(1)
            authenticator.identity = ONE
            await add(other, app_id=2)
            await add(other)
            await watched.has_transactions(2)
            assert watched.sequences == [(7, 1), (7, 3)]

    async def test_one_identity_may_have_half_of_all_streams(self, store: MemoryStore) -> None:
        hub = WatchHub(store, watchers_max=4)
        tokens = FakeAuthenticator({"a": replace(ONE, name="a"), "b": replace(ONE, name="b")})
        async with open_wire(store, authenticator=tokens, hub=hub) as caller:
            a, b = WireCaller(caller.wire, "a"), WireCaller(caller.wire, "b")
            for _ in range(2):
                await begin(a, user_id=7)
            refused = await begin(a, user_id=7)
            assert reason_of(await refused.ended()) == "RATE_LIMITED"
            held = [await begin(b, user_id=7) for _ in range(2)]
            refused = await begin(b, user_id=7)
            assert reason_of(await refused.ended()) == "OVERLOADED"
            held[0].wire.reset(held[0].stream)
            await until(lambda: hub.watchers == 3)
            await begin(b, user_id=7)

    async def test_streams_without_a_request_are_counted(self, store: MemoryStore) -> None:
        hub = WatchHub(store, watchers_max=4)
        tokens = FakeAuthenticator({"a": replace(ONE, name="a"), "b": replace(ONE, name="b")})
        async with open_wire(store, authenticator=tokens, hub=hub) as caller:
            for name in ("a", "a", "b"):
                token = WireCaller(caller.wire, name).token
                caller.wire.begin(call_headers(PATHS["Watch"], token), end=False)
            await until(lambda: hub.watchers == 3)
            refused = await begin(WireCaller(caller.wire, "a"), user_id=7)
            assert reason_of(await refused.ended()) == "RATE_LIMITED"
            await begin(WireCaller(caller.wire, "b"), user_id=7)
            refused = await begin(WireCaller(caller.wire, "b"), user_id=7)
            assert reason_of(await refused.ended()) == "OVERLOADED"
        assert hub.watchers == 0

    async def test_streams_leave_all_places_of_calls(self, store: MemoryStore) -> None:
        async with serving(store) as served, Connection.connect(served.port) as wire:
            caller = WireCaller(wire)
            for _ in range(3):
                await begin(caller, user_id=7)
            await served.wait_quiet()


class BrokenLog(MemoryStore):
    """Its log can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = asyncio.Event()
        self.error: Exception = StoreUnavailable("away")

    async def follow_log(self) -> Any:
        async for page in super().follow_log():
            yield page
            if self.failure.is_set():
                raise self.error


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a bug")], ids=repr)
async def test_a_log_that_fails_ends_the_stream_and_the_next_one_goes_on(
    error: Exception,
) -> None:
    store = BrokenLog()
    store.error = error
    async with open_wire(store) as caller:
        watched = await begin(caller, user_id=7)
        store.failure.set()
        await add(caller, 2)
        assert reason_of(await watched.ended()) == "STORE_UNAVAILABLE"
        store.failure.clear()
        resumed = await begin(caller, user_id=7, resume_token=watched.token)
        await resumed.has_transactions(2 - len(watched.sequences))
        assert watched.sequences + resumed.sequences == [(7, 1), (7, 2)]


async def test_a_log_that_fails_right_after_it_was_opened_has_no_watchers() -> None:
    store = BrokenLog()
    store.failure.set()
    hub = WatchHub(store)
    with hub.watching("a", shared=True), pytest.raises(StoreUnavailable):
        async with hub.feed(Scope(7, 0)):
            pass
    assert hub.watchers == 0


async def test_a_server_that_stops_ends_the_stream_at_once() -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        watched = await begin(WireCaller(wire), user_id=7)
        await served.server.stop(grace_seconds=3600)
        answer = await watched.ended()
        assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "OVERLOADED")


@asynccontextmanager
async def watching(hub: WatchHub, scope: Scope) -> AsyncIterator[Feed]:
    with hub.watching("a", shared=True):
        async with hub.feed(scope) as feed:
            yield feed


async def test_a_transaction_is_converted_once_for_all_watchers(store: MemoryStore) -> None:
    hub = WatchHub(store)
    async with (
        open_wire(store) as caller,
        watching(hub, Scope(7, 0)) as one,
        watching(hub, Scope(0, 1)) as two,
    ):
        await add(caller)
        await add(caller, user_id=8, app_id=2)
        (first,), (second,) = await one.take(60), await two.take(60)
        assert first is second
        assert first.event(Scope(7, 0), lambda: "t") is first.event(Scope(7, 0), lambda: "u")
        assert CreditTransaction().parse(first.data).sequence == 1
    assert hub.watchers == 0
