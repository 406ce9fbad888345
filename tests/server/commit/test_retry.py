"""Test that a batch and its parts share a time limit, make few attempts, and report certainties."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from credit_models.ledger import NOTHING_FOUND, Account, Add, Command, Outcome, Receipt, decide
from credit_server.commit import ClockSkewed, NotCommitted, ResultUnknown
from credit_server.commit.pending import PendingWrite
from credit_server.commit.retry import BatchRun, RetryLimits, RetryPolicy
from credit_server.store.port import (
    CommitUnknown,
    Conflict,
    Interrupted,
    Rejected,
    StoreUnavailable,
    Unreadable,
)
from structlog.testing import capture_logs

from tests.server.clocks import NOON
from tests.server.telemetry.driven_loop import drive

BATCH = 256
ATTEMPT_SECONDS = 0.05
LIMITS = RetryLimits(retry_seconds=0.5, backoff_initial_seconds=0.005, backoff_max_seconds=0.5)
NO_TIME_LIMIT = replace(LIMITS, retry_seconds=1e9)

Fault = Callable[[Sequence[Command]], Exception | None]


def of_users(*users: int, error: Exception | None = None) -> Fault:
    """Fail each attempt that has a command of one of these users."""
    raised = error or Rejected("a document cannot be written")
    return lambda commands: raised if {each.user_id for each in commands} & {*users} else None


def always(error: Exception) -> Fault:
    """Fail all attempts."""
    return lambda _: error


@dataclass
class Settled:
    """A batch that runs on virtual time, with attempts of a twentieth of a second each.

    Attributes:
        fault: The error of each attempt.
        fits: How many commands fit in an attempt.
        sizes: The number of commands in each attempt.
        began: The loop's time at the start of each attempt.
    """

    fault: Fault
    fits: int = BATCH
    sizes: list[int] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    answers: list[object] = field(default_factory=list)
    attempts: int = 0

    async def attempt(self, commands: Sequence[Command], *, verify_first: bool) -> list[Outcome]:
        assert verify_first is bool(self.sizes) or self.fits < BATCH
        self.began.append(asyncio.get_running_loop().time())
        self.sizes.append(len(commands))
        await asyncio.sleep(ATTEMPT_SECONDS)
        error = self.fault(commands)
        if error is not None:
            raise error
        return [
            decide(Account.empty(command.user_id), command, NOTHING_FOUND, NOON)
            for command in commands[: self.fits]
        ]

    async def settle(self, users: Sequence[int], limits: RetryLimits) -> None:
        loop = asyncio.get_running_loop()
        entries = [
            PendingWrite(_add(user, number), loop.create_future())
            for number, user in enumerate(users)
        ]
        deadline = loop.time() + limits.retry_seconds
        policy = RetryPolicy(limits=limits, random=Random(7), deadline=deadline)
        run = BatchRun(attempt=self.attempt, policy=policy)
        await run.run(entries)
        self.attempts = run.attempts
        assert all(entry.answer.done() for entry in entries)
        self.answers = [entry.answer.exception() or entry.answer.result() for entry in entries]

    def answered(self, kind: type) -> set[int]:
        """Return the positions of the commands whose answer is of a type."""
        return {place for place, answer in enumerate(self.answers) if isinstance(answer, kind)}


def _add(user: int, number: int) -> Add:
    return Add(user_id=user, app_id=1, credits=1, created_by=1, key="", transaction_id=f"t{number}")


def settled(
    fault: Fault, users: Sequence[int] = range(BATCH), limits: RetryLimits = LIMITS
) -> Settled:
    batch = Settled(fault)
    with capture_logs():  # instead of rendering the variables of each traceback
        drive(batch.settle(users, limits))
    return batch


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a fault of the store"), Rejected("a fault of the store")],
    ids=["bug", "rejected"],
)
@pytest.mark.parametrize(
    "users", [range(BATCH), [7] * BATCH, [1, 2] * 128], ids=["many", "one", "two"]
)
def test_an_error_of_every_attempt_is_recognised_after_a_few_attempts(
    error: Exception, users: Sequence[int]
) -> None:
    batch = settled(always(error), users, NO_TIME_LIMIT)
    assert batch.attempts <= 3 * (math.log2(BATCH) + 3)
    if len(set(users)) > 2:
        assert batch.attempts <= math.log2(BATCH) + 4
    failed_alone = batch.answered(type(error))
    # A few commands were tried alone and have the error itself; the others are not committed.
    assert failed_alone | batch.answered(NotCommitted) == set(range(BATCH))
    assert len(failed_alone) == (3 if len(set(users)) > 2 else BATCH)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a fault of the store"),
        Conflict("busy"),
        Interrupted("the primary is gone"),
        CommitUnknown("no answer"),
        StoreUnavailable("away"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_attempt_of_any_part_begins_after_the_time_limit(error: Exception) -> None:
    batch = settled(always(error))
    assert max(batch.began) < LIMITS.retry_seconds
    expected = ResultUnknown if isinstance(error, CommitUnknown) else NotCommitted
    # A command that was tried alone before the limit has the error itself.
    alone = {0, 1} if isinstance(error, RuntimeError) else set[int]()
    assert batch.answered(expected) >= set(range(BATCH)) - alone
    assert batch.answered(expected) | batch.answered(RuntimeError) == set(range(BATCH))


def test_the_first_attempt_is_made_even_with_a_time_limit_of_0() -> None:
    limits = RetryLimits(retry_seconds=0, backoff_initial_seconds=1, backoff_max_seconds=1)
    batch = settled(lambda _: None, limits=limits)
    assert batch.answered(Receipt) == set(range(BATCH))
    assert batch.sizes == [BATCH]


@pytest.mark.parametrize("place", [0, 1, 100, 254, 255])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), Rejected("a document cannot be written")],
    ids=["bug", "document"],
)
def test_one_bad_command_fails_alone_after_few_attempts(place: int, error: Exception) -> None:
    batch = settled(of_users(place, error=error), limits=NO_TIME_LIMIT)
    assert batch.answered(type(error)) == {place}
    assert batch.answered(Receipt) == set(range(BATCH)) - {place}
    assert batch.attempts <= 2 * math.log2(BATCH) + 1


@pytest.mark.parametrize("seed", range(10))
def test_a_few_bad_commands_fail_alone_at_any_position(seed: int) -> None:
    bad = set(Random(seed).sample(range(BATCH), 6))
    batch = settled(of_users(*bad), limits=NO_TIME_LIMIT)
    # Three bad commands side by side would be taken for a fault of the store.
    assert batch.answered(Rejected) == bad, f"seed {seed}"
    assert batch.answered(Receipt) == set(range(BATCH)) - bad, f"seed {seed}"
    assert batch.attempts <= len(bad) * 2 * math.log2(BATCH) + 1


def test_a_user_with_a_bad_document_fails_alone_with_any_number_of_commands() -> None:
    users = [7 if number % 4 == 0 else number for number in range(BATCH)]
    batch = settled(of_users(7), users, NO_TIME_LIMIT)
    own = {place for place, user in enumerate(users) if user == 7}
    assert batch.answered(Rejected) == own
    assert batch.answered(Receipt) == set(range(BATCH)) - own
    # The 64 commands of the user are not tried one by one.
    assert batch.attempts <= 3 * math.log2(BATCH) + 3


def test_commands_that_do_not_fit_in_one_attempt_are_committed_in_the_next() -> None:
    batch = Settled(lambda _: None, fits=100)
    drive(batch.settle([7] * BATCH, replace(LIMITS, retry_seconds=0)))
    assert batch.sizes == [BATCH, BATCH - 100, BATCH - 200]
    assert batch.answered(Receipt) == set(range(BATCH))


def test_a_fault_after_some_commands_were_committed_fails_none_of_these() -> None:
    errors: list[Exception | None] = [None, Conflict("busy"), CommitUnknown("no answer")]
    batch = Settled(lambda _: errors.pop(0) if errors else StoreUnavailable("away"), fits=100)
    with capture_logs():
        drive(batch.settle(range(BATCH), LIMITS))
    assert batch.answered(Receipt) == set(range(100))
    assert batch.answered(ResultUnknown) == set(range(100, BATCH))


def _unreadable(*users: int) -> Fault:
    """Fail each attempt that reads documents of these users, with all that it has read of them."""

    def fault(commands: Sequence[Command]) -> Exception | None:
        found = {*users} & {user for each in commands for user in each.users}
        return Unreadable("documents cannot be read", user_ids=found) if found else None

    return fault


@pytest.mark.parametrize("count", [1, 3, 64, BATCH - 1, BATCH])
def test_users_with_unreadable_documents_fail_alone_however_many_they_are(count: int) -> None:
    bad = set(Random(count).sample(range(BATCH), count))
    batch = settled(_unreadable(*bad))
    assert batch.answered(Unreadable) == bad
    assert batch.answered(Receipt) == set(range(BATCH)) - bad
    assert batch.sizes == [BATCH, BATCH - count][: 1 + (count < BATCH)]


def test_unreadable_documents_of_other_users_are_a_fault_of_the_store() -> None:
    batch = settled(
        always(Unreadable("documents cannot be read", user_ids={BATCH})), limits=NO_TIME_LIMIT
    )
    assert batch.attempts <= math.log2(BATCH) + 4
    assert len(batch.answered(Unreadable)) == 3
    assert batch.answered(Unreadable) | batch.answered(NotCommitted) == set(range(BATCH))


def test_a_write_that_may_be_committed_stays_unknown_if_its_documents_cannot_be_read() -> None:
    read = _unreadable(7)
    unknown = [CommitUnknown("no answer")]
    batch = settled(lambda commands: unknown.pop() if unknown else read(commands))
    assert batch.answered(ResultUnknown) == {7}
    assert batch.answered(Receipt) == set(range(BATCH)) - {7}


def test_a_users_commands_keep_their_order_when_a_batch_is_split() -> None:
    order: list[str] = []

    def fault(commands: Sequence[Command]) -> Exception | None:
        if any(command.user_id == 2 for command in commands):
            return RuntimeError("a bug")
        order.extend(command.transaction_id for command in commands if command.user_id == 1)
        return None

    settled(fault, [1, 3, 1, 2, 1, 3, 1], NO_TIME_LIMIT)
    assert order == ["t0", "t2", "t4", "t6"]


def test_only_commands_that_an_attempt_may_have_committed_are_unknown() -> None:
    unknown = {"raised": False}

    def fault(commands: Sequence[Command]) -> Exception | None:
        if len(commands) > 128:
            return Rejected("a document cannot be written")
        if not unknown["raised"]:
            unknown["raised"] = True
            return CommitUnknown("no answer")
        return StoreUnavailable("away")

    batch = settled(fault)
    assert batch.answered(ResultUnknown) == set(range(128))
    assert batch.answered(NotCommitted) == set(range(128, BATCH))


def test_a_command_that_may_be_committed_stays_unknown_if_it_fails_alone_later() -> None:
    fails = iter([CommitUnknown("no answer")] + [RuntimeError("a bug")] * BATCH)
    batch = settled(lambda _: next(fails), limits=NO_TIME_LIMIT)
    assert batch.answered(ResultUnknown) == set(range(BATCH))


def test_an_unreachable_store_is_tried_once_if_no_commit_is_unknown() -> None:
    fails = iter([Conflict("busy")] * 3 + [StoreUnavailable("away")] * BATCH)
    batch = settled(lambda _: next(fails), limits=NO_TIME_LIMIT)
    # Three conflicts split the batch; the half that was not tried is not committed either.
    assert batch.sizes == [BATCH] * 3 + [BATCH // 2]
    assert batch.answered(NotCommitted) == set(range(BATCH))


def test_a_skewed_clock_rejects_the_batch_unless_it_may_be_committed() -> None:
    skewed = ClockSkewed(skew_seconds=3600, limit_seconds=2)
    assert settled(always(skewed)).answered(ClockSkewed) == set(range(BATCH))
    fails = iter([CommitUnknown("no answer")] + [skewed] * BATCH)
    assert settled(lambda _: next(fails)).answered(ResultUnknown) == set(range(BATCH))


def test_accepted_commands_of_a_split_batch_are_answered_once() -> None:
    accepted: list[str] = []

    def fault(commands: Sequence[Command]) -> Exception | None:
        if len(commands) > 32:
            return Conflict("busy")
        accepted.extend(command.transaction_id for command in commands)
        return None

    batch = settled(fault, limits=NO_TIME_LIMIT)
    assert sorted(accepted) == sorted(f"t{number}" for number in range(BATCH))
    receipts = [answer for answer in batch.answers if isinstance(answer, Receipt)]
    assert len(receipts) == BATCH
