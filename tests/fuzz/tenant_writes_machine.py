"""Let two tenants make all writes, refer to each other's transactions, and move credits.

The model of accounts predicts each answer: what belongs to an app of which a tenant is no member
does not exist for it. Nothing that is due by time happens in an example.
"""

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    CreditTransaction,
    ExtendHoldRequest,
    GetForecastRequest,
    GetForecastResponse,
    GrantCreditsRequest,
    ListGrantsRequest,
    ListGrantsResponse,
    ListHoldsRequest,
    ListHoldsResponse,
    PlaceHoldRequest,
    PurchaseRequest,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransferCreditsRequest,
    UserId,
    VoidGrantRequest,
)
from credit_models.codec import decode, encode
from credit_models.image import SERVICES, method_path
from credit_testing.accounts.draw import NO_ID
from credit_testing.accounts.model import Account, Entry
from credit_testing.accounts.replay import as_shown
from credit_testing.accounts.rules.decide import decide
from credit_testing.accounts.rules.decision import Decided, Refused
from credit_testing.accounts.rules.requests import Write, users_of
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_fuzz.model import Reply
from grpc_fuzz.replies import error_info
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.fuzz.tenant_calls import octets_of
from tests.fuzz.tenant_model import Tenant
from tests.fuzz.two_tenants import TwoTenants, apps, whose

_PATHS = {
    method.input_type.name: method_path(method)
    for service in SERVICES
    for method in service.methods
}
_READS: tuple[tuple[type[betterproto2.Message], type[betterproto2.Message]], ...] = (
    (ListGrantsRequest, ListGrantsResponse),
    (ListHoldsRequest, ListHoldsResponse),
    (GetForecastRequest, GetForecastResponse),
)
# Any: the fields of requests.
_REPORT: dict[str, Any] = {"report_id": "r", "report_name": "Report"}
_WRITES: tuple[Write, ...] = (
    CreditRequest(credits=40),
    PurchaseRequest(**_REPORT, credits=3),
    GrantCreditsRequest(credits=30, priority=400),
    VoidGrantRequest(),
    PlaceHoldRequest(credits=9),
    CaptureHoldRequest(**_REPORT, credits=4, final=False),
    ReleaseHoldRequest(),
    ExtendHoldRequest(expires_after_seconds=3600),
    ReverseTransactionRequest(credits=2),
    TransferCreditsRequest(credits=5),
    AdjustBalanceRequest(delta=-1),
    SetSpendingCapRequest(caps=SpendingCaps(per_month=1000)),
)
_REFERENCES = ("hold_id", "grant_id", "transaction_id")
_STATUSES = {"APP_NOT_ALLOWED": "PERMISSION_DENIED", "ACTOR_NOT_ALLOWED": "PERMISSION_DENIED"}

places = st.integers(0, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A user and an app of the example, by their numbers."""

    user: int
    app: int


_places = st.builds(Place, user=whose, app=apps)


class TenantWritesMachine(TwoTenants):
    """Two tenants make all writes about two users' accounts."""

    def __init__(self) -> None:
        super().__init__()
        self._operator = self.calls.operators_token()
        self._accounts = {user: Account(user_id=user) for user in self.users}
        self._entries: list[Entry] = []
        self._texts = itertools.count(1)

    @rule(
        who=whose,
        kind=st.sampled_from(_WRITES),
        at=_places,
        to=_places,
        place=places,
        own=st.booleans(),
        actor=st.sampled_from((0, 0, 0, 1)),
    )
    def write(
        self, who: int, kind: Write, at: Place, to: Place, place: int, own: bool, actor: int
    ) -> None:
        """Send a write about what is there, or about what is anywhere."""
        self._send(who, self._request(who, kind, at, to, place, actor, own=own))

    @rule(who=whose, user=whose, shared=st.booleans(), place=places)
    def hold_and_settle(self, who: int, user: int, shared: bool, place: int) -> None:
        """Do what succeeds, which chance does too seldom."""
        at = Place(user=user, app=2 if shared else who)
        for kind in (_WRITES[0], _WRITES[2], _WRITES[4], _WRITES[5]):
            self._send(who, self._request(who, kind, at, at, 0, 0, own=True))
        to = Place(user=1 - user, app=2)
        self._send(who, self._request(who, _WRITES[9], at, to, place, 0, own=True))

    @rule(who=whose, read=st.sampled_from(_READS), at=_places)
    def see(self, who: int, read: tuple[type[Any], type[Any]], at: Place) -> None:
        request_type, response_type = read
        request = request_type(user_id=self.users[at.user], app_id=self.apps[at.app])
        reply = self._call(who, request)
        if self.apps[at.app] not in self.tenants[who].apps:
            refused = Refused("APP_NOT_ALLOWED", (("app_id", str(request.app_id)),))
            _assert_refused(reply, refused)
            return
        shown: Any = decode(response_type, reply.responses[0])
        app = self._accounts[request.user_id].app(request.app_id)
        if isinstance(shown, ListGrantsResponse):
            assert {grant.id: grant.left for grant in shown.grants} == {
                lot.terms.id: lot.left for lot in app.lots.values()
            }
        elif isinstance(shown, ListHoldsResponse):
            assert {hold.id: hold.held for hold in shown.holds} == {
                hold.id: hold.held for hold in app.holds.values()
            }
        else:
            assert shown.balance == app.available

    @rule(who=whose, user=whose)
    def see_history(self, who: int, user: int) -> None:
        reply = self._call(who, UserId(user_id=self.users[user]), "ListUserTransactions")
        shown = [as_shown(decode(CreditTransaction, data)) for data in reply.responses]
        assert shown == [
            replace(entry, held=0, released=0)
            for entry in self._entries
            if entry.user_id == self.users[user] and entry.app_id in self.tenants[who].apps
        ]

    def teardown(self) -> None:
        for who, user in itertools.product(range(2), range(2)):
            self.see_history(who, user)

    def _request(
        self, who: int, kind: Write, at: Place, to: Place, place: int, actor: int, *, own: bool
    ) -> Write:
        """Return a request of a kind. Any: its fields."""
        changes: dict[str, Any] = {
            "user_id": self.users[at.user],
            "app_id": self.apps[at.app],
            "created_by": self.actors[(who + actor) % 2],
            "idempotency_key": self._text("key"),
        }
        if not isinstance(kind, CreditRequest | PurchaseRequest):
            changes["note"] = self._text("note")
        if isinstance(kind, PlaceHoldRequest):
            changes["purpose"] = self._text("purpose")
        if isinstance(kind, TransferCreditsRequest):
            target = (self.users[to.user], self.apps[to.app])
            if target == (changes["user_id"], changes["app_id"]):
                target = (self.users[1 - to.user], target[1])
            changes["to_user_id"], changes["to_app_id"] = target
        for name in _REFERENCES:
            if hasattr(kind, name):
                changes[name] = self._referred(changes if own else {}, name, place)
        return replace(kind, **changes)

    def _referred(self, fields: dict[str, Any], name: str, place: int) -> str:
        """Return the id of a transaction: of a user and app, or of any of the example."""
        fitting = {"hold_id": ("HOLD",), "grant_id": ("GRANT",)}.get(name, ("USE", "ADD"))
        found = [
            entry.id
            for entry in self._entries
            if not fields
            or (
                (entry.user_id, entry.app_id) == (fields["user_id"], fields["app_id"])
                and entry.type.name in fitting
            )
        ]
        return found[-1 - place % len(found)] if found else NO_ID

    def _text(self, kind: str) -> str:
        # The brackets make none a part of another one.
        return f"{kind}<{next(self._texts)}-{self.users[0]}>"

    def _send(self, who: int, request: Write) -> None:
        reply = self._call(who, request)
        expected = self._predicted(self.tenants[who], request)
        if isinstance(expected, Refused):
            _assert_refused(reply, expected)
            return
        assert reply.status == "OK", f"{request}: {expected.main}, and it was {reply}"
        self._take(request)

    def _predicted(self, tenant: Tenant, request: Write) -> Decided | Refused:
        """Return the required answer; without permission it shows nothing of the ledger."""
        named = (request.app_id, getattr(request, "to_app_id", None) or request.app_id)
        foreign = next((app_id for app_id in named if app_id not in tenant.apps), None)
        if foreign is not None:
            return Refused("APP_NOT_ALLOWED", (("app_id", str(foreign)),))
        if request.created_by != tenant.actor:
            return Refused("ACTOR_NOT_ALLOWED", (("created_by", str(request.created_by)),))
        return self._decided(request, datetime.now(UTC), {})

    def _decided(
        self, request: Write, now: datetime, ids: dict[tuple[int, int], str]
    ) -> Decided | Refused:
        accounts = {user: self._accounts[user] for user in users_of(request)}
        return decide(
            *(accounts, request, now, {}),
            lambda user, sequence: ids.get((user, sequence), f"new {user} {sequence}"),
        )

    def _take(self, request: Write) -> None:
        """Compare the new entries, as the operator sees them, with those of the model."""
        shown = [
            as_shown(decode(CreditTransaction, data))
            for user in users_of(request)
            for data in self.calls.send(
                self._operator,
                "/credit.v1.CreditService/ListUserTransactions",
                encode(UserId(user_id=user, after_sequence=self._accounts[user].sequence)),
            ).responses
        ]
        assert shown, f"{request} has no entry"
        ids = {(entry.user_id, entry.sequence): entry.id for entry in shown}
        decided = self._decided(request, shown[0].at, ids)
        assert isinstance(decided, Decided), f"{request}: {decided}"
        new = [entry for entries in decided.entries.values() for entry in entries]
        assert shown == [replace(entry, held=0, released=0) for entry in new]
        self._entries += new
        self._accounts.update(decided.accounts)

    def _call(self, who: int, request: betterproto2.Message, name: str = "") -> Reply:
        path = _PATHS[type(request).__name__]
        if name:
            path = f"/credit.v1.CreditService/{name}"
        reply = self.calls.send(self.tokens[who], path, encode(request))
        self._look_for_what_is_hidden(self.tenants[who], reply, encode(request))
        return reply

    def _look_for_what_is_hidden(self, tenant: Tenant, reply: Reply, sent: bytes) -> None:
        octets = octets_of(reply)
        for text in self._hidden(tenant):
            if text.encode() not in sent:
                assert text.encode() not in octets, f"{tenant.name} was shown {text}: {reply}"

    def _hidden(self, tenant: Tenant) -> set[str]:
        """Return texts that no answer to a tenant may contain."""
        shown: set[str] = set()
        hidden: set[str] = set()
        for entry in self._entries:
            texts = {text for text in (entry.id, entry.key, entry.note) if text}
            if entry.app_id in tenant.apps:
                # The other side of a transfer may be in an app of which it is no member.
                shown |= texts | {entry.related_id}
            else:
                hidden |= texts
        return hidden - shown


def _assert_refused(reply: Reply, expected: Refused) -> None:
    info = error_info(reply)
    assert isinstance(info, ErrorInfo), f"not refused as {expected}, but answered {reply}"
    shown = Refused(info.reason, tuple(sorted(info.metadata.items())))
    assert shown == expected, f"the refusal that a tenant is shown: {shown} instead of {expected}"
    assert reply.status == _STATUSES.get(expected.reason, reply.status)
    assert not reply.responses, f"refused, and answered all the same: {reply}"
