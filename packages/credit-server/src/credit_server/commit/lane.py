"""One lane: takes in the writes of its users and commits them batch by batch.

A lane has one batch in flight. While it commits, the next one fills: batches grow with the load
and cost a lone caller no waiting. Lanes of one server never share a user, so that they do not
conflict on accounts and history.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import structlog

from credit_server.admission.decision import Decision
from credit_server.admission.latency_estimate import LatencyEstimate
from credit_server.commit.cache import Cache
from credit_server.commit.clock import Clock
from credit_server.commit.entry import Entry
from credit_server.commit.errors import Overloaded, ResultUnknown, Stopping
from credit_server.commit.observer import CommitObserver
from credit_server.commit.plan import Known, Plan, plan
from credit_server.commit.settlement import RetryLimits, Settlement, fail, named
from credit_server.ledger import Account, Command, Outcome, Receipt, Refusal, Transaction
from credit_server.store.port import (
    AppKey,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Rejected,
    StoreUnavailable,
    Unit,
    Writer,
)

log = structlog.get_logger("credit_server.commit")

_SLOTS = 256
"""Among how many slots of an app's total a lane picks its own. Lanes of all servers that pick the
same one conflict, so it is many times the usual number of lanes; a read sums this many at most."""

_NOTHING_WRITTEN = (Conflict, Interrupted, Rejected, StoreUnavailable)
"""What a commit raises when it is certain that it had no effect; see `Unit.commit`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneLimits:
    """A lane's limits.

    Attributes:
        batch_max: The most commands in one batch.
        waiting_max: How many commands may be without an answer.
        wait_seconds_max: How long a command that does not fit in the next batch may have to wait.
        cache_max: How many accounts, and how many keys, are remembered.
        retry: The limits on attempts at a batch.
    """

    batch_max: int
    waiting_max: int
    wait_seconds_max: float
    cache_max: int
    retry: RetryLimits


@dataclass(slots=True)
class _Commit:
    """Whether the commit of a unit of work has begun: from then on it may take effect."""

    begun: bool = False


class Lane:
    """Commits the writes of some users.

    Attributes:
        ended: Whether nothing is committed any more, and so nothing may be offered.
    """

    def __init__(
        self,
        writer: Writer,
        limits: LaneLimits,
        *,
        clock: Clock,
        random: Random,
        observer: CommitObserver,
    ) -> None:
        self._writer = writer
        self._limits = limits
        self._observer = observer
        self._pace = LatencyEstimate(limits.batch_max)
        self._clock = clock
        self._random = random
        self._slot = random.randrange(_SLOTS)
        self._waiting: deque[Entry] = deque()
        self._arrived = asyncio.Event()
        self._under_way: Sequence[Entry] = ()
        self._stopping = False
        self._unanswered = 0
        self.ended = False
        # Both are what this lane committed itself, so they are durable; accounts may be stale
        # where another server writes too, and each write compares their revision.
        self._accounts: Cache[int, Account] = Cache(limits.cache_max)
        self._answered: Cache[AppKey, Transaction] = Cache(limits.cache_max)

    @property
    def unanswered(self) -> int:
        """How many commands are without an answer, those under way included."""
        return self._unanswered

    def admission(self, seconds_left: float | None) -> Decision:
        """Decide whether a command that comes now is admitted.

        Who fits in the next batch waits for no queue, and who comes to an idle lane for nothing at
        all: they are not refused because earlier batches were slow.

        Args:
            seconds_left: How long its caller waits; None for ever.
        """
        if self._unanswered >= self._limits.waiting_max:
            return Decision.QUEUE
        expected = self.expected_seconds()
        if self.queued >= self._limits.batch_max and expected > self._limits.wait_seconds_max:
            return Decision.LATENCY
        if seconds_left is not None and self._pace.size and expected > seconds_left:
            return Decision.DEADLINE
        return Decision.ADMIT

    def expected_seconds(self, queued: int | None = None) -> float:
        """Estimate how long a command that comes now waits for its answer.

        Args:
            queued: How many are to be thought of as queued before it; None for those that are.
        """
        now = asyncio.get_running_loop().time()
        return self._pace.seconds_until_settled(self.queued if queued is None else queued, now)

    @property
    def under_way(self) -> int:
        """How many commands are in the batch that is under way."""
        return self._pace.size

    @property
    def queued(self) -> int:
        """How many wait for a batch and have not left."""
        return max(0, self._unanswered - self._pace.size)

    def offer(self, entry: Entry) -> None:
        """Queue a command for the next batch."""
        self._unanswered += 1
        entry.answer.add_done_callback(self._answered_one)
        if len(self._waiting) >= 2 * self._limits.waiting_max:
            # Most of them belong to callers who have left.
            self._waiting = deque(entry for entry in self._waiting if entry.waits())
        self._waiting.append(entry)
        self._arrived.set()

    def _answered_one(self, _: "asyncio.Future[Receipt | Refusal]") -> None:
        self._unanswered -= 1

    def stop(self) -> None:
        """Have `run` return once everything that waits is settled."""
        self._stopping = True
        self._arrived.set()

    async def run(self) -> None:
        """Commit batch after batch until stopped."""
        while self._waiting or not self._stopping:
            await self._arrived.wait()
            batch = self._take()
            if batch:
                await self._run_batch(batch)

    def end(self, _: "asyncio.Task[None] | None" = None) -> None:
        """Answer all who wait. Call it when `run` has ended, in whatever way.

        After a bug some are left; no caller may wait for a lane that has ended.
        """
        self.ended = True
        for entry in self._under_way:
            entry.settle(ResultUnknown("the server failed while it committed the write"))
        for entry in self._waiting:
            entry.settle(Stopping("the server fails and shuts down"))
        self._waiting.clear()

    async def _run_batch(self, batch: Sequence[Entry]) -> None:
        loop = asyncio.get_running_loop()
        began, self._under_way = loop.time(), batch
        self._pace.begin(len(batch), began)
        settlement = Settlement(
            self._attempt, self._limits.retry, random=self._random, observer=self._observer
        )
        try:
            with self._observer.batch([entry.context for entry in batch]):
                await settlement.settle(batch)
        except Exception as error:
            # Whatever it is, those who wait get an answer and the lane goes on.
            log.exception("a batch could not be settled", **named(batch))
            fail(batch, error, uncertain=True)
        ended = loop.time()
        self._pace.end(ended)
        self._observer.batch_settled(len(batch), ended - began, settlement.attempts)
        self._under_way = ()

    def _take(self) -> list[Entry]:
        """Take the next batch off the queue.

        Whoever no longer waits for an answer is left out, and so is who will not wait long enough:
        under load the batch would otherwise be made up of those who leave while it commits.
        """
        now = asyncio.get_running_loop().time()
        batch: list[Entry] = []
        taken = 0
        for entry in self._waiting:
            if len(batch) == self._limits.batch_max:
                break
            taken += 1
            if not entry.waits():
                continue
            settled_at = now + self._pace.seconds_until_settled(len(batch), now)
            if batch and entry.deadline is not None and entry.deadline < settled_at:
                self._observer.shed(Decision.DEADLINE)
                entry.settle(Overloaded("the answer would come too late"))
            else:
                batch.append(entry)
        for _ in range(taken):  # not before: after a bug here, `end` answers them
            self._waiting.popleft()
        if not self._waiting and not self._stopping:
            self._arrived.clear()
        return batch

    async def _attempt(self, commands: Sequence[Command], *, careful: bool) -> list[Outcome]:
        """Try one unit of work; whatever fails, what is remembered of its users is dropped.

        Raises:
            CommitUnknown: The unit may have taken effect: also where an unforeseen error
                came out of the commit.
            Exception: The unit has no effect.
        """
        commit = _Commit()
        try:
            return await self._commit(commands, commit, careful=careful)
        except Exception as error:
            for command in commands:
                self._accounts.drop(command.user_id)
            if isinstance(error, Conflict):
                self._slot = self._random.randrange(_SLOTS)
            if commit.begun and not isinstance(error, (*_NOTHING_WRITTEN, CommitUnknown)):
                raise CommitUnknown(f"the commit failed ({type(error).__name__})") from error
            raise

    async def _commit(
        self, commands: Sequence[Command], commit: "_Commit", *, careful: bool
    ) -> list[Outcome]:
        """Load, decide and write one batch within one unit of work.

        Optimism pays: at first remembered accounts are trusted and keys are not looked up, since
        the store's unique indexes and the comparison of revisions refuse what is wrong about it.
        Only a refusal rests on nothing that is written, and so is never decided that way.
        """
        moment = self._clock.now()
        known = self._remembered(commands)
        async with self._writer.begin() as unit:
            accounts = await self._load(unit, commands, fresh=careful)
            if careful:
                await self._look_up(unit, commands, known)
            batch = plan(commands, accounts, known, moment.now, moment.latest)
            if batch.rests_on_balances and not careful:
                accounts = await self._load(unit, commands, fresh=True)
                await self._look_up(unit, commands, known)
                batch = plan(commands, accounts, known, moment.now, moment.latest)
            if batch.transactions:
                await unit.write(self._changes(batch, accounts))
            # An answer that rests on what was read needs the commit as well: only then is it
            # certain that a majority has what was read.
            if careful or batch.transactions or batch.rests_on_balances:
                commit.begun = True
                await unit.commit()
        self._remember(batch)
        return batch.outcomes

    async def _load(
        self, unit: Unit, commands: Sequence[Command], *, fresh: bool
    ) -> dict[int, Account]:
        users = {command.user_id for command in commands}
        accounts: dict[int, Account] = {}
        if not fresh:
            for user_id in users:
                remembered = self._accounts.get(user_id)
                if remembered is not None:
                    accounts[user_id] = remembered
        missing = users - accounts.keys()
        if missing:
            accounts.update(await unit.accounts(missing))
        for user_id in users - accounts.keys():
            accounts[user_id] = Account.empty(user_id)
        return accounts

    async def _look_up(self, unit: Unit, commands: Sequence[Command], known: Known) -> None:
        unknown = [command for command in commands if known.find(command) is None]
        keys = {
            (command.user_id, command.app_id, command.key) for command in unknown if command.key
        }
        # The ids tell whether an attempt of our own with an unknown result took effect.
        ids = {command.transaction_id for command in unknown}
        known.add(await unit.transactions(keys, ids))

    def _remembered(self, commands: Sequence[Command]) -> Known:
        known = Known()
        for command in commands:
            if command.key:
                entry = self._answered.get((command.user_id, command.app_id, command.key))
                if entry is not None:
                    known.add([entry])
        return known

    def _remember(self, batch: Plan) -> None:
        for user_id, account in batch.accounts.items():
            self._accounts.put(user_id, account)
        for entry in batch.transactions:
            if entry.key:
                self._answered.put((entry.user_id, entry.app_id, entry.key), entry)

    def _changes(self, batch: Plan, accounts: dict[int, Account]) -> Changes:
        return Changes(
            accounts=[
                (accounts[user_id].revision, account) for user_id, account in batch.accounts.items()
            ],
            transactions=batch.transactions,
            purchases=batch.purchases,
            totals={app_id: delta for app_id, delta in batch.totals.items() if delta},
            slot=self._slot,
        )
