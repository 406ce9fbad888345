"""Each write checks in the order of the contract: from everything wrong to nothing wrong."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from credit_models import ErrorReason, SpendingCaps
from credit_models.reasons import ACCESS_REASONS, method_reasons, reason_name
from credit_models.scopes import METHOD_SCOPES
from credit_server.access.identity import AddLimits, Identity

from tests.server.callers import WireCaller, open_wire, reason_of
from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.provocations import UINT32_MAX
from tests.server.requests import ANY_ID, PATHS, WRITES, request_of

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

# A step is the reason that is expected, and how the request changes after it: fields by name. The
# ids of the scene replace names that begin with `$`.
Step = tuple[str, Mapping[str, Any]]

REVISION: Step = ("REVISION_CHANGED", {"expected_revision": None})
TOO_LOW: Step = ("AVAILABLE_TOO_LOW", {"min_available_after": None})

# What is wrong with each request besides what is wrong with all of them, and the steps from
# IDEMPOTENCY_KEY_REUSED on. In the scene, user 7 has 30 credits in app 1, of which 20 are of
# `$grant`, and a cap of 40 credits an hour, of which 10 are used by `$used` and 10 are held by
# `$hold`.
WRONG: Mapping[str, tuple[Mapping[str, Any], list[Step]]] = {
    "AddCredits": (
        {"credits": UINT32_MAX},
        [
            ("CREDITS_LIMIT_EXCEEDED", {"$limit": UINT32_MAX}),
            REVISION,
            ("BALANCE_OVERFLOW", {"credits": 50}),
            TOO_LOW,
        ],
    ),
    "UseCredits": (
        {"credits": 31, "once": True},
        [
            REVISION,
            ("ALREADY_PURCHASED", {"once": False}),
            ("CAP_EXCEEDED", {"$caps": SpendingCaps(per_hour=51)}),
            ("INSUFFICIENT_CREDITS", {"credits": 30}),
            TOO_LOW,
        ],
    ),
    "GrantCredits": (
        {"credits": UINT32_MAX, "expires_at": LONG_AGO},
        [
            ("CREDITS_LIMIT_EXCEEDED", {"$limit": UINT32_MAX}),
            ("EXPIRES_TOO_EARLY", {"expires_at": None}),
            REVISION,
            ("BALANCE_OVERFLOW", {"credits": 50}),
            TOO_LOW,
        ],
    ),
    "VoidGrant": (
        {"grant_id": ANY_ID},
        [
            ("GRANT_NOT_FOUND", {"grant_id": "$voided"}),
            ("GRANT_EMPTY", {"grant_id": "$grant"}),
            REVISION,
            TOO_LOW,
        ],
    ),
    "PlaceHold": (
        {"credits": 31},
        [
            REVISION,
            ("CAP_EXCEEDED", {"$caps": SpendingCaps(per_hour=51)}),
            ("INSUFFICIENT_CREDITS", {"credits": 30}),
            TOO_LOW,
        ],
    ),
    "CaptureHold": (
        {"hold_id": ANY_ID, "credits": 41},
        [
            ("HOLD_NOT_FOUND", {"hold_id": "$captured"}),
            ("HOLD_ALREADY_CAPTURED", {"hold_id": "$released"}),
            ("HOLD_ALREADY_RELEASED", {"hold_id": "$hold"}),
            REVISION,
            ("HOLD_EXCEEDED", {"allow_excess": True}),
            ("CAP_EXCEEDED", {"$caps": SpendingCaps(per_hour=51)}),
            ("INSUFFICIENT_CREDITS", {"credits": 40}),
            TOO_LOW,
        ],
    ),
    "ReleaseHold": (
        {"hold_id": ANY_ID},
        [
            ("HOLD_NOT_FOUND", {"hold_id": "$captured"}),
            ("HOLD_ALREADY_CAPTURED", {"hold_id": "$released"}),
            ("HOLD_ALREADY_RELEASED", {"hold_id": "$hold"}),
            REVISION,
            TOO_LOW,
        ],
    ),
    "ExtendHold": (
        {"hold_id": ANY_ID, "expires_after_seconds": 604800},
        [
            ("HOLD_NOT_FOUND", {"hold_id": "$captured"}),
            ("HOLD_ALREADY_CAPTURED", {"hold_id": "$released"}),
            ("HOLD_ALREADY_RELEASED", {"hold_id": "$hold"}),
            ("HOLD_LIFE_EXCEEDED", {"expires_after_seconds": 60}),
            REVISION,
            TOO_LOW,
        ],
    ),
    "ReverseTransaction": (
        {"transaction_id": ANY_ID, "credits": 51},
        [
            ("TRANSACTION_NOT_FOUND", {"transaction_id": "$hold"}),
            ("NOT_REVERSIBLE", {"transaction_id": "$added"}),
            REVISION,
            ("REVERSAL_EXCEEDS", {"credits": 50}),
            ("INSUFFICIENT_CREDITS", {"credits": 5}),
            TOO_LOW,
        ],
    ),
    "TransferCredits": (
        {"credits": 31, "to_app_id": 3},
        [
            REVISION,
            ("INSUFFICIENT_CREDITS", {"credits": 30}),
            ("BALANCE_OVERFLOW", {"to_app_id": 4}),
            TOO_LOW,
        ],
    ),
    "AdjustBalance": (
        {"delta": UINT32_MAX},
        [
            ("CREDITS_LIMIT_EXCEEDED", {"delta": -31, "$limit": UINT32_MAX}),
            REVISION,
            ("INSUFFICIENT_CREDITS", {"delta": UINT32_MAX}),
            ("BALANCE_OVERFLOW", {"delta": -30}),
            TOO_LOW,
        ],
    ),
    "SetSpendingCap": ({}, [REVISION, TOO_LOW]),
}


class Scene:
    """A server with what the steps need, and one identity that each step may change."""

    def __init__(self, caller: WireCaller, identities: dict[str, Identity]) -> None:
        self.caller = caller
        self._identities = identities
        self.ids: dict[str, str] = {}

    def become(self, **changed: Any) -> None:
        """Change the identity of the caller."""
        self._identities["secret"] = replace(self._identities["secret"], **changed)

    async def fill(self) -> None:
        """Make what `WRONG` describes, as an identity that may do everything."""
        self._identities["secret"] = EVERYTHING
        write = self.caller.write
        self.ids["$added"] = (await write("AddCredits", idempotency_key="k")).transaction_id
        for settle, name in (("CaptureHold", "$captured"), ("ReleaseHold", "$released")):
            hold = await write("PlaceHold", credits=10)
            self.ids[name] = hold.transaction_id
            await write(settle, hold_id=hold.transaction_id)
        await write("AdjustBalance", delta=-10)
        await write("AddCredits", app_id=3, credits=UINT32_MAX)
        voided = await write("GrantCredits")
        self.ids["$voided"] = voided.transaction_id
        await write("VoidGrant", grant_id=voided.transaction_id)
        await write("SetSpendingCap", caps=SpendingCaps(per_hour=40))
        self.ids["$hold"] = (await write("PlaceHold", credits=10)).transaction_id
        self.ids["$used"] = (await write("UseCredits", credits=10)).transaction_id
        self.ids["$grant"] = (await write("GrantCredits", credits=20)).transaction_id

    async def fix(self, request: Any, changes: Mapping[str, Any]) -> Any:
        """Make the changes of a step, and return the changed request."""
        fields = {
            name: self.ids.get(value, value) if isinstance(value, str) else value
            for name, value in changes.items()
            if not name.startswith("$")
        }
        if "$limit" in changes:
            self.become(add_limits=AddLimits(default=changes["$limit"]))
        if "$caps" in changes:
            await self.caller.write("SetSpendingCap", caps=changes["$caps"], created_by=9)
        return replace(request, **fields)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    identities: dict[str, Identity] = {}
    async with open_wire(authenticator=FakeAuthenticator(identities)) as caller:
        found = Scene(caller, identities)
        await found.fill()
        yield found


def access_steps(call: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the steps about the identity, each with how the identity changes after it."""
    scope = METHOD_SCOPES[PATHS[call]]
    return [
        ("SCOPE_MISSING", {"scopes": frozenset({scope, "credits:admin"})}),
        ("APP_NOT_ALLOWED", {"apps": frozenset({1, 2, 3, 4})}),
        ("ACTOR_NOT_ALLOWED", {"actor": 9}),
    ]


@pytest.mark.parametrize("around", ["", "BatchWrite/", "Write/"])
@pytest.mark.parametrize("call", WRITES)
async def test_reasons_come_in_their_order_of_precedence(call: str, around: str) -> None:
    wrong, steps = WRONG[call]
    walked = []
    async with scene() as found:
        request = request_of(
            call,
            idempotency_key="k",
            created_by=0,
            expected_revision=UINT32_MAX,
            min_available_after=UINT32_MAX,
            **wrong,
        )

        async def step(expected: str) -> None:
            walked.append(expected)
            assert reason_of(await found.caller.call(around + call, request)) == expected

        found.become(
            scopes=frozenset(),
            apps=frozenset({2}),
            actor=8,
            may_impersonate=False,
            add_limits=AddLimits(default=49),
        )
        for expected, changed in access_steps(call):
            await step(expected)
            found.become(**changed)
        found.become(may_impersonate=True)
        await step("INVALID_FIELD")
        request.created_by = 9
        await step("IDEMPOTENCY_KEY_REUSED")
        request.idempotency_key = "another"
        for expected, changes in steps:
            await step(expected)
            request = await found.fix(request, changes)
        assert reason_of(await found.caller.call(around + call, request)) == ""
    assert [name for name in _documented(call) if name in walked] == walked


def _documented(call: str) -> list[str]:
    """Return the reasons of a call, in the contract's order of precedence."""
    return [reason_name(each) for each in (*ACCESS_REASONS, *method_reasons()[PATHS[call]])]


# These depend on the state of the server or of time, or exclude others: see `test_errors`.
ELSEWHERE = {
    ErrorReason.UNAUTHENTICATED,
    ErrorReason.RATE_LIMITED,
    ErrorReason.HOLD_EXPIRED,
    ErrorReason.TOO_MANY_APPS,
    ErrorReason.GRANTS_FULL,
    ErrorReason.HOLDS_FULL,
    ErrorReason.ACCOUNT_FULL,
    ErrorReason.CLOCK_SKEWED,
    ErrorReason.OVERLOADED,
    ErrorReason.STORE_UNAVAILABLE,
    ErrorReason.DATA_UNREADABLE,
}


@pytest.mark.parametrize("call", WRITES)
def test_every_reason_of_a_write_has_its_place(call: str) -> None:
    walked = {name for name, _ in (*access_steps(call), *WRONG[call][1])}
    elsewhere = {reason_name(each) for each in ELSEWHERE}
    rest = set(_documented(call)) - walked - elsewhere
    if call == "ReverseTransaction":
        rest.remove("BALANCE_OVERFLOW")  # a refund overflows, and here an addition is reversed
    assert rest == {"INVALID_FIELD", "IDEMPOTENCY_KEY_REUSED"}
