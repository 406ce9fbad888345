"""Check the requests of reads, and return accounts as they are now, for all services."""

from datetime import datetime
from typing import TypeVar

from credit_models import (
    AppId,
    GetAppPolicyRequest,
    GetBalanceAtRequest,
    GetForecastRequest,
    GetSpendingCapRequest,
    GetTransactionRequest,
    ListAlertEventsRequest,
    ListAlertsRequest,
    ListDeadLettersRequest,
    ListGrantsRequest,
    ListHoldsRequest,
    ListWebhooksRequest,
    QueryPurchasesRequest,
    QueryTransactionsRequest,
    SummarizeRequest,
    WatchRequest,
)
from credit_models.ledger import Account, Settled, settle

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.access.identity import AppNotAllowed
from credit_server.api.commands import validate
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.port import Store

_Request = TypeVar(
    "_Request",
    AppId,
    GetAppPolicyRequest,
    GetSpendingCapRequest,
    ListGrantsRequest,
    ListHoldsRequest,
    GetForecastRequest,
    QueryTransactionsRequest,
    GetTransactionRequest,
    QueryPurchasesRequest,
    GetBalanceAtRequest,
    SummarizeRequest,
    WatchRequest,
    ListAlertsRequest,
    ListAlertEventsRequest,
    ListWebhooksRequest,
    ListDeadLettersRequest,
)
_Answer = TypeVar("_Answer")


class Reads:
    """Checks reads, and reads accounts."""

    def __init__(self, store: Store, clock: Clock, audit: AuditLog) -> None:
        """Prepare to read.

        Args:
            store: Where accounts are read.
            clock: The time at which they are settled.
            audit: Writes a line for each denial.
        """
        self._store = store
        self._clock = clock
        self._audit = audit

    async def request(self, call: Call[_Request, _Answer]) -> _Request:
        """Receive the request of a call that reads in an app or, if it names none, in all.

        Raises:
            AppNotAllowed: The caller may not read in the app.
            GRPCError: The request breaks constraints of the contract.
        """
        request, identity = await call.recv_request(), authorize.identity_of(call)
        try:
            authorize.check_app(identity, request)
        except AppNotAllowed as denial:
            self._audit.denied(call, identity, denial, request)
            raise
        validate(request)
        return request

    async def account(self, user_id: int) -> Account:
        """Return a user's account as it is now: with everything that is due by time."""
        return (await self.settled(user_id)).account

    async def settled(self, user_id: int) -> Settled:
        """Return a user's account as it is now, and the entries that are due but not written."""
        account = await self._store.account(user_id) or Account.empty(user_id)
        return settle(account, self.now())

    def now(self) -> datetime:
        """Return the time at which accounts are settled."""
        return self._clock.time()
