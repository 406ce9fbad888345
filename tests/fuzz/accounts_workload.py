"""Make many callers write to two servers on one database at the same time, from one seed.

Holds and grants end while it runs, requests are sent twice at once and again, and a server may be
killed. The seed fixes what each caller draws; what it refers to, and how calls overtake each other,
is the machine's.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

from credit_models import Receipt
from credit_testing.accounts.draw import Draw
from credit_testing.accounts.journal import Kind, Read, Unknown
from credit_testing.accounts.rules.requests import Write
from credit_testing.http2_client import Connection

from tests.fuzz.account_callers import Callers, Way
from tests.fuzz.callers import FRESH_NUMBERS

CALLERS, USERS, APPS = 24, 12, 2
_ATTEMPTS_MAX = 500
"""How often a request is sent, also while a server is away."""
_PAUSE_SECONDS = 0.05
_WAYS = [Way.CALL] * 6 + [Way.BATCH, Way.STREAM, Way.ATOMIC]
_LATEST = 400
"""From how many of the latest writes a request chooses one to refer to."""
_SENDINGS = ["once"] * 8 + ["twice at once", "again later"]


class Workload:
    """Many callers of two servers, each of which has a connection of its own to each server.

    Attributes:
        callers: Makes the calls.
        users: The users; the last one shows the time.
        apps: The apps.
    """

    def __init__(self, ports: Sequence[int], seed: int) -> None:
        """Prepare.

        Args:
            ports: The servers.
            seed: Makes each caller draw the same again.
        """
        self._ports = ports
        self._seed = seed
        self._stack = AsyncExitStack()
        self._wires: list[Connection] = []
        self._receipts: list[tuple[Write, str]] = []
        self._keys = itertools.count(1)
        self._milestones: list[tuple[int, asyncio.Event]] = []
        self.callers = Callers(self._wires)
        self.users = [next(FRESH_NUMBERS) for _ in range(USERS + 1)]
        self.apps = [next(FRESH_NUMBERS) for _ in range(APPS)]

    async def acknowledged(self, count: int) -> None:
        """Wait until a number of writes have their receipts."""
        event = asyncio.Event()
        self._milestones.append((count, event))
        await event.wait()

    async def run(self, operations: int) -> None:
        """Make writes until each caller has made its number of them, and read everything."""
        self._wires += [await self._connected(port) for port in self._ports]
        await self.callers.fence(self.users[-1])
        async with asyncio.TaskGroup() as tasks:
            for number in range(CALLERS):
                random = Random(f"{self._seed}-{number}")
                tasks.create_task(self._call(random, number, operations // CALLERS))
        await self._reconnect()
        await self.callers.finish(self.users, self.apps)

    async def close(self) -> None:
        """Close the connections."""
        await self._stack.aclose()

    async def _call(self, random: Random, number: int, operations: int) -> None:
        for _ in range(operations):
            way = random.choice(_WAYS)
            several = 1 if way is Way.CALL else random.randint(1, 4)
            requests = [self._request(random) for _ in range(several)]
            sending = random.choice(_SENDINGS)
            server = (number + random.randint(0, 1)) % len(self._ports)
            sent = [self._settle(server, way, requests)]
            if sending == "twice at once":
                sent.append(self._settle(server + 1, Way.CALL, requests))
            await asyncio.gather(*sent)
            if sending == "again later":
                await self._settle(server + 1, Way.BATCH, requests)
            if random.random() < 0.2:
                await self._look(random, server)

    async def _settle(self, server: int, way: Way, requests: Sequence[Write]) -> None:
        """Send requests until each has its answer."""
        left = list(requests)
        for _ in range(_ATTEMPTS_MAX):
            calls = self.callers.start(server, way, *left)
            await self.callers.ended(calls)
            answers = [outcome for call in calls for outcome in call.writes()]
            for request, answer in answers:
                if isinstance(answer, Receipt) and not answer.validated:
                    self._receipts.append((request, answer.transaction_id))
            self._signal()
            left = [request for request, answer in answers if isinstance(answer, Unknown)]
            if not left:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._reconnect()
        raise AssertionError(f"no answer to {left}")

    def _signal(self) -> None:
        for count, event in self._milestones:
            if len(self._receipts) >= count:
                event.set()

    async def _look(self, random: Random, server: int) -> None:
        kinds = (Kind.USER_CREDITS, Kind.BALANCE, Kind.GRANTS, Kind.OPEN_HOLDS, Kind.FORECAST)
        read = Read(
            kind=random.choice(kinds),
            user_id=random.choice(self.users[:-1]),
            app_id=random.choice(self.apps),
        )
        await self.callers.ended([self.callers.read(server, read)])

    async def _reconnect(self) -> None:
        """Replace the connections that a killed server has closed."""
        for place, port in enumerate(self._ports):
            if self._wires[place].closed.is_set():
                fresh = await self._connected(port)
                if self._wires[place].closed.is_set():
                    self._wires[place] = fresh

    async def _connected(self, port: int) -> Connection:
        """Connect to a server, and wait for one that is being restarted."""
        for _ in range(_ATTEMPTS_MAX):
            with contextlib.suppress(OSError):
                return await self._stack.enter_async_context(Connection.connect(port))
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError(f"no server on port {port}")

    def _request(self, random: Random) -> Write:
        """Return a new request."""
        fields: dict[str, Any] = {
            "user_id": random.choice(self.users[:-1]),
            "app_id": random.choice(self.apps),
            "created_by": random.randint(1, 9),
            "idempotency_key": f"key-{next(self._keys)}",
        }
        latest = self._receipts[-_LATEST:]
        now = partial(datetime.now, UTC)
        return Draw(random, fields, latest, self.users[:-1], now).request()
