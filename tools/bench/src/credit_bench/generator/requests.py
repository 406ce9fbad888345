"""The requests of a load: an endless sequence of valid calls."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

from credit_bench.contract import Contract
from credit_bench.workloads import STATEMENT_ROWS, Operation, Users

APP_ID = 1
HOT_USER_ID = 1
# Every user starts with this balance, which the default of `credits_max` allows. It would take a
# hundred million calls for one user to reach a bound by chance. So no call is rejected, and all
# servers do the same work.
OPENING_CREDITS = 1_000_000_000
# The time of the first transaction of a prefilled history. One follows each second.
FIRST_AT = datetime(2026, 1, 1, tzinfo=UTC)
_CREDITS_MAX = 10
_LATEST_ROWS = 20

_CREDIT_SERVICE = "/credit.v1.CreditService/"
_BATCH_WRITE = "/credit.v1.LedgerService/BatchWrite"
_QUERY = "/credit.v1.HistoryService/QueryTransactions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A call to be made.

    Attributes:
        path: The path of the method.
        message: The request message; its class exists only at run time.
        operations: How many operations succeed with the call. None: as many as it returns rows.
        succeeded: Returns how many operations have succeeded according to the response, if some
            can fail alone; None: all of a call that succeeds.
    """

    path: str
    message: Any
    operations: int | None = 1
    succeeded: Callable[[bytes], int] | None = None


class Requests:
    """Makes random requests; each write has a new idempotency key.

    Args:
        contract: The compiled contract.
        users: The users that the calls concern.
        user_count: The ids of random users are 1 to this number.
        seed: The same seed yields the same requests, except for the keys: a repeated key would
            make the call a replay.
        history: The number of transactions of each user before, for statements.
    """

    def __init__(
        self, contract: Contract, users: Users, user_count: int, seed: str, *, history: int = 1
    ) -> None:
        self._messages = contract.messages
        self._ledger = contract.ledger
        self._history = contract.history
        self._history_length = history
        self._users = users
        self._user_count = user_count
        self._random = Random(seed)  # noqa: S311 - a load, not a secret
        self._key = uuid4().hex
        self._count = 0

    def of(self, operation: Operation, batch: int = 1) -> Iterator[Request]:
        """Yield requests of one kind, without end."""
        make: Callable[[], Request] = {
            Operation.WRITE: self._write,
            Operation.BATCH: lambda: self._batch(batch),
            Operation.READ: self._read,
            Operation.LIST: self._list,
            Operation.BALANCE: self._balance,
            Operation.LATEST: self._latest,
            Operation.STATEMENT: self._statement,
        }[operation]
        while True:
            yield make()

    def opening(self) -> Iterator[Request]:
        """Yield a request for each user that adds the opening credits."""
        for user_id in range(1, self._user_count + 1):
            message = self._messages.CreditRequest(
                user_id=user_id,
                app_id=APP_ID,
                credits=OPENING_CREDITS,
                created_by=1,
                idempotency_key=f"opening-{user_id}",
            )
            yield Request(path=f"{_CREDIT_SERVICE}AddCredits", message=message)

    def _user_id(self) -> int:
        if self._users is Users.HOT:
            return HOT_USER_ID
        return self._random.randint(1, self._user_count)

    def _change(self) -> Any:
        """Return a message that adds or uses credits, with the same probability."""
        self._count += 1
        fields = {
            "user_id": self._user_id(),
            "app_id": APP_ID,
            "credits": self._random.randint(1, _CREDITS_MAX),
            "created_by": 1,
            "idempotency_key": f"{self._key}-{self._count}",
        }
        if self._random.random() < 0.5:
            return self._messages.CreditRequest(**fields)
        fields |= {"report_id": f"report-{self._count}", "report_name": "Annual report"}
        return self._messages.PurchaseRequest(**fields)

    def _write(self) -> Request:
        message = self._change()
        adds = isinstance(message, self._messages.CreditRequest)
        return Request(
            path=_CREDIT_SERVICE + ("AddCredits" if adds else "UseCredits"), message=message
        )

    def _batch(self, size: int) -> Request:
        operations = []
        for _ in range(size):
            message = self._change()
            adds = isinstance(message, self._messages.CreditRequest)
            field = {"add_credits" if adds else "use_credits": message}
            operations.append(self._ledger.Operation(**field))
        return Request(
            path=_BATCH_WRITE,
            message=self._ledger.BatchWriteRequest(operations=operations),
            operations=size,
            succeeded=self._receipts,
        )

    def _receipts(self, response: bytes) -> int:
        outcomes = self._ledger.BatchWriteResponse.FromString(response).outcomes
        return sum(outcome.HasField("receipt") for outcome in outcomes)

    def _read(self) -> Request:
        message = self._messages.UserId(user_id=self._user_id())
        return Request(path=f"{_CREDIT_SERVICE}GetUserCredits", message=message)

    def _list(self) -> Request:
        message = self._messages.UserId(user_id=self._user_id())
        path = f"{_CREDIT_SERVICE}ListUserTransactions"
        return Request(path=path, message=message, operations=None)

    def _balance(self) -> Request:
        message = self._messages.AppId(app_id=APP_ID, user_id=self._user_id())
        return Request(path=f"{_CREDIT_SERVICE}GetAppBalance", message=message)

    def _latest(self) -> Request:
        message = self._history.QueryTransactionsRequest(
            user_id=self._user_id(), page_size=_LATEST_ROWS
        )
        return Request(
            path=_QUERY,
            message=message,
            succeeded=lambda response: self._rows(response) // _LATEST_ROWS,
        )

    def _statement(self) -> Request:
        """Return a query for the transactions of a period in the middle of a history, as a page."""
        begin = FIRST_AT + timedelta(seconds=self._history_length // 2)
        message = self._history.QueryTransactionsRequest(
            user_id=self._user_id(),
            created_from=begin,
            created_until=begin + timedelta(seconds=STATEMENT_ROWS),
            oldest_first=True,
            page_size=STATEMENT_ROWS,
        )
        return Request(
            path=_QUERY, message=message, operations=STATEMENT_ROWS, succeeded=self._rows
        )

    def _rows(self, response: bytes) -> int:
        return len(self._history.QueryTransactionsResponse.FromString(response).transactions)
