"""Run one simulation: the steps of a plan, a time without faults, and the reads of the audit."""

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from credit_client import methods
from credit_client.call import Caller
from credit_models import AlertDirection, AlertEvent, CreditRequest, TransferCreditsRequest
from credit_models.ledger import Alert, Caps, Policy
from credit_models.ledger.records import Direction
from credit_server.store.port import AppPolicy
from credit_server.store.webhooks import Webhook
from credit_testing.accounts.draw import Draw
from credit_testing.accounts.journal import Kind, Read, Together, Unknown, Written
from credit_testing.accounts.rules.decision import AppRules
from credit_testing.accounts.rules.requests import Write

from credit_simulate.alerts import Limit
from credit_simulate.caller import Callers
from credit_simulate.cluster import Cluster, Operation
from credit_simulate.directory import Names
from credit_simulate.faults import Faults
from credit_simulate.history import Queries
from credit_simulate.plan import Act, Step
from credit_simulate.receiver import Receiver
from credit_simulate.server import Server, World
from credit_simulate.trace import Trace
from credit_simulate.watcher import Watcher

USERS = (7, 8)
APPS = (1, 2)
FENCE_USER, FENCE_APP = 4_000_000_000, 4_000_000_001
"""Entries of this user in this app show the server's time."""
EVERYONE = (*USERS, FENCE_USER)
CAP = 60
RULES = {APPS[1]: AppRules(caps={"day": CAP}, allow_negative=True)}
"""The policies of apps, as the auditor has them."""
LIMITS: dict[int, Limit] = {
    APPS[0]: (20, AlertDirection.FALLS_BELOW),
    APPS[1]: (30, AlertDirection.RISES_TO),
}
"""The alerts of apps, as the auditor has them."""
_POLICIES = (
    AppPolicy(
        app_id=APPS[0],
        policy=Policy(alerts=(Alert(credits=20, direction=Direction.FALLS_BELOW),)),
        revision=1,
    ),
    AppPolicy(
        app_id=APPS[1],
        policy=Policy(
            caps=Caps(day=CAP),
            allow_negative=True,
            alerts=(Alert(credits=30, direction=Direction.RISES_TO),),
        ),
        revision=1,
    ),
)
WEBHOOK = Webhook(
    id="webhook",
    app_id=APPS[0],
    url="https://example.com",
    secret="whsec_",  # noqa: S106 - nothing is signed
    created_at=datetime(2026, 3, 1, tzinfo=UTC),
    created_by=1,
)
_BEGINNING = 1_772_366_400.0  # noon, so that no day ends
_END = datetime.max.replace(tzinfo=UTC)
_EDGES = (1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_PEACE_SECONDS = 6.0
"""Longer than a lease of the sweeper, and than a hold or the wait for a grant."""
_ATTEMPTS_MAX = 20
_LATEST = 12
"""A request refers to one of so many of the latest writes."""


class EdgeDraw(Draw):
    """Draws requests whose amounts are often at the limits of their types."""

    def up_to(self, greatest: int) -> int:
        """Return an amount, seldom one that is far too large."""
        if self.random.random() < 0.02:
            return self.random.choice(_EDGES)
        return super().up_to(greatest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """The data of a simulation that the audit needs.

    Attributes:
        callers: The calls.
        watchers: The watches.
        queries: The queries of histories.
        names: The text ids that were resolved.
        events: The events of all alerts.
        deliveries: The ids of the events whose deliveries to the webhook are pending.
        world: The trace, the faults that happened, and the errors of servers.
    """

    callers: Callers
    watchers: Sequence[Watcher]
    queries: Queries
    names: Names
    events: Sequence[AlertEvent]
    deliveries: Collection[str]
    world: World


class Simulation:
    """Servers, their store and their callers, from one seed.

    Attributes:
        world: What the servers share.
        callers: The calls.
    """

    def __init__(self, seed: int, steps: Sequence[Step], withheld: Collection[int] = ()) -> None:
        """Create the servers, the store and the callers in the running loop.

        Args:
            seed: Decides everything that the steps do not decide.
            steps: The steps to run.
            withheld: The places where faults are suppressed; see `Faults`.
        """
        loop = asyncio.get_running_loop()
        random = Random(f"world-{seed}")
        trace = Trace(loop.time)
        cluster = Cluster(random, trace, lambda: _BEGINNING + loop.time())
        faults = Faults(Random(f"faults-{seed}"), withheld=withheld, rate=random.choice((0, 1, 2)))
        self.world = self._world = World(
            cluster=cluster,
            random=random,
            faults=faults,
            trace=trace,
            receiver=Receiver(faults, trace),
            bugs=[],
        )
        self._servers = [Server(name, self._world) for name in ("a", "b")]
        self._seed = seed
        self._steps = steps
        self.callers = self._callers = Callers(self._world, self._servers)
        self._queries = Queries(self._world, self._callers.journal, self._caller)
        self._names = Names(self._world, self._caller)
        self._running: set[asyncio.Task[Any]] = set()
        self._locks = {server: asyncio.Lock() for server in self._servers}

    async def run(self) -> Played:
        """Run all steps, wait until all calls have ended, and read everything."""
        for policy in _POLICIES:
            self._world.cluster.prepare(_setting(policy))
        self._world.cluster.prepare(lambda node: node.webhooks.set(WEBHOOK))
        for server in self._servers:
            server.set_clock(self._world.random.uniform(-1.9, 1.9))
            server.start()
        await self._fence()
        watchers = self._watchers()
        watching = [asyncio.create_task(watcher.run()) for watcher in watchers]
        for step in self._steps:
            await asyncio.sleep(step.at - asyncio.get_running_loop().time())
            self._begin(self._take(step))
        await self._come_to_rest()
        await self._read_everything()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        events = await self._events()
        for server in self._servers:
            await server.crash()
        return Played(
            callers=self._callers,
            watchers=watchers,
            queries=self._queries,
            names=self._names,
            events=events,
            deliveries=await self._deliveries(),
            world=self._world,
        )

    def _caller(self) -> Caller:
        return self._callers.connect()[1]

    def _watchers(self) -> Sequence[Watcher]:
        journal, trace = self._callers.journal, self._world.trace
        scopes: Sequence[dict[str, int]] = ({"user_id": USERS[0]}, {"app_id": APPS[1]})
        return [Watcher(self._caller(), journal, trace, **scope) for scope in scopes]

    # Any: asyncio's type of a coroutine.
    def _begin(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _take(self, step: Step) -> None:
        random = Random(f"step-{self._seed}-{step.number}")
        callers, client = self._callers, step.number
        match step.act:
            case Act.WRITE:
                await callers.write(client, self._request(random, step))
            case Act.AGAIN if callers.requests:
                await callers.write(client, random.choice(callers.requests[-_LATEST:]))
            case Act.REUSE if callers.requests:
                await callers.write(client, self._reusing(random, step))
            case Act.BATCH | Act.ATOMIC:
                requests = [
                    self._request(random, step, part) for part in range(random.randint(2, 4))
                ]
                send = callers.atomic if step.act is Act.ATOMIC else callers.batch
                await send(client, requests)
            case Act.GIVE_UP:
                writing = self._begin(callers.write(client, self._request(random, step)))
                await asyncio.sleep(random.choice((0.0, 0.001, 0.004, 0.02, 0.5)))
                writing.cancel()
            case Act.READ:
                kinds = (Kind.USER_CREDITS, Kind.BALANCE, Kind.GRANTS, Kind.OPEN_HOLDS)
                await callers.read(client, self._read(random, random.choice(kinds)))
            case Act.READ_BACK:
                await self._read_back(random, client)
            case Act.QUERY:
                await self._queries.draw(random, random.choice(USERS), APPS)
            case Act.RESOLVE:
                await self._names.resolve(random, random.choice(APPS))
            case _:
                await self._break(random, step)

    async def _break(self, random: Random, step: Step) -> None:
        server = random.choice(self._servers)
        match step.act:
            case Act.FAIL_OVER:
                self._world.cluster.fail_over()
            case Act.SET_CLOCK:
                server.set_clock(random.uniform(-1.9, 1.9))
            case Act.BREAK_CLOCK:
                server.set_clock(random.choice((-1, 1)) * random.uniform(20, 5000))
            case Act.START:
                for each in self._servers:
                    each.start()
            case Act.CRASH | Act.STOP:
                async with self._locks[server]:
                    await (server.crash() if step.act is Act.CRASH else server.stop())

    def _request(self, random: Random, step: Step, part: int = 0) -> Write:
        fields: dict[str, Any] = {  # Any: the fields of requests have many types
            "user_id": random.choice(USERS),
            "app_id": random.choice(APPS),
            "created_by": random.randint(1, 9),
            "idempotency_key": f"{step.number}-{part}",
        }
        latest = self._callers.receipts[-_LATEST:]
        return EdgeDraw(random, fields, latest, USERS, self._now).request()

    def _reusing(self, random: Random, step: Step) -> Write:
        """Return a request with the key of an earlier one."""
        earlier = random.choice(self._callers.requests[-_LATEST:])
        own: dict[str, Any] = {"user_id": earlier.user_id, "app_id": earlier.app_id}
        request = self._request(random, step)
        if isinstance(request, TransferCreditsRequest):
            own["to_user_id"] = next(user for user in USERS if user != earlier.user_id)
        return replace(request, **own, idempotency_key=earlier.idempotency_key)

    def _read(self, random: Random, kind: Kind) -> Read:
        return Read(kind=kind, user_id=random.choice(USERS), app_id=random.choice(APPS))

    async def _read_back(self, random: Random, client: int) -> None:
        """Read with the revision that a write of the same user returned as `min_revision`."""
        call = await self._callers.write(client, _addition(random, f"back-{client}"))
        answer = call.answer
        if not isinstance(call.question, Written) or not hasattr(answer, "sequence"):
            return
        read = Read(kind=Kind.BALANCE, user_id=USERS[0], app_id=APPS[0])
        await self._callers.read(client, read, min_revision=answer.sequence)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._world.cluster.wall, UTC)

    async def _fence(self) -> None:
        """Learn the time of the servers from an entry."""
        journal = self._callers.journal
        request = CreditRequest(
            user_id=FENCE_USER,
            app_id=FENCE_APP,
            credits=1,
            created_by=1,
            idempotency_key=f"fence-{journal.now()}",
        )
        await self._callers.write(0, request)

    async def _come_to_rest(self) -> None:
        """Wait for all calls, end all faults, and retry writes without an answer."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)
        self._world.faults.active = False
        for server in self._servers:
            server.set_clock(0.0)
            await server.stop()
            server.start()
        for _ in range(_ATTEMPTS_MAX):
            left = [question for _, question in self._callers.journal.unsettled()]
            left = [question for question in left if not self._is_settled(question)]
            if not left:
                break
            for question in left:
                await self._settle(question)
        else:
            self._world.bugs.append("writes have no answer, although there are no faults")
        await asyncio.sleep(_PEACE_SECONDS)

    def _is_settled(self, question: Written | Together | Read) -> bool:
        """Return whether a request that had no answer was answered later."""
        return any(
            call.question == question and not isinstance(call.answer, Unknown)
            for call in reversed(self._callers.journal.calls)
        )

    async def _settle(self, question: Written | Together | Read) -> None:
        match question:
            case Written(request=request):
                await self._callers.write(0, request)
            case Together(requests=requests):
                await self._callers.atomic(0, requests)

    async def _read_everything(self) -> None:
        callers = self._callers
        await self._names.find_all()
        for user in USERS:
            for app in APPS:
                for kind in (Kind.GRANTS, Kind.HOLDS, Kind.FORECAST):
                    await callers.read(0, Read(kind=kind, user_id=user, app_id=app))
        for app in APPS:
            await callers.read(0, Read(kind=Kind.APP_TOTAL, user_id=USERS[0], app_id=app))
        await self._fence()
        # Entries that a sweeper writes later are not in the earlier answers.
        for kind in (Kind.USER_CREDITS, Kind.PURCHASES, Kind.TRANSACTIONS):
            for user in EVERYONE:
                await callers.read(0, Read(kind=kind, user_id=user, app_id=APPS[0]))

    async def _deliveries(self) -> Collection[str]:
        """Make all remaining deliveries due, and return the ids of their events."""
        webhooks, left = self._world.cluster.primary.webhooks, []
        while claim := await webhooks.claim(_END, _END):
            left.append(claim.delivery.event.id)
            await webhooks.delivered(claim.delivery)
        return left

    async def _events(self) -> Sequence[AlertEvent]:
        caller = self._caller()
        found: list[AlertEvent] = []
        for app_id in APPS:
            values = {"app_id": app_id, "page_size": 1000}
            answer, _ = await caller.unary(methods.ALERT_EVENTS, values)
            found += answer.reply.events
        return found


def _setting(policy: AppPolicy) -> Operation:
    return lambda node: node.set_policy(policy)


def _addition(random: Random, key: str) -> CreditRequest:
    return CreditRequest(
        user_id=USERS[0],
        app_id=APPS[0],
        credits=random.randint(1, 30),
        created_by=1,
        idempotency_key=key,
    )
