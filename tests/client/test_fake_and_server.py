"""The fake and a real server answer the same calls with the same messages.

Ids, the keys that the SDK makes, and times differ between the two: an id or a key stands for its
first appearance, and a time for whether it is set.
"""

import dataclasses
import itertools
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from credit_client import CreditClient, CreditError, GrantCategory
from credit_client.testing import fake_credits
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

DATABASE = "test_fake_and_server"
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}
DAY = timedelta(days=1)
USER, OTHER, APP, OTHER_APP = 7, 8, 1, 2
WHO: dict[str, Any] = {"user_id": USER, "app_id": APP, "created_by": 3}


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of this module."""
    options = await migrated(mongod_uri, DATABASE)
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, "--log-level", "warning", *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


class Protocol:
    """What a service has answered, without its ids and times."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self._names: dict[str | bytes, str] = {}
        self._numbers = itertools.count(1)

    async def take(self, awaited: Awaitable[Any]) -> Any:
        """Write down an answer, or the figures of an error; return the answer."""
        try:
            answer = await awaited
        except CreditError as error:
            figures = {
                name: value
                for name, value in vars(error).items()
                if name not in {"message", "request_id", "idempotency_key"}
            }
            self.lines.append((type(error).__name__, self._plain(figures)))
            return None
        self.lines.append(self._plain(answer))
        return answer

    # Any: an answer has any type.
    def _plain(self, value: Any) -> object:
        match value:
            case datetime():
                return "a time"
            case Enum():
                return value.name
            case str():
                # All ids of both services have 24 hexadecimal digits, some with a letter before.
                # A key that the SDK has made has 32.
                if len(value) in {24, 25, 32} and " " not in value:
                    return self._names.setdefault(value, f"id {next(self._numbers)}")
                return value
            case bytes() if value:
                # A hash, which covers ids and times.
                return self._names.setdefault(value, f"hash {next(self._numbers)}")
            case dict():
                return {key: self._plain(each) for key, each in value.items()}
            case list() | tuple():
                return [self._plain(each) for each in value]
        if dataclasses.is_dataclass(value):
            return {
                field.name: self._plain(getattr(value, field.name))
                for field in dataclasses.fields(value)
            }
        return value


async def _holds(client: CreditClient, *, include_settled: bool) -> list[Any]:
    listed = client.holds(user_id=USER, app_id=APP, include_settled=include_settled)
    return [hold async for hold in listed]


async def _histories(client: CreditClient) -> list[Any]:
    return [
        [entry async for entry in client.transactions(user_id=USER)],
        [entry async for entry in client.transactions(user_id=OTHER)],
        [entry async for entry in client.purchases(user_id=USER)],
    ]


async def _scenario(client: CreditClient) -> list[object]:
    protocol = Protocol()
    take = protocol.take
    await take(client.add(**WHO, credits=100, idempotency_key="a"))
    granted = await take(
        client.grant(
            **WHO,
            credits=30,
            expires_after=DAY,
            priority=10,
            category=GrantCategory.PROMOTIONAL,
            note="Welcome",
            metadata={"b": "2", "a": "1"},
            idempotency_key="g",
        )
    )
    await take(client.grant(**WHO, credits=30, expires_after=DAY, idempotency_key="g"))
    await take(client.grant(**WHO, credits=5, effective_at=granted.expires_at, expires_after=DAY))
    used = await take(client.use(**WHO, **REPORT, credits=40, once=True, idempotency_key="u"))
    await take(client.use(**WHO, **REPORT, credits=40, once=True))
    hold = await take(client.place_hold(**WHO, credits=20, purpose="Answer", idempotency_key="h"))
    other_hold = await take(client.place_hold(**WHO, credits=500, allow_partial=True))
    await take(_holds(client, include_settled=False))
    id_ = hold.transaction_id
    await take(client.capture_hold(**WHO, hold_id=id_, **REPORT, credits=50))
    await take(
        client.capture_hold(
            **WHO, hold_id=id_, **REPORT, credits=6, final=False, idempotency_key="c"
        )
    )
    await take(client.extend_hold(**WHO, hold_id=id_, expires_after=DAY, idempotency_key="e"))
    await take(client.capture_hold(**WHO, hold_id=id_, **REPORT, credits=4, idempotency_key="d"))
    await take(client.release_hold(**WHO, hold_id=id_))
    await take(client.release_hold(**WHO, hold_id=other_hold.transaction_id))
    await take(client.release_hold(**WHO, hold_id="none"))
    await take(client.refund(used, user_id=USER, app_id=APP, created_by=3, credits=15))
    await take(client.refund(used, user_id=USER, app_id=APP, created_by=3, credits=26))
    await take(client.transfer(**WHO, credits=12, to_user_id=OTHER, to_app_id=OTHER_APP))
    await take(client.transfer(**WHO, credits=1))
    await take(client.adjust(**WHO, delta=-3, note="Correction", idempotency_key="j"))
    await take(client.adjust(**WHO, delta=-5000, note="Correction"))
    await take(client.set_spending_cap(**WHO, per_day=60, per_hour=58))
    await take(client.use(**WHO, **REPORT, credits=30))
    await take(client.set_spending_cap(**WHO))
    await take(client.set_app_spending_cap(app_id=APP, created_by=3, per_month=10_000))
    await take(client.set_app_policy(app_id=APP, created_by=3, allow_negative=True))
    await take(client.app_policy(app_id=APP))
    await take(client.reverse(**WHO, transaction_id=granted.transaction_id))
    await take(client.reverse(**WHO, transaction_id=id_))
    await take(client.void_grant(**WHO, grant_id=granted.transaction_id))
    await take(client.grant(**WHO, credits=1, validate_only=True))
    await take(client.add(**WHO, credits=1, expected_revision=1))
    await take(client.use(**WHO, **REPORT, credits=1, min_available_after=5000))
    await take(client.user_credits(user_id=USER))
    await take(client.balance(app_id=APP))
    await take(client.balance_details(app_id=APP, user_id=USER))
    await take(client.grants(user_id=USER, app_id=APP))
    await take(client.grants(user_id=OTHER, app_id=OTHER_APP))
    await take(client.forecast(user_id=USER, app_id=APP))
    await take(client.spending_cap(user_id=USER, app_id=APP))
    await take(_holds(client, include_settled=True))
    await take(_histories(client))
    return protocol.lines


async def test_the_fake_and_a_server_answer_alike(server: ServerProcess) -> None:
    async with fake_credits() as client:
        faked = await _scenario(client)
    async with CreditClient(f"127.0.0.1:{server.port}") as client:
        served = await _scenario(client)
    for number, (ours, theirs) in enumerate(zip(faked, served, strict=True)):
        assert ours == theirs, f"answer {number}"
