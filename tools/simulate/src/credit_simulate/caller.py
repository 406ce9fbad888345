"""Make the calls of apps with the SDK, and record them in the journal."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from credit_client.call import Caller
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.tracing import Tracing
from credit_models import Receipt
from credit_testing.accounts.asking import Reading, Several, Single
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Journal,
    Read,
    Together,
    Unknown,
    Written,
)
from credit_testing.accounts.rules.requests import Write, users_of

from credit_simulate.network import Network
from credit_simulate.server import Server, World
from credit_simulate.streams import Streams

TIMEOUT_SECONDS = 8.0
_STREAMED = 0.3
"""The share of callers whose writes share streams."""

_SETTINGS = tuple(
    ClientSettings(
        target="localhost:50051",
        timeout_seconds=TIMEOUT_SECONDS,
        retry_attempts_max=attempts,
        retry_backoff_initial_seconds=0.1,
        retry_backoff_max_seconds=5.0,
        retry_budget_tokens=10,
        wait_for_ready=True,
    )
    for attempts in (5, 5, 2, 1)
)
"""The settings of clients. Each call takes one of them; without faults, the first."""
# To make it takes 3 ms.
_TRACING = Tracing(Target.parse(_SETTINGS[0].target))


class Callers:
    """Makes calls, each over its own simulated network.

    Attributes:
        journal: The calls.
        receipts: The writes that took effect, with the ids of their transactions.
        requests: All writes that were sent.
        revisions: The greatest revision of each user that an answer has returned.
    """

    def __init__(self, world: World, servers: Sequence[Server], journal: Journal) -> None:
        """Prepare to make calls, and to record them in a journal."""
        self.journal = journal
        self.receipts: list[tuple[Write, str]] = []
        self.requests: list[Write] = []
        self.revisions: defaultdict[int, int] = defaultdict(int)
        self._world = world
        self._servers = servers
        self._streams = Streams(world.faults)

    def connect(self, server: Server | None = None) -> tuple[Network, Caller]:
        """Return a client of the SDK and its network, which leads to one server or to any."""
        world, loop = self._world, asyncio.get_running_loop()
        streams = self._streams if world.random.random() < _STREAMED else None
        servers = self._servers if server is None else [server]
        network = Network(servers, world.random, world.faults, streams)
        caller = Caller(
            network,
            world.random.choice(_SETTINGS) if world.faults.active else _SETTINGS[0],
            tracing=_TRACING,
            clock=loop.time,
            sleep=asyncio.sleep,
            draw=world.random.random,
        )
        return network, caller

    async def write(self, client: int, request: Write, server: Server | None = None) -> Call:
        """Make a write with the call for its kind, to one server or to any."""
        ask = Single(request)
        (call,) = await self._recorded([Written(request=request)], client, ask, server=server)
        return call

    async def batch(self, client: int, requests: Sequence[Write]) -> None:
        """Send several writes in one call. Each takes effect independently."""
        questions = [Written(request=request) for request in requests]
        await self._recorded(questions, client, Several(requests, atomic=False))

    async def atomic(self, client: int, requests: Sequence[Write]) -> None:
        """Send an atomic batch of writes."""
        question = Together(requests=tuple(requests))
        await self._recorded([question], client, Several(requests, atomic=True))

    async def read(self, client: int, read: Read, *, min_revision: int = 0) -> Call:
        """Make a read."""
        ask = Reading(read, min_revision or None)
        (call,) = await self._recorded([read], client, ask, min_revision)
        return call

    async def _recorded(
        self,
        questions: Sequence[Written | Together | Read],
        client: int,
        ask: Callable[[Caller], Any],
        min_revision: int = 0,
        server: Server | None = None,
    ) -> list[Call]:
        """Make a call, which answers all questions. Any: asyncio's type of a coroutine."""
        loop, trace = asyncio.get_running_loop(), self._world.trace
        began = loop.time()
        calls = [self.journal.begin(client, question) for question in questions]
        for call in calls:
            self.requests += [request for request, _ in call.writes()]
            trace(f"caller {client}", f"#{call.began}", call.question)
        network, caller = self.connect(server)
        answers: Sequence[Answer] = [Unknown()] * len(calls)
        try:
            answers = await ask(caller)
        finally:
            stale = self._world.cluster.stale_until >= began
            skewed = any(server.skewed_until >= began for server in network.used)
            for call, answer in zip(calls, answers, strict=True):
                call.repeated, call.doubled = network.sent > 1, network.doubled
                call.min_revision = min_revision
                if isinstance(call.question, Read):
                    call.stale, call.loose = stale, skewed
                self.journal.end(call, answer)
                trace(f"caller {client}", f"#{call.began} ->", answer)
                self._remember(call)
        return calls

    def _remember(self, call: Call) -> None:
        for request, answer in call.writes():
            if isinstance(answer, Receipt) and not answer.validated:
                self.receipts.append((request, answer.transaction_id))
                self._show(users_of(request)[0], answer.sequence)
        if isinstance(call.question, Read) and isinstance(call.answer, list):
            for message in call.answer:
                self._show(call.question.user_id, getattr(message, "revision", 0))

    def _show(self, user: int, revision: int) -> None:
        self.revisions[user] = max(self.revisions[user], revision)
