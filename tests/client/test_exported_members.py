"""The public surface of the SDK, frozen: a change here is a change for its users."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, get_type_hints

import credit_client
import credit_client.sync.testing
import credit_client.testing
import pytest


def test_the_public_names_are_these() -> None:
    assert credit_client.__all__ == [
        "AccessDenied",
        "AccountFull",
        "ActorNotAllowed",
        "Alert",
        "AlertDirection",
        "AlertEvent",
        "AlertEventsExpired",
        "AlertList",
        "Allocation",
        "AlreadyPurchased",
        "AppNotAllowed",
        "AppPolicy",
        "AppTotalOverflow",
        "AvailableTooLow",
        "Balance",
        "BalanceAt",
        "BalanceOverflow",
        "Batch",
        "BatchAborted",
        "BatchOperation",
        "BatchTooLarge",
        "CapExceeded",
        "Checkpoint",
        "CheckpointRejected",
        "ClientClosed",
        "ClientSettings",
        "ClockSkewed",
        "CreditClient",
        "CreditError",
        "CreditTransaction",
        "CreditsLimitExceeded",
        "DataUnreadable",
        "DeadLetter",
        "DeadLetterNotFound",
        "DeadlineExceeded",
        "DirectoryUser",
        "ErrorReason",
        "ExpiresTooEarly",
        "ExpiringCredits",
        "Finding",
        "Forecast",
        "ForecastStep",
        "Grant",
        "GrantCategory",
        "GrantEmpty",
        "GrantNotFound",
        "GrantsFull",
        "HistoryAltered",
        "HistoryVerifier",
        "Hold",
        "HoldAlreadyCaptured",
        "HoldAlreadyReleased",
        "HoldExceeded",
        "HoldExpired",
        "HoldHandle",
        "HoldLifeExceeded",
        "HoldNotFound",
        "HoldSettled",
        "HoldState",
        "HoldsFull",
        "IdempotencyKeyNotFound",
        "IdempotencyKeyReused",
        "ImportReport",
        "ImportRow",
        "InsufficientCredits",
        "InternalError",
        "InvalidField",
        "NotReversible",
        "NotedOptions",
        "Outcome",
        "Overloaded",
        "PageTokenInvalid",
        "PendingHold",
        "ProtocolMismatch",
        "Purchase",
        "PurchasePage",
        "PurchaseQuery",
        "RateLimited",
        "Receipt",
        "RejectedRow",
        "ResumeTokenExpired",
        "ResumeTokenInvalid",
        "ReversalExceeds",
        "RevisionChanged",
        "RevisionNotReached",
        "ScopeMissing",
        "ServerTooOld",
        "SpendingCapStatus",
        "SpendingCaps",
        "SpendingPeriod",
        "StoreUnavailable",
        "Streams",
        "Summaries",
        "Summary",
        "SummaryGroup",
        "SummaryTooLarge",
        "TlsFailed",
        "TokenUnavailable",
        "TooManyAlerts",
        "TooManyApps",
        "TooManyWebhooks",
        "TransactionNotFound",
        "TransactionPage",
        "TransactionQuery",
        "TransactionType",
        "Unauthenticated",
        "Unavailable",
        "UnknownRefusal",
        "UserCredits",
        "UserIdsExhausted",
        "UserNotFound",
        "UserSpendingCaps",
        "Violation",
        "WatchEvent",
        "Webhook",
        "WebhookUrlNotAllowed",
        "WriteOptions",
        "load_checkpoint",
        "request_id",
    ]
    assert all(hasattr(credit_client, name) for name in credit_client.__all__)


def test_the_client_has_these_methods() -> None:
    public = {
        name: [each for each in inspect.signature(member).parameters if each != "self"]
        for name, member in inspect.getmembers(credit_client.CreditClient, inspect.isfunction)
        if not name.startswith("_")
    }
    conditions = ["idempotency_key", "expected_revision", "min_available_after"]
    at, report, caps = (
        ["user_id", "app_id"],
        ["report_id", "report_name"],
        ["per_hour", "per_day", "per_month"],
    )
    hold = [*at, "credits", "created_by", "expires_after", "purpose", "allow_partial", "options"]
    alert = ["app_id", "credits", "created_by", "user_id", "direction", "timeout_seconds"]
    policy = ["validate_only", "expected_revision", "timeout_seconds"]
    read = ["min_revision", "timeout_seconds"]
    assert public == {
        "add": [*at, "credits", "created_by", *conditions, "timeout_seconds"],
        "use": [*at, *report, "credits", "created_by", "once", *conditions, "timeout_seconds"],
        "grant": [
            *at,
            "credits",
            "created_by",
            "expires_at",
            "expires_after",
            "effective_at",
            "priority",
            "category",
            "options",
        ],
        "void_grant": [*at, "grant_id", "created_by", "options"],
        "hold": hold,
        "hold_of": ["hold_id", *at, "created_by"],
        "place_hold": hold,
        "capture_hold": [
            *at,
            "hold_id",
            *report,
            "created_by",
            "credits",
            "final",
            "allow_excess",
            "options",
        ],
        "release_hold": [*at, "hold_id", "created_by", "options"],
        "extend_hold": [*at, "hold_id", "expires_after", "created_by", "options"],
        "refund": ["bought", "created_by", *at, "credits", "restore_until", "options"],
        "reverse": [*at, "transaction_id", "created_by", "credits", "restore_until", "options"],
        "transfer": [*at, "credits", "created_by", "to_user_id", "to_app_id", "options"],
        "adjust": [*at, "delta", "note", "created_by", "options"],
        "set_spending_cap": [*at, "created_by", *caps, "options"],
        "set_app_spending_cap": ["app_id", "created_by", *caps, *policy],
        "app_policy": ["app_id", "timeout_seconds"],
        "set_app_policy": ["app_id", "created_by", "allow_negative", *policy],
        "set_alert": alert,
        "remove_alert": alert,
        "alerts": ["app_id", "user_id", *read],
        "alert_position": ["app_id", "timeout_seconds"],
        "alert_events": ["app_id", "user_id", "after_position", "timeout_seconds"],
        "watch_alerts": ["app_id", "user_id", "after_position", "timeout_seconds"],
        "set_webhook": ["app_id", "url", "created_by", "secret", "timeout_seconds"],
        "webhooks": ["app_id", "timeout_seconds"],
        "remove_webhook": ["app_id", "url", "created_by", "timeout_seconds"],
        "dead_letters": ["app_id", "timeout_seconds"],
        "resend_dead_letters": ["app_id", "created_by", "dead_letter_id", "timeout_seconds"],
        "batch": ["atomic", "timeout_seconds"],
        "import_": ["rows", "name", "concurrency", "progress", "rejected", "timeout_seconds"],
        "user_credits": ["user_id", *read],
        "balance": ["app_id", "user_id", *read],
        "balance_details": ["app_id", "user_id", *read],
        "purchases": ["user_id", "after_sequence", *read],
        "transactions": ["user_id", "after_sequence", "verify", *read],
        "resolve_user": ["app_id", "external_id", "timeout_seconds"],
        "find_user": [*at, "external_id", "timeout_seconds"],
        "query_transactions": [
            *at,
            "types",
            "created_from",
            "created_until",
            "after_sequence",
            "before_sequence",
            "credits_min",
            "credits_max",
            "report_id",
            "related_id",
            "grant_id",
            "created_by",
            "metadata",
            "oldest_first",
            "page_size",
            *read,
        ],
        "query_purchases": [
            *at,
            "created_from",
            "created_until",
            "after_sequence",
            "before_sequence",
            "credits_min",
            "credits_max",
            "report_id",
            "created_by",
            "refunded",
            "oldest_first",
            "page_size",
            *read,
        ],
        "watch": [
            "user_id",
            "app_id",
            "resume_token",
            "progress",
            "progress_seconds",
            "end_when_current",
        ],
        "transaction": ["transaction_id", *at, "idempotency_key", "timeout_seconds"],
        "summarize": [*at, "created_from", "created_until", "group_by", *read],
        "balance_at": [*at, "at", "sequence", *read],
        "checkpoint": ["app_id", "key", "user_id", "at", "not_before", "timeout_seconds"],
        "checkpoints": ["app_id", "timeout_seconds"],
        "grants": [*at, *read],
        "holds": [*at, "include_settled", "after_sequence", *read],
        "forecast": [*at, "until", *read],
        "spending_cap": [*at, *read],
        "new_key": [],
    }


def test_the_synchronous_client_has_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") or name == "__init__"
        }

    assert credit_client.sync.__all__ == [
        "Batch",
        "CreditClient",
        "HoldHandle",
        "PurchaseQuery",
        "TransactionQuery",
    ]
    added = {"CreditClient": {"close": ["self"]}}
    for name in credit_client.sync.__all__:
        asynchronous = methods(getattr(credit_client, name)) | added.get(name, {})
        synchronous = methods(getattr(credit_client.sync, name))
        if name != "CreditClient":  # made by the client alone
            del asynchronous["__init__"], synchronous["__init__"]
        assert synchronous == asynchronous


def test_the_options_of_the_new_writes_are_these() -> None:
    assert list(get_type_hints(credit_client.WriteOptions)) == [
        "idempotency_key",
        "expected_revision",
        "min_available_after",
        "validate_only",
        "metadata",
        "timeout_seconds",
        "note",
    ]
    assert get_type_hints(credit_client.WriteOptions).keys() - get_type_hints(
        credit_client.NotedOptions
    ).keys() == {"note"}


def test_a_batch_takes_every_write_of_the_client() -> None:
    def writes(kind: type) -> dict[str, list[str]]:
        return {
            name: [
                each
                for each in inspect.signature(member).parameters
                if each not in {"self", "timeout_seconds"}
            ]
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if "created_by" in inspect.signature(member).parameters
        }

    own = writes(credit_client.CreditClient)
    for name in (
        "hold",
        "hold_of",
        "set_app_policy",
        "set_app_spending_cap",
        "set_alert",
        "remove_alert",
        "set_webhook",
        "remove_webhook",
        "resend_dead_letters",
        "query_transactions",
        "query_purchases",
    ):
        del own[name]  # no operations of the contract
    assert writes(credit_client.Batch) == own


@pytest.mark.parametrize("kind", [credit_client.CreditClient, credit_client.testing.FakeLedger])
def test_ids_are_given_by_name_so_that_none_takes_the_place_of_another(kind: type) -> None:
    by_position = {
        f"{name}({parameter.name})"
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
        for parameter in inspect.signature(member).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }
    # A request is one value, whose fields have names.
    requests = {"add(request)", "use(request)", "write(request)", "write_all(requests)"}
    requests |= {"import_(rows)", "refund(bought)", "set_policy(request)"}
    requests |= {"change_alert(request)", "alert_events(request)"}
    requests |= {
        f"{name}(options)"
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if "options" in inspect.signature(member).parameters
    }
    assert by_position - requests <= {
        f"{name}(self)" for name, _ in inspect.getmembers(kind, inspect.isfunction)
    }


# Any: the point is to call them in a way that their types refuse.
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.balance(7, 1),
        lambda client: client.balance(1),
        lambda client: client.user_credits(7),
        lambda client: client.purchases(7),
        lambda client: client.transactions(7),
        lambda client: client.add(7, 1, 5, 1),
        lambda client: client.use(7, 1, "r", "n", 5, 1),
    ],
)
def test_an_id_by_position_is_a_type_error(call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        call(credit_client.CreditClient())


@pytest.mark.parametrize("kit", [credit_client.testing, credit_client.sync.testing])
def test_the_test_kit_has_these_names(kit: ModuleType) -> None:
    assert kit.__all__ == [
        "FakeClock",
        "FakeCreditService",
        "FakeLedger",
        "fake_credits",
    ]


def test_the_start_of_an_app_loads_neither_the_ledger_nor_its_translation() -> None:
    script = "import sys, credit_client; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "credit_models.operations" in loaded
    rules = ("credit_models.ledger", "credit_models.translation", "credit_client.testing")
    assert not [name for name in loaded if name.startswith(rules)]
