"""Make calls through several SDK clients at the same time, and record the answers."""

import asyncio
from collections.abc import Sequence

from credit_client import (
    AppTotalOverflow,
    BalanceOverflow,
    CreditClient,
    CreditError,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    Receipt,
    TooManyApps,
)
from credit_testing.accounts.journal import Unforeseen, Unknown

from tests.fuzz.journal import Acknowledged, Answer, Call, Journal, Kind, Read, Shown
from tests.fuzz.ledger_model import Done, Refused, Write


class Callers:
    """Make calls through several clients and keep the journal.

    A client should have one connection: a write that was given up then reaches the server before
    the one that settles it.
    """

    def __init__(self, clients: Sequence[CreditClient]) -> None:
        self._clients = clients
        self._running: set[asyncio.Task[None]] = set()
        self.journal = Journal()

    def start(
        self, client: int, question: Write | Read, *, timeout_seconds: float | None = None
    ) -> asyncio.Task[None]:
        """Begin a call; it continues when the event loop runs.

        Args:
            client: Which client makes it; any number.
            question: The request.
            timeout_seconds: The time for the call; None for the client's.
        """
        client %= len(self._clients)
        call = self.journal.begin(client, question)
        task = asyncio.create_task(self._make(call, timeout_seconds))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def ask(self, client: int, question: Write | Read) -> Answer:
        """Make a call and wait for its answer."""
        task = self.start(client, question)
        call = self.journal.calls[-1]
        await task
        return call.answer

    async def give_up(self, client: int, question: Write | Read, *, turns: int) -> None:
        """Begin a call and cancel it after a number of turns of the event loop."""
        task = self.start(client, question)
        await take_turns(turns)
        task.cancel()
        await asyncio.wait({task})

    async def wait(self) -> None:
        """Wait until all calls have ended."""
        while self._running:
            await asyncio.wait(self._running)

    async def finish(self, users: Sequence[int], apps: Sequence[int]) -> None:
        """Wait for all calls, settle every uncertain write, and read everything."""
        await self.wait()
        for client, write in self.journal.unsettled():
            await self.ask(client, write)
        # The history comes first: everything read later must agree with the whole of it.
        for kind in (Kind.TRANSACTIONS, Kind.PURCHASES, Kind.USER_CREDITS):
            for user_id in users:
                await self.ask(0, Read(kind=kind, user_id=user_id, app_id=apps[0]))
        for app_id in apps:
            await self.ask(0, Read(kind=Kind.APP_TOTAL, user_id=users[0], app_id=app_id))

    async def _make(self, call: Call, timeout_seconds: float | None) -> None:
        client = self._clients[call.client]
        answer: Answer = Unknown()
        try:
            if isinstance(call.question, Write):
                receipt = await _write(client, call.question, timeout_seconds)
                answer = _acknowledged(receipt)
            else:
                answer = await _read(client, call.question, timeout_seconds)
        except DeadlineExceeded:
            pass
        except CreditError as error:
            answer = _refused(error)
        finally:
            # Also when cancelled: the clock decides which states a call can have seen.
            self.journal.end(call, answer)


async def take_turns(count: int) -> None:
    """Let the event loop run a number of turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _write(client: CreditClient, write: Write, timeout_seconds: float | None) -> Receipt:
    if write.report is None:
        return await client.add(
            user_id=write.user_id,
            app_id=write.app_id,
            credits=write.credits,
            created_by=write.created_by,
            idempotency_key=write.key,
            timeout_seconds=timeout_seconds,
        )
    report_id, report_name = write.report
    return await client.use(
        user_id=write.user_id,
        app_id=write.app_id,
        report_id=report_id,
        report_name=report_name,
        credits=write.credits,
        created_by=write.created_by,
        idempotency_key=write.key,
        timeout_seconds=timeout_seconds,
    )


async def _read(client: CreditClient, read: Read, timeout_seconds: float | None) -> Shown:
    limit = timeout_seconds
    match read.kind:
        case Kind.USER_CREDITS:
            return await client.user_credits(user_id=read.user_id, timeout_seconds=limit)
        case Kind.BALANCE:
            return await client.balance(
                app_id=read.app_id, user_id=read.user_id, timeout_seconds=limit
            )
        case Kind.APP_TOTAL:
            return await client.balance(app_id=read.app_id, timeout_seconds=limit)
        case Kind.TRANSACTIONS:
            entries = client.transactions(user_id=read.user_id, timeout_seconds=limit)
            return [entry async for entry in entries]
        case Kind.PURCHASES:
            return [
                entry
                async for entry in client.purchases(user_id=read.user_id, timeout_seconds=limit)
            ]


def _acknowledged(receipt: Receipt) -> Acknowledged:
    return Acknowledged(
        done=Done(sequence=receipt.sequence, balance=receipt.balance, replayed=receipt.replayed),
        transaction_id=receipt.transaction_id,
        purchase_id=receipt.purchase_id,
    )


def _refused(error: CreditError) -> Refused | Unforeseen:
    metadata: tuple[int | str, ...]
    match error:
        case IdempotencyKeyReused():
            metadata = (",".join(error.fields),)
        case InsufficientCredits():
            metadata = (error.available, error.required, error.shortfall)
        case BalanceOverflow():
            metadata = (error.balance, error.credits)
        case TooManyApps():
            metadata = (error.limit,)
        case AppTotalOverflow():
            metadata = (error.total,)
        case _:
            return Unforeseen(error=repr(error))
    assert error.reason is not None
    return Refused(reason=error.reason.name, metadata=metadata)
