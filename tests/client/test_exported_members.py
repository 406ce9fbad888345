"""The public surface of the SDK, frozen: a change here is a change for its users."""

import inspect

import credit_client
import credit_client.testing


def test_the_public_names_are_these() -> None:
    assert credit_client.__all__ == [
        "AccessDenied",
        "ActorNotAllowed",
        "AppNotAllowed",
        "AppTotalOverflow",
        "Balance",
        "BalanceOverflow",
        "ClientClosed",
        "ClientSettings",
        "ClockSkewed",
        "CreditClient",
        "CreditError",
        "CreditTransaction",
        "CreditsLimitExceeded",
        "DeadlineExceeded",
        "ErrorReason",
        "IdempotencyKeyReused",
        "InsufficientCredits",
        "InternalError",
        "InvalidField",
        "Overloaded",
        "ProtocolMismatch",
        "Purchase",
        "RateLimited",
        "Receipt",
        "ScopeMissing",
        "StoreUnavailable",
        "TlsFailed",
        "TokenUnavailable",
        "TooManyApps",
        "TransactionType",
        "Unauthenticated",
        "Unavailable",
        "UnknownRefusal",
        "UserCredits",
        "Violation",
        "request_id",
    ]
    assert all(hasattr(credit_client, name) for name in credit_client.__all__)


def test_the_client_has_these_methods() -> None:
    public = {
        name: list(inspect.signature(member).parameters)[1:]
        for name, member in inspect.getmembers(credit_client.CreditClient, inspect.isfunction)
        if not name.startswith("_")
    }
    write = ["created_by", "idempotency_key", "timeout_seconds"]
    assert public == {
        "add": ["user_id", "app_id", "credits", *write],
        "use": ["user_id", "app_id", "report_id", "report_name", "credits", *write],
        "user_credits": ["user_id", "timeout_seconds"],
        "balance": ["app_id", "user_id", "timeout_seconds"],
        "purchases": ["user_id", "timeout_seconds"],
        "transactions": ["user_id", "timeout_seconds"],
    }


def test_the_test_kit_has_these_names() -> None:
    assert credit_client.testing.__all__ == ["FakeCreditService", "FakeLedger", "fake_credits"]
