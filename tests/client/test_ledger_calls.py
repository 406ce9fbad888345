"""The writes and reads of `LedgerService`, with the fake and with a real server alike."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from credit_client import (
    AlreadyPurchased,
    AvailableTooLow,
    CapExceeded,
    ExpiresTooEarly,
    GrantCategory,
    GrantEmpty,
    GrantNotFound,
    HoldAlreadyCaptured,
    HoldAlreadyReleased,
    HoldExceeded,
    HoldExpired,
    HoldLifeExceeded,
    HoldNotFound,
    HoldState,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    NotReversible,
    Outcome,
    ReversalExceeds,
    RevisionChanged,
    TransactionNotFound,
    TransactionType,
)
from credit_testing.server import PATIENT, ServerProcess, migrated, running_server
from pymongo import AsyncMongoClient

from tests.client.worlds import World, fake_world, server_world

DATABASE = "test_ledger_calls"
REPORT: dict[str, Any] = {"report_id": "r-1", "report_name": "Answer"}
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
async def server(
    mongod_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server on an empty database, for the tests of this module."""
    options = await migrated(mongod_uri, DATABASE)
    folder = tmp_path_factory.mktemp("server")
    async with running_server(folder, "--log-level", "warning", *PATIENT, *options) as process:
        yield process
    client: AsyncMongoClient[dict[str, object]]
    async with AsyncMongoClient(mongod_uri) as client:
        await client.drop_database(DATABASE)


@pytest.fixture(params=["fake call", "fake stream", "fake sync", "server"])
async def world(
    request: pytest.FixtureRequest, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    kind, _, way = request.param.partition(" ")
    if kind == "fake":
        async with fake_world(way, monkeypatch) as opened:
            yield opened
        return
    async with server_world(f"127.0.0.1:{server.port}") as opened:
        yield opened


# Any, here and below: the arguments of a call have no common type.
def _who(world: World) -> dict[str, Any]:
    return {"user_id": world.user, "app_id": world.app, "created_by": 1}


def _at(world: World) -> dict[str, Any]:
    return {"user_id": world.user, "app_id": world.app}


async def _balance(world: World) -> int:
    return await world.credits.balance(app_id=world.app, user_id=world.user)


async def _types(world: World) -> list[str | None]:
    return [entry.type.name async for entry in world.credits.transactions(user_id=world.user)]


async def test_a_grant_is_spent_before_older_credits_and_expires_at_its_end(world: World) -> None:
    await world.credits.add(**_who(world), credits=100)
    granted = await world.credits.grant(
        **_who(world),
        credits=10,
        expires_after=SECOND,
        category=GrantCategory.PROMOTIONAL,
        note="Welcome",
        metadata={"campaign": "spring"},
    )
    assert (granted.type, granted.balance_before, granted.balance) == (
        TransactionType.GRANT,
        100,
        110,
    )
    used = await world.credits.use(**_who(world), **REPORT, credits=4)
    assert used.balance == 106
    (grant,) = await world.credits.grants(**_at(world))
    assert (grant.id, grant.credits, grant.left) == (granted.transaction_id, 10, 6)
    assert grant.category is GrantCategory.PROMOTIONAL
    assert grant.expires_at == granted.expires_at
    (balance,) = (await world.credits.user_credits(user_id=world.user)).balances
    assert balance.expiring_next is not None
    assert (balance.expiring_next.credits, balance.expiring_next.at) == (6, grant.expires_at)
    await world.wait(1.1 * SECOND)
    assert await _balance(world) == 100
    assert await world.credits.grants(**_at(world)) == []
    entries = [each async for each in world.credits.transactions(user_id=world.user)]
    assert (entries[1].note, entries[1].metadata) == ("Welcome", {"campaign": "spring"})
    assert [(part.grant_id, part.credits) for part in entries[2].allocations] == [
        (granted.transaction_id, 4)
    ]


async def test_a_grant_that_starts_later_cannot_be_spent_before(world: World) -> None:
    start = world.now() + SECOND
    scheduled = await world.credits.grant(
        **_who(world), credits=10, effective_at=start, expires_at=start + timedelta(days=1)
    )
    assert (scheduled.type, scheduled.effect, scheduled.balance) == (TransactionType.SCHEDULE, 0, 0)
    with pytest.raises(InsufficientCredits) as early:
        await world.credits.use(**_who(world), **REPORT, credits=1)
    assert (early.value.available, early.value.shortfall) == (0, 1)
    forecast = await world.credits.forecast(**_at(world))
    assert [(step.type, step.effect, step.balance_after) for step in forecast.steps] == [
        (TransactionType.ACTIVATE, 10, 10),
        (TransactionType.EXPIRE, -10, 0),
    ]
    until = await world.credits.forecast(**_at(world), until=start + timedelta(hours=1))
    assert [step.related_id for step in until.steps] == [scheduled.transaction_id]
    await world.wait(1.1 * SECOND)
    assert (await world.credits.use(**_who(world), **REPORT, credits=1)).balance == 9


async def test_a_grant_ends_after_its_start_and_is_voided_once(world: World) -> None:
    now = world.now()
    with pytest.raises(ExpiresTooEarly) as early:
        await world.credits.grant(
            **_who(world), credits=1, expires_at=now - SECOND, effective_at=now
        )
    assert early.value.expires_at < early.value.starts_at
    granted = await world.credits.grant(**_who(world), credits=10, priority=0)
    await world.credits.use(**_who(world), **REPORT, credits=3)
    void: dict[str, Any] = {**_who(world), "grant_id": granted.transaction_id}
    voided = await world.credits.void_grant(**void)
    assert (voided.type, voided.credits, voided.balance) == (TransactionType.VOID, 7, 0)
    with pytest.raises(GrantEmpty) as empty:
        await world.credits.void_grant(**void)
    assert empty.value.grant_id == granted.transaction_id
    with pytest.raises(GrantNotFound):
        await world.credits.void_grant(**_who(world), grant_id="none")


async def test_a_hold_is_captured_and_the_rest_is_free_again(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    async with world.credits.hold(**_who(world), credits=20, purpose="an answer") as hold:
        assert hold.held == 20
        assert await _balance(world) == 30
        (listed,) = [each async for each in world.credits.holds(**_at(world))]
        assert (listed.id, listed.held, listed.state) == (hold.id, 20, HoldState.OPEN)
        assert (listed.purpose, listed.expires_at) == ("an answer", hold.expires_at)
        captured = await hold.capture(7, **REPORT)
        assert (captured.balance, captured.held, captured.released_credits) == (43, 0, 13)
        assert captured.related_id == hold.id
    assert await _types(world) == ["ADD", "HOLD", "RELEASE", "USE"]
    assert await _balance(world) == 43
    (purchase,) = [each async for each in world.credits.purchases(user_id=world.user)]
    assert (purchase.id, purchase.credits) == (captured.purchase_id, 7)
    assert [each async for each in world.credits.holds(**_at(world))] == []
    (settled,) = [each async for each in world.credits.holds(**_at(world), include_settled=True)]
    assert (settled.state, settled.captured, settled.released) == (HoldState.CAPTURED, 7, 13)
    with pytest.raises(HoldAlreadyCaptured) as late:
        await hold.capture(1, **REPORT)
    assert (late.value.captured, late.value.released) == (7, 13)


async def test_a_block_without_a_capture_releases_and_what_it_raises_passes(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    async with world.credits.hold(**_who(world), credits=20):
        pass
    handles = []

    async def failing() -> None:
        async with world.credits.hold(**_who(world), credits=20) as hold:
            handles.append(hold)
            await hold.capture(5, **REPORT, final=False)
            assert hold.held == 15
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert await _balance(world) == 45
    assert [each async for each in world.credits.holds(**_at(world))] == []
    with pytest.raises(HoldAlreadyReleased) as late:
        await handles[0].release()
    assert (late.value.captured, late.value.released) == (5, 15)


async def test_a_hold_is_awaited_and_another_process_captures_it_by_its_id(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    hold = await world.credits.hold(**_who(world), credits=20)
    other = world.credits.hold_of(hold_id=hold.id, **_at(world), created_by=2)
    assert other.receipt is None
    async with other:
        await other.capture(8, **REPORT, final=False)
        captured = await other.capture(**REPORT)
        assert captured.credits == 12
    assert await _balance(world) == 30
    entries = [each async for each in world.credits.transactions(user_id=world.user)]
    assert {entry.created_by for entry in entries if entry.type is TransactionType.USE} == {2}
    with pytest.raises(HoldNotFound) as unknown:
        await world.credits.hold_of(hold_id="none", **_at(world), created_by=1).release()
    assert unknown.value.hold_id == "none"


async def test_a_hold_ends_by_itself_and_its_end_can_be_changed(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    hold = await world.credits.hold(**_who(world), credits=20, expires_after=timedelta(hours=1))
    placed = hold.receipt
    assert placed is not None
    assert placed.expires_at is not None
    await world.wait(0.01 * SECOND)
    with pytest.raises(HoldLifeExceeded) as too_long:
        await hold.extend(timedelta(days=7))
    assert too_long.value.limit_seconds == 7 * 24 * 3600
    extended = await hold.extend(SECOND)
    assert extended.expires_at is not None
    assert extended.expires_at < placed.expires_at
    assert (extended.type, extended.held) == (TransactionType.EXTEND, 20)
    await world.wait(1.1 * SECOND)
    with pytest.raises(HoldExpired) as late:
        await hold.capture(5, **REPORT)
    assert (late.value.captured, late.value.released) == (0, 20)
    assert late.value.settled_at == extended.expires_at
    assert await _balance(world) == 50


async def test_a_price_above_the_hold_needs_leave_for_the_excess(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    async with world.credits.hold(**_who(world), credits=20) as hold:
        with pytest.raises(HoldExceeded) as above:
            await hold.capture(25, **REPORT)
        assert (above.value.held, above.value.required) == (20, 25)
        captured = await hold.capture(25, **REPORT, allow_excess=True)
        assert captured.balance == 25
    partial = await world.credits.hold(**_who(world), credits=100, allow_partial=True)
    assert partial.held == 25


async def test_a_refund_returns_credits_to_the_grant_that_paid_and_never_too_many(
    world: World,
) -> None:
    granted = await world.credits.grant(**_who(world), credits=10, expires_after=timedelta(days=1))
    used = await world.credits.use(**_who(world), **REPORT, credits=8)
    part = await world.credits.refund(used, **_who(world), credits=3)
    assert (part.type, part.credits, part.balance) == (TransactionType.REFUND, 3, 5)
    assert part.related_id == used.transaction_id
    (purchase,) = [each async for each in world.credits.purchases(user_id=world.user)]
    assert purchase.refunded_credits == 3
    with pytest.raises(ReversalExceeds) as exceeds:
        await world.credits.refund(purchase, created_by=1, credits=6)
    assert (exceeds.value.reversible, exceeds.value.required) == (5, 6)
    rest = await world.credits.refund(purchase, created_by=1)
    assert (rest.credits, rest.balance) == (5, 10)
    (grant,) = await world.credits.grants(**_at(world))
    assert (grant.id, grant.left) == (granted.transaction_id, 10)
    entries = [each async for each in world.credits.transactions(user_id=world.user)]
    with pytest.raises(ReversalExceeds):
        await world.credits.refund(entries[1], created_by=1)


async def test_what_is_no_purchase_is_reversed_and_not_refunded(world: World) -> None:
    added = await world.credits.add(**_who(world), credits=10)
    with pytest.raises(ValueError, match="this is not a purchase"):
        await world.credits.refund(added, **_who(world))
    with pytest.raises(ValueError, match="pass user_id and app_id"):
        await world.credits.refund(added, created_by=1)
    await world.credits.use(**_who(world), **REPORT, credits=4)
    reverse: dict[str, Any] = {**_who(world), "transaction_id": added.transaction_id}
    with pytest.raises(InsufficientCredits) as few:
        await world.credits.reverse(**reverse, credits=7)
    assert (few.value.available, few.value.required) == (6, 7)
    revoked = await world.credits.reverse(**reverse, credits=6)
    assert (revoked.type, revoked.balance) == (TransactionType.REVOKE, 0)
    with pytest.raises(NotReversible) as final:
        await world.credits.reverse(**_who(world), transaction_id=revoked.transaction_id)
    assert final.value.type == "REVOKE"
    with pytest.raises(TransactionNotFound):
        await world.credits.reverse(**_who(world), transaction_id="none")


async def test_the_refund_of_an_expired_grant_expires_or_is_restored(world: World) -> None:
    await world.credits.grant(**_who(world), credits=10, expires_after=SECOND)
    used = await world.credits.use(**_who(world), **REPORT, credits=10)
    await world.wait(1.1 * SECOND)
    await world.credits.refund(used, **_who(world), credits=4)
    assert await _balance(world) == 0
    until = world.now() + timedelta(days=1)
    await world.credits.refund(used, **_who(world), restore_until=until)
    assert await _balance(world) == 6


async def test_a_transfer_reaches_another_user_or_app_with_its_terms(world: World) -> None:
    other = world.new_user()
    await world.credits.grant(**_who(world), credits=10, expires_after=timedelta(days=1))
    (grant,) = await world.credits.grants(**_at(world))
    sent = await world.credits.transfer(**_who(world), credits=4, to_user_id=other)
    assert (sent.type, sent.balance) == (TransactionType.TRANSFER_OUT, 6)
    (received,) = await world.credits.grants(user_id=other, app_id=world.app)
    assert (received.credits, received.expires_at) == (4, grant.expires_at)
    await world.credits.transfer(**_who(world), credits=1, to_app_id=world.app + 500_000)
    assert await world.credits.balance(app_id=world.app + 500_000, user_id=world.user) == 1
    with pytest.raises(InsufficientCredits):
        await world.credits.transfer(**_who(world), credits=9, to_user_id=other)
    with pytest.raises(InvalidField, match="to_user_id"):
        await world.credits.transfer(**_who(world), credits=1)


async def test_an_adjustment_goes_below_zero_only_where_the_policy_allows_it(world: World) -> None:
    await world.credits.add(**_who(world), credits=10)
    down: dict[str, Any] = {**_who(world), "delta": -15, "note": "Chargeback"}
    with pytest.raises(InsufficientCredits):
        await world.credits.adjust(**down)
    assert (await world.credits.app_policy(app_id=world.app)).revision == 0
    policy = await world.credits.set_app_policy(
        app_id=world.app, created_by=1, allow_negative=True, expected_revision=0
    )
    assert (policy.allow_negative, policy.revision, policy.updated_by) == (True, 1, 1)
    with pytest.raises(RevisionChanged) as changed:
        await world.credits.set_app_policy(
            app_id=world.app, created_by=2, allow_negative=False, expected_revision=7
        )
    assert changed.value.revision == 1
    await world.wait(5.1 * SECOND)  # servers read a policy again after 5 s
    adjusted = await world.credits.adjust(**down)
    assert (adjusted.balance, adjusted.owed, adjusted.effect) == (0, 5, -15)
    paid = await world.credits.adjust(**_who(world), delta=8, note="Paid")
    assert (paid.balance, paid.owed) == (3, 0)


async def test_a_spending_cap_holds_and_names_the_end_of_its_period(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    capped = await world.credits.set_spending_cap(**_who(world), per_month=10)
    assert (capped.type, capped.effect) == (TransactionType.CAP, 0)
    used = await world.credits.use(**_who(world), **REPORT, credits=8)
    with pytest.raises(CapExceeded) as over:
        await world.credits.use(**_who(world), **REPORT, credits=3)
    assert (over.value.period, over.value.cap, over.value.spent) == ("month", 10, 8)
    assert over.value.resets_at > datetime.now(UTC)
    await world.credits.refund(used, **_who(world), credits=1)
    await world.credits.use(**_who(world), **REPORT, credits=3)
    await world.credits.set_spending_cap(**_who(world))
    await world.credits.use(**_who(world), **REPORT, credits=3)


async def test_the_caps_of_an_app_are_a_part_of_its_policy(world: World) -> None:
    changed = await world.credits.set_app_spending_cap(
        app_id=world.app, created_by=1, per_hour=5, per_day=9
    )
    assert changed.caps is not None
    assert (changed.caps.per_hour, changed.caps.per_day, changed.caps.per_month) == (5, 9, None)
    assert await world.credits.app_policy(app_id=world.app) == changed
    preview = await world.credits.set_app_spending_cap(
        app_id=world.app, created_by=1, validate_only=True
    )
    assert preview.caps is None
    assert await world.credits.app_policy(app_id=world.app) == changed


async def test_a_report_is_bought_once_until_it_is_refunded(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    first = await world.credits.use(**_who(world), **REPORT, credits=5, once=True)
    with pytest.raises(AlreadyPurchased) as again:
        await world.credits.use(**_who(world), **REPORT, credits=5, once=True)
    assert again.value.purchase_id == first.purchase_id
    await world.credits.refund(first, **_who(world))
    await world.credits.use(**_who(world), **REPORT, credits=5, once=True, idempotency_key="k")
    retried = await world.credits.use(
        **_who(world), **REPORT, credits=5, once=True, idempotency_key="k"
    )
    assert retried.replayed


async def test_conditions_reject_a_write_and_leave_no_change(world: World) -> None:
    await world.credits.add(**_who(world), credits=50, expected_revision=0)
    with pytest.raises(RevisionChanged) as moved:
        await world.credits.add(**_who(world), credits=50, expected_revision=0)
    assert (moved.value.revision, moved.value.outcome) == (1, Outcome.NO_CHANGE)
    with pytest.raises(AvailableTooLow) as low:
        await world.credits.use(**_who(world), **REPORT, credits=45, min_available_after=10)
    assert (low.value.available_after, low.value.required) == (5, 10)
    with pytest.raises(AvailableTooLow):
        await world.credits.place_hold(**_who(world), credits=45, min_available_after=10)
    with pytest.raises(RevisionChanged):
        await world.credits.grant(**_who(world), credits=1, expected_revision=7)
    assert await _balance(world) == 50


async def test_a_validated_write_shows_before_and_after_and_writes_nothing(world: World) -> None:
    await world.credits.add(**_who(world), credits=50)
    only: dict[str, Any] = {**_who(world), "validate_only": True}
    granted = await world.credits.grant(**only, credits=10)
    assert (granted.validated, granted.balance_before, granted.balance) == (True, 50, 60)
    async with world.credits.hold(**only, credits=20) as hold:
        assert hold.receipt is not None
        assert (hold.receipt.validated, hold.receipt.balance) == (True, 30)
    moved = await world.credits.transfer(**only, credits=5, to_user_id=world.new_user())
    assert (moved.balance_before, moved.balance) == (50, 45)
    adjusted = await world.credits.adjust(**only, delta=-1, note="Test")
    assert (adjusted.effect, adjusted.balance) == (-1, 49)
    with pytest.raises(InsufficientCredits) as few:
        await world.credits.place_hold(**only, credits=51)
    assert few.value.outcome is Outcome.NO_CHANGE
    assert await _types(world) == ["ADD"]


async def test_a_key_makes_each_write_count_once(world: World) -> None:
    grant: dict[str, Any] = {**_who(world), "credits": 10, "expires_after": timedelta(days=1)}
    first = await world.credits.grant(**grant, idempotency_key="g")
    second = await world.credits.grant(**grant, idempotency_key="g")
    assert (second.replayed, second.transaction_id) == (True, first.transaction_id)
    with pytest.raises(IdempotencyKeyReused) as reused:
        await world.credits.grant(**{**grant, "credits": 11}, idempotency_key="g")
    assert reused.value.fields == ("credits",)
    with pytest.raises(IdempotencyKeyReused) as other:
        await world.credits.place_hold(**_who(world), credits=1, idempotency_key="g")
    assert other.value.fields == ("call",)
    assert other.value.idempotency_key == "g"
    assert await _balance(world) == 10


async def test_a_batch_takes_every_kind_of_write_in_its_order(world: World) -> None:
    who = _who(world)
    async with world.credits.batch() as batch:
        batch.add(**who, credits=50)
        used = batch.use(**who, **REPORT, credits=5, once=True, min_available_after=10)
        granted = batch.grant(**who, credits=10, expires_after=timedelta(days=1))
        held = batch.place_hold(**who, credits=20)
        batch.transfer(**who, credits=1, to_user_id=world.new_user())
        batch.adjust(**who, delta=-2, note="Correction")
        batch.set_spending_cap(**who, per_day=1000)
        preview = batch.grant(**who, credits=7, validate_only=True)
    assert preview.receipt.validated
    assert preview.outcome is Outcome.NO_CHANGE
    id_ = held.receipt.transaction_id
    batch = world.credits.batch(atomic=True)
    batch.extend_hold(**who, hold_id=id_, expires_after=timedelta(hours=2))
    batch.capture_hold(**who, hold_id=id_, **REPORT, credits=7, final=False)
    batch.release_hold(**who, hold_id=id_)
    batch.refund(used.receipt, **who, credits=2)
    batch.void_grant(**who, grant_id=granted.receipt.transaction_id)
    again = batch.use(**who, **REPORT, credits=5, once=True)
    await batch.send()
    assert isinstance(again.error, AlreadyPurchased)
    assert [each.outcome for each in batch] == [Outcome.NO_CHANGE] * 6
    batch = world.credits.batch(atomic=True)
    batch.capture_hold(**who, hold_id=id_, **REPORT, credits=7, final=False)
    batch.release_hold(**who, hold_id=id_)
    batch.reverse(**who, transaction_id=used.receipt.transaction_id)
    await batch.send()
    assert [each.error for each in batch] == [None] * 3
    assert await _balance(world) == 50 + 10 - 1 - 2 - 7


async def test_a_retried_batch_is_not_aborted_by_its_dry_run(world: World) -> None:
    who = _who(world)
    await world.credits.add(**who, credits=5)
    for _ in range(2):
        batch = world.credits.batch(atomic=True)
        dry_run = batch.adjust(**who, delta=-5, note="Correction", validate_only=True)
        used = batch.use(**who, **REPORT, credits=5, idempotency_key="use")
        await batch.send()
    assert isinstance(dry_run.error, InsufficientCredits)
    assert used.receipt.replayed
    assert await _balance(world) == 0
