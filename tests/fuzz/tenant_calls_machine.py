"""Make every call of the contract as two tenants in any app, and read at revisions.

No model predicts these answers. But everything that is sent or made in an app contains unique
texts, and no answer to a tenant who is not a member of the app may contain them.
"""

import itertools
from typing import Any

import betterproto2
from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    ErrorReason,
    GetTransactionRequest,
    ListAlertEventsResponse,
    Operation,
    OperationOutcome,
    Receipt,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import decode, encode
from credit_models.image import SERVICES
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc_fuzz.model import Reply
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.fuzz.tenant_calls import octets_of
from tests.fuzz.tenant_model import Refused
from tests.fuzz.tenants_machine import assert_refused, assert_shown
from tests.fuzz.two_tenants import TwoTenants, apps, whose
from tests.server.operations import operation
from tests.server.requests import PATHS, WRITES, request_of

_OPERATIONS = ("BatchWrite", "Write")
_CALLS = tuple(name for name in PATHS if name not in _OPERATIONS)
_READS = tuple(name for name in _CALLS if hasattr(request_of(name), "min_revision"))
# Calls that change data. Each names an actor, except for ResolveUser.
_CHANGES = frozenset(
    method.name
    for service in SERVICES
    for method in service.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
)
# The fields that get a unique text.
_TEXTS = ("idempotency_key", "note", "purpose", "report_name", "external_id")
# The fields by which a read finds something.
_NAMES = ("idempotency_key", "external_id")
_IDS = ("grant_id", "hold_id", "transaction_id", "dead_letter_id")
# Far above the revision of any user of an example.
_NOT_REACHED = 10**6


class TenantCallsMachine(TwoTenants):
    """Two tenants make every call, in their own apps and in each other's."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        # The app of each text, and the ids that were made in all apps, in the order of their use.
        self._apps: dict[str, int] = {}
        self._ids: list[str] = []
        self._revisions = dict.fromkeys(self.users, 0)

    @rule(
        who=whose,
        name=st.sampled_from((*_CALLS, *WRITES)),
        through=st.sampled_from(("", *_OPERATIONS)),
        user=whose,
        app=apps,
        actor=st.sampled_from((0, 0, 0, 1)),
        place=st.integers(0, 5),
    )
    def call(
        self, who: int, name: str, through: str, user: int, app: int, actor: int, place: int
    ) -> None:
        """Make a call in any app, sometimes as the other tenant's actor. It may fail."""
        app_id, created_by = self.apps[app], self.actors[(who + actor) % 2]
        request = self._request(name, user, app_id, created_by, place)
        # A request without an actor or an app uses the tenant's own actor and apps.
        forbidden = self.tenants[who].forbidden(
            getattr(request, "app_id", 0) or self.apps[2],
            getattr(request, "created_by", 0) or self.actors[who],
        )
        if through and name in WRITES:
            outcome = self._through(who, through, operation(request))
            expected = None if forbidden is None else ErrorReason[forbidden.reason]
            shown = None if outcome.failure is None else outcome.failure.reason
            assert expected in (None, shown), f"{request}: {outcome} instead of {expected}"
            receipt = outcome.receipt
        else:
            reply = self._send(who, name, request)
            if forbidden is not None:
                assert_refused(reply, forbidden)
            trailer = reply.trailer("credit-receipt-bin")
            receipt = decode(Receipt, trailer) if isinstance(trailer, bytes) else None
        if forbidden is None and name in _CHANGES:
            self._take(request, receipt)

    @rule(who=whose, user=whose, shared=st.booleans())
    def earn(self, who: int, user: int, shared: bool) -> None:
        """Make the writes that other calls need. Random calls make them too rarely."""
        for name in ("AddCredits", "PlaceHold"):
            self.call(who, name, "", user, 2 if shared else who, 0, 0)

    @rule(
        who=whose,
        name=st.sampled_from(_READS),
        user=whose,
        shared=st.booleans(),
        reached=st.sampled_from((True, True, True, False)),
    )
    def read_at_a_revision(
        self, who: int, name: str, user: int, shared: bool, reached: bool
    ) -> None:
        app_id, user_id = self.apps[2 if shared else who], self.users[user]
        request = self._request(name, user, app_id, self.actors[who], 0)
        if hasattr(request, "user_id"):
            request.user_id = user_id
        plain = self._send(who, name, request)
        request.min_revision = self._revisions[user_id] if reached else _NOT_REACHED
        reply = self._send(who, name, request)
        if reached:
            # The account did not change between the two reads.
            shown = (reply.status, *reply.responses)
            assert_shown(f"{name} at a revision", shown, (plain.status, *plain.responses))
            return
        # The identity belongs to certain apps, but a revision counts the entries of all apps.
        metadata = {"revision": "0", "required": str(_NOT_REACHED)}
        assert_refused(reply, Refused(reason="REVISION_NOT_REACHED", metadata=metadata))

    @rule(who=whose, app=apps, user=st.none() | whose)
    def read_events_from_now(self, who: int, app: int, user: int | None) -> None:
        """Read the position of the events. Without a wait there are no events after it."""
        user_id, app_id = None if user is None else self.users[user], self.apps[app]
        fields: dict[str, Any] = {"user_id": user_id, "app_id": app_id}
        now = request_of("ListAlertEvents", **fields, from_now=True)
        reply = self._send(who, "ListAlertEvents", now)
        forbidden = self.tenants[who].forbidden(app_id, self.actors[who])
        if forbidden is not None:
            assert_refused(reply, forbidden)
            return
        answer = decode(ListAlertEventsResponse, *reply.responses)
        assert_shown("the events from now on", [*answer.events], [])
        later = request_of("ListAlertEvents", **fields, after_position=answer.position)
        page = decode(ListAlertEventsResponse, *self._send(who, "ListAlertEvents", later).responses)
        assert all(each.position > answer.position for each in page.events)
        assert {each.app_id for each in page.events} <= {app_id}

    def teardown(self) -> None:
        """Make every call in the other tenant's app, and every read in the shared app."""
        for who in range(2):
            for name in _CALLS:
                self.call(who, name, "", 0, 1 - who, 0, 0)
                if name not in _CHANGES:
                    self.call(who, name, "", who, 2, 0, 0)
            for through in _OPERATIONS:
                self.call(who, "AddCredits", through, 0, who, 0, 0)
            for name in _READS:
                self.read_at_a_revision(who, name, 0, shared=False, reached=True)
            self.read_events_from_now(who, who, None)

    # Any: a request of any call, and its fields.
    def _request(self, name: str, user: int, app_id: int, created_by: int, place: int) -> Any:
        """Return a valid request of a call, with ids that were made in any app."""
        values: dict[str, Any] = {
            "user_id": self.users[user],
            "app_id": app_id,
            "to_user_id": self.users[1 - user],
            "to_app_id": app_id,
            "created_by": created_by,
            "url": f"https://example.com/{self._text()}",
            **{field: self._text() for field in _TEXTS},
        }
        if self._ids:
            values |= dict.fromkeys(_IDS, self._ids[-1 - place % len(self._ids)])
        if name not in _CHANGES:
            del values["created_by"]  # in a read, this field is a condition
            used = [text for text in self._apps if text.startswith("<")] or [self._text()]
            values |= dict.fromkeys(_NAMES, used[-1 - place % len(used)])
        if name == "GetTransaction":
            if place % 2 and self._ids:
                return GetTransactionRequest(transaction_id=values["transaction_id"])
            values.pop("transaction_id", None)
        sound = request_of(name)
        return request_of(name, **{key: values[key] for key in values if hasattr(sound, key)})

    def _text(self) -> str:
        # The brackets ensure that no text is part of another.
        return f"<{next(self._numbers)}-{self.users[0]}>"

    # Any: see `_request`.
    def _take(self, request: Any, receipt: Receipt | None) -> None:
        """Remember the texts of a request in an app, and those of its receipt."""
        texts = [getattr(request, name, "") for name in (*_TEXTS, "url")]
        if receipt is not None:
            self._ids.append(receipt.transaction_id)
            self._revisions[request.user_id] = receipt.revision or receipt.sequence
            texts += [receipt.transaction_id, receipt.purchase_id]
        for text in filter(None, texts):
            self._apps.setdefault(text, request.app_id)

    def _through(self, who: int, name: str, made: Operation) -> OperationOutcome:
        """Make a write as the only operation of a call."""
        if name == "BatchWrite":
            reply = self._send(who, name, BatchWriteRequest(operations=[made]))
            (outcome,) = decode(BatchWriteResponse, *reply.responses).outcomes
        else:
            reply = self._send(who, name, WriteRequest(correlation_id=1, operation=made))
            outcome = decode(WriteResponse, *reply.responses).outcome or OperationOutcome()
        return outcome

    def _send(self, who: int, name: str, request: betterproto2.Message) -> Reply:
        sent = encode(request)
        reply = self.calls.send(self.tokens[who], PATHS[name], sent)
        octets, tenant = octets_of(reply), self.tenants[who]
        for text, app_id in self._apps.items():
            if app_id not in tenant.apps and text.encode() not in sent:
                assert text.encode() not in octets, f"{tenant.name} was shown {text}: {reply}"
        return reply
