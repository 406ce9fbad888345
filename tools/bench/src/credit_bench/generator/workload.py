"""The workload: an endless row of valid requests, half of them ADDs and half of them USEs."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

from credit_bench.cell import Users
from credit_bench.contract import Contract

APP_ID = 1
HOT_USER_ID = 1
# Every user starts with this much. Half a billion calls on one user would be needed to come near a
# bound by chance, so that no call is refused and both servers do the same work.
OPENING_CREDITS = 2**31
_CREDITS_MAX = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call to be made.

    Attributes:
        method: The name of the contract's method.
        message: Its request message, of a class that is made at run time.
    """

    method: str
    message: Any


def requests(contract: Contract, users: Users, user_count: int, seed: str) -> Iterator[Request]:
    """Draw requests, every one with a fresh idempotency key.

    Args:
        contract: The compiled contract.
        users: Whose credits the calls are about.
        user_count: Random users have the ids 1 to this.
        seed: The same seed gives the same row, but for the keys: a key that came before would
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


def openings(contract: Contract, user_count: int) -> Iterator[Request]:
    """Give every user something to spend."""
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
