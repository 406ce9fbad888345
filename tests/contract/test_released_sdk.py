"""The client of every released contract works with today's server."""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from contract_check.image import Image
from credit_testing.server import ServerProcess, migrated, running_server
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from pymongo import AsyncMongoClient

from tests.contract.released_images import EVERY_RELEASE
from tests.contract.released_sdk import SERVICE, ReleasedSdk

DATABASE = "test_released_sdk"
USERS = itertools.count(1000)


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    options = await migrated(mongod_uri, DATABASE)
    async with running_server(tmp_path_factory.mktemp("released"), *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture(scope="module", params=EVERY_RELEASE)
def sdk(server: ServerProcess, request: pytest.FixtureRequest) -> Iterator[ReleasedSdk]:
    image: Image = request.param
    with grpc.insecure_channel(server.address) as channel:
        yield ReleasedSdk(image, channel)


@pytest.fixture
def user() -> int:
    """Return a user that no other test and no other release uses."""
    return next(USERS)


def _grant(user: int) -> dict[str, Any]:
    return {"user_id": user, "app_id": user, "credits": 120, "created_by": 1}


def _purchase(user: int, price: int) -> dict[str, Any]:
    return {**_grant(user), "credits": price, "report_id": "r-1", "report_name": "Report"}


def test_all_calls_of_the_release_are_still_served(sdk: ReleasedSdk, user: int) -> None:
    called = {
        "AddCredits": _grant(user),
        "UseCredits": _purchase(user, 20),
        "GetUserCredits": {"user_id": user},
        "GetAppBalance": {"app_id": user},
        "ListUserPurchases": {"user_id": user},
        "ListUserTransactions": {"user_id": user},
    }
    answered = {name: sdk.call(name, **fields) for name, fields in called.items()}
    assert {answer.status for answer in answered.values()} == {"OK"}
    balance = sdk.new("Balance", app_id=user, balance=100)
    assert answered["AddCredits"].messages == [sdk.new("Empty")]
    assert answered["GetAppBalance"].messages == [balance]
    (held,) = answered["GetUserCredits"].messages
    assert (list(held.balances), held.revision) == ([balance], 2)
    (purchase,) = answered["ListUserPurchases"].messages
    added, used = answered["ListUserTransactions"].messages
    assert (added.balance_after, used.balance_after) == (120, 100)
    assert (purchase.id, purchase.transaction_id) == (used.purchase_id, used.id)
    called_names = {f"{SERVICE}.{name}" for name in called}
    assert called_names == {name for name in sdk.image.methods if name.startswith(SERVICE)}


def test_the_receipt_is_readable_and_a_repeated_key_is_replayed(
    sdk: ReleasedSdk, user: int
) -> None:
    receipts = []
    for _ in range(2):
        answer = sdk.call("AddCredits", **_grant(user), idempotency_key="k")
        receipts.append(sdk.new("Receipt").FromString(answer.trailers["credit-receipt-bin"]))
    first, again = receipts
    assert (first.balance, first.sequence, first.replayed) == (120, 1, False)
    assert (again.transaction_id, again.replayed) == (first.transaction_id, True)


def test_a_refusal_has_the_status_and_metadata_that_the_release_documents(
    sdk: ReleasedSdk, user: int
) -> None:
    answer = sdk.call("UseCredits", **_purchase(user, 20))
    info = ErrorInfo()
    assert Status.FromString(answer.trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    values = sdk.image.enums["credit.v1.ErrorReason"].values_by_name
    rule = sdk.image.option(values[f"ERROR_REASON_{info.reason}"], "credit.options.v1.error")
    status = grpc.StatusCode[answer.status]
    assert (info.reason, status.value[0]) == ("INSUFFICIENT_CREDITS", rule.status)
    assert set(rule.metadata) <= set(info.metadata)


def test_a_request_that_the_release_allows_is_accepted(sdk: ReleasedSdk, user: int) -> None:
    most = 2**32 - 1
    request = {**_grant(user), "credits": most, "created_by": most, "idempotency_key": "k" * 128}
    assert sdk.call("AddCredits", **request).status == "OK"
    report = {"report_id": "ü" * 128, "report_name": "ü" * 256, "idempotency_key": "l" * 128}
    assert sdk.call("UseCredits", **_purchase(user, most) | report).status == "OK"
