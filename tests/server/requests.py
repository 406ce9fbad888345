"""Build sound requests of all calls of the contract, and what must be true before they succeed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import betterproto2
from credit_models import (
    AdjustBalanceRequest,
    AlertDirection,
    AppId,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    FindUserRequest,
    GetAppPolicyRequest,
    GetBalanceAtRequest,
    GetCheckpointRequest,
    GetForecastRequest,
    GetSpendingCapRequest,
    GetTransactionRequest,
    GrantCreditsRequest,
    ListAlertEventsRequest,
    ListAlertsRequest,
    ListCheckpointsRequest,
    ListDeadLettersRequest,
    ListGrantsRequest,
    ListHoldsRequest,
    ListWebhooksRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    QueryPurchasesRequest,
    QueryTransactionsRequest,
    Receipt,
    ReleaseHoldRequest,
    RemoveAlertRequest,
    RemoveWebhookRequest,
    ResendDeadLettersRequest,
    ResolveUserRequest,
    ReverseTransactionRequest,
    SetAlertRequest,
    SetAppPolicyRequest,
    SetSpendingCapRequest,
    SetWebhookRequest,
    SpendingCaps,
    SummarizeRequest,
    TransferCreditsRequest,
    UserId,
    VoidGrantRequest,
    WatchRequest,
)
from credit_models.image import SERVICES, method_path

ANY_ID = "0" * 24
"""The id of no grant, hold or transaction."""

PATHS: Mapping[str, str] = {
    method.name: method_path(method) for service in SERVICES for method in service.methods
}
"""The path of each call by its name."""

# Any: the fields of the requests have many types.
_WRITE: Mapping[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 9}
_REPORT: Mapping[str, Any] = {"report_id": "r", "report_name": "Report"}

# Any: mypy does not see that all messages are dataclasses.
_SOUND: Mapping[str, Any] = {
    "AddCredits": CreditRequest(**_WRITE, credits=50),
    "UseCredits": PurchaseRequest(**_WRITE, **_REPORT, credits=50),
    "GrantCredits": GrantCreditsRequest(**_WRITE, credits=50),
    "VoidGrant": VoidGrantRequest(**_WRITE, grant_id=ANY_ID),
    "PlaceHold": PlaceHoldRequest(**_WRITE, credits=50),
    "CaptureHold": CaptureHoldRequest(**_WRITE, **_REPORT, hold_id=ANY_ID),
    "ReleaseHold": ReleaseHoldRequest(**_WRITE, hold_id=ANY_ID),
    "ExtendHold": ExtendHoldRequest(**_WRITE, hold_id=ANY_ID, expires_after_seconds=60),
    "ReverseTransaction": ReverseTransactionRequest(**_WRITE, transaction_id=ANY_ID),
    "TransferCredits": TransferCreditsRequest(**_WRITE, to_app_id=2, credits=50),
    "AdjustBalance": AdjustBalanceRequest(**_WRITE, note="a correction", delta=50),
    "SetSpendingCap": SetSpendingCapRequest(**_WRITE, caps=SpendingCaps(per_day=500)),
    "SetAppPolicy": SetAppPolicyRequest(app_id=1, created_by=9, allow_negative=True),
    "SetAlert": SetAlertRequest(**_WRITE, credits=20, direction=AlertDirection.FALLS_BELOW),
    "RemoveAlert": RemoveAlertRequest(**_WRITE, credits=20, direction=AlertDirection.FALLS_BELOW),
    "GetUserCredits": UserId(user_id=7),
    "GetAppBalance": AppId(app_id=1),
    "ListUserPurchases": UserId(user_id=7),
    "ListUserTransactions": UserId(user_id=7),
    "GetAppPolicy": GetAppPolicyRequest(app_id=1),
    "GetSpendingCap": GetSpendingCapRequest(user_id=7, app_id=1),
    "ListGrants": ListGrantsRequest(user_id=7, app_id=1),
    "ListHolds": ListHoldsRequest(user_id=7, app_id=1),
    "GetForecast": GetForecastRequest(user_id=7, app_id=1),
    "QueryTransactions": QueryTransactionsRequest(user_id=7, app_id=1),
    "QueryPurchases": QueryPurchasesRequest(user_id=7, app_id=1),
    "GetBalanceAt": GetBalanceAtRequest(user_id=7, app_id=1, sequence=1),
    "Summarize": SummarizeRequest(
        user_id=7,
        app_id=1,
        created_from=datetime(2026, 1, 1, tzinfo=UTC),
        created_until=datetime(2027, 1, 1, tzinfo=UTC),
    ),
    "GetTransaction": GetTransactionRequest(user_id=7, app_id=1, idempotency_key="k"),
    "ListCheckpoints": ListCheckpointsRequest(app_id=1),
    "GetCheckpoint": GetCheckpointRequest(app_id=1, user_id=7),
    "Watch": WatchRequest(user_id=7, app_id=1, end_when_current=True),
    "ListAlerts": ListAlertsRequest(user_id=7, app_id=1),
    "ListAlertEvents": ListAlertEventsRequest(user_id=7, app_id=1),
    "SetWebhook": SetWebhookRequest(app_id=1, created_by=9, url="https://example.com/hook"),
    "ListWebhooks": ListWebhooksRequest(app_id=1),
    "RemoveWebhook": RemoveWebhookRequest(app_id=1, created_by=9, url="https://example.com/hook"),
    "ListDeadLetters": ListDeadLettersRequest(app_id=1),
    "ResendDeadLetters": ResendDeadLettersRequest(app_id=1, created_by=9, dead_letter_id=ANY_ID),
    "ResolveUser": ResolveUserRequest(app_id=1, external_id="u-7"),
    "FindUser": FindUserRequest(app_id=1, external_id="u-7"),
}

WRITES = tuple(
    name
    for name, request in _SOUND.items()
    if hasattr(request, "idempotency_key") and hasattr(request, "created_by")
)
"""The calls with an idempotency key: those that make transactions, which are also operations."""


# Any: a request of any call, whose fields the caller knows.
def request_of(call: str, **changed: Any) -> Any:
    """Return a sound request of user 7 in app 1, by 9.

    Args:
        call: The name of the call.
        changed: Fields with other values.
    """
    return replace(_SOUND[call], **changed)


class Caller(Protocol):
    """Makes calls on a server."""

    async def write(self, call: str, **changed: Any) -> Receipt:
        """Make a write that succeeds, and return its receipt.

        Args:
            call: The name of the call.
            changed: Fields of its sound request with other values.
        """

    async def attempt(self, call: str, request: betterproto2.Message) -> None:
        """Make a call that may be rejected."""


# Any: see `_SOUND`.
async def prepared(caller: Caller, call: str) -> Any:
    """Make what the sound request of a call needs, and return the request: it then succeeds."""
    prepare = _PREPARATIONS.get(call)
    changed = {} if prepare is None else await prepare(caller)
    return request_of(call, **changed)


async def _credits(caller: Caller) -> dict[str, Any]:
    await caller.write("AddCredits")
    return {}


async def _grant(caller: Caller) -> dict[str, Any]:
    return {"grant_id": (await caller.write("GrantCredits")).transaction_id}


async def _hold(caller: Caller) -> dict[str, Any]:
    await caller.write("AddCredits")
    return {"hold_id": (await caller.write("PlaceHold", credits=20)).transaction_id}


async def _use(caller: Caller) -> dict[str, Any]:
    await caller.write("AddCredits")
    return {"transaction_id": (await caller.write("UseCredits", credits=20)).transaction_id}


async def _key(caller: Caller) -> dict[str, Any]:
    await caller.write("AddCredits", idempotency_key="k")
    return {}


async def _user(caller: Caller) -> dict[str, Any]:
    await caller.attempt("ResolveUser", request_of("ResolveUser"))
    return {}


_PREPARATIONS: Mapping[str, Callable[[Caller], Awaitable[dict[str, Any]]]] = {
    "UseCredits": _credits,
    "VoidGrant": _grant,
    "PlaceHold": _credits,
    "CaptureHold": _hold,
    "ReleaseHold": _hold,
    "ExtendHold": _hold,
    "ReverseTransaction": _use,
    "TransferCredits": _credits,
    "GetTransaction": _key,
    "FindUser": _user,
}
