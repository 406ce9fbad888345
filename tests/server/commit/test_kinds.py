"""Test the commit of grants, holds, reversals and transfers, alone and within a batch."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    Add,
    AlreadyPurchased,
    BatchAborted,
    CaptureHold,
    Command,
    GrantCredits,
    HoldAlreadyReleased,
    InsufficientCredits,
    Kind,
    NothingDue,
    PlaceHold,
    Receipt,
    Refusal,
    ReleaseHold,
    ReversalExceeds,
    ReverseTransaction,
    RevisionChanged,
    Settle,
    TransactionNotFound,
    TransferCredits,
    Use,
)
from credit_server.commit import Clock, Committer, Submission
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import CommitUnknown, Conflict, Store
from credit_testing.ledger_check import findings
from pymongo import MongoClient

from tests.server.commit.auditing import audit
from tests.server.commit.scripted_store import LIMITS, ScriptedStore, add, history, rows, use

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Moving:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.clock = Clock(wall=self._seconds)

    def _seconds(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def time() -> Moving:
    return Moving()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def committer(store: ScriptedStore, time: Moving) -> AsyncIterator[Committer]:
    async with Committer(store, LIMITS, clock=time.clock) as running:
        yield running


def write(store: Store, *, user: int = 1, key: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "app_id": 1,
        "created_by": 1,
        "key": key,
        "transaction_id": store.new_id(),
        **fields,
    }


def transfer(store: Store, credits_: int, *, user: int, to: int, key: str = "") -> TransferCredits:
    return TransferCredits(
        **write(store, user=user, key=key), credits=credits_, to_user_id=to, to_app_id=1
    )


def reverse(store: Store, entry: str, credits_: int = 0, **fields: Any) -> ReverseTransaction:
    return ReverseTransaction(**write(store, **fields), reversed_id=entry, credits=credits_)


def settle(user: int = 1) -> Settle:
    return Settle(user_id=user, app_id=1, created_by=0, key="", transaction_id="")


async def done(committer: Committer, command: Command) -> Receipt:
    result = await committer.submit(command)
    assert isinstance(result, Receipt), result
    return result


async def together(committer: Committer, *commands: Command) -> list[Receipt | Refusal]:
    """Submit commands of one shard, which fit in one batch."""
    submissions = [Submission(command) for command in commands]
    return await asyncio.gather(*committer.submit_all(submissions))


async def balance(store: Store, user: int = 1) -> int:
    account = await store.account(user)
    return 0 if account is None else account.balance(1)


@pytest.mark.parametrize("to", [2, 3], ids=["another shard", "the same shard"])
async def test_a_transfer_changes_both_users_in_one_transaction(
    store: ScriptedStore, committer: Committer, to: int
) -> None:
    await done(committer, add(store, 10))
    commits = store.script.commits
    receipt = await done(committer, transfer(store, 4, user=1, to=to))
    assert store.script.commits == commits + 1
    assert (receipt.transaction.kind, receipt.transaction.balance_after) == (Kind.TRANSFER_OUT, 6)
    (received,) = await history(store, to)
    assert (received.kind, received.credits) == (Kind.TRANSFER_IN, 4)
    assert received.details.related_id == receipt.transaction.id
    assert await store.app_total(1) == 10
    await audit(store, 1, to)
    # Both accounts are right in the caches too.
    assert (await done(committer, use(store, 6))).transaction.balance_after == 0
    assert (await done(committer, use(store, 4, user=to))).transaction.balance_after == 0


async def test_transfers_in_both_directions_and_plain_writes_do_not_conflict(
    store: ScriptedStore, committer: Committer
) -> None:
    await asyncio.gather(*(done(committer, add(store, 1000, user=user)) for user in (1, 2, 3, 4)))
    store.script.batches.clear()
    commands: list[Command] = []
    for number in range(40):
        user = 1 + number % 4
        commands.append(transfer(store, 5, user=user, to=1 + (user + number // 4) % 4 or 1))
        commands.append(add(store, 1, user=user))
    commands = [
        each
        for each in commands
        if not isinstance(each, TransferCredits) or each.to_user_id != each.user_id
    ]
    await asyncio.gather(*(done(committer, command) for command in commands))
    assert (
        sum(store.script.batches)
        == len([entry for user in (1, 2, 3, 4) for entry in await history(store, user)]) - 4
    )
    await audit(store, 1, 2, 3, 4)


async def test_writes_of_a_user_keep_their_order_around_a_transfer(
    store: ScriptedStore, committer: Committer
) -> None:
    results = await together(
        committer,
        add(store, 5, user=1),
        transfer(store, 5, user=1, to=2),
        use(store, 5, user=2),
        use(store, 1, user=1),
    )
    assert [type(result) for result in results] == [Receipt, Receipt, Receipt, InsufficientCredits]
    await audit(store, 1, 2)


async def test_writes_keep_their_order_around_a_transfer_when_a_batch_is_split(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 10, user=5))
    store.script.before[:] = [Conflict("busy")] * 3
    commits = store.script.commits
    results = await together(
        committer, transfer(store, 4, user=5, to=3), use(store, 4, user=3), use(store, 6, user=5)
    )
    assert [type(result) for result in results] == [Receipt] * 3
    assert store.script.commits > commits + 1  # it was split
    await audit(store, 3, 5)


async def test_an_atomic_batch_spans_the_users_of_its_transfers(
    store: ScriptedStore, committer: Committer
) -> None:
    def batch(price: int) -> list[Submission]:
        commands = (
            add(store, 5, user=1),
            transfer(store, 5, user=1, to=2),
            use(store, price, user=2),
        )
        return [Submission(command) for command in commands]

    aborted = await asyncio.gather(*committer.submit_all(batch(6), atomic=True))
    assert aborted == [
        BatchAborted(index=2),
        BatchAborted(index=2),
        InsufficientCredits(available=5, required=6),
    ]
    assert await rows(store, 1) == await rows(store, 2) == []
    taken = await asyncio.gather(*committer.submit_all(batch(5), atomic=True))
    assert all(isinstance(result, Receipt) for result in taken)
    await audit(store, 1, 2)


async def test_a_transfer_sees_what_another_server_wrote_for_either_user(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await done(committer, add(store, 10, user=1))
    await done(committer, add(store, 1, user=2))
    async with Committer(store, LIMITS, clock=time.clock) as other:
        await done(other, transfer(store, 7, user=1, to=2))
        assert await committer.submit(transfer(store, 4, user=1, to=2)) == InsufficientCredits(
            available=3, required=4
        )
        await done(other, add(store, 1, user=2))
        await done(committer, transfer(store, 3, user=1, to=2))
        await done(other, transfer(store, 12, user=2, to=1))
    await audit(store, 1, 2)
    assert (await balance(store, 1), await balance(store, 2)) == (12, 0)


async def test_reversals_in_one_batch_know_of_each_other(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 10))
    used = (await done(committer, use(store, 10))).transaction.id
    first, second, third = await together(
        committer, reverse(store, used, 6), reverse(store, used, 6), reverse(store, used)
    )
    assert isinstance(first, Receipt)
    assert second == ReversalExceeds(reversible=4, required=6)
    assert isinstance(third, Receipt)
    assert third.transaction.credits == 4
    await audit(store, 1)


async def test_a_hold_is_settled_once_within_a_batch(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 10))
    hold = (await done(committer, PlaceHold(**write(store), credits=8))).transaction.id
    capture = CaptureHold(
        **write(store), hold_id=hold, report_id="r", report_name="n", credits=3,
        purchase_id=store.new_id(), final=False,
    )  # fmt: skip
    captured, released, late = await together(
        committer,
        capture,
        ReleaseHold(**write(store), hold_id=hold),
        ReleaseHold(**write(store), hold_id=hold),
    )
    assert isinstance(captured, Receipt)
    assert isinstance(released, Receipt)
    assert isinstance(late, HoldAlreadyReleased)
    assert (late.captured, late.released) == (3, 5)
    assert await balance(store) == 7
    await audit(store, 1)


async def test_a_hold_that_another_server_placed_is_released_by_one_that_has_cached_the_account(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    async with Committer(store, LIMITS, clock=time.clock) as other:
        await committer.submit(add(store, 5))  # it caches the account
        placed = await other.submit(PlaceHold(credits=5, **write(store)))
        assert isinstance(placed, Receipt)
        hold_id = placed.transaction.id
        released = await committer.submit(ReleaseHold(hold_id=hold_id, **write(store)))
        assert isinstance(released, Receipt)
        # The other server has cached the account with the hold.
        again = await other.submit(ReleaseHold(hold_id=hold_id, **write(store)))
        assert isinstance(again, HoldAlreadyReleased)


async def test_a_report_is_bought_once_within_a_batch_and_again_after_its_refund(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 100))

    def once() -> Use:
        return replace(use(store, 5), once=True)

    first, second = await together(committer, once(), once())
    assert isinstance(first, Receipt)
    assert second == AlreadyPurchased(purchase_id=first.transaction.purchase_id)
    assert isinstance(await committer.submit(once()), AlreadyPurchased)
    refund = reverse(store, first.transaction.id)
    refunded, third, fourth = await together(committer, refund, once(), once())
    assert isinstance(refunded, Receipt)
    assert isinstance(third, Receipt)
    assert fourth == AlreadyPurchased(purchase_id=third.transaction.purchase_id)
    await audit(store, 1)


async def test_after_the_refund_of_one_of_two_purchases_the_report_is_still_owned(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 100))
    bought = [(await done(committer, use(store, 5))).transaction for _ in range(2)]
    refunded, first = await together(
        committer, reverse(store, bought[1].id), replace(use(store, 5), once=True)
    )
    assert isinstance(refunded, Receipt)
    assert first == AlreadyPurchased(purchase_id=bought[0].purchase_id)


@pytest.mark.parametrize("entry", ["", "nonsense", f"{10**6:024x}"])
async def test_a_reference_that_does_not_exist_is_not_found(
    store: ScriptedStore, committer: Committer, entry: str
) -> None:
    await done(committer, add(store, 5))
    result = await committer.submit(reverse(store, entry))
    assert result == TransactionNotFound(transaction_id=entry)


async def test_an_entry_of_another_user_is_not_found(
    store: ScriptedStore, committer: Committer
) -> None:
    foreign = (await done(committer, add(store, 5, user=2))).transaction.id
    assert isinstance(await committer.submit(reverse(store, foreign)), TransactionNotFound)


async def test_a_validated_command_is_decided_and_not_written(
    store: ScriptedStore, committer: Committer
) -> None:
    await done(committer, add(store, 10))
    before = await store.account(1)
    validated = replace(use(store, 4, key="k"), validate_only=True)
    receipt = await done(committer, validated)
    assert (receipt.validated, receipt.replayed) == (True, False)
    assert receipt.transaction.balance_after == 6
    assert await store.account(1) == before
    assert len(await rows(store)) == 1
    assert await store.app_total(1) == 10
    refused = await committer.submit(replace(use(store, 11), validate_only=True))
    assert refused == InsufficientCredits(available=10, required=11)
    moved = replace(transfer(store, 4, user=1, to=2), validate_only=True)
    assert (await done(committer, moved)).validated
    assert await store.account(2) is None
    # The key is free, and what was not written has no effect in its batch.
    first, second = await together(committer, validated, use(store, 10, key="k"))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (first.validated, second.validated) == (True, False)
    again = await done(committer, replace(use(store, 10, key="k"), validate_only=True))
    assert (again.replayed, again.validated) == (True, False)
    assert again.transaction == second.transaction
    await audit(store, 1, 2)


async def test_a_validated_command_is_decided_on_what_is_stored(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await done(committer, add(store, 10))
    async with Committer(store, LIMITS, clock=time.clock) as other:
        await done(other, use(store, 9))
    refused = await committer.submit(replace(use(store, 5), validate_only=True))
    assert refused == InsufficientCredits(available=1, required=5)


async def test_a_rejected_command_aborts_an_atomic_batch_with_a_validated_one(
    store: ScriptedStore, committer: Committer
) -> None:
    commands: list[Command] = [replace(add(store, 1), validate_only=True), use(store, 1)]
    outcomes = await asyncio.gather(
        *committer.submit_all([Submission(command) for command in commands], atomic=True)
    )
    assert outcomes == [BatchAborted(index=1), InsufficientCredits(available=0, required=1)]


async def test_the_stored_revision_is_the_one_that_counts(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    ends = GrantCredits(**write(store), credits=5, expires_after=MINUTE)
    await done(committer, ends)
    time.now += 2 * MINUTE  # the end is due and not written
    stale = replace(add(store, 1), expected_revision=2)
    assert await committer.submit(stale) == RevisionChanged(revision=1)
    receipt = await done(committer, replace(add(store, 1), expected_revision=1))
    assert receipt.transaction.sequence == 3
    assert [entry.kind for entry in await history(store)] == [Kind.GRANT, Kind.EXPIRE, Kind.ADD]
    await audit(store, 1)


async def test_what_is_due_is_written_once_by_a_settle(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await done(committer, GrantCredits(**write(store), credits=5, expires_after=MINUTE))
    await done(committer, PlaceHold(**write(store), credits=2, expires_after=2 * MINUTE))
    assert await committer.submit(settle()) == NothingDue()
    time.now += MINUTE
    receipt = await done(committer, settle())
    assert receipt.transaction.kind is Kind.EXPIRE
    assert (receipt.transaction.credits, receipt.transaction.created_by) == (3, 1)
    assert await committer.submit(settle()) == NothingDue()
    time.now += MINUTE
    async with Committer(store, LIMITS, clock=time.clock) as other:
        results = await asyncio.gather(*(each.submit(settle()) for each in (committer, other)))
    assert sorted(type(result).__name__ for result in results) == ["NothingDue", "Receipt"]
    kinds = [entry.kind for entry in await history(store)][-2:]
    assert kinds == [Kind.RELEASE, Kind.EXPIRE]
    assert await balance(store) == await store.app_total(1) == 0
    await audit(store, 1)


@pytest.mark.parametrize("fault", [CommitUnknown(), Conflict()], ids=["lost reply", "conflict"])
@pytest.mark.parametrize("effective", [True, False])
async def test_a_commit_with_several_entries_is_never_repeated(
    store: ScriptedStore, committer: Committer, time: Moving, fault: Exception, effective: bool
) -> None:
    if effective and isinstance(fault, Conflict):
        fault = CommitUnknown("again")
    await done(committer, add(store, 10))
    used = (await done(committer, use(store, 4))).transaction
    hold = (await done(committer, PlaceHold(**write(store), credits=4))).transaction.id
    await done(committer, GrantCredits(**write(store), credits=5, expires_after=MINUTE))
    time.now += MINUTE
    capture = CaptureHold(
        **write(store), hold_id=hold, report_id="r", report_name="n", credits=3,
        purchase_id=store.new_id(),
    )  # fmt: skip
    faults = store.script.after if effective else store.script.before
    for command in (
        settle(),
        capture,
        reverse(store, used.id, 3),
        transfer(store, 2, user=1, to=2),
    ):
        faults.append(fault)
        result = await committer.submit(command)
        if isinstance(command, Settle) and effective:
            assert result == NothingDue()
        else:
            assert isinstance(result, Receipt)
            assert not result.replayed
    kinds = [entry.kind for entry in await history(store)][-5:]
    assert kinds == [Kind.EXPIRE, Kind.RELEASE, Kind.USE, Kind.REFUND, Kind.TRANSFER_OUT]
    assert (await balance(store, 1), await balance(store, 2)) == (4, 2)
    await audit(store, 1, 2)


async def test_a_retry_of_a_command_with_a_reference_is_replayed(
    store: ScriptedStore, committer: Committer, time: Moving
) -> None:
    await done(committer, add(store, 10))
    used = (await done(committer, use(store, 4))).transaction.id
    refund = reverse(store, used, key="refund")
    first = await done(committer, refund)
    moved = transfer(store, 3, user=1, to=2, key="move")
    second = await done(committer, moved)
    async with Committer(store, LIMITS, clock=time.clock) as fresh:  # its cache is empty
        for command, receipt in ((refund, first), (moved, second)):
            again = replace(command, transaction_id=store.new_id())
            for one in (committer, fresh):
                assert await done(one, again) == replace(receipt, replayed=True)
    await audit(store, 1, 2)


async def test_all_kinds_are_committed_to_mongodb(mongod_uri: str, migrated_database: str) -> None:
    store, time = MongoStore(mongod_uri, database=migrated_database), Moving()
    async with Committer(store, LIMITS, clock=time.clock) as committer:
        await done(committer, add(store, 10))
        given = GrantCredits(**write(store), credits=20, expires_after=2 * MINUTE, priority=1)
        await done(committer, given)
        starts = NOW + MINUTE
        later = GrantCredits(**write(store), credits=7, effective_at=starts, expires_after=MINUTE)
        await done(committer, later)
        used = (await done(committer, replace(use(store, 5), once=True))).transaction
        assert isinstance(
            await committer.submit(replace(use(store, 5), once=True)), AlreadyPurchased
        )
        hold = (await done(committer, PlaceHold(**write(store), credits=6))).transaction.id
        capture = CaptureHold(
            **write(store), hold_id=hold, report_id="r-2", report_name="n", credits=2,
            purchase_id=store.new_id(), final=False,
        )  # fmt: skip
        await done(committer, capture)
        await done(committer, reverse(store, used.id, 3))
        await done(committer, transfer(store, 4, user=1, to=2))
        time.now += MINUTE
        await done(committer, settle())
        time.now += MINUTE
        await done(committer, ReleaseHold(**write(store), hold_id=hold))
        await done(committer, settle(2))
    account = await store.account(1)
    assert account is not None
    assert account.apps == {}
    assert account.balances == {1: 10}
    assert await store.app_total(1) == 10
    kinds = [row.kind.value for row in await rows(store)]
    assert kinds == [
        "add", "grant", "schedule", "use", "hold", "release", "use", "refund", "transfer_out",
        "activate", "expire", "expire", "release", "expire",
    ]  # fmt: skip
    bought = [row async for page in store.list_purchases(1) for row in page]
    assert [row.refunded_credits for row in bought] == [3, 0]
    assert [row.kind.value for row in await rows(store, 2)] == ["transfer_in", "expire"]
    await store.close()
    with MongoClient[dict[str, Any]](mongod_uri) as client:
        assert findings(client[migrated_database]) == []


def test_a_plain_write_declares_nothing_to_read() -> None:
    store = MemoryStore()
    for command in (add(store, 1), use(store, 1)):
        assert isinstance(command, Add | Use)
        assert (command.reference, command.once_key, command.users) == ("", None, (1,))
