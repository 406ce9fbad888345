"""Make many callers write to two servers on one database at the same time, from one seed.

Holds and grants end while it runs, requests are sent twice at once and again, and a server may be
killed. The seed fixes what each caller draws; what it refers to, and how calls overtake each other,
is the machine's.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from credit_models import (
    AdjustBalanceRequest,
    CaptureHoldRequest,
    CreditRequest,
    ExtendHoldRequest,
    GrantCreditsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    Receipt,
    ReleaseHoldRequest,
    ReverseTransactionRequest,
    SetSpendingCapRequest,
    SpendingCaps,
    TransferCreditsRequest,
    VoidGrantRequest,
)
from credit_testing.http2_client import Connection

from tests.fuzz.account_callers import Callers, Way
from tests.fuzz.account_journal import Kind, Read
from tests.fuzz.accounts_machine import NO_ID
from tests.fuzz.journal import Unknown
from tests.fuzz.ledger_machine import FRESH_NUMBERS
from tests.fuzz.rules.requests import Write

CALLERS, USERS, APPS = 24, 12, 2
_ATTEMPTS_MAX = 500
"""How often a request is sent, also while a server is away."""
_PAUSE_SECONDS = 0.05
_WAYS = [Way.CALL] * 6 + [Way.BATCH, Way.STREAM, Way.ATOMIC]
_LATEST, _ABOUT_MAX = 400, 40
"""From how many of the latest writes, and of those that fit, a request chooses one to refer to."""
_REPORT: dict[str, Any] = {"report_id": "r", "report_name": "Report"}
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
        return _Draw(random, fields, latest, self.users[:-1]).request()


class _Draw:
    """Draws one request; each method is one call.

    Attributes:
        random: Where it draws from.
        fields: The fields that all requests have. Any: they have several types.
        receipts: The latest writes and the ids of their transactions.
        users: All users that have credits.
    """

    def __init__(
        self,
        random: Random,
        fields: dict[str, Any],
        receipts: Sequence[tuple[Write, str]],
        users: Sequence[int],
    ) -> None:
        self.random = random
        self.fields = fields
        self.receipts = receipts
        self.users = users

    def request(self) -> Write:
        """Return a request of any call."""
        make = self.random.choice(_MAKERS)
        request = make(self)
        if isinstance(request, CreditRequest | PurchaseRequest):
            return request
        return replace(
            request,
            validate_only=self.random.random() < 0.05,
            min_available_after=10 if self.random.random() < 0.05 else None,
        )

    def add(self) -> Write:
        return CreditRequest(**self.fields, credits=self._up_to(60))

    def use(self) -> Write:
        once = self.random.random() < 0.1
        return PurchaseRequest(**self.fields, **_REPORT, credits=self._up_to(40), once=once)

    def grant(self) -> Write:
        ends: tuple[dict[str, Any], ...] = (
            {},
            {"expires_after_seconds": self._up_to(3)},
            {"expires_at": self._soon()},
        )
        return GrantCreditsRequest(
            **self.fields,
            **self.random.choice(ends),
            credits=self._up_to(60),
            priority=self.random.choice((None, None, 0, 400, 900)),
            effective_at=self._soon() if self.random.random() < 0.2 else None,
        )

    def void(self) -> Write:
        id_, fields = self._about(GrantCreditsRequest)
        return VoidGrantRequest(**fields, grant_id=id_)

    def hold(self) -> Write:
        return PlaceHoldRequest(
            **self.fields,
            credits=self._up_to(40),
            expires_after_seconds=self._up_to(3),
            allow_partial=self.random.random() < 0.5,
        )

    def capture(self) -> Write:
        id_, fields = self._about(PlaceHoldRequest)
        return CaptureHoldRequest(
            **fields,
            **_REPORT,
            hold_id=id_,
            credits=self.random.choice((None, self._up_to(20))),
            final=self.random.random() < 0.6,
            allow_excess=self.random.random() < 0.5,
        )

    def release(self) -> Write:
        id_, fields = self._about(PlaceHoldRequest)
        return ReleaseHoldRequest(**fields, hold_id=id_)

    def extend(self) -> Write:
        id_, fields = self._about(PlaceHoldRequest)
        return ExtendHoldRequest(**fields, hold_id=id_, expires_after_seconds=self._up_to(3))

    def reverse(self) -> Write:
        id_, fields = self._about(
            PurchaseRequest, CaptureHoldRequest, CreditRequest, GrantCreditsRequest
        )
        return ReverseTransactionRequest(
            **fields,
            transaction_id=id_,
            credits=self.random.choice((None, self._up_to(10))),
            restore_until=self._soon() if self.random.random() < 0.3 else None,
        )

    def transfer(self) -> Write:
        others = [user for user in self.users if user != self.fields["user_id"]]
        return TransferCreditsRequest(
            **self.fields, to_user_id=self.random.choice(others), credits=self._up_to(20)
        )

    def adjust(self) -> Write:
        delta = self.random.choice((1, -1)) * self._up_to(20)
        return AdjustBalanceRequest(**self.fields, note="correction", delta=delta)

    def cap(self) -> Write:
        capped = self.random.random() < 0.5
        caps = SpendingCaps(per_hour=self.random.randint(100, 900)) if capped else None
        return SetSpendingCapRequest(**self.fields, caps=caps)

    def _up_to(self, greatest: int) -> int:
        return self.random.randint(1, greatest)

    def _soon(self) -> datetime:
        time = datetime.now(UTC) + timedelta(milliseconds=self.random.randint(-200, 2500))
        return time.replace(microsecond=time.microsecond // 1000 * 1000)

    def _about(self, *kinds: type) -> tuple[str, dict[str, Any]]:
        """Return the id of a transaction, and the fields of a request about it."""
        fitting = [(request, id_) for request, id_ in self.receipts if isinstance(request, kinds)]
        if not fitting:
            return NO_ID, self.fields
        request, id_ = self.random.choice(fitting[-_ABOUT_MAX:])
        return id_, {**self.fields, "user_id": request.user_id, "app_id": request.app_id}


_MAKERS: tuple[Callable[[_Draw], Write], ...] = (
    *(_Draw.add, _Draw.add, _Draw.use, _Draw.use, _Draw.grant, _Draw.grant, _Draw.grant),
    *(_Draw.hold, _Draw.hold, _Draw.hold, _Draw.capture, _Draw.capture, _Draw.release),
    *(_Draw.extend, _Draw.reverse, _Draw.reverse, _Draw.transfer, _Draw.void, _Draw.adjust),
    _Draw.cap,
)
