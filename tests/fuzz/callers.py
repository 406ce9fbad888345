"""Make calls through several SDK clients at the same time, and record the answers."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from credit_client import (
    AppTotalOverflow,
    BalanceOverflow,
    CreditClient,
    CreditError,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    TooManyApps,
)
from credit_models import Balance, CreditRequest, PurchaseRequest, Receipt
from credit_testing.accounts.asking import plain
from credit_testing.accounts.auditor import audit
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Journal,
    Kind,
    Read,
    Shown,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.model import UINT32_MAX
from credit_testing.accounts.rules.decision import Refused

Question = CreditRequest | PurchaseRequest | Read
FRESH_NUMBERS: Iterator[int] = itertools.count(UINT32_MAX, -1)
"""Ids of users and apps that no test has used yet, from the greatest id downwards."""
_FIGURES: dict[type[CreditError], tuple[str, ...]] = {
    IdempotencyKeyReused: ("fields",),
    InsufficientCredits: ("available", "required", "shortfall"),
    BalanceOverflow: ("balance", "credits"),
    TooManyApps: ("limit",),
    AppTotalOverflow: ("total",),
}
"""The reasons with which the calls may be rejected, and the metadata of each."""


class Callers:
    """Make calls through several clients and keep the journal.

    A client should have one connection: a write that was given up then reaches the server before
    the one that settles it.
    """

    def __init__(self, clients: Sequence[CreditClient]) -> None:
        self._clients = clients
        self._running: set[asyncio.Task[None]] = set()
        # The entry of this user shows the server's time. Its app has no other users.
        self._clock_user, self._clock_app = next(FRESH_NUMBERS), next(FRESH_NUMBERS)
        self.journal = Journal()

    def start(
        self, client: int, question: Question, *, timeout_seconds: float | None = None
    ) -> asyncio.Task[None]:
        """Begin a call; it continues when the event loop runs.

        Args:
            client: Which client makes it; any number.
            question: The request.
            timeout_seconds: The time for the call; None for the client's.
        """
        asked = question if isinstance(question, Read) else Written(request=question)
        call = self.journal.begin(client % len(self._clients), asked)
        task = asyncio.create_task(self._make(call, question, timeout_seconds))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def ask(self, client: int, question: Question) -> Answer:
        """Make a call and wait for its answer."""
        task = self.start(client, question)
        call = self.journal.calls[-1]
        await task
        return call.answer

    async def give_up(self, client: int, question: Question, *, turns: int) -> None:
        """Begin a call and cancel it after a number of turns of the event loop."""
        task = self.start(client, question)
        await take_turns(turns)
        task.cancel()
        await asyncio.wait({task})

    async def wait(self) -> None:
        """Wait until all calls have ended."""
        while self._running:
            await asyncio.wait(self._running)

    async def audit(self, users: Sequence[int], apps: Sequence[int]) -> list[str]:
        """Settle every uncertain write, read everything, and return unexplained answers."""
        await self.finish(users, apps)
        return audit(self.journal, [*users, self._clock_user], policies={})

    async def finish(self, users: Sequence[int], apps: Sequence[int]) -> None:
        """Wait for all calls, settle every uncertain write, and read everything."""
        await self.wait()
        for client, question in self.journal.unsettled():
            assert isinstance(question, Written)
            assert isinstance(question.request, CreditRequest | PurchaseRequest)
            await self.ask(client, question.request)
        # Without a later entry, the auditor must try all times for the decisions of the calls.
        latest = CreditRequest(
            user_id=self._clock_user,
            app_id=self._clock_app,
            credits=1,
            created_by=1,
            idempotency_key="clock",
        )
        await self.ask(0, latest)
        # The history comes first: everything read later must agree with the whole of it.
        for kind in (Kind.TRANSACTIONS, Kind.PURCHASES, Kind.USER_CREDITS):
            for user_id in (*users, self._clock_user):
                await self.ask(0, Read(kind=kind, user_id=user_id, app_id=apps[0]))
        for app_id in apps:
            await self.ask(0, Read(kind=Kind.APP_TOTAL, user_id=users[0], app_id=app_id))

    async def _make(self, call: Call, question: Question, timeout_seconds: float | None) -> None:
        client = self._clients[call.client]
        answer: Answer = Unknown()
        try:
            if isinstance(question, Read):
                answer = await _read(client, question, timeout_seconds)
            else:
                answer = plain(await _write(client, question, timeout_seconds), question)
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


async def _write(
    client: CreditClient, request: CreditRequest | PurchaseRequest, timeout_seconds: float | None
) -> Receipt:
    # Any: the arguments have several types.
    common: dict[str, Any] = {
        "user_id": request.user_id,
        "app_id": request.app_id,
        "credits": request.credits,
        "created_by": request.created_by,
        "idempotency_key": request.idempotency_key,
        "timeout_seconds": timeout_seconds,
    }
    if isinstance(request, CreditRequest):
        return await client.add(**common)
    return await client.use(report_id=request.report_id, report_name=request.report_name, **common)


async def _read(client: CreditClient, read: Read, timeout_seconds: float | None) -> Shown:
    user_id, app_id = read.user_id, read.app_id
    match read.kind:
        case Kind.USER_CREDITS:
            return [await client.user_credits(user_id=user_id, timeout_seconds=timeout_seconds)]
        case Kind.BALANCE:
            return [
                await client.balance_details(
                    app_id=app_id, user_id=user_id, timeout_seconds=timeout_seconds
                )
            ]
        case Kind.APP_TOTAL:
            total = await client.balance(app_id=app_id, timeout_seconds=timeout_seconds)
            return [Balance(app_id=app_id, balance=total)]
        case Kind.TRANSACTIONS:
            entries = client.transactions(user_id=user_id, timeout_seconds=timeout_seconds)
            return [entry async for entry in entries]
        case _:
            purchases = client.purchases(user_id=user_id, timeout_seconds=timeout_seconds)
            return [entry async for entry in purchases]


def _refused(error: CreditError) -> Refused | Unforeseen:
    if type(error) not in _FIGURES or error.reason is None:
        return Unforeseen(error=repr(error))
    figures = {name: getattr(error, name) for name in _FIGURES[type(error)]}
    texts = {
        name: ",".join(figure) if name == "fields" else str(figure)
        for name, figure in figures.items()
    }
    return Refused(error.reason.name, tuple(sorted(texts.items())))
