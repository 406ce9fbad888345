"""Test atomic batches: all commands take effect or none does, over the shards of all users."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from credit_models.ledger import (
    BATCH_SIZE_MAX,
    GRANTS_MAX,
    UINT32_MAX,
    AlreadyPurchased,
    BatchAborted,
    BatchTooLarge,
    Command,
    GrantCredits,
    InsufficientCredits,
    KeyReused,
    Receipt,
    Refusal,
    TransferCredits,
    Use,
)
from credit_server.commit import (
    Answer,
    Committer,
    NotCommitted,
    Overloaded,
    ResultUnknown,
    Stopping,
    Submission,
    WriteResult,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import CommitUnknown, Conflict, Store, StoreUnavailable

from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add, rows, use
from tests.server.commit.test_kinds import write

# For batches that take long on a busy machine.
BUSY = replace(LIMITS, retry_seconds=60, wait_seconds_max=600)


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture(params=["memory", "mongo"])
async def any_store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    mongo = MongoStore(mongod_uri, database=migrated_database)
    yield mongo
    await mongo.close()


def submit(committer: Committer, commands: Sequence[Command]) -> list[Answer]:
    """Submit an atomic batch."""
    return committer.submit_all([Submission(command) for command in commands], atomic=True)


async def commit(committer: Committer, commands: Sequence[Command]) -> list[Receipt | Refusal]:
    """Submit an atomic batch and return its outcomes."""
    return await asyncio.gather(*submit(committer, commands))


def balances(outcomes: Sequence[Receipt | Refusal]) -> list[int]:
    """Return the balances after each command of a batch that succeeded."""
    receipts = [outcome for outcome in outcomes if isinstance(outcome, Receipt)]
    assert len(receipts) == len(outcomes)
    return [receipt.transaction.balance_after for receipt in receipts]


def again(command: Command, store: Store) -> Command:
    """Return the command of a retry: the same request with new ids."""
    return replace(command, transaction_id=store.new_id())


async def test_all_commands_take_effect_in_their_order(any_store: Store) -> None:
    async with Committer(any_store, LIMITS) as committer:
        batch: list[Command] = [
            add(any_store, 5, user=1),
            add(any_store, 3, user=2),
            use(any_store, 4, user=1),
        ]
        assert balances(await commit(committer, batch)) == [5, 3, 1]
    assert [entry.sequence for entry in await rows(any_store, 1)] == [1, 2]
    assert len(await rows(any_store, 2)) == 1


async def test_one_rejected_command_leaves_no_trace_of_any(any_store: Store) -> None:
    async with Committer(any_store, LIMITS) as committer:
        await committer.submit(add(any_store, 5, user=1))
        batch: list[Command] = [
            add(any_store, 1, user=2),
            use(any_store, 6, user=1),
            use(any_store, 5, user=1),
        ]
        outcomes = await commit(committer, batch)
        assert outcomes == [
            BatchAborted(index=1),
            InsufficientCredits(available=5, required=6),
            BatchAborted(index=1),
        ]
        assert isinstance(await committer.submit(use(any_store, 5, user=1)), Receipt)
    assert await rows(any_store, 2) == []
    assert len(await rows(any_store, 1)) == 2


async def _with_all_grants(store: Store, committer: Committer, *users: int) -> None:
    for user in users:
        grants = [
            GrantCredits(**write(store, user=user), credits=1, priority=priority)
            for priority in range(GRANTS_MAX)
        ]
        answers = committer.submit_all([Submission(grant) for grant in grants])
        assert all(isinstance(answer, Receipt) for answer in await asyncio.gather(*answers))


def _move_all(store: Store, user: int, app: int) -> TransferCredits:
    """Return the transfer of all grants of a user in an app to the user's other app."""
    return TransferCredits(
        **write(store, user=user, app_id=app),
        credits=GRANTS_MAX,
        to_user_id=user,
        to_app_id=3 - app,
    )


async def test_an_atomic_batch_that_writes_too_much_is_rejected_and_its_first_part_is_not(
    any_store: Store,
) -> None:
    async with Committer(any_store, BUSY) as committer:
        await _with_all_grants(any_store, committer, 1)
        moves: list[Command] = [_move_all(any_store, 1, app) for app in [1, 2] * 10]
        outcomes = await commit(committer, moves)
        too_large = outcomes.index(BatchTooLarge(size=5251, limit=BATCH_SIZE_MAX))
        assert outcomes == [
            BatchTooLarge(size=5251, limit=BATCH_SIZE_MAX)
            if place == too_large
            else BatchAborted(index=too_large)
            for place in range(20)
        ]
        assert len(await rows(any_store, 1)) == GRANTS_MAX
        for part in (moves[:too_large], moves[too_large:]):
            assert all(isinstance(each, Receipt) for each in await commit(committer, part))
    assert len(await rows(any_store, 1)) == GRANTS_MAX + 20 * (1 + GRANTS_MAX)


async def test_large_commands_of_one_batch_do_not_fail_each_other(any_store: Store) -> None:
    users = range(2, 26)
    async with Committer(any_store, replace(BUSY, shards=1)) as committer:
        await _with_all_grants(any_store, committer, *users)
        moves = [_move_all(any_store, user, 1) for user in users]
        answers = committer.submit_all([Submission(move) for move in moves])
        outcomes = await asyncio.gather(*answers)
    assert len(moves) * (1 + GRANTS_MAX) > BATCH_SIZE_MAX
    assert all(isinstance(each, Receipt) for each in outcomes)
    assert await any_store.app_total(2) == len(moves) * GRANTS_MAX


async def test_each_rejected_command_has_its_own_reason(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 5, key="k"))
        batch: list[Command] = [add(store, 1, user=2), add(store, 6, key="k"), use(store, 9)]
        assert await commit(committer, batch) == [
            BatchAborted(index=1),
            KeyReused(fields=("credits",)),
            InsufficientCredits(available=5, required=9),
        ]


async def test_an_aborted_batch_names_no_purchase_of_its_own(any_store: Store) -> None:
    def once(credits_: int = 5) -> Use:
        return replace(use(any_store, credits_), once=True)

    async with Committer(any_store, LIMITS) as committer:
        await committer.submit(add(any_store, 50))
        bought, repeated = once(), once()
        assert await commit(committer, [bought, repeated]) == [
            BatchAborted(index=1),
            AlreadyPurchased(purchase_id=""),
        ]
        await committer.submit(bought)  # a purchase that exists is named
        assert await commit(committer, [add(any_store, 1), once()]) == [
            BatchAborted(index=1),
            AlreadyPurchased(purchase_id=bought.purchase_id),
        ]


async def test_a_retry_is_replayed_by_this_server_and_by_another(any_store: Store) -> None:
    batch: list[Command] = [add(any_store, 5, user=user, key="k") for user in range(1, 8)]
    async with Committer(any_store, LIMITS) as committer:
        first = await commit(committer, batch)
        same = await commit(committer, [again(command, any_store) for command in batch])
    async with Committer(any_store, LIMITS) as another:
        other = await commit(another, [again(command, any_store) for command in batch])
    expected = [
        Receipt(transaction=outcome.transaction, replayed=True)
        for outcome in first
        if isinstance(outcome, Receipt)
    ]
    assert same == other == expected
    assert len(expected) == 7
    assert len(await rows(any_store)) == 1


async def test_known_keys_count_as_successes_beside_new_ones(any_store: Store) -> None:
    async with Committer(any_store, LIMITS) as committer:
        known = add(any_store, 5, user=1, key="k")
        await committer.submit(known)
    async with Committer(any_store, LIMITS) as another:
        batch: list[Command] = [
            add(any_store, 1, user=2),
            again(known, any_store),
            use(any_store, 2, user=1),
        ]
        outcomes = await commit(another, batch)
    assert balances(outcomes) == [1, 5, 3]
    assert [isinstance(each, Receipt) and each.replayed for each in outcomes] == [
        False,
        True,
        False,
    ]


async def test_a_known_key_does_not_succeed_in_a_batch_that_is_aborted(
    store: ScriptedStore,
) -> None:
    async with Committer(store, LIMITS) as committer:
        known = add(store, 5, key="k")
        await committer.submit(known)
        outcomes = await commit(committer, [again(known, store), use(store, 9, user=2)])
    assert outcomes == [BatchAborted(index=1), InsufficientCredits(available=0, required=9)]


async def test_a_reused_key_is_found_although_a_later_command_has_it_too(
    store: ScriptedStore,
) -> None:
    async with Committer(store, LIMITS) as committer:
        known = add(store, 5, key="k")
        await committer.submit(known)
    async with Committer(store, LIMITS) as another:
        outcomes = await commit(another, [add(store, 6, key="k"), again(known, store)])
    assert outcomes == [KeyReused(fields=("credits",)), BatchAborted(index=0)]


async def test_the_same_key_twice_in_a_batch_takes_effect_once(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        command = add(store, 5, key="k")
        outcomes = await commit(committer, [command, again(command, store)])
    assert balances(outcomes) == [5, 5]
    assert len(await rows(store)) == 1


async def test_a_batch_is_one_transaction_of_the_store_whatever_its_size(
    store: ScriptedStore,
) -> None:
    async with Committer(store, replace(LIMITS, batch_max=10)) as committer:
        await commit(committer, [add(store, user=user) for user in range(1000)])
    assert store.script.batches == [1000]


async def test_a_batch_keeps_its_place_among_the_writes_of_its_users(
    store: ScriptedStore,
) -> None:
    async with Committer(store, LIMITS) as committer:
        before = committer.submit_all([Submission(add(store, 5, user=user)) for user in (1, 2)])
        batch = submit(committer, [use(store, 5, user=user) for user in (1, 2)])
        after = committer.submit_all([Submission(add(store, 7, user=user)) for user in (1, 2)])
        outcomes = await asyncio.gather(*before, *batch, *after)
    assert balances(outcomes) == [5, 5, 0, 0, 7, 7]


async def test_a_stale_cache_of_any_shard_rejects_nothing(any_store: Store) -> None:
    async with Committer(any_store, LIMITS) as one, Committer(any_store, LIMITS) as two:
        users = range(1, 5)
        for committer in (one, two):  # both have cached the accounts
            await commit(committer, [add(any_store, 5, user=user) for user in users])
        outcomes = await commit(one, [use(any_store, 10, user=user) for user in users])
        assert balances(outcomes) == [0] * 4
        for user in users:
            left = await two.submit(use(any_store, 1, user=user))
            assert left == InsufficientCredits(available=0, required=1)


async def test_conflicts_are_retried_without_splitting_the_batch(store: ScriptedStore) -> None:
    store.script.before = [Conflict("another writer")] * 5
    async with Committer(store, LIMITS) as committer:
        outcomes = await commit(committer, [add(store, 5, user=user) for user in range(1, 5)])
    assert balances(outcomes) == [5] * 4
    assert store.script.batches == [4] * 6


async def test_batches_of_several_servers_on_the_same_users_all_succeed(any_store: Store) -> None:
    users, rounds, servers = range(1, 9), 5, 3
    # There is no limit on time: a batch must not fail because the machine is busy.
    limits = replace(LIMITS, retry_seconds=3600)

    async def write(committer: Committer) -> None:
        for _ in range(rounds):
            batches = (
                commit(committer, [add(any_store, 1, user=user) for user in users])
                for _ in range(2)
            )
            await asyncio.gather(*batches)

    committers = [Committer(any_store, limits) for _ in range(servers)]
    async with committers[0], committers[1], committers[2]:
        await asyncio.gather(*(write(committer) for committer in committers))
    for user in users:
        entries = await rows(any_store, user)
        assert [entry.balance_after for entry in entries] == list(
            range(1, 2 * rounds * servers + 1)
        )


async def test_money_moves_between_users_without_being_made_or_lost(any_store: Store) -> None:
    limits = replace(LIMITS, retry_seconds=3600)
    async with Committer(any_store, limits) as one, Committer(any_store, limits) as two:
        await commit(one, [add(any_store, 10, user=user) for user in range(1, 7)])

        async def move(committer: Committer, giver: int, taker: int) -> None:
            price = 3
            batch: list[Command] = [
                use(any_store, price, user=giver),
                add(any_store, price, user=taker),
            ]
            await commit(committer, batch)

        await asyncio.gather(
            *(
                move(committer, giver, giver % 6 + 1)
                for _ in range(5)
                for giver in range(1, 7)
                for committer in (one, two)
            )
        )
    accounts = [await any_store.account(user) for user in range(1, 7)]
    assert sum(account.balance(1) for account in accounts if account is not None) == 60
    assert await any_store.app_total(1) == 60
    for user in range(1, 7):
        sequences = [entry.sequence for entry in await rows(any_store, user)]
        assert sequences == list(range(1, len(sequences) + 1))


async def test_an_unknown_commit_is_resolved_and_not_repeated(store: ScriptedStore) -> None:
    store.script.after = [CommitUnknown("no answer")]
    async with Committer(store, LIMITS) as committer:
        outcomes = await commit(committer, [add(store, 5, user=user) for user in (1, 2)])
    assert balances(outcomes) == [5, 5]
    assert not any(isinstance(each, Receipt) and each.replayed for each in outcomes)
    assert len(await rows(store, 1)) == len(await rows(store, 2)) == 1


@pytest.mark.parametrize("resent", [False, True], ids=["by the server", "by the caller"])
async def test_a_dry_run_does_not_abort_a_batch_that_took_effect(
    store: ScriptedStore, resent: bool
) -> None:
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 5))
        dry_use = replace(use(store, 5), validate_only=True)
        batch: list[Command] = [dry_use, use(store, 5, key="k")]
        if resent:
            assert balances(await commit(committer, batch)) == [0, 0]
            batch = [again(command, store) for command in batch]
        else:
            store.script.after = [CommitUnknown("no answer")]
        dry_run, write_ = await commit(committer, batch)
    # The credits are spent. The dry run is decided again, and the write is not reported as aborted.
    assert dry_run == InsufficientCredits(available=0, required=5)
    assert isinstance(write_, Receipt)
    assert write_.replayed is resent
    assert len(await rows(store)) == 2


async def test_a_rejected_dry_run_aborts_a_new_batch(store: ScriptedStore) -> None:
    async with Committer(store, LIMITS) as committer:
        await committer.submit(add(store, 5))
        dry_run = replace(use(store, 6), validate_only=True)
        mixed = await commit(committer, [dry_run, use(store, 5)])
        alone = await commit(committer, [dry_run, replace(use(store, 5), validate_only=True)])
    rejected = [InsufficientCredits(available=5, required=6), BatchAborted(index=0)]
    assert mixed == alone == rejected
    assert len(await rows(store)) == 1


async def test_a_commit_that_stays_unknown_is_reported_so_for_all(store: ScriptedStore) -> None:
    store.script.after = [CommitUnknown("no answer")]
    store.script.looked_up_fails = [StoreUnavailable("away")] * 1000
    async with Committer(store, replace(LIMITS, retry_seconds=0.01)) as committer:
        answers = submit(committer, [add(store, 5, user=user) for user in (1, 2)])
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ResultUnknown, ResultUnknown]


async def test_an_unavailable_store_fails_all_and_writes_nothing(store: ScriptedStore) -> None:
    store.script.before = [StoreUnavailable("away")]
    async with Committer(store, LIMITS) as committer:
        answers = submit(committer, [add(store, 5, user=user) for user in (1, 2)])
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotCommitted, NotCommitted]
        assert balances(await commit(committer, [add(store, user=user) for user in (1, 2)]))
    assert len(await rows(store, 1)) == 1


async def test_a_bug_fails_the_whole_batch_and_nothing_else(store: ScriptedStore) -> None:
    store.script.write = [ZeroDivisionError("a bug")]
    async with Committer(store, LIMITS) as committer:
        answers = submit(committer, [add(store, 5, user=user) for user in (1, 2, 3)])
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert all(isinstance(outcome, ZeroDivisionError) for outcome in outcomes)
        assert isinstance(await committer.submit(add(store, 7)), Receipt)
        assert isinstance(await committer.submit(add(store, 7, user=2)), Receipt)
    assert await rows(store, 3) == []


@asynccontextmanager
async def _waiting_batch(store: ScriptedStore) -> AsyncIterator[Sequence[Answer]]:
    """Return the answers of a batch that waits for a commit, and require that it is dropped."""
    store.script.hold = asyncio.Event()
    endings: list[WriteResult] = []
    async with Committer(store, LIMITS) as committer:
        running = asyncio.create_task(committer.submit(add(store, 1)))
        await store.script.held.wait()
        submissions = [Submission(add(store, 5, user=user), endings.append) for user in (1, 2)]
        yield committer.submit_all(submissions, atomic=True)
        store.script.hold.set()
        assert isinstance(await running, Receipt)
        assert isinstance(await committer.submit(add(store, 1, user=2)), Receipt)
    assert endings == [None, None]


async def test_a_cancelled_batch_that_waits_is_dropped_by_all_shards(
    store: ScriptedStore,
) -> None:
    async with _waiting_batch(store) as answers:
        batch = asyncio.gather(*answers)
        await asyncio.sleep(0)
        batch.cancel()
    assert len(await rows(store, 1)) == 1


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_batch_with_a_cancelled_answer_is_dropped_as_a_whole(
    store: ScriptedStore, cancelled: int
) -> None:
    """The cancellation of a task first cancels only the answer that the task awaits."""
    async with _waiting_batch(store) as answers:
        answers[cancelled].cancel()
    assert all(answer.cancelled() for answer in answers)
    assert [len(await rows(store, user)) for user in (1, 2)] == [1, 1]


async def test_a_cancelled_batch_under_way_takes_effect_and_its_end_is_reported(
    store: ScriptedStore,
) -> None:
    store.script.hold = asyncio.Event()
    endings: list[WriteResult] = []
    async with Committer(store, LIMITS) as committer:
        submissions = [Submission(add(store, 5, user=user), endings.append) for user in (1, 2)]
        batch = asyncio.gather(*committer.submit_all(submissions, atomic=True))
        await store.script.held.wait()
        batch.cancel()
        store.script.hold.set()
    await asyncio.sleep(0)
    assert [isinstance(ending, Receipt) for ending in endings] == [True, True]
    assert len(await rows(store, 1)) == 1


async def test_cancelled_batches_that_wait_are_bounded(store: ScriptedStore) -> None:
    store.script.hold = asyncio.Event()
    async with Committer(store, replace(LIMITS, waiting_max=8)) as committer:
        running = asyncio.create_task(committer.submit(add(store, 1)))
        await store.script.held.wait()
        kept = []
        for _ in range(10):
            answers = submit(committer, [add(store, user=user) for user in (1, 2)])
            kept.append(not answers[0].done())
            for answer in answers:
                answer.cancel()
            await asyncio.sleep(0)
        assert kept == [True] * 3 + [False] * 7  # the shard of user 1 has room for four writes
        store.script.hold.set()
        assert isinstance(await running, Receipt)
        assert balances(await commit(committer, [add(store, user=user) for user in (1, 2)]))
        assert committer.waiting == 0


async def test_a_batch_without_room_in_one_shard_is_rejected_as_a_whole(
    store: ScriptedStore,
) -> None:
    async with Committer(store, replace(LIMITS, waiting_max=6)) as committer:
        users = (2, 4, 6, 8, 1)  # four of one shard, which has room for three
        answers = submit(committer, [add(store, user=user) for user in users])
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Overloaded}
        assert committer.waiting == 0
    assert await rows(store, 1) == []


async def test_a_stopping_committer_completes_its_batches_and_accepts_no_more(
    store: ScriptedStore,
) -> None:
    async with Committer(store, LIMITS) as committer:
        answers = submit(committer, [add(store, 5, user=user) for user in (1, 2)])
    assert balances(await asyncio.gather(*answers)) == [5, 5]
    late = await asyncio.gather(*submit(committer, [add(store)]), return_exceptions=True)
    assert isinstance(late[0], Stopping)


async def test_a_balance_cannot_pass_its_bounds_within_a_batch(any_store: Store) -> None:
    async with Committer(any_store, LIMITS) as committer:
        batch: list[Command] = [
            add(any_store, UINT32_MAX),
            use(any_store, UINT32_MAX),
            add(any_store, UINT32_MAX),
        ]
        assert balances(await commit(committer, batch)) == [UINT32_MAX, 0, UINT32_MAX]
        over = await commit(committer, [use(any_store, 1), add(any_store, 2)])
        assert over[0] == BatchAborted(index=1)
    account = await any_store.account(1)
    assert account is not None
    assert account.balance(1) == UINT32_MAX


class ExclusiveTurn:
    """A turn that two committers share, as two processes would."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.waiting = 0

    async def __aenter__(self) -> None:
        self.waiting += 1
        await self._lock.acquire()
        self.waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


async def test_atomic_batches_of_processes_that_take_turns_do_not_wait_for_each_other(
    store: ScriptedStore,
) -> None:
    turns = [ExclusiveTurn() for _ in range(LIMITS.shards)]
    async with (
        Committer(store, LIMITS, turns=turns) as first,
        Committer(store, LIMITS, turns=turns) as second,
    ):
        answers: list[Answer] = []
        for number in range(20):
            for committer in (first, second):
                users = (1, 2) if number % 2 else (2, 1)
                answers += submit(committer, [add(store, user=user) for user in users])
                single = Submission(add(store, user=number % 2 + 1))
                answers += committer.submit_all([single])
                await asyncio.sleep(0)
        assert all(isinstance(each, Receipt) for each in await asyncio.gather(*answers))
    assert [len(await rows(store, user)) for user in (1, 2)] == [60, 60]


class BrokenTurn(ExclusiveTurn):
    """A turn that cannot be taken."""

    async def __aenter__(self) -> None:
        raise OSError("no locks available")


async def test_a_batch_whose_shards_get_no_turn_is_answered(store: ScriptedStore) -> None:
    turns = [BrokenTurn() for _ in range(LIMITS.shards)]
    committer = await Committer(store, LIMITS, turns=turns).__aenter__()
    answers = submit(committer, [add(store, user=user) for user in (1, 2)])
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    with pytest.raises(OSError, match="no locks"):
        await committer.__aexit__(None, None, None)
    assert [type(outcome) for outcome in outcomes] == [Stopping, Stopping]
    assert committer.waiting == 0


async def test_a_batch_fills_while_another_process_has_the_turn(store: ScriptedStore) -> None:
    turn = ExclusiveTurn()
    limits = replace(LIMITS, shards=1)
    async with turn, Committer(store, limits, turns=[turn]) as committer:
        answers = committer.submit_all([Submission(add(store))])
        while not turn.waiting:  # noqa: ASYNC110 - until its shard asks for the turn
            await asyncio.sleep(0)
        answers += committer.submit_all([Submission(add(store)) for _ in range(4)])
        assert store.script.batches == []
        await turn.__aexit__()
        await asyncio.gather(*answers)
        await turn.__aenter__()
    assert store.script.batches == [5]
