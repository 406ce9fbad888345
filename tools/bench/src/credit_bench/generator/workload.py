"""The workload: an endless sequence of valid requests, half `AddCredits` and half `UseCredits`."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

from credit_bench.cell import Users
from credit_bench.contract import Contract

APP_ID = 1
HOT_USER_ID = 1
# Every user starts with this balance, which the default of `credits_max` allows. It would take a
# hundred million calls for one user to reach a bound by chance. So no call is rejected, and both
# servers do the same work.
OPENING_CREDITS = 1_000_000_000
_CREDITS_MAX = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call to be made.

    Attributes:
        method: The name of the contract's method.
        message: The request message; its class exists only at run time.
    """

    method: str
    message: Any


def requests(contract: Contract, users: Users, user_count: int, seed: str) -> Iterator[Request]:
    """Yield random requests, each with a new idempotency key.

    Args:
        contract: The compiled contract.
        users: The users whose credits the calls change.
        user_count: The ids of random users are 1 to this number.
        seed: The same seed yields the same requests, except for the keys: a repeated key would
            make the call a replay.
    """
    random = Random(seed)  # noqa: S311 - a load, not a secret
    key = uuid4().hex
    count = 0
    while True:
        count += 1
        fields = {
            "user_id": HOT_USER_ID if users is Users.HOT else random.randint(1, user_count),
            "app_id": APP_ID,
            "credits": random.randint(1, _CREDITS_MAX),
            "created_by": 1,
            "idempotency_key": f"{key}-{count}",
        }
        if random.random() < 0.5:
            yield Request(method="AddCredits", message=contract.messages.CreditRequest(**fields))
        else:
            fields |= {"report_id": f"report-{count}", "report_name": "Annual report"}
            yield Request(method="UseCredits", message=contract.messages.PurchaseRequest(**fields))


def opening_requests(contract: Contract, user_count: int) -> Iterator[Request]:
    """Yield a request for each user that adds the opening credits."""
    for user_id in range(1, user_count + 1):
        yield Request(
            method="AddCredits",
            message=contract.messages.CreditRequest(
                user_id=user_id,
                app_id=APP_ID,
                credits=OPENING_CREDITS,
                created_by=1,
                idempotency_key=f"opening-{user_id}",
            ),
        )
