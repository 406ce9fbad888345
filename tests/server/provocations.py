"""Provoke each reason of the contract on each call that declares it.

A call is named as in `WireCaller.call`: `A/B` is the call A with one operation, which stands for B.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol
from unittest import mock

import betterproto2
from credit_models import (
    AlertDirection,
    BatchWriteRequest,
    ErrorReason,
    SpendingCaps,
    WatchRequest,
)
from credit_models.ledger import ALERTS_MAX, BATCH_SIZE_MAX, GRANTS_MAX, HOLDS_MAX
from credit_models.reasons import ACCESS_REASONS, method_reasons
from credit_models.scopes import SCOPED_BY_OPERATION
from credit_server.access import Credentials, Identity
from credit_server.access.authorize import AccessLimits
from credit_server.api import reads
from credit_server.api.contract import CONTRACT
from credit_server.api.watch_hub import WatchHub
from credit_server.api.watch_token import Scope, log_token
from credit_server.commit import CommitLimits
from credit_server.grpc.handler import CallLimits
from credit_server.store.memory import MemoryStore
from credit_server.store.port import StoreUnavailable, Unreadable
from credit_testing.stores import (
    FailingStore,
    HeldStore,
    LongHistoryStore,
    crowded_store,
    full_store,
)

from tests.server import requests
from tests.server.clocks import Clocks, skewed_clock
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.operations import operation
from tests.server.requests import PATHS, WRITES, prepared, request_of

UINT32_MAX = 2**32 - 1
DAY_SECONDS = 24 * 60 * 60
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Caller(requests.Caller, Protocol):
    """Makes calls on a server."""

    # Any: each implementation returns, or raises, what its tests check.
    async def call(self, call: str, request: betterproto2.Message) -> Any:
        """Make a call."""

    async def aborted(self, request: BatchWriteRequest, index: int = 0) -> Any:
        """Make an atomic batch, and treat the failure of one of its operations like a call's."""


# Any: the options of `serving`.
Open = Callable[..., AbstractAsyncContextManager[Caller]]
"""Starts a server with these options, and connects to it."""

Provoke = Callable[[Open, str], Awaitable[Any]]


class EveryoneAs:
    """Authenticates every call as one identity."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def authenticate(self, credentials: Credentials) -> Identity:
        return self._identity

    def recognize(self, credentials: Credentials) -> Identity:
        return self._identity


def cases() -> list[tuple[str, ErrorReason]]:
    """Return each call with each reason that it declares and that a request can provoke."""
    return [
        (call_with(path, reason), reason)
        for path, reasons in method_reasons().items()
        for reason in (*ACCESS_REASONS, *reasons)
        if _can_be_met(path, reason)
    ]


def call_with(path: str, reason: ErrorReason) -> str:
    """Return the name of a call; of one with operations also an operation with the reason."""
    name = path.rpartition("/")[2]
    if path not in SCOPED_BY_OPERATION:
        return name
    declares = (call for call in WRITES if reason in method_reasons()[PATHS[call]])
    return f"{name}/{next(declares, 'AddCredits')}"


def _can_be_met(path: str, reason: ErrorReason) -> bool:
    """Return whether a request of the call has the field that the reason is about."""
    if path in SCOPED_BY_OPERATION:
        return True
    if reason is ErrorReason.ACTOR_NOT_ALLOWED and path not in CONTRACT.writes:
        return False  # the field of a read is a filter
    about = {ErrorReason.APP_NOT_ALLOWED: "app_id", ErrorReason.ACTOR_NOT_ALLOWED: "created_by"}
    return hasattr(request_of(path.rpartition("/")[2]), about.get(reason, "__class__"))


def _inner(call: str) -> str:
    return call.rpartition("/")[2]


# Any: the fields of the requests have many types.
def _with(**changed: Any) -> Provoke:
    """Return what provokes a reason by a request that would succeed without these fields."""

    async def provoke(open_: Open, call: str) -> Any:
        async with open_() as caller:
            request = await prepared(caller, _inner(call))
            return await caller.call(call, replace(request, **changed))

    return provoke


def _alone(**options: Any) -> Provoke:
    """Return what provokes a reason on a server with these options, which rejects all writes."""

    async def provoke(open_: Open, call: str) -> Any:
        async with open_(**options) as caller:
            return await caller.call(call, request_of(_inner(call)))

    return provoke


async def _invalid_field(open_: Open, call: str) -> Any:
    async with open_() as caller:
        return await caller.call(call, type(request_of(_inner(call)))())


async def _key_reused(open_: Open, call: str) -> Any:
    async with open_() as caller:
        await caller.write("AddCredits", credits=49, idempotency_key="k")
        return await caller.call(call, request_of(_inner(call), idempotency_key="k"))


async def _transaction_not_found(open_: Open, call: str) -> Any:
    request = request_of(_inner(call))
    if _inner(call) == "GetTransaction":
        request = type(request)(transaction_id=requests.ANY_ID)
    async with open_() as caller:
        return await caller.call(call, request)


async def _summary_too_large(open_: Open, call: str) -> Any:
    async with open_(LongHistoryStore()) as caller:
        return await caller.call(call, request_of(_inner(call)))


async def _hold_expired(open_: Open, call: str) -> Any:
    clocks = Clocks()
    async with open_(clock=clocks.clock()) as caller:
        request = await prepared(caller, _inner(call))
        clocks.advance(15 * 60)
        return await caller.call(call, request)


def _settled(settle: str) -> Provoke:
    """Return what provokes the reason of a hold that a call has settled."""

    async def provoke(open_: Open, call: str) -> Any:
        async with open_() as caller:
            request: Any = await prepared(caller, _inner(call))
            await caller.write(settle, hold_id=request.hold_id)
            return await caller.call(call, request)

    return provoke


async def _hold_life_exceeded(open_: Open, call: str) -> Any:
    clocks = Clocks()
    async with open_(clock=clocks.clock()) as caller:
        request: Any = await prepared(caller, _inner(call))
        clocks.advance(1)
        return await caller.call(call, replace(request, expires_after_seconds=7 * DAY_SECONDS))


async def _grant_empty(open_: Open, call: str) -> Any:
    async with open_() as caller:
        request = await prepared(caller, _inner(call))
        await caller.write("PlaceHold")
        return await caller.call(call, request)


async def _not_reversible(open_: Open, call: str) -> Any:
    async with open_() as caller:
        await caller.write("AddCredits")
        hold = await caller.write("PlaceHold")
        request = request_of(_inner(call), transaction_id=hold.transaction_id)
        return await caller.call(call, request)


async def _already_purchased(open_: Open, call: str) -> Any:
    async with open_() as caller:
        await caller.write("AddCredits", credits=100)
        await caller.write("UseCredits")
        return await caller.call(call, request_of(_inner(call), once=True))


async def _cap_exceeded(open_: Open, call: str) -> Any:
    async with open_() as caller:
        request: Any = await prepared(caller, _inner(call))
        await caller.write("SetSpendingCap", caps=SpendingCaps(per_hour=49))
        if _inner(call) == "CaptureHold":
            request = replace(request, credits=50, allow_excess=True)
        return await caller.call(call, request)


async def _insufficient_credits(open_: Open, call: str) -> Any:
    async with open_() as caller:
        added = await caller.write("AddCredits", credits=20)
        request = request_of(_inner(call))
        match _inner(call):
            case "CaptureHold":
                hold = await caller.write("PlaceHold", credits=20)
                request.hold_id, request.credits = hold.transaction_id, 50
                request.allow_excess = True
            case "ReverseTransaction":
                await caller.write("UseCredits", credits=15)
                request.transaction_id, request.credits = added.transaction_id, 20
            case "AdjustBalance":
                request.delta = -50
        return await caller.call(call, request)


async def _balance_overflow(open_: Open, call: str) -> Any:
    async with open_() as caller:
        request = await prepared(caller, _inner(call))
        receiving = 2 if _inner(call) == "TransferCredits" else 1
        # A use has left 30 credits of 50, and its refund of 20 would be too much.
        left = 30 if _inner(call) == "ReverseTransaction" else 0
        await caller.write("AddCredits", app_id=receiving, credits=UINT32_MAX - left)
        return await caller.call(call, request)


async def _total_overflow(open_: Open, call: str) -> Any:
    async with open_() as caller:
        for user_id in (7, 8):
            await caller.write("AddCredits", user_id=user_id, credits=UINT32_MAX)
        return await caller.call(call, request_of(_inner(call)))


async def _too_many_apps(open_: Open, call: str) -> Any:
    async with open_(await full_store()) as caller:
        request = request_of(_inner(call))
        if _inner(call) == "TransferCredits":  # user 7 has a credit in each of the other apps
            request = replace(request, app_id=2, to_app_id=1, credits=1)
        return await caller.call(call, request)


async def _too_many_alerts(open_: Open, call: str) -> Any:
    async with open_() as caller:
        for credits_ in range(1, ALERTS_MAX + 1):
            await caller.attempt(call, request_of("SetAlert", credits=credits_))
        return await caller.call(call, request_of("SetAlert", credits=ALERTS_MAX + 1))


async def _too_many_webhooks(open_: Open, call: str) -> Any:
    async with open_() as caller:
        for number in range(4):
            url = f"https://example.com/{number}"
            await caller.attempt(call, request_of("SetWebhook", url=url))
        return await caller.call(call, request_of("SetWebhook"))


async def _grants_full(open_: Open, call: str) -> Any:
    async with open_() as caller:
        request: Any = request_of(_inner(call))
        match _inner(call):
            case "ReverseTransaction":
                await caller.write("GrantCredits", priority=1000)
                used = await caller.write("UseCredits")
                request.transaction_id = used.transaction_id
            case "TransferCredits":
                await caller.write("GrantCredits", app_id=2, priority=1000)
                request.app_id, request.to_app_id = 2, 1
        for priority in range(GRANTS_MAX):
            await caller.write("GrantCredits", credits=1, priority=priority)
        if _inner(call) == "GrantCredits":
            request.priority = GRANTS_MAX
        return await caller.call(call, request)


async def _holds_full(open_: Open, call: str) -> Any:
    async with open_() as caller:
        await caller.write("AddCredits", credits=1000)
        for _ in range(HOLDS_MAX):
            await caller.write("PlaceHold", credits=1)
        return await caller.call(call, request_of(_inner(call)))


async def _account_full(open_: Open, call: str) -> Any:
    async with open_(await crowded_store()) as caller:
        request: Any = request_of(_inner(call))
        match _inner(call):
            case "ReverseTransaction":
                await caller.write("GrantCredits", priority=1000)
                used = await caller.write("UseCredits")
                request.transaction_id = used.transaction_id
            case "TransferCredits":
                request.app_id, request.to_app_id, request.credits = 2, 1, 1
            case "PlaceHold":
                await caller.write("AddCredits", credits=1000)
        await caller.write("GrantCredits", credits=1, priority=1)
        return await caller.call(call, request)


async def _batch_too_large(open_: Open, _: str) -> Any:
    async with open_() as caller:
        for priority in range(GRANTS_MAX):
            await caller.write("GrantCredits", credits=1, priority=priority)
        requests_ = [
            request_of("TransferCredits", app_id=source, to_app_id=3 - source, credits=GRANTS_MAX)
            for source in [1, 2] * 10
        ]
        operations = [operation(request) for request in requests_]
        batch = BatchWriteRequest(operations=operations, atomic=True)
        # A transfer has 257 entries, one of which has 256 allocations, and there are 256 grants.
        fitting = (BATCH_SIZE_MAX - GRANTS_MAX // 4) // (1 + GRANTS_MAX + GRANTS_MAX // 16)
        return await caller.aborted(batch, index=fitting)


async def _batch_aborted(open_: Open, _: str) -> Any:
    async with open_() as caller:
        requests_ = (request_of("AddCredits"), request_of("UseCredits", credits=51))
        operations = [operation(request) for request in requests_]
        return await caller.aborted(BatchWriteRequest(operations=operations, atomic=True))


async def _overloaded(open_: Open, call: str) -> Any:
    if call == "Watch":  # it has a limit of its own
        store = MemoryStore()
        hub = WatchHub(store, watchers_max=1)
        async with open_(store, hub=hub) as caller:
            with hub.watching("another", shared=True):
                return await caller.call(call, request_of(call))
    call_limits = CallLimits(message_bytes_max=4096, calls_max=1, loop_lag_seconds_max=3600.0)
    return await beside_a_held_write(open_, call, call_limits=call_limits)


async def queue_full(open_: Open, call: str) -> Any:
    """Make a write while another one takes up the queue."""
    limits = CommitLimits(shards=1, waiting_max=1)
    return await beside_a_held_write(open_, call, limits=limits)


async def beside_a_held_write(open_: Open, call: str, **options: Any) -> Any:
    """Make a call while a write takes up all that the limits of a server admit."""
    store = HeldStore()
    async with open_(store, **options) as caller:
        running = asyncio.create_task(caller.write("AddCredits"))
        await store.entered.wait()
        try:
            return await caller.call(call, request_of(_inner(call)))
        finally:
            store.released.set()
            await running


async def _resume_token_expired(open_: Open, call: str) -> Any:
    store = MemoryStore()
    async with open_(store) as caller:
        await caller.write("AddCredits")
        store.truncate_log()
        token = log_token(Scope(0, 1), (0).to_bytes(8, "big"))
        return await caller.call(call, WatchRequest(app_id=1, resume_token=token))


async def _alert_events_expired(open_: Open, call: str) -> Any:
    store = MemoryStore()
    async with open_(store) as caller:
        rises = {"user_id": None, "direction": AlertDirection.RISES_TO}
        await caller.attempt("SetAlert", request_of("SetAlert", **rises))
        for user_id in (7, 8, 9):
            await caller.write("AddCredits", user_id=user_id)
        await store.alert_events.order(3)
        await store.alert_events.remove_before(datetime.max.replace(tzinfo=UTC), 3)
        return await caller.call(call, request_of(call, after_position=1))


async def _clock_skewed(open_: Open, call: str) -> Any:
    return await _alone(clock=skewed_clock())(open_, call)


async def _store_unavailable(open_: Open, call: str) -> Any:
    async with open_(
        FailingStore(StoreUnavailable("mongodb://user:secret@host is away"))
    ) as caller:
        return await caller.call(call, request_of(_inner(call)))


async def _data_unreadable(open_: Open, call: str) -> Any:
    async with open_(FailingStore(Unreadable("user_credits 7: balances"))) as caller:
        return await caller.call(call, request_of(_inner(call)))


def _as(identity: Identity) -> Provoke:
    return _alone(authenticator=EveryoneAs(identity))


async def _user_ids_exhausted(open_: Open, call: str) -> Any:
    store = MemoryStore()
    await store.next_user_id(UINT32_MAX)
    async with open_(store) as caller:
        return await caller.call(call, request_of(_inner(call)))


async def _revision_not_reached(open_: Open, call: str) -> Any:
    changed = {"min_revision": 99}
    if _inner(call) == "GetAppBalance":
        changed["user_id"] = 7
    with mock.patch.object(reads, "REVISION_SECONDS_MAX", 0.0):
        async with open_() as caller:
            return await caller.call(call, request_of(_inner(call), **changed))


async def _rate_limited(open_: Open, call: str) -> Any:
    limits = AccessLimits(calls_per_second=0.5, calls_burst=1)
    async with open_(authenticator=EveryoneAs(EVERYTHING), access_limits=limits) as caller:
        await caller.attempt(call, request_of(_inner(call)))
        return await caller.call(call, request_of(_inner(call)))


PROVOCATIONS: Mapping[ErrorReason, Provoke] = {
    ErrorReason.UNAUTHENTICATED: _alone(authenticator=FakeAuthenticator({})),
    ErrorReason.RATE_LIMITED: _rate_limited,
    ErrorReason.SCOPE_MISSING: _as(replace(EVERYTHING, scopes=frozenset())),
    ErrorReason.APP_NOT_ALLOWED: _as(replace(EVERYTHING, apps=frozenset({2}))),
    ErrorReason.ACTOR_NOT_ALLOWED: _as(replace(EVERYTHING, actor=8, may_impersonate=False)),
    ErrorReason.INVALID_FIELD: _invalid_field,
    ErrorReason.IDEMPOTENCY_KEY_REUSED: _key_reused,
    ErrorReason.CREDITS_LIMIT_EXCEEDED: _alone(credits_max=49),
    ErrorReason.TRANSACTION_NOT_FOUND: _transaction_not_found,
    ErrorReason.IDEMPOTENCY_KEY_NOT_FOUND: _alone(),
    ErrorReason.REVISION_NOT_REACHED: _revision_not_reached,
    ErrorReason.USER_NOT_FOUND: _alone(),
    ErrorReason.USER_IDS_EXHAUSTED: _user_ids_exhausted,
    ErrorReason.PAGE_TOKEN_INVALID: _with(page_token="none"),
    ErrorReason.SUMMARY_TOO_LARGE: _summary_too_large,
    ErrorReason.RESUME_TOKEN_INVALID: _with(resume_token="none"),
    ErrorReason.RESUME_TOKEN_EXPIRED: _resume_token_expired,
    ErrorReason.ALERT_EVENTS_EXPIRED: _alert_events_expired,
    ErrorReason.GRANT_NOT_FOUND: _alone(),
    ErrorReason.HOLD_NOT_FOUND: _alone(),
    ErrorReason.NOT_REVERSIBLE: _not_reversible,
    ErrorReason.HOLD_ALREADY_CAPTURED: _settled("CaptureHold"),
    ErrorReason.HOLD_ALREADY_RELEASED: _settled("ReleaseHold"),
    ErrorReason.HOLD_EXPIRED: _hold_expired,
    ErrorReason.GRANT_EMPTY: _grant_empty,
    ErrorReason.EXPIRES_TOO_EARLY: _with(expires_at=LONG_AGO),
    ErrorReason.HOLD_LIFE_EXCEEDED: _hold_life_exceeded,
    ErrorReason.REVISION_CHANGED: _with(expected_revision=99),
    ErrorReason.ALREADY_PURCHASED: _already_purchased,
    ErrorReason.HOLD_EXCEEDED: _with(credits=21),
    ErrorReason.REVERSAL_EXCEEDS: _with(credits=21),
    ErrorReason.CAP_EXCEEDED: _cap_exceeded,
    ErrorReason.INSUFFICIENT_CREDITS: _insufficient_credits,
    ErrorReason.BALANCE_OVERFLOW: _balance_overflow,
    ErrorReason.APP_TOTAL_OVERFLOW: _total_overflow,
    ErrorReason.TOO_MANY_ALERTS: _too_many_alerts,
    ErrorReason.TOO_MANY_WEBHOOKS: _too_many_webhooks,
    ErrorReason.WEBHOOK_URL_NOT_ALLOWED: _with(url="https://127.0.0.1/"),
    ErrorReason.DEAD_LETTER_NOT_FOUND: _alone(),
    ErrorReason.TOO_MANY_APPS: _too_many_apps,
    ErrorReason.GRANTS_FULL: _grants_full,
    ErrorReason.HOLDS_FULL: _holds_full,
    ErrorReason.ACCOUNT_FULL: _account_full,
    ErrorReason.AVAILABLE_TOO_LOW: _with(min_available_after=UINT32_MAX),
    ErrorReason.BATCH_TOO_LARGE: _batch_too_large,
    ErrorReason.BATCH_ABORTED: _batch_aborted,
    ErrorReason.CLOCK_SKEWED: _clock_skewed,
    ErrorReason.OVERLOADED: _overloaded,
    ErrorReason.STORE_UNAVAILABLE: _store_unavailable,
    ErrorReason.DATA_UNREADABLE: _data_unreadable,
}
"""What provokes each reason, on a new server. It returns what the caller's last call returns."""
