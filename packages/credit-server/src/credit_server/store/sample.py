"""A sample of the books: the accounts that were touched last, with the end of their histories.

All of it is read at one snapshot, so that what does not add up was never right, and in the order of
indexes, so that it is quick on a large ledger.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import ValidationError
from pymongo import DESCENDING

from credit_server.ledger import Account, Transaction
from credit_server.store import schema
from credit_server.store.documents import AccountDocument, TransactionDocument
from credit_server.store.inspection import told

_TRANSACTIONS_PER_ACCOUNT = 20
"""Among how many times as many of the latest transactions the accounts are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One account of a sample.

    Attributes:
        user_id: Whose it is.
        account: The account; None where there is none although there is history.
        latest: The latest transactions, the last one first.
        unreadable: Why a document is not what this release writes; empty when all are.
    """

    user_id: int
    account: Account | None = None
    latest: tuple[Transaction, ...] = ()
    unreadable: str = ""


async def sample_books(
    # Any: the driver's documents, which the models check.
    client: AsyncIOMotorClient[dict[str, Any]],
    *,
    database: str,
    accounts_max: int,
    history_max: int,
) -> AsyncIterator[Sampled]:
    """Read the accounts of the latest transactions.

    Args:
        client: A connection to MongoDB 5.0 or later with a primary.
        database: The name of the ledger's database.
        accounts_max: How many accounts.
        history_max: How many transactions of each.

    Raises:
        StoreError: The store cannot be read.
    """
    books = client[database]
    with told():
        async with await client.start_session(snapshot=True) as session:
            newest = books[schema.CREDIT_TRANSACTIONS].find({}, {"user_id": 1}, session=session)
            users: dict[int, None] = {}
            async for entry in newest.sort("_id", DESCENDING).limit(
                accounts_max * _TRANSACTIONS_PER_ACCOUNT
            ):
                users[entry["user_id"]] = None
            for user_id in list(users)[:accounts_max]:
                account = await books[schema.USER_CREDITS].find_one(
                    {"user_id": user_id}, session=session
                )
                latest = books[schema.CREDIT_TRANSACTIONS].find(
                    {"user_id": user_id}, session=session
                )
                history = await (
                    latest.sort("sequence", DESCENDING).limit(history_max).to_list(history_max)
                )
                yield _sampled(user_id, account, history)


# Any: as above.
def _sampled(user_id: int, account: dict[str, Any] | None, latest: list[dict[str, Any]]) -> Sampled:
    try:
        return Sampled(
            user_id=user_id,
            account=(
                None if account is None else AccountDocument.model_validate(account).to_account()
            ),
            latest=tuple(
                TransactionDocument.model_validate(entry).to_transaction() for entry in latest
            ),
        )
    except ValidationError as error:
        fields = sorted({".".join(str(part) for part in one["loc"]) for one in error.errors()})
        return Sampled(user_id=user_id, unreadable=f"{error.title}: {', '.join(fields)}")
