"""The peer's gRPC service: writes, reads and the history, on grpcio's asyncio server."""

from collections.abc import AsyncIterator
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
from grpc import aio
from pymongo.errors import PyMongoError

from credit_bench.contract import Contract
from credit_bench.peer.ledger import (
    UINT32_MAX,
    BalanceOverflow,
    Document,
    Entry,
    InsufficientCredits,
    KeyReused,
    Kind,
    Ledger,
    Rejected,
)

Message = Any  # a message class that exists only at run time

_STATUS = {
    KeyReused: grpc.StatusCode.ALREADY_EXISTS,
    InsufficientCredits: grpc.StatusCode.FAILED_PRECONDITION,
    BalanceOverflow: grpc.StatusCode.OUT_OF_RANGE,
}
# The bounds from the contract's options, written by hand as in a plain service.
_NUMBERS = ("user_id", "app_id", "credits", "created_by")
_ACCOUNT = ("user_id", "created_at", "updated_at", "created_by", "updated_by", "revision")
_TRANSACTION = (
    "user_id",
    "app_id",
    "credits",
    "created_at",
    "created_by",
    "balance_after",
    "sequence",
)
_LENGTHS = {"report_id": (1, 128), "report_name": (1, 256), "idempotency_key": (0, 128)}


def service(contract: Contract, ledger: Ledger) -> aio.Server:
    """Return a server with the service on it; it is not started.

    Args:
        contract: The compiled contract.
        ledger: The ledger on which the calls run.
    """
    messages = contract.messages

    # The base class exists only at run time, so the class is defined here.
    class CreditService(contract.services.CreditServiceServicer):  # type: ignore[misc, name-defined]
        async def AddCredits(  # noqa: N802 - the contract's name
            self, request: Message, context: aio.ServicerContext
        ) -> Message:
            return await _write(Kind.ADD, request, context)

        async def UseCredits(  # noqa: N802
            self, request: Message, context: aio.ServicerContext
        ) -> Message:
            return await _write(Kind.USE, request, context)

        async def GetAppBalance(  # noqa: N802
            self, request: Message, context: aio.ServicerContext
        ) -> Message:
            try:
                if request.HasField("user_id"):
                    balance = await ledger.balance(request.app_id, request.user_id)
                else:
                    balance = await ledger.total(request.app_id)
            except PyMongoError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            if balance > UINT32_MAX:
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"the total is {balance}")
            return messages.Balance(app_id=request.app_id, balance=balance)

        async def GetUserCredits(  # noqa: N802
            self, request: Message, context: aio.ServicerContext
        ) -> Message:
            try:
                account = await ledger.account(request.user_id)
            except PyMongoError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            return _user_credits(request.user_id, account)

        async def ListUserTransactions(  # noqa: N802
            self, request: Message, context: aio.ServicerContext
        ) -> AsyncIterator[Message]:
            try:
                async for entry in ledger.history(request.user_id, request.after_sequence):
                    yield _transaction(entry)
            except PyMongoError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    def _user_credits(user_id: int, account: Document | None) -> Message:
        if account is None:
            return messages.UserCredits(user_id=user_id)
        return messages.UserCredits(
            id=str(account["_id"]),
            balances=[messages.Balance(**balance) for balance in account["balances"]],
            **{name: account[name] for name in _ACCOUNT},
        )

    def _transaction(entry: Document) -> Message:
        return messages.CreditTransaction(
            id=str(entry["_id"]),
            type=messages.TransactionType.Value(f"TRANSACTION_TYPE_{entry['type'].upper()}"),
            purchase_id=str(entry.get("purchase_id", "")),
            idempotency_key=entry.get("idempotency_key", ""),
            **{name: entry[name] for name in _TRANSACTION},
        )

    async def _write(kind: Kind, request: Message, context: aio.ServicerContext) -> Message:
        broken = _broken(request, kind)
        if broken:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"out of range: {broken}")
        try:
            posted = await ledger.post(_entry(kind, request))
        except Rejected as refusal:
            await context.abort(_STATUS[type(refusal)], str(refusal))
        except PyMongoError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        receipt = messages.Receipt(
            transaction_id=posted.transaction_id,
            purchase_id=posted.purchase_id,
            balance=posted.balance,
            sequence=posted.sequence,
            replayed=posted.replayed,
        )
        context.set_trailing_metadata((("credit-receipt-bin", receipt.SerializeToString()),))
        return messages.Empty()

    server = aio.server()
    contract.services.add_CreditServiceServicer_to_server(CreditService(), server)
    return server


def _broken(request: Message, kind: Kind) -> str:
    lengths = _LENGTHS if kind is Kind.USE else {"idempotency_key": _LENGTHS["idempotency_key"]}
    names = [name for name in _NUMBERS if getattr(request, name) < 1]
    names += [
        name
        for name, (least, greatest) in lengths.items()
        if not least <= len(getattr(request, name)) <= greatest
    ]
    return ", ".join(names)


def _entry(kind: Kind, request: Message) -> Entry:
    return Entry(
        kind=kind,
        user_id=request.user_id,
        app_id=request.app_id,
        credits=request.credits,
        created_by=request.created_by,
        idempotency_key=request.idempotency_key,
        report_id=request.report_id if kind is Kind.USE else "",
        report_name=request.report_name if kind is Kind.USE else "",
    )
