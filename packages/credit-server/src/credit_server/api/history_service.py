"""The calls of `HistoryService`: pages of transactions, single transactions, and streams."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from credit_models import (
    GetTransactionRequest,
    GetTransactionResponse,
    HistoryServiceBase,
    QueryTransactionsRequest,
    QueryTransactionsResponse,
)
from credit_models.constraints import Violation
from credit_models.ledger import UINT32_MAX
from credit_models.translation.commands import KINDS
from credit_models.translation.refusals import (
    bad_request,
    key_not_found,
    page_token_invalid,
    transaction_not_found,
)
from grpclib import const

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert, errors
from credit_server.api.page_token import PageTokenInvalid, make_token, sequence_of
from credit_server.api.reads import Reads
from credit_server.api.watch import Watch, WatchCall
from credit_server.api.watch_hub import WatchHub
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.port import Store, TransactionQuery

# The sizes of pages that the contract defines.
_PAGE_SIZE = 100
_PAGE_SIZE_MAX = 1000

# gRPC clients accept 4 MiB by default. 1,000 transactions can have 20 MiB of notes and metadata.
_PAGE_BYTES_MAX = 2 * 2**20

_TOKEN_VIOLATION = bad_request(
    [Violation(field="page_token", description="must be one of this request and this identity")]
)

_QueryCall = Call[QueryTransactionsRequest, QueryTransactionsResponse]
_GetCall = Call[GetTransactionRequest, GetTransactionResponse]


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
        self._access = access
        self._hub = hub or WatchHub(store)
        self._reads = Reads(store, clock, audit)
        self._list_slots = list_slots or ListSlots()

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "QueryTransactions": self._query_transactions,
            "GetTransaction": self._get_transaction,
            "Watch": self._watch,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _query_transactions(self, call: _QueryCall) -> None:
        request, caller = await self._reads.request(call), _name_of(call)
        query = _query(request, authorize.visible_apps(authorize.identity_of(call)))
        if request.page_token:
            try:
                query = _after(query, sequence_of(request, caller))
            except PageTokenInvalid:
                raise errors.status_of(*page_token_invalid(), _TOKEN_VIOLATION) from None
        async with self._list_slots.slot(call.caller_name):
            page = await self._store.query_transactions(query)
            rows, last = list(convert.fitting(page.rows, _PAGE_BYTES_MAX)), page.last_sequence
            if len(rows) < len(page.rows):
                last = page.rows[len(rows) - 1].sequence
            token = "" if last is None else make_token(request, caller, last)
            answer = convert.transaction_page_to_wire(rows, token)
            await asyncio.sleep(0)  # let other tasks run first
        await call.send_encoded_answer(answer)

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

    async def _watch(self, call: WatchCall) -> None:
        watch = Watch(
            call,
            await self._reads.request(call),
            hub=self._hub,
            store=self._store,
            list_slots=self._list_slots,
            access=self._access,
        )
        await watch.run()


def _name_of(call: _QueryCall) -> str:
    identity = authorize.identity_of(call)
    return "" if identity is None else identity.name


def _query(request: QueryTransactionsRequest, visible: frozenset[int] | None) -> TransactionQuery:
    """Return the query of a valid request.

    Args:
        request: The request. Its app is visible.
        visible: The apps that the caller may read; None: all.
    """
    return TransactionQuery(
        user_id=request.user_id,
        apps=visible if request.app_id is None else frozenset({request.app_id}),
        after_sequence=request.after_sequence,
        before_sequence=request.before_sequence,
        created_from=request.created_from,
        created_until=request.created_until,
        kinds=frozenset(KINDS[type_] for type_ in request.types),
        credits_min=request.credits_min or 0,
        credits_max=UINT32_MAX if request.credits_max is None else request.credits_max,
        report_id=request.report_id,
        related_id=request.related_id,
        grant_id=request.grant_id,
        created_by=request.created_by,
        metadata=tuple(sorted(request.metadata.items())),
        newest_first=not request.oldest_first,
        limit=min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX),
    )


def _after(query: TransactionQuery, sequence: int) -> TransactionQuery:
    """Return the query for the transactions after a sequence, the last one of the previous page."""
    if query.newest_first:
        return replace(query, before_sequence=sequence)
    return replace(query, after_sequence=sequence)
