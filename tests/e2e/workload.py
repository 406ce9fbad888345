"""Make 64 callers write for 20 users: duplicates, resends and cancelled calls, from one seed.

The seed fixes what is sent; the order in which calls overtake each other is the machine's.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from random import Random

from credit_client import (
    BalanceOverflow,
    CreditClient,
    DeadlineExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    Receipt,
    Unavailable,
)

CALLERS = 64
USERS = range(1001, 1021)
APPS = range(1, 5)
_RICH_APP = APPS[-1]
"""The app whose credits come by the billion, so that balances reach the end of uint32."""
_UINT32_MAX = 2**32 - 1
_TURNS_MAX = 60
"""A call of a loaded server takes some dozens of turns of the event loop."""


class Sending(Enum):
    """How often an operation is sent, always with the same key."""

    ONCE = auto()
    TWICE_AT_ONCE = auto()
    AND_AGAIN = auto()
    CANCELLED_AND_RESENT = auto()
    KEY_REUSED = auto()


_SENDINGS = [Sending.ONCE] * 12 + [sending for sending in Sending for _ in range(2)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One write that happens once, or is refused.

    Attributes:
        turns: For how many turns of the event loop a call that is to be cancelled runs.
    """

    key: str
    user_id: int
    app_id: int
    credits: int
    created_by: int
    buys: bool
    sending: Sending
    turns: int


def operations(seed: int, count: int) -> list[Operation]:
    """Make operations from a seed."""
    random = Random(seed)
    return [_operation(random, f"{seed}-{number}") for number in range(count)]


def _operation(random: Random, key: str) -> Operation:
    app_id = random.choice(APPS)
    if app_id == _RICH_APP:
        price = random.choice([1, 2**31, _UINT32_MAX, random.randint(1, _UINT32_MAX)])
    else:
        price = random.randint(1, 100)
    return Operation(
        key=key,
        user_id=random.choice(USERS),
        app_id=app_id,
        credits=price,
        created_by=random.randint(1, 9),
        buys=random.random() < 0.5,
        sending=random.choice(_SENDINGS),
        turns=random.randint(1, _TURNS_MAX),
    )


@dataclass(kw_only=True, slots=True)
class Journal:
    """The answers that the callers received.

    Attributes:
        receipts: What was acknowledged, by key; as many receipts as answers.
        refused: The keys of operations that were refused, at least once.
        complaints: Answers that no state of the ledger can explain.
    """

    receipts: dict[str, list[Receipt]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    _milestones: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def acknowledge(self, key: str, receipt: Receipt) -> None:
        """Record a success."""
        self.receipts.setdefault(key, []).append(receipt)
        for count, event in self._milestones:
            if len(self.receipts) >= count:
                event.set()

    async def acknowledged(self, count: int) -> None:
        """Wait until a number of operations have succeeded."""
        if len(self.receipts) >= count:
            return
        event = asyncio.Event()
        self._milestones.append((count, event))
        await event.wait()


class Workload:
    """Callers that share a client and a list of operations."""

    def __init__(self, client: CreditClient, operations: Sequence[Operation]) -> None:
        self._client = client
        self.operations = operations
        self.journal = Journal()
        self.serving: asyncio.Event | None = None
        """Set while the server works; None if it must work all the time."""

    async def run(self) -> None:
        """Perform all operations, each until its outcome is certain."""
        todo = iter(self.operations)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._call(todo))

    async def _call(self, todo: Iterator[Operation]) -> None:
        for operation in todo:
            await self._perform(operation)

    async def _perform(self, operation: Operation) -> None:
        match operation.sending:
            case Sending.ONCE:
                await self._settle(operation)
            case Sending.TWICE_AT_ONCE:
                await asyncio.gather(self._settle(operation), self._settle(operation))
            case Sending.AND_AGAIN:
                await self._settle(operation)
                await self._settle(operation)
            case Sending.CANCELLED_AND_RESENT:
                await self._give_up(operation)
                await self._settle(operation)
            case Sending.KEY_REUSED:
                await self._settle(operation)
                if operation.key in self.journal.receipts:
                    await self._reuse_key(operation)

    async def _settle(self, operation: Operation) -> None:
        """Send an operation with its key until its outcome is certain."""
        while True:
            try:
                receipt = await self._send(operation)
            except InsufficientCredits as refusal:
                self._note_refusal(operation, available=refusal.available)
                return
            except BalanceOverflow as refusal:
                self._note_refusal(operation, room=_UINT32_MAX - refusal.balance)
                return
            except (Unavailable, DeadlineExceeded):
                if self.serving is None:
                    raise
                await self.serving.wait()
            else:
                self.journal.acknowledge(operation.key, receipt)
                return

    def _note_refusal(self, operation: Operation, **limit: int) -> None:
        self.journal.refused.add(operation.key)
        if limit.keys() != ({"available"} if operation.buys else {"room"}):
            self.journal.complaints.append(f"{operation} was refused for {limit}")
        if operation.credits <= min(limit.values()):
            self.journal.complaints.append(f"{operation} was refused in spite of {limit}")

    async def _give_up(self, operation: Operation) -> None:
        """Cancel a call while it runs. Whether it has happened is not known."""
        call = asyncio.create_task(self._send(operation))
        for _ in range(operation.turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def _reuse_key(self, operation: Operation) -> None:
        other = replace(operation, created_by=operation.created_by + 1)
        while True:
            try:
                await self._send(other)
            except IdempotencyKeyReused as refusal:
                if refusal.fields != ("created_by",):
                    self.journal.complaints.append(f"{other}: the refusal names {refusal.fields}")
                return
            except (Unavailable, DeadlineExceeded):
                if self.serving is None:
                    raise
                await self.serving.wait()
            else:
                self.journal.complaints.append(f"{other} has taken a key that was used")
                return

    async def _send(self, operation: Operation) -> Receipt:
        if operation.buys:
            return await self._client.use(
                user_id=operation.user_id,
                app_id=operation.app_id,
                report_id=f"report-{operation.key}",
                report_name="Report",
                credits=operation.credits,
                created_by=operation.created_by,
                idempotency_key=operation.key,
            )
        return await self._client.add(
            user_id=operation.user_id,
            app_id=operation.app_id,
            credits=operation.credits,
            created_by=operation.created_by,
            idempotency_key=operation.key,
        )
