"""The six calls of the contract: validate, hand to the ledger, translate the answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import betterproto2
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
from credit_models.constraints import violations
from grpclib import const
from grpclib.exceptions import GRPCError

from credit_server.access import permission
from credit_server.access.audit import AuditedWrite, AuditLog
from credit_server.admission.list_slots import PageTurns
from credit_server.api import convert, refusal
from credit_server.commit import CommitError, Committer, Ending
from credit_server.grpc.call import Call
from credit_server.ledger import UINT32_MAX, Account, Command, Receipt
from credit_server.store.port import Store, StoreError

RECEIPT_METADATA = "credit-receipt-bin"

_Request = TypeVar("_Request", bound=betterproto2.Message)
_Write = TypeVar("_Write", CreditRequest, PurchaseRequest)
_Entry = TypeVar("_Entry")
_Message = TypeVar("_Message")


class CreditService(CreditServiceBase):
    """Serves the contract on a committer for writes and a store for reads."""

    def __init__(
        self,
        committer: Committer,
        store: Store,
        audit: AuditLog,
        turns: PageTurns | None = None,
        *,
        credits_max: int = UINT32_MAX,
    ) -> None:
        """Prepare to serve.

        Args:
            committer: Takes the writes.
            store: Answers the reads.
            audit: Is told of writes and refusals.
            turns: What the lists take turns with; None: ones of the settings' defaults.
            credits_max: The most credits that one call may add, 1 to 2**32 - 1; an identity may
                have a lower limit.
        """
        self._committer = committer
        self._store = store
        self._audit = audit
        self._turns = turns or PageTurns()
        self._credits_max = credits_max

    def __mapping__(self) -> dict[str, const.Handler]:
        """Map the contract's paths to handlers that have the call, not only its message.

        A call of the contract without a handler here is a KeyError when the server is made.
        """
        # Any: each handler takes a call of its own types, which grpclib's Handler does not know.
        handlers: dict[str, Callable[[Call[Any, Any]], Coroutine[Any, Any, None]]] = {
            "AddCredits": self._add_credits,
            "UseCredits": self._use_credits,
            "GetUserCredits": self._get_user_credits,
            "GetAppBalance": self._get_app_balance,
            "ListUserPurchases": self._list_user_purchases,
            "ListUserTransactions": self._list_user_transactions,
        }
        return {
            path: handler._replace(func=handlers[path.rpartition("/")[2]])
            for path, handler in super().__mapping__().items()
        }

    async def _add_credits(self, call: Call[CreditRequest, Empty]) -> None:
        request = await call.recv_request()
        limit = permission.add_limit(call.identity, request.app_id, credits_max=self._credits_max)
        await self._write(
            call, request, lambda: convert.add_from_message(request, self._store.new_id(), limit)
        )

    async def _use_credits(self, call: Call[PurchaseRequest, Empty]) -> None:
        request = await call.recv_request()
        await self._write(
            call,
            request,
            lambda: convert.use_from_message(request, self._store.new_id(), self._store.new_id()),
        )

    async def _write(
        self, call: Call[_Write, Empty], request: _Write, command: Callable[[], Command]
    ) -> None:
        with self._audit.write(call, request) as audited:
            permission.check_app(call.identity, request)
            permission.check_actor(call.identity, request)
            _check(request)
            receipt = audited.receipt = await self._commit(call, command(), audited)
        # Whether the answer reaches anybody or not, the write has happened.
        call.trailers[RECEIPT_METADATA] = encode(convert.receipt_to_message(receipt))
        await call.send_answer(Empty())

    async def _commit(
        self, call: Call[_Write, Empty], command: Command, audited: AuditedWrite
    ) -> Receipt:
        try:
            result = await self._committer.submit(
                command,
                call.observation.context,
                request_id=call.request_id,
                seconds_left=call.seconds_left,
                after=lambda ending: audited.outlived(_translated(ending)),
            )
        except CommitError as error:
            raise refusal.unavailable(error) from error
        if not isinstance(result, Receipt):
            raise refusal.refused(result)
        return result

    async def _get_user_credits(self, call: Call[UserId, UserCredits]) -> None:
        request = await _valid_request(call)
        try:
            account = await self._store.account(request.user_id)
        except StoreError as error:
            raise refusal.unavailable(error) from error
        account = account or Account.empty(request.user_id)
        await call.send_answer(
            convert.account_to_message(permission.visible_account(account, call.identity))
        )

    async def _get_app_balance(self, call: Call[AppId, Balance]) -> None:
        request = await call.recv_request()
        self._check_app(call, request)
        _check(request)
        try:
            if request.user_id is None:
                balance = await self._store.app_total(request.app_id)
            else:
                account = await self._store.account(request.user_id)
                balance = 0 if account is None else account.balance(request.app_id)
        except StoreError as error:
            raise refusal.unavailable(error) from error
        if balance > UINT32_MAX:
            raise refusal.total_overflow(balance)
        await call.send_answer(Balance(app_id=request.app_id, balance=balance))

    async def _list_user_purchases(self, call: Call[UserId, PurchaseMessage]) -> None:
        request = await _valid_request(call)
        apps = permission.apps_of(call.identity)
        pages = self._store.list_purchases(
            request.user_id, apps, after_sequence=request.after_sequence
        )
        await _stream(call, pages, convert.purchase_to_message, self._turns)

    async def _list_user_transactions(self, call: Call[UserId, CreditTransaction]) -> None:
        request = await _valid_request(call)
        apps = permission.apps_of(call.identity)
        pages = self._store.list_transactions(
            request.user_id, apps, after_sequence=request.after_sequence
        )
        await _stream(call, pages, convert.transaction_to_message, self._turns)

    def _check_app(self, call: Call[AppId, Balance], request: AppId) -> None:
        try:
            permission.check_app(call.identity, request)
        except GRPCError as refused:
            self._audit.refused(call, refused, request)
            raise


async def _valid_request(call: Call[_Request, _Message]) -> _Request:
    request = await call.recv_request()
    _check(request)
    return request


def _check(request: betterproto2.Message) -> None:
    broken = violations(request)
    if broken:
        raise refusal.invalid(broken)


def _translated(ending: Ending) -> Receipt | BaseException | None:
    """Return what came of a write as its caller would have been told."""
    if isinstance(ending, CommitError):
        return refusal.unavailable(ending)
    if ending is None or isinstance(ending, Receipt | BaseException):
        return ending
    return refusal.refused(ending)


async def _stream(
    call: Call[_Request, _Message],
    pages: AsyncIterator[Sequence[_Entry]],
    translate: Callable[[_Entry], _Message],
    turns: PageTurns,
) -> None:
    """Send page after page; the next one is read when the client has taken the last.

    A list that waits for its client holds no more than a page's bytes, and there are few of them:
    the connection's others have not begun.
    """
    try:
        async with call.place():
            while made := await _next_page(call, pages, translate, turns):
                data, count = made
                await call.send_encoded(data, count=count)
    except StoreError as error:
        raise refusal.unavailable(error) from error
    if not call._send_initial_metadata_done:  # noqa: SLF001 - an empty list has headers too
        await call.send_initial_metadata()


async def _next_page(
    call: Call[_Request, _Message],
    pages: AsyncIterator[Sequence[_Entry]],
    translate: Callable[[_Entry], _Message],
    turns: PageTurns,
) -> tuple[bytes, int] | None:
    """Return the next page's bytes and how many messages they are; None after the last page."""
    async with turns.turn(call.caller):
        page = await anext(pages, None)
        if page is None:
            return None
        data = call.encoded(translate(entry) for entry in page)
        await asyncio.sleep(0)  # let other tasks run first
        return data, len(page)
