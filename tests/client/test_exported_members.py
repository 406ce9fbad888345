"""The public surface of the SDK, frozen: a change here is a change for its users."""

import inspect
from collections.abc import Callable
from typing import Any

import credit_client
import credit_client.testing
import pytest


def test_the_public_names_are_these() -> None:
    assert credit_client.__all__ == [
        "AccessDenied",
        "ActorNotAllowed",
        "AppNotAllowed",
        "AppTotalOverflow",
        "Balance",
        "BalanceOverflow",
        "Batch",
        "BatchAborted",
        "BatchOperation",
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
        "ImportReport",
        "ImportRow",
        "InsufficientCredits",
        "InternalError",
        "InvalidField",
        "Outcome",
        "Overloaded",
        "ProtocolMismatch",
        "Purchase",
        "RateLimited",
        "Receipt",
        "RejectedRow",
        "ScopeMissing",
        "StoreUnavailable",
        "Streams",
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
        name: [each for each in inspect.signature(member).parameters if each != "self"]
        for name, member in inspect.getmembers(credit_client.CreditClient, inspect.isfunction)
        if not name.startswith("_")
    }
    write = ["created_by", "idempotency_key", "timeout_seconds"]
    assert public == {
        "add": ["user_id", "app_id", "credits", *write],
        "use": ["user_id", "app_id", "report_id", "report_name", "credits", *write],
        "batch": ["atomic", "timeout_seconds"],
        "import_": ["rows", "name", "concurrency", "progress", "rejected", "timeout_seconds"],
        "user_credits": ["user_id", "timeout_seconds"],
        "balance": ["app_id", "user_id", "timeout_seconds"],
        "purchases": ["user_id", "after_sequence", "timeout_seconds"],
        "transactions": ["user_id", "after_sequence", "timeout_seconds"],
        "new_key": [],
    }


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
    requests.add("import_(rows)")
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


def test_the_test_kit_has_these_names() -> None:
    assert credit_client.testing.__all__ == ["FakeCreditService", "FakeLedger", "fake_credits"]
