"""One example of each call, for `buf curl` and for the SDK.

The examples build on each other, and a test runs them in this order. GRANT_ID, HOLD_ID and
TRANSACTION_ID stand for the `transaction_id` of the receipts of `GrantCredits`, `PlaceHold` and
`CaptureHold`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract_check.errors import CheckError

_ADDRESS = "localhost:50051"

Json = int | str | bool | Mapping[str, "Json"] | Sequence["Json"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One example of a call.

    Attributes:
        request: The fields of its request, or several requests of a call that takes a stream.
        sdk: Python, inside `async with CreditClient(…) as credits:`; empty if the SDK does not make
            the call.
    """

    request: Mapping[str, Json] | Sequence[Mapping[str, Json]]
    sdk: str = ""


_EXAMPLES = {
    "credit.v1.CreditService.AddCredits": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "credits": 120,
            "created_by": 1,
            "idempotency_key": "grant-4710",
        },
        sdk="""\
receipt = await credits.add(
    user_id=7, app_id=1, credits=120, created_by=1, idempotency_key="grant-4710"
)
print(receipt.balance, receipt.replayed)""",
    ),
    "credit.v1.CreditService.UseCredits": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "report_id": "r-1",
            "report_name": "Traffic",
            "credits": 5,
            "created_by": 1,
            "idempotency_key": "order-4711",
        },
        sdk="""\
try:
    receipt = await credits.use(
        user_id=7,
        app_id=1,
        report_id="r-1",
        report_name="Traffic",
        credits=5,
        created_by=1,
        idempotency_key="order-4711",
    )
    print(receipt.purchase_id, receipt.balance)
except InsufficientCredits as refusal:
    print(f"{refusal.shortfall} credits are missing")""",
    ),
    "credit.v1.CreditService.GetUserCredits": Example(
        request={"user_id": 7},
        sdk="""\
held = await credits.user_credits(user_id=7)
print({balance.app_id: balance.balance for balance in held.balances})""",
    ),
    "credit.v1.CreditService.GetAppBalance": Example(
        request={"app_id": 1, "user_id": 7},
        sdk="""\
print(await credits.balance(app_id=1, user_id=7))  # of one user
print(await credits.balance(app_id=1))  # of all users of the app""",
    ),
    "credit.v1.CreditService.ListUserPurchases": Example(
        request={"user_id": 7},
        sdk="""\
async for purchase in credits.purchases(user_id=7):
    print(purchase.report_name, purchase.credits)""",
    ),
    "credit.v1.CreditService.ListUserTransactions": Example(
        request={"user_id": 7},
        sdk="""\
async for transaction in credits.transactions(user_id=7):
    print(transaction.sequence, transaction.type.name, transaction.balance_after)""",
    ),
    "credit.v1.LedgerService.GrantCredits": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "credits": 50,
            "expires_after_seconds": 2592000,
            "category": "GRANT_CATEGORY_PROMOTIONAL",
            "idempotency_key": "trial-7",
        },
    ),
    "credit.v1.LedgerService.VoidGrant": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "grant_id": "GRANT_ID",
        },
    ),
    "credit.v1.LedgerService.PlaceHold": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "credits": 10,
            "purpose": "answer 42",
            "idempotency_key": "hold-42",
        },
    ),
    "credit.v1.LedgerService.ExtendHold": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "hold_id": "HOLD_ID",
            "expires_after_seconds": 3600,
        },
    ),
    "credit.v1.LedgerService.CaptureHold": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "hold_id": "HOLD_ID",
            "credits": 7,
            "report_id": "answer-42",
            "report_name": "Answer 42",
            "final": False,
        },
    ),
    "credit.v1.LedgerService.ReleaseHold": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "hold_id": "HOLD_ID",
        },
    ),
    "credit.v1.LedgerService.ReverseTransaction": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "transaction_id": "TRANSACTION_ID",
            "credits": 2,
            "note": "The report was late.",
        },
    ),
    "credit.v1.LedgerService.TransferCredits": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "to_user_id": 8,
            "credits": 5,
            "idempotency_key": "gift-1",
        },
    ),
    "credit.v1.LedgerService.AdjustBalance": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "delta": -3,
            "note": "Counted twice.",
            "idempotency_key": "ticket-99",
        },
    ),
    "credit.v1.LedgerService.SetSpendingCap": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "caps": {"per_day": 1000},
        },
    ),
    "credit.v1.LedgerService.SetAppPolicy": Example(
        request={
            "app_id": 1,
            "created_by": 1,
            "allow_negative": True,
        },
    ),
    "credit.v1.LedgerService.GetAppPolicy": Example(
        request={
            "app_id": 1,
        },
    ),
    "credit.v1.LedgerService.GetSpendingCap": Example(
        request={
            "user_id": 7,
            "app_id": 1,
        },
    ),
    "credit.v1.LedgerService.ListGrants": Example(
        request={
            "user_id": 7,
            "app_id": 1,
        },
    ),
    "credit.v1.LedgerService.ListHolds": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "include_settled": True,
        },
    ),
    "credit.v1.LedgerService.GetForecast": Example(
        request={
            "user_id": 7,
            "app_id": 1,
        },
    ),
    "credit.v1.LedgerService.BatchWrite": Example(
        request={
            "operations": [
                {"add_credits": {"user_id": 7, "app_id": 2, "credits": 20, "created_by": 1}},
                {"add_credits": {"user_id": 8, "app_id": 2, "credits": 20, "created_by": 1}},
            ],
            "atomic": True,
        },
    ),
    "credit.v1.LedgerService.Write": Example(
        request=[
            {
                "correlation_id": number,
                "operation": {
                    "add_credits": {"user_id": 8, "app_id": 2, "credits": 5, "created_by": 1}
                },
            }
            for number in (1, 2)
        ],
    ),
    "credit.v1.HistoryService.QueryTransactions": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "page_size": 2,
        },
    ),
    "credit.v1.HistoryService.QueryPurchases": Example(
        request={
            "user_id": 7,
            "page_size": 2,
        },
    ),
    "credit.v1.HistoryService.GetBalanceAt": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "at": "2026-11-01T00:00:00Z",
        },
    ),
    "credit.v1.HistoryService.ListCheckpoints": Example(request={"app_id": 1}),
    "credit.v1.HistoryService.GetCheckpoint": Example(request={"app_id": 1, "user_id": 7}),
    "credit.v1.HistoryService.Summarize": Example(
        request={
            "user_id": 7,
            "created_from": "2026-01-01T00:00:00Z",
            "created_until": "2100-01-01T00:00:00Z",
            "group_by": "SUMMARY_GROUP_TYPE",
        },
    ),
    "credit.v1.HistoryService.GetTransaction": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "idempotency_key": "order-4711",
        },
    ),
    "credit.v1.HistoryService.Watch": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "end_when_current": True,
        },
    ),
    "credit.v1.AlertService.SetAlert": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "credits": 20,
            "direction": "ALERT_DIRECTION_FALLS_BELOW",
        },
    ),
    "credit.v1.AlertService.RemoveAlert": Example(
        request={
            "user_id": 7,
            "app_id": 1,
            "created_by": 1,
            "credits": 20,
            "direction": "ALERT_DIRECTION_FALLS_BELOW",
        },
    ),
    "credit.v1.AlertService.ListAlerts": Example(
        request={
            "user_id": 7,
            "app_id": 1,
        },
    ),
    "credit.v1.AlertService.SetWebhook": Example(
        request={"app_id": 1, "created_by": 1, "url": "https://example.com/credits"},
    ),
    "credit.v1.AlertService.ListWebhooks": Example(request={"app_id": 1}),
    "credit.v1.AlertService.RemoveWebhook": Example(
        request={"app_id": 1, "created_by": 1, "url": "https://example.com/credits"},
    ),
    "credit.v1.AlertService.ListDeadLetters": Example(request={"app_id": 1}),
    "credit.v1.AlertService.ResendDeadLetters": Example(
        request={"app_id": 1, "created_by": 1},
    ),
    "credit.v1.AlertService.ListAlertEvents": Example(
        request={
            "app_id": 1,
            "page_size": 2,
        },
    ),
    "credit.v1.DirectoryService.ResolveUser": Example(
        request={"app_id": 1, "external_id": "3f2c9a5e-6d1b-4c8e-9f27-0a5b8d3e71c4"},
    ),
    "credit.v1.DirectoryService.FindUser": Example(
        request={"app_id": 1, "external_id": "3f2c9a5e-6d1b-4c8e-9f27-0a5b8d3e71c4"},
    ),
}


def example(call: str) -> Example:
    """Return the example of a call.

    Args:
        call: Its full name.

    Raises:
        CheckError: The call has no example.
    """
    found = _EXAMPLES.get(call)
    if found is None:
        raise CheckError(f"{call} has no example yet: write one in {__name__}")
    return found


def curl(call: str) -> str:
    """Return the `buf curl` command of a call; buf reads the types by the server's reflection.

    Args:
        call: Its full name.

    Raises:
        CheckError: The call has no example.
    """
    service, _, method = call.rpartition(".")
    request = example(call).request
    requests = [request] if isinstance(request, Mapping) else request
    data = " ".join(json.dumps(one) for one in requests)
    return (
        f"buf curl --protocol grpc --http2-prior-knowledge \\\n"
        f"  --data '{data}' \\\n"
        f"  http://{_ADDRESS}/{service}/{method}"
    )
