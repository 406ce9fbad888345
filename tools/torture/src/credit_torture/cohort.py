"""Users whose calls are recorded and audited together.

A long run has many cohorts, one after the other. The audit of a cohort needs only the calls of this
cohort, so its time and memory do not grow with the run.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from credit_client.call import Caller
from credit_models import CreditRequest, Receipt, TransferCreditsRequest
from credit_testing.accounts.asking import Reading, Several, Single
from credit_testing.accounts.draw import MAKERS, Draw
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Kind,
    Question,
    Read,
    Together,
    Unknown,
    Written,
)
from credit_testing.accounts.rules.requests import Write

from credit_torture.clients import Clients
from credit_torture.counts import Counts
from credit_torture.record import Recorder, call_line
from credit_torture.watcher import Watcher

USERS, APPS, CALLERS = 6, 2, 5
_NUMBERS = 100
"""How many user and app numbers belong to a cohort."""
_FENCE_APP = 99
"""The app in which entries show the servers' time; no other user has credits there."""
_LATEST = 40
_ATTEMPTS_MAX = 3
"""How often a caller sends a write during the faults; later attempts follow at the end."""
_ACTS = {
    "write": 50,
    "twice at once": 7,
    "again later": 7,
    "key reused": 5,
    "given up": 5,
    "batch": 7,
    "atomic batch": 7,
    "read": 7,
    "read back": 7,
}


def users_of_cohort(number: int) -> list[int]:
    """Return the users of a cohort; the last one has the entries that show the servers' time."""
    first = (number + 1) * _NUMBERS
    return list(range(first, first + USERS + 1))


def apps_of_cohort(number: int) -> list[int]:
    """Return the apps of a cohort."""
    first = (number + 1) * _NUMBERS
    return list(range(first, first + APPS))


def path_of(folder: Path, number: int) -> Path:
    """Return the file with the calls of a cohort."""
    return folder / f"cohort-{number:04}.ndjson"


class Cohort:
    """A few users, and the callers that write for them."""

    def __init__(
        self, number: int, folder: Path, clients: Clients, counts: Counts, random: Random
    ) -> None:
        """Prepare.

        Args:
            number: The unique number of the cohort.
            folder: The folder for its files.
            clients: The connections.
            counts: Counts the answers.
            random: Decides what is called.
        """
        self._number = number
        self._folder = folder
        self._clients = clients
        self._counts = counts
        self._random = random
        self._recorder = Recorder(path_of(folder, number))
        self._users = users_of_cohort(number)
        self._apps = apps_of_cohort(number)
        self._keys = itertools.count(1)
        self._makers = random.sample(MAKERS, len(MAKERS))
        self._receipts: list[tuple[Write, str]] = []
        self._requests: list[Write] = []
        self._last: dict[int, int] = {}
        self._open: list[Question] = []

    async def run(self, operations: int, pause_seconds: float, stop: asyncio.Event) -> None:
        """Watch and write until the callers have made all operations, or the run stops.

        Args:
            operations: The total number of operations.
            pause_seconds: The mean pause of a caller between two operations.
            stop: Set when the run stops.
        """
        await self._fence()
        watchers = self._watchers()
        left = iter(range(operations))
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(self._call(left, pause_seconds, stop))
        await self._close(watchers)
        self._receipts.clear()
        self._requests.clear()

    async def finish(self) -> None:
        """Settle each write with an unknown outcome, and read everything."""
        for question in self._open:
            await self._settle(question)
        await self._fence()
        for user, app in itertools.product(self._users[:-1], self._apps):
            for kind in (Kind.GRANTS, Kind.OPEN_HOLDS, Kind.HOLDS, Kind.FORECAST):
                await self._read_finally(Read(kind=kind, user_id=user, app_id=app))
        for app in self._apps:
            read = Read(kind=Kind.APP_TOTAL, user_id=self._users[0], app_id=app)
            await self._read_finally(read)
        await self._fence()
        # Entries that a sweeper writes later are in none of the earlier answers.
        for kind in (Kind.USER_CREDITS, Kind.PURCHASES, Kind.TRANSACTIONS):
            for user in self._users:
                await self._read_finally(Read(kind=kind, user_id=user, app_id=self._apps[0]))
        self._recorder.close()

    def _watchers(self) -> list[Watcher]:
        scopes: list[dict[str, int]] = [
            {"user_id": self._users[0]},
            {"app_id": self._apps[0]},
            {"app_id": self._apps[0]},
        ]
        return [
            Watcher(
                self._clients.watching(index % self._clients.count),
                self._folder / f"watch-{self._number:04}-{index}.ndjson",
                scope,
            )
            for index, scope in enumerate(scopes)
        ]

    async def _close(self, watchers: Sequence[Watcher]) -> None:
        """Write once more for each user, and end the watches after these entries."""
        for watcher in watchers:
            await watcher.begun.wait()
        acknowledged: dict[int, int] = {}
        for user in self._users[:-1]:
            receipt = await self._certain(self._addition(user, self._apps[0]))
            acknowledged[user] = receipt.sequence
        for watcher in watchers:
            await watcher.close(acknowledged)

    async def _call(self, left: Any, pause_seconds: float, stop: asyncio.Event) -> None:
        acts, weights = list(_ACTS), list(_ACTS.values())
        for _ in left:
            if stop.is_set():
                return
            (act,) = self._random.choices(acts, weights)
            await self._take(act)
            await asyncio.sleep(self._random.expovariate(1 / pause_seconds))

    async def _take(self, act: str) -> None:
        server = self._random.randrange(self._clients.count)
        other = (server + 1) % self._clients.count
        request = self._request()
        match act:
            case "twice at once":
                await asyncio.gather(self._write(server, request), self._write(other, request))
            case "again later":
                await self._write(server, request)
                await self._write(other, self._random.choice(self._requests[-_LATEST:]))
            case "key reused":
                await self._write(server, self._reusing(request))
            case "given up":
                await self._give_up(server, request)
            case "batch" | "atomic batch":
                several = [request, *(self._request() for _ in range(self._random.randint(1, 2)))]
                await self._write_several(server, several, atomic=act == "atomic batch")
            case "read":
                await self._read(server)
            case "read back":
                await self._read_back(server, other)
            case _:
                await self._write(server, request)

    async def _write(self, server: int, request: Write) -> Call:
        """Write, and send the request to the next server while its outcome is unknown."""
        for attempt in range(_ATTEMPTS_MAX):
            (call,) = await self._recorded(
                [Written(request=request)],
                (server + attempt) % self._clients.count,
                Single(request),
            )
            if not isinstance(call.answer, Unknown):
                break
        return call

    async def _write_several(self, server: int, requests: Sequence[Write], *, atomic: bool) -> None:
        questions: list[Question] = (
            [Together(requests=tuple(requests))]
            if atomic
            else [Written(request=request) for request in requests]
        )
        await self._recorded(questions, server, Several(requests, atomic=atomic))

    async def _give_up(self, server: int, request: Write) -> None:
        writing = asyncio.create_task(self._write(server, request))
        await asyncio.sleep(self._random.choice((0.0, 0.002, 0.01, 0.05)))
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing

    async def _read(self, server: int) -> None:
        kinds = (Kind.USER_CREDITS, Kind.BALANCE, Kind.GRANTS, Kind.OPEN_HOLDS)
        user, app = self._random.choice(self._users[:-1]), self._random.choice(self._apps)
        read = Read(kind=self._random.choice(kinds), user_id=user, app_id=app)
        await self._recorded([read], server, Reading(read, None))

    async def _read_back(self, server: int, other: int) -> None:
        """Write, and read from another server with the revision of the receipt."""
        user = self._random.choice(self._users[:-1])
        request = self._addition(user, self._random.choice(self._apps))
        call = await self._write(server, request)
        if isinstance(call.answer, Receipt):
            revision = call.answer.sequence
            read = Read(kind=Kind.BALANCE, user_id=user, app_id=request.app_id)
            await self._recorded([read], other, Reading(read, revision), min_revision=revision)

    async def _read_finally(self, read: Read) -> None:
        while True:
            (call,) = await self._recorded([read], 0, Reading(read, None), final=True)
            if not isinstance(call.answer, Unknown):
                return

    async def _settle(self, question: Question) -> None:
        while True:
            match question:
                case Written(request=request):
                    (call,) = await self._recorded([question], 0, Single(request), final=True)
                case Together(requests=requests):
                    ask = Several(requests, atomic=True)
                    (call,) = await self._recorded([question], 0, ask, final=True)
                case _:
                    return
            if not isinstance(call.answer, Unknown):
                return

    async def _fence(self) -> None:
        """Read the servers' time from a new entry."""
        await self._certain(self._addition(self._users[-1], self._apps[0] + _FENCE_APP))

    async def _certain(self, request: Write) -> Receipt:
        """Write until there is a receipt; the request cannot be rejected."""
        while True:
            call = await self._write(self._random.randrange(self._clients.count), request)
            if isinstance(call.answer, Receipt):
                return call.answer
            await asyncio.sleep(0.1)

    async def _recorded(
        self,
        questions: Sequence[Question],
        server: int,
        ask: Callable[[Caller], Any],
        **more: Any,
    ) -> list[Call]:
        """Make a call, which answers all questions. Any: asyncio's coroutine, fields of a line."""
        calls = [
            Call(client=server, question=question, began=time.monotonic_ns())
            for question in questions
        ]
        for call in calls:
            self._requests += [request for request, _ in call.writes()]
        answers: Sequence[Answer] = [Unknown()] * len(calls)
        sent = 2  # for a call that is given up
        try:
            answers, sent = await self._clients.ask(server, ask)
        finally:
            for call, answer in zip(calls, answers, strict=True):
                call.answer, call.repeated, call.ended = answer, sent > 1, time.monotonic_ns()
                self._recorder.write({**call_line(call), **more})
                self._note(call)
        return calls

    def _note(self, call: Call) -> None:
        self._counts.note(call)
        if isinstance(call.answer, Unknown) and not isinstance(call.question, Read):
            self._open.append(call.question)
        for request, answer in call.writes():
            if isinstance(answer, Receipt) and not answer.validated:
                self._receipts.append((request, answer.transaction_id))

    def _request(self) -> Write:
        fields: dict[str, Any] = {  # Any: the fields of requests have many types
            "user_id": self._random.choice(self._users[:-1]),
            "app_id": self._random.choice(self._apps),
            "created_by": self._random.randint(1, 9),
            "idempotency_key": self._key(),
        }
        latest = self._receipts[-_LATEST:]
        draw = Draw(self._random, fields, latest, self._users[:-1], _now)
        # The first requests are of all kinds, so that a short run has each kind.
        return draw.request(self._makers.pop() if self._makers else None)

    def _reusing(self, request: Write) -> Write:
        """Return a request with the key of an earlier one."""
        if not self._requests:
            return request
        earlier = self._random.choice(self._requests[-_LATEST:])
        own: dict[str, Any] = {"user_id": earlier.user_id, "app_id": earlier.app_id}
        if isinstance(request, TransferCreditsRequest):
            own["to_user_id"] = next(user for user in self._users[:-1] if user != earlier.user_id)
        return replace(request, **own, idempotency_key=earlier.idempotency_key)

    def _addition(self, user: int, app: int) -> CreditRequest:
        return CreditRequest(
            user_id=user,
            app_id=app,
            credits=self._random.randint(1, 30),
            created_by=1,
            idempotency_key=self._key(),
        )

    def _key(self) -> str:
        return f"{self._number}-{next(self._keys)}"


def _now() -> datetime:
    return datetime.now(UTC)
