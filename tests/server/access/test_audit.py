"""Each write and each denial leaves one line: who, what and what came of it."""

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from credit_models import AppId, CreditRequest, PurchaseRequest, Receipt, UserId
from credit_models.codec import decode, encode
from credit_server.access.audit import AuditFile, Line, ordinary_log
from credit_server.access.authorize import AccessLimits
from credit_server.grpc.handler import CallLimits
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    USER_IDS_FROM,
    AppPolicy,
    DirectoryUser,
    Store,
    StoreTransaction,
    StoreUnavailable,
)
from credit_server.store.webhooks import MemoryWebhooks, Webhook
from credit_testing.calls import SERVICE, call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore, HeldStore
from grpclib.const import Status
from h2.exceptions import StreamClosedError

from tests.server.callers import open_wire
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.requests import ANY_ID, PATHS, WRITES, request_of
from tests.server.serving import Serving, serving, until

ADD = CreditRequest(user_id=7, app_id=1, credits=50, created_by=9, idempotency_key="order-1")
USE = PurchaseRequest(
    user_id=7, app_id=1, report_id="r", report_name="Report", credits=60, created_by=9
)
SHOP = replace(EVERYTHING, name="shop", apps=frozenset({1}), actor=9, may_impersonate=False)
TOKENS = {"shop": SHOP, "unscoped": replace(SHOP, name="unscoped", scopes=frozenset())}
AS_SHOP = (("authorization", "Bearer shop"), ("x-request-id", "mine"))
ASKED = {"user_id": 7, "app_id": 1, "credits": 50, "created_by": 9, "key": "order-1"}
WHO = {"identity": "shop", "request_id": "mine"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Audited:
    """A server with identities, a connection to it, and what its audit log holds."""

    served: Serving
    wire: Connection
    lines: list[Line]

    @property
    def line(self) -> dict[str, object]:
        """The only line, without its peer."""
        (found,) = self.lines
        return {name: value for name, value in found.items() if name != "peer"}


@asynccontextmanager
async def auditing(
    store: Store | None = None, limits: AccessLimits | None = None
) -> AsyncIterator[Audited]:
    lines: list[Line] = []
    async with (
        serving(
            store,
            authenticator=FakeAuthenticator(TOKENS),
            access_limits=limits,
            audit_sink=lines.append,
        ) as served,
        Connection.connect(served.port) as wire,
    ):
        yield Audited(served=served, wire=wire, lines=lines)


async def test_a_write_is_recorded_with_its_transaction() -> None:
    async with auditing() as audited:
        answer = await audited.wire.call("AddCredits", ADD, *AS_SHOP)
        receipt = decode(Receipt, answer.binary("credit-receipt-bin"))
        assert audited.line == {
            **WHO,
            **ASKED,
            "method": SERVICE + "AddCredits",
            "status": "OK",
            "transaction_id": receipt.transaction_id,
            "replayed": False,
        }


async def test_a_replay_is_recorded_as_such_with_the_first_transaction() -> None:
    async with auditing() as audited:
        for _ in range(2):
            await audited.wire.call("AddCredits", ADD, *AS_SHOP)
        first, again = audited.lines
        assert (first["replayed"], again["replayed"]) == (False, True)
        assert first["transaction_id"] == again["transaction_id"]


async def test_a_resolved_user_is_recorded_with_the_text_and_the_number() -> None:
    async with auditing() as audited:
        for _ in range(2):
            await audited.wire.call(PATHS["ResolveUser"], request_of("ResolveUser"), *AS_SHOP)
        first, again = audited.lines
        assert {name: value for name, value in first.items() if name != "peer"} == {
            **WHO,
            "app_id": 1,
            "external_id": "u-7",
            "method": PATHS["ResolveUser"],
            "status": "OK",
            "user_id": USER_IDS_FROM,
            "created": True,
        }
        assert again == {**first, "created": False}


class _SlowDirectory(MemoryStore):
    """Store a user when the test permits it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = asyncio.Event(), asyncio.Event()

    async def add_user(self, user: DirectoryUser) -> DirectoryUser:
        self.entered.set()
        await self.released.wait()
        return await super().add_user(user)


async def test_a_user_whose_caller_has_left_gets_the_number_and_is_recorded() -> None:
    store = _SlowDirectory()
    async with auditing(store) as audited:
        headers = call_headers(PATHS["ResolveUser"], *AS_SHOP)
        stream, _ = audited.wire.begin(headers, framed(encode(request_of("ResolveUser"))))
        await store.entered.wait()
        await give_up(audited, stream)
        store.released.set()
        await until(lambda: bool(audited.lines))
        line = audited.line
        assert (line["created"], line["answered"]) == (True, False)
    assert await store.find_user((1, "u-7")) is not None


async def test_a_write_that_the_ledger_rejects_is_recorded_with_its_reason() -> None:
    async with auditing() as audited:
        await audited.wire.call("UseCredits", USE, *AS_SHOP)
        line = audited.line
        assert (line["status"], line["reason"]) == ("FAILED_PRECONDITION", "INSUFFICIENT_CREDITS")
        assert (line["credits"], line["key"]) == (60, "")
        assert "transaction_id" not in line


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        (replace(ADD, app_id=2), "PERMISSION_DENIED", "APP_NOT_ALLOWED"),
        (replace(ADD, created_by=8), "PERMISSION_DENIED", "ACTOR_NOT_ALLOWED"),
        (replace(ADD, user_id=0), "INVALID_ARGUMENT", "INVALID_FIELD"),
    ],
    ids=["app", "actor", "field"],
)
async def test_a_write_that_is_not_admitted_is_recorded_once(
    request_: CreditRequest, status: str, reason: str
) -> None:
    async with auditing() as audited:
        await audited.wire.call("AddCredits", request_, *AS_SHOP)
        line = audited.line
        assert (line["identity"], line["status"], line["reason"]) == ("shop", status, reason)
        assert (line["user_id"], line["app_id"]) == (request_.user_id, request_.app_id)


async def test_a_denied_call_is_recorded_without_what_it_sent() -> None:
    async with auditing() as audited:
        await audited.wire.call("AddCredits", ADD, ("x-request-id", "mine"))
        assert audited.line == {
            "method": SERVICE + "AddCredits",
            "status": "UNAUTHENTICATED",
            "reason": "UNAUTHENTICATED",
            "request_id": "mine",
        }


async def test_a_missing_scope_and_a_rate_limit_are_recorded_with_the_identity() -> None:
    async with auditing(limits=AccessLimits(calls_per_second=0.01, calls_burst=1)) as audited:
        for _ in range(2):
            await audited.wire.call("AddCredits", ADD, ("authorization", "Bearer unscoped"))
        assert [(line["identity"], line["reason"]) for line in audited.lines] == [
            ("unscoped", "SCOPE_MISSING"),
            ("unscoped", "RATE_LIMITED"),
        ]


async def test_a_read_is_recorded_only_if_access_is_denied() -> None:
    async with auditing() as audited:
        for method in ("GetUserCredits", "ListUserPurchases", "ListUserTransactions"):
            await audited.wire.call(method, UserId(user_id=7), *AS_SHOP)
        await audited.wire.call("GetAppBalance", AppId(app_id=1), *AS_SHOP)
        await audited.wire.call("GetUserCredits", UserId(), *AS_SHOP)
        assert audited.lines == []
        await audited.wire.call("GetAppBalance", AppId(app_id=2, user_id=7), *AS_SHOP)
        assert audited.line == {
            **WHO,
            "method": SERVICE + "GetAppBalance",
            "app_id": 2,
            "user_id": 7,
            "status": "PERMISSION_DENIED",
            "reason": "APP_NOT_ALLOWED",
        }


async def test_a_peer_is_recorded_by_address_and_port() -> None:
    async with auditing() as audited:
        await audited.wire.call("AddCredits", ADD)
        host, _, port = str(audited.lines[0]["peer"]).rpartition(":")
        assert (host, port.isdigit()) == ("127.0.0.1", True)


def begin_add(wire: Connection, *, key: str = "order-1") -> int:
    """Begin to add, and return the stream's number."""
    headers = call_headers(SERVICE + "AddCredits", *AS_SHOP)
    return wire.begin(headers, framed(encode(replace(ADD, idempotency_key=key))))[0]


async def give_up(audited: Audited, stream_id: int) -> None:
    """Reset a running call, and wait until the server runs none."""
    audited.wire.reset(stream_id)
    await audited.served.wait_quiet()


async def test_a_write_whose_caller_leaves_is_recorded_with_its_result() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        stream_id = begin_add(audited.wire)
        await store.entered.wait()
        await give_up(audited, stream_id)
        assert audited.lines == [], "the result is not known yet"
        store.released.set()
        await until(lambda: bool(audited.lines))
        ((transaction,),) = [page async for page in store.list_transactions(7)]
        assert audited.line == {
            **WHO,
            **ASKED,
            "method": SERVICE + "AddCredits",
            "status": "OK",
            "transaction_id": transaction.id,
            "replayed": False,
            "answered": False,
        }


async def test_a_write_whose_client_disconnects_is_recorded_with_its_peer() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        async with Connection.connect(audited.served.port) as wire:
            begin_add(wire)
            await store.entered.wait()
        await audited.served.wait_quiet()
        store.released.set()
        await until(lambda: bool(audited.lines))
        assert str(audited.lines[0]["peer"]).startswith("127.0.0.1:")
        assert (audited.line["status"], audited.line["answered"]) == ("OK", False)


async def test_a_write_whose_deadline_passes_is_recorded_with_its_result() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        headers = call_headers(SERVICE + "AddCredits", *AS_SHOP, ("grpc-timeout", "20m"))
        answer = await audited.wire.request(headers, framed(encode(ADD)))
        assert answer.status is Status.DEADLINE_EXCEEDED
        store.released.set()
        await until(lambda: bool(audited.lines))
        assert (audited.line["status"], audited.line["answered"]) == ("OK", False)


async def test_a_refusal_whose_caller_has_left_is_recorded_with_its_reason() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        headers = call_headers(SERVICE + "UseCredits", *AS_SHOP)
        stream_id, _ = audited.wire.begin(headers, framed(encode(USE)))
        await store.entered.wait()
        await give_up(audited, stream_id)
        store.released.set()
        await until(lambda: bool(audited.lines))
        line = audited.line
        assert (line["status"], line["reason"]) == ("FAILED_PRECONDITION", "INSUFFICIENT_CREDITS")
        assert line["answered"] is False


async def test_a_write_that_is_cancelled_before_its_batch_is_recorded_as_cancelled() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        begin_add(audited.wire)
        await store.entered.wait()
        waiting = begin_add(audited.wire, key="order-2")
        await until(lambda: audited.served.server._admission._running == 2)
        audited.wire.reset(waiting)
        await until(lambda: audited.served.server._admission._running == 1)
        store.released.set()
        await until(lambda: len(audited.lines) == 2)
        by_key = {line["key"]: line for line in audited.lines}
        assert by_key["order-1"]["status"] == "OK"
        assert "answered" not in by_key["order-1"]
        dropped = by_key["order-2"]
        assert (dropped["status"], dropped["answered"]) == ("CANCELLED", False)
        assert "transaction_id" not in dropped
        assert [len(page) async for page in store.list_transactions(7)] == [1]


class SlowStore(MemoryStore):
    """Lets other tasks run many times before it does anything."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        for _ in range(20):
            await asyncio.sleep(0)
        async with super().begin() as transaction:
            yield transaction


async def test_the_log_and_the_history_agree_whenever_callers_leave() -> None:
    store = SlowStore()
    async with auditing(store) as audited:
        for turns in range(40):
            stream_id = begin_add(audited.wire, key=str(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            with contextlib.suppress(StreamClosedError):  # it has its answer
                audited.wire.reset(stream_id)
        await audited.wire.call("AddCredits", replace(ADD, idempotency_key="last"), *AS_SHOP)
    written = {entry.key: entry.id async for page in store.list_transactions(7) for entry in page}
    assert written == {
        line["key"]: line["transaction_id"] for line in audited.lines if line["status"] == "OK"
    }
    assert len(written) > 1, "some were in time"
    assert {line["status"] for line in audited.lines} <= {"OK", "CANCELLED"}
    assert any(line.get("answered") is False for line in audited.lines)


async def test_a_stop_records_all_writes_that_it_has_cut_off() -> None:
    store = HeldStore()
    async with auditing(store) as audited:
        for number in range(3):
            begin_add(audited.wire, key=f"order-{number}")
        await store.entered.wait()
        await until(lambda: audited.served.server._admission._running == 3)
        await audited.served.server.stop(grace_seconds=0)
        store.released.set()
    written = {entry.key async for page in store.list_transactions(7) for entry in page}
    statuses = {line["key"]: line["status"] for line in audited.lines}
    assert len(audited.lines) == len(statuses) == 3
    assert {key for key, status in statuses.items() if status == "OK"} == written
    assert not any(line["answered"] for line in audited.lines)


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailable("away"), "UNAVAILABLE"), (ZeroDivisionError(), "INTERNAL")],
    ids=["store", "bug"],
)
async def test_a_write_that_fails_is_recorded_with_its_status(
    error: Exception, status: str
) -> None:
    async with auditing(FailingStore(error)) as audited:
        await audited.wire.call("AddCredits", ADD, *AS_SHOP)
        assert audited.line["status"] == status


async def test_what_clients_without_an_identity_send_makes_no_long_lines() -> None:
    async with auditing() as audited:
        await audited.wire.call("/" + "x" * 3000, ADD)
        await audited.wire.call("AddCredits", replace(ADD, idempotency_key="k" * 3000), *AS_SHOP)
        assert all(len(json.dumps(line)) < 1000 for line in audited.lines)
        assert len(audited.lines) == 2


async def test_without_a_sink_nothing_is_kept(logged: list[MutableMapping[str, Any]]) -> None:
    async with serving() as served, Connection.connect(served.port) as wire:
        assert (await wire.call("AddCredits", ADD)).status is Status.OK
        await served.wait_quiet()
    assert [line["event"] for line in logged] == ["call"]


async def test_the_ordinary_log_gets_the_lines_where_no_file_is_named(
    logged: list[MutableMapping[str, Any]],
) -> None:
    ordinary_log({"identity": "shop", "status": "OK"})
    assert logged == [{"event": "audit", "log_level": "info", "identity": "shop", "status": "OK"}]


async def test_no_log_has_a_secret(
    tmp_path: Path, logged: list[MutableMapping[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    # hpack logs every header at debug; `log.configure` silences it at any level.
    caplog.set_level(logging.WARNING, logger="hpack")
    file = AuditFile(tmp_path / "audit.json")
    good, bad, password = "good-secret-1", "bad-secret-2", "password-secret-3"
    basic = base64.b64encode(f"user:{password}".encode()).decode()
    headers = [f"Bearer {good}", f"Bearer {bad}", f"Basic {basic}", f"{bad} {good}", bad, good]
    tokens = FakeAuthenticator({good: SHOP})
    async with (
        serving(authenticator=tokens, audit_sink=file) as served,
        Connection.connect(served.port) as wire,
    ):
        await asyncio.gather(
            *(
                wire.call(method, request, ("authorization", header))
                for header in headers
                for method, request in (
                    ("AddCredits", replace(ADD, idempotency_key="")),
                    ("GetAppBalance", AppId(app_id=2)),
                    ("Nonsense", AppId(app_id=2)),
                )
            )
        )
        await served.wait_quiet()
    file.close()
    audit = (tmp_path / "audit.json").read_text()
    everything = audit + str(logged) + caplog.text
    assert len(audit.splitlines()) == 3 * len(headers) - 2
    assert not [text for text in (good, bad, password, basic, "secret") if text in everything]


# What the line of each write shows besides the user, the app, the requester and the key.
ALSO: dict[str, dict[str, object]] = {
    "AddCredits": {"credits": 50},
    "UseCredits": {"credits": 50},
    "GrantCredits": {"credits": 50},
    "VoidGrant": {"grant_id": ANY_ID},
    "PlaceHold": {"credits": 50},
    "CaptureHold": {"hold_id": ANY_ID},
    "ReleaseHold": {"hold_id": ANY_ID},
    "ExtendHold": {"hold_id": ANY_ID},
    "ReverseTransaction": {"reversed_id": ANY_ID},
    "TransferCredits": {"to_app_id": 2, "credits": 50},
    "AdjustBalance": {"delta": 50, "note": "a correction"},
    "SetSpendingCap": {},
}


@pytest.mark.parametrize("around", ["", "BatchWrite/", "Write/"])
@pytest.mark.parametrize("call", WRITES)
async def test_every_write_is_recorded_with_what_it_is_about(call: str, around: str) -> None:
    lines: list[Line] = []
    async with open_wire(
        authenticator=FakeAuthenticator({"secret": EVERYTHING}), audit_sink=lines.append
    ) as caller:
        await caller.call(around + call, request_of(call, idempotency_key="k"))
    (line,) = lines
    rest = {"peer", "request_id", "status", "reason", "transaction_id", "replayed", "operation"}
    assert {name: value for name, value in line.items() if name not in rest} == {
        "identity": "caller",
        "method": PATHS[around.rstrip("/") or call],
        "user_id": 7,
        "app_id": 1,
        "created_by": 9,
        "key": "k",
        **ALSO[call],
    }
    assert ("operation" in line) is bool(around)


async def test_a_write_that_is_only_validated_is_recorded_without_a_transaction() -> None:
    lines: list[Line] = []
    async with open_wire(audit_sink=lines.append) as caller:
        metadata = {"order": "o-1"}
        for validate_only in (True, False):
            await caller.write("GrantCredits", validate_only=validate_only, metadata=metadata)
    validated, written = lines
    assert "transaction_id" in written
    assert "transaction_id" not in validated
    assert (validated["validate_only"], validated["replayed"]) == (True, False)
    assert "validate_only" not in written
    assert validated["metadata"] == written["metadata"] == metadata


async def test_a_change_of_a_policy_is_recorded_with_its_revision() -> None:
    lines: list[Line] = []
    async with open_wire(
        authenticator=FakeAuthenticator({"secret": SHOP}), audit_sink=lines.append
    ) as caller:
        await caller.call("SetAppPolicy", request_of("SetAppPolicy"))
        await caller.call("SetSpendingCap", request_of("SetSpendingCap", user_id=None))
        await caller.call("SetAppPolicy", request_of("SetAppPolicy", app_id=2))
        await caller.call("SetAppPolicy", request_of("SetAppPolicy", expected_revision=7))
    shown = [(line["status"], line.get("revision"), line.get("reason")) for line in lines]
    assert shown == [
        ("OK", 1, None),
        ("OK", 2, None),
        ("PERMISSION_DENIED", None, "APP_NOT_ALLOWED"),
        ("ABORTED", None, "REVISION_CHANGED"),
    ]
    assert (lines[0]["created_by"], lines[0]["allow_negative"]) == (9, True)
    assert {line["identity"] for line in lines} == {"shop"}


@pytest.mark.parametrize(
    "call", ["GetAppPolicy", "GetSpendingCap", "ListGrants", "ListHolds", "GetForecast"]
)
async def test_a_read_of_another_app_is_recorded(call: str) -> None:
    lines: list[Line] = []
    async with open_wire(
        authenticator=FakeAuthenticator({"secret": SHOP}), audit_sink=lines.append
    ) as caller:
        await caller.call(call, request_of(call))
        assert lines == []
        await caller.call(call, request_of(call, app_id=2))
    (line,) = lines
    assert (line["reason"], line["app_id"]) == ("APP_NOT_ALLOWED", 2)
    assert line.get("user_id") == (None if call == "GetAppPolicy" else 7)


async def test_long_values_are_cut_where_the_contract_ends_them() -> None:
    lines: list[Line] = []
    limits = CallLimits(loop_lag_seconds_max=3600.0)
    async with open_wire(audit_sink=lines.append, call_limits=limits) as caller:
        metadata = {f"{number}" + "k" * 100: "v" * 300 for number in range(10, 30)}
        request = request_of("GrantCredits", note="n" * 600, metadata=metadata)
        await caller.call("GrantCredits", request)
    (line,) = lines
    assert line["note"] == "n" * 500
    # A map has no order, so any 16 of the pairs are shown.
    shown = line["metadata"]
    assert isinstance(shown, dict)
    assert len(shown) == 16
    assert shown.items() <= {(f"{number}" + "k" * 62, "v" * 256) for number in range(10, 30)}


class HeldPolicies(MemoryStore):
    """Holds each change of a policy until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = asyncio.Event(), asyncio.Event()

    async def set_policy(self, changed: AppPolicy) -> None:
        self.entered.set()
        await self.released.wait()
        await super().set_policy(changed)


class HeldWebhooks(MemoryWebhooks):
    """Holds each change of a webhook until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.released = asyncio.Event(), asyncio.Event()

    async def hold(self) -> None:
        self.entered.set()
        await self.released.wait()

    async def set(self, webhook: Webhook, *, keep_secret: bool = False) -> Webhook:
        await self.hold()
        return await super().set(webhook, keep_secret=keep_secret)

    async def remove(self, app_id: int, url: str) -> None:
        await self.hold()
        await super().remove(app_id, url)

    async def resend(self, app_id: int, id_: str, now: datetime) -> int:
        await self.hold()
        return await super().resend(app_id, id_, now)


@pytest.mark.parametrize(
    ("call", "status"),
    [("SetWebhook", "OK"), ("RemoveWebhook", "OK"), ("ResendDeadLetters", "NOT_FOUND")],
)
async def test_a_change_of_a_webhook_whose_caller_leaves_is_recorded_with_its_result(
    call: str, status: str
) -> None:
    store = MemoryStore()
    store.webhooks = held = HeldWebhooks()
    async with auditing(store) as audited:
        headers = call_headers(PATHS[call], *AS_SHOP)
        stream_id, _ = audited.wire.begin(headers, framed(encode(request_of(call))))
        await held.entered.wait()
        await give_up(audited, stream_id)
        assert audited.lines == []
        held.released.set()
        await until(lambda: bool(audited.lines))
    line = audited.line
    assert (line["status"], line["answered"]) == (status, False)
    assert len(await held.of_app(1)) == (call == "SetWebhook")


async def test_a_change_of_a_policy_whose_caller_leaves_is_recorded_with_its_result() -> None:
    store = HeldPolicies()
    async with auditing(store) as audited:
        headers = call_headers(PATHS["SetAppPolicy"], *AS_SHOP)
        stream_id, _ = audited.wire.begin(headers, framed(encode(request_of("SetAppPolicy"))))
        await store.entered.wait()
        await give_up(audited, stream_id)
        assert audited.lines == []
        store.released.set()
        await until(lambda: bool(audited.lines))
    line = audited.line
    assert (line["status"], line["revision"], line["answered"]) == ("OK", 1, False)
    assert (await store.policy(1)).revision == 1
