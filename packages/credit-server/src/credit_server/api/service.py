"""The calls of `CreditService`: validate, submit to the ledger, translate the answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from credit_models import (
    AppId,
    Balance,
    CreditRequest,
    CreditServiceBase,
    CreditTransaction,
    Empty,
    PurchaseRequest,
    UserCredits,
    UserId,
)
from credit_models import Purchase as PurchaseMessage
from credit_models.codec import encode
from credit_models.ledger import UINT32_MAX
from credit_models.translation import messages
from credit_models.translation.refusals import total_overflow
from grpclib import const

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert, errors
from credit_server.api.commands import Commands, Writes, validate
from credit_server.api.reads import Reads
from credit_server.commit import Committer
from credit_server.grpc.call import Call
from credit_server.store.port import Store

RECEIPT_METADATA = "credit-receipt-bin"

# The message of a write's answer, encoded once.
_EMPTY = encode(Empty())

_Write = TypeVar("_Write", CreditRequest, PurchaseRequest)
_Row = TypeVar("_Row")
_Row_co = TypeVar("_Row_co", covariant=True)
_Message = TypeVar("_Message")
_Result = TypeVar("_Result")


class _Page(NamedTuple):
    """A page of a list: its messages as they are sent, and their number."""

    data: bytes
    messages: int


class _ReadPages(Protocol[_Row_co]):
    """Reads a user's history in pages: see `Store.list_transactions`."""

    def __call__(
        self,
        user_id: int,
        apps: frozenset[int] | None,
        *,
        after_sequence: int,
        stored_sequence: int,
    ) -> AsyncIterator[Sequence[_Row_co]]: ...


class CreditService(CreditServiceBase):
    """Serves the contract on a committer for writes and a store for reads."""

    def __init__(
        self,
        committer: Committer,
        store: Store,
        audit: AuditLog,
        list_slots: ListSlots | None = None,
        *,
        commands: Commands | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            committer: Settles the writes.
            store: Answers the reads.
            audit: Writes a line for each write and each denial.
            list_slots: Bounds the pages of lists; None: with the defaults of the settings.
            commands: Makes the commands of writes; None: without a limit on added credits.
        """
        self._reads = Reads(store, committer.clock, audit)
        self._store = store
        self._list_slots = list_slots or ListSlots()
        self._writes = Writes(committer, commands or Commands(store), audit)

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that take the call, not only its message.

        If a call of the contract has no handler here, it is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not have.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "AddCredits": self._write,
            "UseCredits": self._write,
            "GetUserCredits": self._get_user_credits,
            "GetAppBalance": self._get_app_balance,
            "ListUserPurchases": self._list_user_purchases,
            "ListUserTransactions": self._list_user_transactions,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _write(self, call: Call[_Write, Empty]) -> None:
        receipt = await self._writes.make(call, await call.recv_request())
        call.trailers[RECEIPT_METADATA] = messages.receipt_to_wire(receipt)
        await call.send_encoded_answer(_EMPTY)

    async def _get_user_credits(self, call: Call[UserId, UserCredits]) -> None:
        request = await call.recv_request()
        validate(request)
        account = await self._reads.account(call, request)
        visible = authorize.visible_account(account, authorize.identity_of(call))
        await call.send_answer(messages.account_to_message(visible))

    async def _get_app_balance(self, call: Call[AppId, Balance]) -> None:
        request = await self._reads.request(call)
        if request.user_id is None:
            total = await self._store.app_total(request.app_id)
            if total > UINT32_MAX:
                raise errors.status_of(*total_overflow(total))
            # It is negative if users owe more than others have.
            answer = Balance(app_id=request.app_id, balance=max(0, total))
        else:
            account = await self._reads.account(call, request)
            answer = messages.balance_to_message(account, request.app_id)
            answer.revision = authorize.visible_revision(account, authorize.identity_of(call))
        await call.send_answer(answer)

    async def _list_user_purchases(self, call: Call[UserId, PurchaseMessage]) -> None:
        await self._list(call, self._store.list_purchases, convert.purchases_to_wire)

    async def _list_user_transactions(self, call: Call[UserId, CreditTransaction]) -> None:
        await self._list(call, self._store.list_transactions, convert.transactions_to_wire)

    async def _list(
        self,
        call: Call[UserId, _Message],
        read: _ReadPages[_Row],
        to_wire: Callable[[Sequence[_Row]], Iterable[bytes]],
    ) -> None:
        """Send page after page; read the next page while the client receives the current one.

        A list that waits for its client holds the bytes of two pages. There are few such lists,
        because the other lists of its caller have not begun.
        """
        request = await call.recv_request()
        validate(request)
        apps = authorize.visible_apps(authorize.identity_of(call))
        pages = read(
            request.user_id,
            apps,
            after_sequence=request.after_sequence,
            stored_sequence=await self._reads.required(call, request),
        )
        async with call.list_slot():
            page = await self._next_page(call, pages, to_wire)
            while page is not None:
                async with _meanwhile(self._next_page(call, pages, to_wire)) as upcoming:
                    await call.send_framed(page.data, count=page.messages)
                    page = await upcoming
        if not call._send_initial_metadata_done:  # noqa: SLF001 - an empty list has headers too
            await call.send_initial_metadata()

    async def _next_page(
        self,
        call: Call[UserId, _Message],
        pages: AsyncIterator[Sequence[_Row]],
        to_wire: Callable[[Sequence[_Row]], Iterable[bytes]],
    ) -> _Page | None:
        """Return the next page, ready to be sent; None after the last one."""
        async with self._list_slots.slot(call.caller_name):
            rows = await anext(pages, None)
            if rows is None:
                return None
            data = call.framed(to_wire(rows))
            await asyncio.sleep(0)  # let other tasks run first
            return _Page(data, len(rows))


@asynccontextmanager
async def _meanwhile(work: Coroutine[Any, Any, _Result]) -> AsyncIterator[asyncio.Task[_Result]]:
    """Run a coroutine during the context, as a task that ends with the context."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)  # let it begin before the context does
    try:
        yield task
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
