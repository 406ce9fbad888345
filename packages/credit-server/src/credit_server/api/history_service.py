"""The calls of `HistoryService`: pages of rows, single transactions, and streams."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from credit_models import (
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetTransactionRequest,
    GetTransactionResponse,
    HistoryServiceBase,
    QueryPurchasesRequest,
    QueryPurchasesResponse,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
    SummarizeRequest,
    SummarizeResponse,
    SummaryGroup,
)
from credit_models.constraints import Violation
from credit_models.ledger import UINT32_MAX, settle
from credit_models.translation.commands import KINDS
from credit_models.translation.refusals import (
    bad_request,
    key_not_found,
    page_token_invalid,
    summary_too_large,
    transaction_not_found,
)
from grpclib import const

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert, errors
from credit_server.api.checkpoint_calls import CheckpointCalls
from credit_server.api.page_token import (
    HistoryRequest,
    PageTokenInvalid,
    last_of,
    make_token,
)
from credit_server.api.reads import Reads
from credit_server.api.watch import Watch, WatchCall
from credit_server.api.watch_hub import WatchHub
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.history import (
    GROUPS_MAX,
    SUMMARIZED_MAX,
    GroupBy,
    HistoryQuery,
    Page,
    Position,
    PurchaseQuery,
    RowT,
    TransactionQuery,
)
from credit_server.store.port import Store

# The sizes of pages that the contract defines.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000

# gRPC clients accept 4 MiB by default. 1,000 transactions can have 20 MiB of notes and metadata.
_PAGE_BYTES_MAX = 2 * 2**20

_TOKEN_VIOLATION = bad_request(
    [Violation(field="page_token", description="must be one of this request and this identity")]
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_GROUPS = {
    SummaryGroup.UNSPECIFIED: GroupBy.NOTHING,
    SummaryGroup.DAY: GroupBy.DAY,
    SummaryGroup.MONTH: GroupBy.MONTH,
    SummaryGroup.TYPE: GroupBy.KIND,
    SummaryGroup.REPORT: GroupBy.REPORT,
    SummaryGroup.APP: GroupBy.APP,
}

_GetCall = Call[GetTransactionRequest, GetTransactionResponse]
_HistoryQueryT = TypeVar("_HistoryQueryT", bound=HistoryQuery)


class HistoryService(HistoryServiceBase):
    """Serves the contract on a store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        audit: AuditLog,
        access: Access,
        list_slots: ListSlots | None = None,
        *,
        hub: WatchHub | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            store: Where transactions are read.
            clock: The clock of the server.
            audit: Writes a line for each denial.
            access: Checks the identities of streams again.
            list_slots: Bounds the pages of lists; None: with the defaults of the settings.
            hub: Distributes what is committed; None: with the defaults of the settings.
        """
        self._store = store
        self._clock = clock
        self._access = access
        self._hub = hub or WatchHub(store)
        self._reads = Reads(store, clock, audit)
        self._checkpoints = CheckpointCalls(store.checkpoints, self._reads)
        self._list_slots = list_slots or ListSlots()

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "QueryTransactions": self._query_transactions,
            "QueryPurchases": self._query_purchases,
            "GetTransaction": self._get_transaction,
            "GetBalanceAt": self._get_balance_at,
            "Summarize": self._summarize,
            "Watch": self._watch,
            "ListCheckpoints": self._checkpoints.list_checkpoints,
            "GetCheckpoint": self._checkpoints.get_checkpoint,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _query_transactions(
        self, call: Call[QueryTransactionsRequest, QueryTransactionsResponse]
    ) -> None:
        request = await self._reads.request(call)
        stored_sequence = await self._reads.required(call, request)
        query = TransactionQuery(
            **self._common(call, request),
            stored_sequence=stored_sequence,
            kinds=frozenset(KINDS[type_] for type_ in request.types),
            related_id=request.related_id,
            grant_id=request.grant_id,
            metadata=tuple(sorted(request.metadata.items())),
        )
        query = _continued(query, request, _name_of(call))
        async with self._list_slots.slot(call.caller_name):
            page = await self._store.query_transactions(query)
            answer = _page_to_wire(
                page, convert.transactions_to_wire(page.rows), request, _name_of(call)
            )
            await asyncio.sleep(0)  # let other tasks run first
        await call.send_encoded_answer(answer)

    async def _query_purchases(
        self, call: Call[QueryPurchasesRequest, QueryPurchasesResponse]
    ) -> None:
        request = await self._reads.request(call)
        stored_sequence = await self._reads.required(call, request)
        query = PurchaseQuery(
            **self._common(call, request),
            stored_sequence=stored_sequence,
            refunded=request.refunded,
        )
        query = _continued(query, request, _name_of(call))
        async with self._list_slots.slot(call.caller_name):
            page = await self._store.query_purchases(query)
            answer = _page_to_wire(
                page, convert.purchases_to_wire(page.rows), request, _name_of(call)
            )
            await asyncio.sleep(0)  # let other tasks run first
        await call.send_encoded_answer(answer)

    # Any: a query's attributes have many types.
    def _common(self, call: Call[Any, Any], request: HistoryRequest) -> dict[str, Any]:
        """Return the attributes that all queries have. The app of the request is visible."""
        visible = authorize.visible_apps(authorize.identity_of(call))
        return {
            "user_id": request.user_id,
            "apps": visible if request.app_id is None else frozenset({request.app_id}),
            "after_sequence": request.after_sequence,
            "before_sequence": request.before_sequence,
            "created_from": request.created_from,
            "created_until": request.created_until,
            "credits_min": request.credits_min or 0,
            "credits_max": UINT32_MAX if request.credits_max is None else request.credits_max,
            "report_id": request.report_id,
            "created_by": request.created_by,
            "newest_first": not request.oldest_first,
            "limit": min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX),
            "settling_seconds": self._clock.settling_seconds,
        }

    async def _get_transaction(self, call: _GetCall) -> None:
        request = await self._reads.request(call)
        if request.transaction_id:
            row = await self._store.find_transaction(request.transaction_id)
            missing = transaction_not_found(request.transaction_id)
        else:
            # The contract requires both with a key: `validate` has checked it.
            key = (request.user_id or 0, request.app_id or 0, request.idempotency_key)
            row = await self._store.find_transaction(key)
            missing = key_not_found(request.idempotency_key)
        apps = authorize.visible_apps(authorize.identity_of(call))
        if row is None or not (apps is None or row.app_id in apps):
            raise errors.status_of(*missing)
        await call.send_encoded_answer(convert.found_transaction_to_wire(row))

    async def _summarize(self, call: Call[SummarizeRequest, SummarizeResponse]) -> None:
        request = await self._reads.request(call)
        visible = authorize.visible_apps(authorize.identity_of(call))
        query = HistoryQuery(
            user_id=request.user_id,
            apps=visible if request.app_id is None else frozenset({request.app_id}),
            created_from=request.created_from,
            created_until=request.created_until,
            limit=GROUPS_MAX,
            settling_seconds=self._clock.settling_seconds,
            stored_sequence=await self._reads.required(call, request),
        )
        group_by = _GROUPS[request.group_by]
        async with self._list_slots.slot(call.caller_name):
            found = await self._store.summarize(query, group_by)
        if len(found.rows) > GROUPS_MAX:
            raise errors.status_of(*summary_too_large("groups", GROUPS_MAX))
        if sum(row.entries for row in found.rows) > SUMMARIZED_MAX:
            raise errors.status_of(*summary_too_large("transactions", SUMMARIZED_MAX))
        until = found.complete_until
        answer = SummarizeResponse(
            summaries=[convert.summary_to_message(row, group_by) for row in found.rows],
            complete_until=None if until is None else _EPOCH + timedelta(milliseconds=until),
        )
        await call.send_answer(answer)

    async def _get_balance_at(self, call: Call[GetBalanceAtRequest, GetBalanceAtResponse]) -> None:
        request = await self._reads.request(call)
        user_id, app_id = request.user_id, request.app_id
        # The account is read first: its revision is the latest sequence, and bounds what is read of
        # the history. So both are of one moment.
        account = await self._reads.reached(call, request)
        at = None if request.at is None else min(request.at, self._reads.now())
        end = 1 + min(account.revision, request.sequence or 0 if at is None else account.revision)
        found = await self._store.balance_at(user_id, app_id, end=end, at=at)
        balance = found.balance
        if at is not None and found.is_latest:
            # What is due at the time is not written yet.
            balance = settle(account, at, {app_id}).account.balance(app_id)
        answer = GetBalanceAtResponse(
            balance=max(0, balance), owed=max(0, -balance), sequence=found.sequence, as_of=at
        )
        await call.send_answer(answer)

    async def _watch(self, call: WatchCall) -> None:
        # Counted before the request is read: a client may never send one.
        shared = authorize.identity_of(call) is None
        with self._hub.watching(call.caller_name, shared=shared):
            watch = Watch(
                call,
                await self._reads.request(call),
                hub=self._hub,
                store=self._store,
                list_slots=self._list_slots,
                access=self._access,
            )
            await watch.run()


# Any: a call of any messages.
def _name_of(call: Call[Any, Any]) -> str:
    identity = authorize.identity_of(call)
    return "" if identity is None else identity.name


def _continued(query: _HistoryQueryT, request: HistoryRequest, caller: str) -> _HistoryQueryT:
    """Return the query for the page of a request: after the previous page, if it has a token."""
    if not request.page_token:
        return query
    try:
        last = last_of(request, caller)
    except PageTokenInvalid:
        raise errors.status_of(*page_token_invalid(), _TOKEN_VIOLATION) from None
    if isinstance(last, Position):
        return replace(query, after=last)
    if query.newest_first:
        # Otherwise, right after a change of primary, a page could omit the entries that follow the
        # previous page. With the oldest first, it can omit only the latest entries, as any read
        # can. The check takes 0.6 ms of CPU time, about half of that of a page of 100 rows (2-core
        # machine).
        stored_sequence = max(query.stored_sequence, last)
        return replace(query, before_sequence=last, stored_sequence=stored_sequence)
    return replace(query, after_sequence=last)


def _page_to_wire(
    page: Page[RowT], encoded: Iterable[bytes], request: HistoryRequest, caller: str
) -> bytes:
    """Write the rows of a page that fit, and the token of the next page.

    Args:
        page: The page.
        encoded: Its rows, written one after another.
        request: The request.
        caller: The name of the identity.
    """
    rows, last = list(convert.fitting(encoded, _PAGE_BYTES_MAX)), page.last
    if len(rows) < len(page.rows):
        end = page.rows[len(rows) - 1]
        in_app = request.user_id is None
        last = Position(end.created_at, end.id) if in_app else end.sequence
    token = "" if last is None else make_token(request, caller, last)
    # Later pages with the newest first do not contain what was settled since the first page.
    later = bool(request.page_token) and not request.oldest_first
    return convert.page_to_wire(rows, token, None if later else page.complete_until)
