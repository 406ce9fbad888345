"""Crash a server between any two steps of a commit that has due entries: nothing happens twice.

A crash ends the committer of one server at one operation of its store. Another server with an empty
cache sweeps, and the client retries with the same key.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from credit_models.ledger import (
    Account,
    CaptureHold,
    Command,
    GrantCredits,
    Kind,
    PlaceHold,
    Policy,
    Receipt,
    ReleaseHold,
    ReportKey,
    ReverseTransaction,
    Settle,
    Transaction,
    TransferCredits,
)
from credit_server.commit import CommitError, Committer, Sweeper
from credit_server.store.memory import MemoryStore
from credit_server.store.port import (
    AppKey,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Reference,
    References,
    StoreTransaction,
    StoreUnavailable,
)

from tests.server.commit.auditing import audit
from tests.server.commit.scripted_store import LIMITS, add, history, use
from tests.server.commit.test_kinds import MINUTE, Moving, done, write
from tests.server.commit.test_sweeper import FAST, Swept


class Crash(Exception):
    """The server ends here."""


class CrashingStore(MemoryStore):
    """Calls a function before each step of a transaction, and after its commit."""

    def __init__(self) -> None:
        super().__init__()
        self.step: Callable[[str], None] = lambda _: None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreTransaction]:
        self.step("begin")
        async with super().begin() as transaction:
            yield _CrashingTransaction(transaction, self)


class _CrashingTransaction:
    def __init__(self, transaction: StoreTransaction, store: CrashingStore) -> None:
        self._transaction = transaction
        self._store = store

    async def accounts(self, user_ids: Collection[int]) -> dict[int, Account]:
        self._store.step("accounts")
        return await self._transaction.accounts(user_ids)

    async def transactions(
        self, keys: Collection[AppKey], ids: Collection[str]
    ) -> list[Transaction]:
        self._store.step("transactions")
        return await self._transaction.transactions(keys, ids)

    async def policies(self, app_ids: Collection[int]) -> dict[int, Policy]:
        self._store.step("policies")
        return await self._transaction.policies(app_ids)

    async def references(
        self, references: Collection[Reference], reports: Collection[ReportKey]
    ) -> References:
        self._store.step("references")
        return await self._transaction.references(references, reports)

    async def write(self, changes: Changes) -> None:
        self._store.step("write")
        await self._transaction.write(changes)

    async def commit(self, check: Callable[[], None] | None = None) -> None:
        self._store.step("commit")
        await self._transaction.commit(check)
        self._store.step("committed")


def settle(store: MemoryStore, hold: str, used: str) -> Command:
    del store, hold, used
    return Settle(user_id=1, app_id=1, created_by=0, key="", transaction_id="")


def plain_use(store: MemoryStore, hold: str, used: str) -> Command:
    del hold, used
    return use(store, 2, key="k")


def capture(store: MemoryStore, hold: str, used: str) -> Command:
    del used
    return CaptureHold(
        **write(store, key="k"), hold_id=hold, report_id="r", report_name="n", credits=3,
        purchase_id=store.new_id(),
    )  # fmt: skip


def release(store: MemoryStore, hold: str, used: str) -> Command:
    del used
    return ReleaseHold(**write(store, key="k"), hold_id=hold)


def refund(store: MemoryStore, hold: str, used: str) -> Command:
    del hold
    return ReverseTransaction(**write(store, key="k"), reversed_id=used)


def transfer(store: MemoryStore, hold: str, used: str) -> Command:
    del hold, used
    return TransferCredits(**write(store, key="k"), credits=2, to_user_id=2, to_app_id=1)


COMMANDS = [settle, plain_use, capture, release, refund, transfer]


async def prepared(store: CrashingStore, time: Moving) -> tuple[str, str]:
    """Make a user with a grant that has ended, a hold that has ended, an open hold and a use."""
    async with Committer(store, LIMITS, clock=time.clock) as before:
        await done(before, add(store, 10))
        ends = GrantCredits(**write(store), credits=20, priority=1, expires_after=5 * MINUTE)
        await done(before, ends)
        used = (await done(before, use(store, 4))).transaction.id
        await done(before, PlaceHold(**write(store), credits=6, expires_after=3 * MINUTE))
        hold = await done(before, PlaceHold(**write(store), credits=5, expires_after=9 * MINUTE))
        await done(before, GrantCredits(**write(store, user=2), credits=3, expires_after=MINUTE))
    time.now += 6 * MINUTE
    return hold.transaction.id, used


async def recover(store: CrashingStore, time: Moving, command: Command) -> None:
    """Have another server sweep, and retry the command if a client would."""
    store.step = lambda _: None
    async with Committer(store, LIMITS, clock=time.clock) as other:
        await Sweeper(store, other, time.clock, Swept(), FAST, random=Random(7)).sweep()
        if command.key:
            again = replace(command, transaction_id=store.new_id())
            assert isinstance(await other.submit(again), Receipt)
            later = replace(command, transaction_id=store.new_id())
            repeated = await other.submit(later)
            assert isinstance(repeated, Receipt)
            assert repeated.replayed


async def check(store: CrashingStore, used: str, hold: str) -> None:
    entries = await history(store)
    kinds = [entry.kind for entry in entries]
    # The grant ends with what is left and what the hold returns: in one entry.
    assert kinds.count(Kind.EXPIRE) in (1, 2)
    releases = [entry for entry in entries if entry.kind is Kind.RELEASE]
    assert len({entry.id for entry in releases}) == len(releases)
    ended = [entry for entry in releases if entry.details.effective_at is not None]
    assert len(ended) == 1, "the hold that has ended is freed once"
    for_hold = [entry for entry in releases if entry.details.related_id == hold]
    assert len(for_hold) <= 1
    refunds = [entry for entry in entries if entry.details.related_id == used]
    assert len(refunds) <= 1
    assert len([entry for entry in entries if entry.key == "k"]) <= 1
    await audit(store, 1, 2)


@pytest.mark.parametrize("make", COMMANDS, ids=lambda make: make.__name__)
async def test_a_crash_at_any_step_has_no_second_effect(
    make: Callable[[MemoryStore, str, str], Command],
) -> None:
    for crash_at in itertools.count():
        store, time = CrashingStore(), Moving()
        hold, used = await prepared(store, time)
        steps: list[str] = []

        def step(name: str, crash_at: int = crash_at, steps: list[str] = steps) -> None:
            steps.append(name)
            if len(steps) > crash_at:  # nothing works from here on
                raise Crash(name)

        store.step = step
        command = make(store, hold, used)
        short = replace(LIMITS, retry_seconds=0.001)
        try:
            async with Committer(store, short, clock=time.clock) as crashing:
                await crashing.submit(command)
        except (Crash, CommitError):
            crashed = True
        else:
            crashed = False
        await recover(store, time, command)
        await check(store, used, hold)
        if not crashed:
            break
    assert crash_at >= 4, "reading, writing and committing are steps of their own"


FAULTS = (
    Conflict("another server was faster"),
    Interrupted("the connection broke"),
    CommitUnknown("the reply was lost"),
    StoreUnavailable("the store is away"),
)


@pytest.mark.parametrize("round_", range(40))
async def test_random_faults_and_crashes_lose_and_repeat_nothing(seed: int, round_: int) -> None:
    random = Random(f"{seed} {round_}")
    store, time = CrashingStore(), Moving()
    hold, used = await prepared(store, time)

    def step(name: str) -> None:
        if random.random() < 0.15:
            # Whether a commit took effect is unknown after it, whatever is raised.
            raise CommitUnknown("lost") if name == "committed" else random.choice(FAULTS)

    commands = [make(store, hold, used) for make in COMMANDS for _ in range(2)]
    random.shuffle(commands)
    store.step = step
    servers = [Committer(store, LIMITS, clock=time.clock) for _ in range(2)]
    async with servers[0], servers[1]:
        sweeps = [
            Sweeper(store, server, time.clock, Swept(), FAST, random=random) for server in servers
        ]
        work = [
            *(random.choice(servers).submit(command) for command in commands),
            *(each.sweep() for each in sweeps),
        ]
        await asyncio.gather(*work, return_exceptions=True)
        time.now += timedelta(minutes=random.randrange(6))
        await asyncio.gather(*(each.sweep() for each in sweeps), return_exceptions=True)
    store.step = lambda _: None
    async with Committer(store, LIMITS, clock=time.clock) as last:
        await Sweeper(store, last, time.clock, Swept(), FAST, random=random).sweep()
    entries = await history(store)
    ended = [
        entry.details.related_id
        for entry in entries
        if entry.kind is Kind.RELEASE and entry.details.effective_at is not None
    ]
    assert len(ended) == len(set(ended))
    # All commands but `Settle` have one key, so one of them took effect at most.
    assert len([entry for entry in entries if entry.key]) <= 1
    await audit(store, 1, 2)
