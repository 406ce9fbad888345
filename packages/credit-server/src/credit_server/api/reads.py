"""Check the requests of reads, and return accounts as they are now, for all services."""

import asyncio
from datetime import datetime
from typing import TypeVar

from credit_models import (
    AppId,
    FindUserRequest,
    GetAppPolicyRequest,
    GetBalanceAtRequest,
    GetCheckpointRequest,
    GetForecastRequest,
    GetSpendingCapRequest,
    GetTransactionRequest,
    ListAlertEventsRequest,
    ListAlertsRequest,
    ListCheckpointsRequest,
    ListDeadLettersRequest,
    ListGrantsRequest,
    ListHoldsRequest,
    ListWebhooksRequest,
    QueryPurchasesRequest,
    QueryTransactionsRequest,
    SummarizeRequest,
    UserId,
    WatchRequest,
)
from credit_models.ledger import Account, settle
from credit_models.translation.refusals import revision_not_reached

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.access.identity import AppNotAllowed
from credit_server.api import errors
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
    ListCheckpointsRequest,
    GetCheckpointRequest,
    ListAlertsRequest,
    ListAlertEventsRequest,
    ListWebhooksRequest,
    ListDeadLettersRequest,
    FindUserRequest,
)
_Answer = TypeVar("_Answer")
_OfUser = TypeVar(
    "_OfUser",
    AppId,
    GetBalanceAtRequest,
    GetForecastRequest,
    GetSpendingCapRequest,
    ListAlertsRequest,
    ListGrantsRequest,
    ListHoldsRequest,
    QueryPurchasesRequest,
    QueryTransactionsRequest,
    SummarizeRequest,
    UserId,
)

# How long a read waits for the revision that it requires, and the pauses between its reads of the
# account. Replication takes milliseconds. A longer delay is a fault of the store.
REVISION_SECONDS_MAX = 0.5
_WAIT_SECONDS_MIN = 0.01
_WAIT_SECONDS_MAX = 0.1


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

    async def account(self, call: Call[_OfUser, _Answer], request: _OfUser) -> Account:
        """Return a user's account as it is now: with everything that is due by time.

        Raises:
            GRPCError: The user has not reached the revision that the request requires.
        """
        return settle(await self.reached(call, request), self.now()).account

    async def reached(self, call: Call[_OfUser, _Answer], request: _OfUser) -> Account:
        """Return a user's account as it is stored, at the revision that the request requires.

        A read from the primary is nearly always there at once: then the account is read once.

        Raises:
            GRPCError: The user has not reached the revision in time.
        """
        required = request.min_revision or 0
        account = await self.at_revision(request.user_id or 0, required)
        if account.revision < required:
            revision = authorize.visible_revision(account, authorize.identity_of(call))
            raise errors.status_of(*revision_not_reached(revision, required=required))
        return account

    async def at_revision(self, user_id: int, required: int) -> Account:
        """Wait until a user's stored account has a revision, and return the account.

        After `REVISION_SECONDS_MAX`, return the account even if its revision is lower.

        Args:
            user_id: The user.
            required: The lowest revision to wait for.
        """
        wait_seconds, waited = _WAIT_SECONDS_MIN, 0.0
        while True:
            account = await self._store.account(user_id) or Account.empty(user_id)
            if account.revision >= required or waited >= REVISION_SECONDS_MAX:
                return account
            await asyncio.sleep(wait_seconds)
            waited += wait_seconds
            wait_seconds = min(2 * wait_seconds, _WAIT_SECONDS_MAX)

    async def required(self, call: Call[_OfUser, _Answer], request: _OfUser) -> int:
        """Return a sequence that the pages of a history must have; 0: the request requires none.

        It is that of the account at the required revision. A later read could miss it, right after
        a change of primary.

        Raises:
            GRPCError: The user has not reached the revision in time.
        """
        if request.min_revision is None:
            return 0
        return (await self.reached(call, request)).revision

    def now(self) -> datetime:
        """Return the time at which accounts are settled."""
        return self._clock.time()
