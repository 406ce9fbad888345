"""Run one simulation: the steps of a plan, a time without faults, and the reads of the audit."""

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

from credit_client import methods
from credit_client.call import Caller
from credit_models import (
    AlertEvent,
    CreditRequest,
    GrantCreditsRequest,
    PurchaseRequest,
    TransferCreditsRequest,
)
from credit_models.ledger import Alert, Caps, Policy
from credit_models.ledger.records import Direction
from credit_server.store.port import AppPolicy
from credit_server.store.webhooks import Webhook
from credit_testing.accounts.draw import Draw
from credit_testing.accounts.journal import Journal, Kind, Read, Together, Unknown, Written
from credit_testing.accounts.rules.requests import Write, users_of

from credit_simulate.alerts import UserAlerts
from credit_simulate.caller import Callers
from credit_simulate.cluster import Cluster
from credit_simulate.directory import Names
from credit_simulate.faults import Faults
from credit_simulate.history import Queries
from credit_simulate.plan import Act, Step
from credit_simulate.policies import PolicyChanges, StoredPolicies
from credit_simulate.receiver import Receiver
from credit_simulate.server import Server, World
from credit_simulate.trace import Trace
from credit_simulate.watcher import Watcher

USERS = (7, 8)
APPS = (1, 2)
FENCE_USER, FENCE_APP = 4_000_000_000, 4_000_000_001
"""Entries of this user in this app show the server's time."""
EVERYONE = (*USERS, FENCE_USER)
_POLICIES = (
    AppPolicy(
        app_id=APPS[0],
        policy=Policy(alerts=(Alert(credits=20, direction=Direction.FALLS_BELOW),)),
        revision=1,
    ),
    AppPolicy(
        app_id=APPS[1],
        policy=Policy(
            caps=Caps(day=40),
            allow_negative=True,
            alerts=(Alert(credits=30, direction=Direction.RISES_TO),),
        ),
        revision=1,
    ),
)
"""The policies at the beginning."""
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
_CUT_OFF_SECONDS = (0.02, 0.1)
"""The timeout of the write that is lost, and of the request after it that depends on it."""
_WRITING_SECONDS = (0.02, 0.2)
"""The range of how long servers have time to write before they crash."""
_WRONG_SECONDS = 3.0
"""How long clocks are wrong: longer than the pauses between the attempts of a call."""
_READS_OF_OLD, _OLD_SECONDS = 4, 0.8
"""The number of reads after a change of primary, and the longest pause before each read."""
_PAGES_SHARE = 0.5
"""The share of these reads that query pages, which may come from different primaries."""
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
        alerts: The changes to alerts of users.
        policies: The changes to policies of apps.
        last_policies: The policies that are stored at the end, by app.
        events: The events of all alerts.
        deliveries: The ids of the events whose deliveries to the webhook are pending.
        world: The trace, the faults that happened, and the errors of servers.
    """

    callers: Callers
    watchers: Sequence[Watcher]
    queries: Queries
    names: Names
    alerts: UserAlerts
    policies: PolicyChanges
    last_policies: Mapping[int, AppPolicy]
    events: Sequence[AlertEvent]
    deliveries: Sequence[str]
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
        journal = Journal()
        faults = Faults(Random(f"faults-{seed}"), withheld=withheld, rate=random.choice((0, 1, 2)))
        self.world = self._world = World(
            cluster=cluster,
            random=random,
            faults=faults,
            trace=trace,
            receiver=Receiver(faults, trace),
            policies=StoredPolicies(cluster, journal),
            bugs=[],
        )
        self._servers = [Server(name, self._world) for name in ("a", "b")]
        self._seed = seed
        self._steps = steps
        self.callers = self._callers = Callers(self._world, self._servers, journal)
        self._queries = Queries(self._world, journal, self._caller)
        self._names = Names(self._world, self._caller)
        self._alerts = UserAlerts(journal, self._queries, self._caller)
        self._policies = PolicyChanges(cluster, trace, journal, self._caller)
        self._running: set[asyncio.Task[Any]] = set()
        self._locks = {server: asyncio.Lock() for server in self._servers}

    async def run(self) -> Played:
        """Run all steps, wait until all calls have ended, and read everything."""
        for policy in _POLICIES:
            self._world.cluster.prepare(self._world.policies.setting(policy))
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
            alerts=self._alerts,
            policies=self._policies,
            last_policies={app: await self._world.cluster.primary.policy(app) for app in APPS},
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
                await callers.read(client, self._read(random))
            case Act.READ_BACK:
                await callers.write(client, _addition(random, f"back-{client}"))
                await self._read_back(random, client)
            case Act.QUERY:
                await self._queries.draw(random, random.choice(USERS), APPS)
            case Act.RESOLVE:
                await self._names.resolve(random, random.choice(APPS))
            case Act.SET_ALERT:
                await self._alerts.change(random, random.choice(USERS), random.choice(APPS))
            case Act.SET_POLICY:
                await self._policies.change(random, APPS[1], APPS)
            case _:
                await self._break(random, step)
        if step.act in (Act.FAIL_OVER, Act.LOSE, Act.LOSE_POLICY, Act.CHANGE_BACK):
            for number in range(_READS_OF_OLD):
                await asyncio.sleep(random.uniform(0, _OLD_SECONDS))
                if random.random() < _PAGES_SHARE:
                    new = [_addition(random, f"{client}-page-{number}-{part}") for part in (1, 2)]
                    await callers.batch(client, new)
                    required = random.choice((None, callers.revisions[USERS[0]]))
                    await self._queries.pages(USERS[0], required, oldest_first=False, page_size=1)
                else:
                    await self._read_back(random, client)

    async def _break(self, random: Random, step: Step) -> None:
        server = random.choice(self._servers)
        match step.act:
            case Act.FAIL_OVER:
                self._world.cluster.fail_over()
            case Act.LOSE if all(server.runs for server in self._servers):
                await self._lose_a_write(random, step)
            case Act.LOSE_POLICY:
                await self._lose_a_policy(server, random, step)
            case Act.REJECT_RETRY:
                await self._reject_a_retry(random, step)
            case Act.CHANGE_BACK:
                fail_over = self._world.cluster.fail_over
                await self._policies.change_back(random, random.choice(APPS), fail_over)
            case Act.SET_CLOCK:
                server.set_clock(random.uniform(-1.9, 1.9))
            case Act.BREAK_CLOCK:
                server.set_clock(_wrong(random))
            case Act.START:
                for each in self._servers:
                    each.start()
            case Act.CRASH | Act.STOP:
                async with self._locks[server]:
                    await (server.crash() if step.act is Act.CRASH else server.stop())

    async def _lose_a_write(self, random: Random, step: Step) -> None:
        """Cut off the primary while a server writes and another reads. Then crash the first server.

        The other server must not return the write, which is lost. A later write changes the state,
        so that the lost write has another effect when it is retried.
        """
        callers, cluster, client = self._callers, self._world.cluster, step.number
        first, other = random.sample(self._servers, 2)
        lost, later = (_addition(random, f"{step.number}-{name}") for name in ("lost", "later"))
        cluster.isolate()
        writing = self._begin(callers.write(client, lost, first))
        await asyncio.sleep(random.uniform(*_CUT_OFF_SECONDS))
        seeing = self._begin(callers.write(client, _without_effect(random, lost), other))
        await asyncio.wait([seeing], timeout=random.uniform(*_CUT_OFF_SECONDS))
        writing.cancel()
        cluster.fail_over()
        async with self._locks[first]:
            await first.crash()
        self._begin(callers.write(client, later, other))
        first.start()

    async def _lose_a_policy(self, server: Server, random: Random, step: Step) -> None:
        """Cut off the primary when it has a changed policy, and let a server read this policy.

        The policy is lost with the primary, so the server must not apply it.
        """
        callers, cluster, policies = self._callers, self._world.cluster, self._world.policies
        fields: dict[str, Any] = {"user_id": USERS[0], "app_id": APPS[1], "created_by": 1}
        given = CreditRequest(**fields, credits=9, idempotency_key=f"{step.number}-given")
        await callers.write(step.number, given)
        async with self._locks[server]:
            await server.crash()  # the policies that it has kept are gone
        server.start()
        stored = self._begin(policies.next())
        changing = self._begin(self._policies.cap(APPS[1], per_hour=1))
        await asyncio.wait([stored, changing], return_when=asyncio.FIRST_COMPLETED)
        stored.cancel()
        cluster.isolate()
        spent = PurchaseRequest(
            **fields, credits=2, report_id="r", report_name="Report",
            idempotency_key=f"{step.number}-spent",
        )  # fmt: skip
        self._begin(callers.write(step.number, spent, server))
        await asyncio.sleep(random.uniform(*_CUT_OFF_SECONDS))
        changing.cancel()
        cluster.fail_over()

    async def _reject_a_retry(self, random: Random, step: Step) -> None:
        """Crash all servers before a write is answered, and start them with wrong clocks.

        They reject the retry of the write, although it has taken effect.
        """
        cluster = self._world.cluster
        request, written = _addition(random, f"{step.number}-retried"), cluster.primary.log_end
        self._begin(self._callers.write(step.number, request))
        end = cluster.time() + random.uniform(*_WRITING_SECONDS)
        while cluster.primary.log_end == written and cluster.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # there is no event for what the primary writes
        for server in self._servers:
            async with self._locks[server]:
                await server.crash()
            server.set_clock(_wrong(random))
            server.start()
        await asyncio.sleep(_WRONG_SECONDS)
        for server in self._servers:
            server.set_clock(random.uniform(-1.9, 1.9))

    def _request(self, random: Random, step: Step, part: int = 0) -> Write:
        latest = self._callers.receipts[-_LATEST:]
        user, app_id = random.choice(USERS), random.choice(APPS)
        if latest and random.random() < 0.5:  # so that more requests depend on each other
            user, app_id = users_of(latest[-1][0])[0], latest[-1][0].app_id
        fields: dict[str, Any] = {  # Any: the fields of requests have many types
            "user_id": user,
            "app_id": app_id,
            "created_by": random.randint(1, 9),
            "idempotency_key": f"{step.number}-{part}",
        }
        return EdgeDraw(random, fields, latest, USERS, self._now).request()

    def _reusing(self, random: Random, step: Step) -> Write:
        """Return a request with the key of an earlier one."""
        earlier = random.choice(self._callers.requests[-_LATEST:])
        own: dict[str, Any] = {"user_id": earlier.user_id, "app_id": earlier.app_id}
        request = self._request(random, step)
        if isinstance(request, TransferCreditsRequest):
            own["to_user_id"] = next(user for user in USERS if user != earlier.user_id)
        return replace(request, **own, idempotency_key=earlier.idempotency_key)

    def _read(self, random: Random) -> Read:
        kinds = (Kind.USER_CREDITS, Kind.BALANCE, Kind.GRANTS, Kind.OPEN_HOLDS)
        return Read(
            kind=random.choice(kinds), user_id=random.choice(USERS), app_id=random.choice(APPS)
        )

    async def _read_back(self, random: Random, client: int) -> None:
        """Read with `min_revision` set to the greatest revision that an answer has returned."""
        read = self._read(random)
        revision = self._callers.revisions[read.user_id]
        if random.random() < 0.5:
            await self._callers.read(client, read, min_revision=revision)
        else:
            await self._queries.draw(random, read.user_id, APPS, min_revision=revision)

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
            left = self._unanswered()
            if not left:
                break
            # Retry the latest write first, so that its place in the history changes.
            for question in reversed(left):
                await self._settle(question)
        else:
            self._world.bugs.append("writes have no answer, although there are no faults")
        await asyncio.sleep(_PEACE_SECONDS)

    def _unanswered(self) -> list[Written | Together]:
        """Return the writes that never got an answer, in the order of their first calls."""
        unanswered: dict[tuple[int, ...], Written | Together] = {}
        answered: set[tuple[int, ...]] = set()
        write: tuple[int, ...]
        for call in self._callers.journal.calls:
            match call.question:
                case Written(request=request):
                    write = (id(request),)  # a retry has the same request
                case Together(requests=requests):
                    write = tuple(id(request) for request in requests)
                case _:
                    continue
            if isinstance(call.answer, Unknown):
                unanswered[write] = call.question
            else:
                answered.add(write)
        return [question for write, question in unanswered.items() if write not in answered]

    async def _settle(self, question: Written | Together) -> None:
        match question:
            case Written(request=request):
                await self._callers.write(0, request)
            case Together(requests=requests):
                await self._callers.atomic(0, requests)

    async def _read_everything(self) -> None:
        callers = self._callers
        await self._names.find_all()
        await self._policies.read(APPS)
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

    async def _deliveries(self) -> Sequence[str]:
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


def _wrong(random: Random) -> float:
    """Return how many seconds a wrong clock is ahead; a negative number: behind."""
    return random.choice((-1, 1)) * random.uniform(20, 5000)


def _without_effect(random: Random, like: CreditRequest) -> Write:
    """Return a dry run, or a use that is too large, for the same user in the same app."""
    fields: dict[str, Any] = {  # Any: as above
        "user_id": like.user_id,
        "app_id": like.app_id,
        "created_by": 1,
        "idempotency_key": f"{like.idempotency_key}-seen",
    }
    if random.random() < 0.5:
        return GrantCreditsRequest(**fields, credits=1, validate_only=True)
    return PurchaseRequest(**fields, credits=2**32 - 1, report_id="r", report_name="Report")


def _addition(random: Random, key: str) -> CreditRequest:
    return CreditRequest(
        user_id=USERS[0],
        app_id=APPS[0],
        credits=random.randint(1, 30),
        created_by=1,
        idempotency_key=key,
    )
