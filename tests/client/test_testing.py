"""The fake service obeys the contract's table of refusals, in its order of precedence."""

import ast
import itertools
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from credit_client import ClientSettings, CreditClient, errors, methods
from credit_client.testing import (
    FakeClock,
    FakeCreditService,
    FakeLedger,
    fake_credits,
    fake_transport,
)
from credit_client.testing.ledger import Refused
from credit_models import (
    CreditRequest,
    CreditServiceStub,
    ErrorReason,
    GrantCreditsRequest,
    ListHoldsRequest,
    PlaceHoldRequest,
    PurchaseRequest,
    Receipt,
    TransactionType,
    TransferCreditsRequest,
    UserCredits,
    UserId,
)
from credit_models.codec import WireCodec
from credit_models.constraints import violations
from credit_models.image import SERVICES, method_path
from credit_models.ledger import ACCOUNT_ITEMS_MAX, GRANTS_MAX
from grpclib.testing import ChannelFor
from hypothesis import given, settings
from hypothesis import strategies as st

UINT32_MAX = 2**32 - 1
ADDITION = CreditRequest(user_id=7, app_id=1, credits=10, created_by=1)


def _purchase(credits_: int, key: str = "", app_id: int = 1) -> PurchaseRequest:
    return PurchaseRequest(
        user_id=7,
        app_id=app_id,
        report_id="r",
        report_name="n",
        credits=credits_,
        created_by=1,
        idempotency_key=key,
    )


def test_a_reused_key_comes_before_too_few_credits_and_these_before_success() -> None:
    ledger = FakeLedger()
    ledger.add(CreditRequest(user_id=7, app_id=1, credits=10, created_by=1, idempotency_key="k"))
    with pytest.raises(Refused) as reused:
        ledger.use(_purchase(11, key="k"))
    assert reused.value.reason is ErrorReason.IDEMPOTENCY_KEY_REUSED
    assert reused.value.metadata == {"fields": "call"}
    with pytest.raises(Refused) as few:
        ledger.use(_purchase(11, key="other"))
    assert few.value.reason is ErrorReason.INSUFFICIENT_CREDITS
    assert ledger.use(_purchase(10, key="other")).balance == 0


def test_a_refusal_is_not_remembered() -> None:
    ledger = FakeLedger()
    with pytest.raises(Refused):
        ledger.use(_purchase(10, key="k"))
    ledger.add(ADDITION)
    assert ledger.use(_purchase(10, key="k")).replayed is False
    assert ledger.use(_purchase(10, key="k")).replayed is True


def test_a_key_belongs_to_a_user_in_an_app() -> None:
    ledger = FakeLedger()
    for user_id, app_id in ((7, 1), (8, 1), (7, 2)):
        request = CreditRequest(
            user_id=user_id, app_id=app_id, credits=10, created_by=1, idempotency_key="k"
        )
        assert ledger.add(request).replayed is False
        assert ledger.add(request).replayed is True


def test_lists_start_after_a_sequence_and_purchases_tell_theirs() -> None:
    ledger = FakeLedger()
    ledger.add(ADDITION)
    for _ in range(3):
        ledger.use(_purchase(1))
    assert [entry.sequence for entry in ledger.transactions(user_id=7, after_sequence=2)] == [3, 4]
    assert [purchase.sequence for purchase in ledger.purchases(user_id=7)] == [2, 3, 4]
    assert [purchase.sequence for purchase in ledger.purchases(user_id=7, after_sequence=2)] == [
        3,
        4,
    ]
    assert (
        ledger.transactions(user_id=7, after_sequence=4)
        == ledger.purchases(user_id=7, after_sequence=2**63 - 1)
        == ()
    )


async def test_the_fake_service_starts_lists_after_the_sequence_in_the_request() -> None:
    service = FakeCreditService()
    service.ledger.add(ADDITION)
    for _ in range(2):
        service.ledger.use(_purchase(1))
    asked = UserId(user_id=7, after_sequence=2)
    async with ChannelFor([service], codec=WireCodec()) as channel:
        stub = CreditServiceStub(channel)
        transactions = [entry.sequence async for entry in stub.list_user_transactions(asked)]
        purchases = [entry.sequence async for entry in stub.list_user_purchases(asked)]
        assert (await stub.get_user_credits(asked)).revision == 3
    assert (transactions, purchases) == ([3], [3])


def test_a_balance_holds_just_a_uint32() -> None:
    ledger = FakeLedger()
    ledger.add(CreditRequest(user_id=7, app_id=1, credits=UINT32_MAX, created_by=1))
    with pytest.raises(Refused) as overflow:
        ledger.add(CreditRequest(user_id=7, app_id=1, credits=1, created_by=1))
    assert overflow.value.reason is ErrorReason.BALANCE_OVERFLOW
    assert ledger.use(_purchase(UINT32_MAX)).balance == 0


@settings(deadline=None)  # the machine may be slow
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([1, 2]), st.sampled_from([1, 2, 3, 2**31, UINT32_MAX])
        ),
        max_size=30,
    )
)
def test_transactions_add_up_to_the_balances_and_every_message_is_valid(
    writes: list[tuple[bool, int, int]],
) -> None:
    ledger = FakeLedger()
    expected: dict[int, int] = {}
    for adds, app_id, amount in writes:
        request = CreditRequest(user_id=7, app_id=app_id, credits=amount, created_by=1)
        try:
            if adds:
                ledger.add(request)
            else:
                ledger.use(_purchase(amount, app_id=app_id))
        except Refused:
            continue
        expected[app_id] = expected.get(app_id, 0) + (amount if adds else -amount)
    held = ledger.user_credits(user_id=7)
    assert {one.app_id: one.balance for one in held.balances} == expected
    history = ledger.transactions(user_id=7)
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    assert held.revision == len(history)
    for message in (*history, *ledger.purchases(user_id=7), held):
        assert violations(message) == ()


def test_reading_leaves_no_trace() -> None:
    ledger = FakeLedger()
    assert ledger.balance(app_id=1, user_id=7) == 0
    assert ledger.transactions(user_id=7) == ledger.purchases(user_id=7) == ()
    assert ledger.user_credits(user_id=7) == UserCredits(user_id=7)


@pytest.mark.parametrize(
    ("reason", "kind", "detail"),
    [
        (ErrorReason.UNAUTHENTICATED, errors.Unauthenticated, {}),
        (ErrorReason.SCOPE_MISSING, errors.ScopeMissing, {"scope": "credits:issue"}),
        (ErrorReason.APP_NOT_ALLOWED, errors.AppNotAllowed, {"app_id": 5}),
        (ErrorReason.ACTOR_NOT_ALLOWED, errors.ActorNotAllowed, {"created_by": 3}),
    ],
)
async def test_the_fake_can_be_set_to_reject_the_identity(
    reason: ErrorReason, kind: type[errors.CreditError], detail: dict[str, object]
) -> None:
    service = FakeCreditService()
    service.fail_next(reason)
    async with fake_credits(service) as client:
        with pytest.raises(kind) as caught:
            await client.add(user_id=7, app_id=5, credits=1, created_by=3)
        assert {name: getattr(caught.value, name) for name in detail} == detail
        receipt = await client.add(user_id=7, app_id=5, credits=1, created_by=3)
    assert receipt.sequence == 1


async def test_a_rate_limit_of_the_fake_is_waited_out() -> None:
    service = FakeCreditService()
    service.fail_next(ErrorReason.RATE_LIMITED, times=2)
    settings = ClientSettings(retry_backoff_initial_seconds=0.001)
    async with fake_credits(service, settings=settings) as client:
        await client.add(user_id=7, app_id=5, credits=1, created_by=3)
        service.fail_next(ErrorReason.RATE_LIMITED, times=8)
        with pytest.raises(errors.RateLimited) as caught:
            await client.balance(app_id=5)
    assert caught.value.retry_after_seconds == 0.001


async def test_a_skewed_clock_of_the_fake_fails_writes_and_no_reads() -> None:
    service = FakeCreditService()
    service.fail_next(ErrorReason.CLOCK_SKEWED)
    settings = ClientSettings(retry_attempts_max=1)
    async with fake_credits(service, settings=settings) as client:
        assert await client.balance(app_id=5) == 0
        with pytest.raises(errors.ClockSkewed) as caught:
            await client.add(user_id=7, app_id=5, credits=1, created_by=3)
        assert caught.value.skew_milliseconds > caught.value.limit_milliseconds > 0
        assert (await client.add(user_id=7, app_id=5, credits=1, created_by=3)).sequence == 1


async def test_the_fake_limits_what_one_call_adds_but_replays_an_earlier_answer() -> None:
    ledger = FakeLedger(credits_max=100)
    ledger.add(replace(ADDITION, credits=100, idempotency_key="k"))
    ledger._credits_max = 99
    async with fake_credits(FakeCreditService(ledger)) as client:
        with pytest.raises(errors.CreditsLimitExceeded) as caught:
            await client.add(user_id=7, app_id=1, credits=100, created_by=1)
        assert (caught.value.credits, caught.value.limit) == (100, 99)
        again = await client.add(
            user_id=7, app_id=1, credits=100, created_by=1, idempotency_key="k"
        )
    assert again.replayed


@pytest.mark.parametrize("reason", [ErrorReason.INVALID_FIELD, ErrorReason.UNSPECIFIED])
def test_only_a_temporary_failure_can_be_made_to_happen(reason: ErrorReason) -> None:
    with pytest.raises(ValueError, match="cannot be made to happen"):
        FakeCreditService().fail_next(reason)


# Any: the arguments of a call have no common type.
WHO: dict[str, Any] = {"user_id": 7, "app_id": 1, "created_by": 3}


async def test_what_is_due_takes_effect_with_the_first_call_after_the_clock_has_moved() -> None:
    service = FakeCreditService()
    async with fake_credits(service) as client:
        granted = await client.grant(**WHO, credits=10, expires_after=timedelta(days=30))
        service.clock.advance(timedelta(days=30) - timedelta(seconds=5))
        assert await client.balance(app_id=1) == 10
        service.clock.advance(timedelta(seconds=5))
        assert await client.balance(app_id=1) == 0
        _, expired = [entry async for entry in client.transactions(user_id=7)]
        assert (expired.type, expired.effect) == (TransactionType.EXPIRE, -10)
        assert expired.effective_at == granted.expires_at
        assert (expired.related_id, expired.created_by) == (granted.transaction_id, 3)
        assert (await client.user_credits(user_id=7)).revision == 2


@pytest.mark.parametrize("seconds", [20, 21, 22])
def test_a_balance_of_the_fake_is_that_of_one_time_although_a_grant_ends(seconds: int) -> None:
    ledger = FakeLedger(_ticking())
    for life in (500, seconds):
        ledger.write(
            GrantCreditsRequest(
                user_id=7, app_id=1, credits=10, created_by=1, expires_after_seconds=life
            )
        )
    shown = [ledger.app_balance(app_id=1, user_id=7) for _ in range(seconds)]
    assert {(balance.revision, balance.balance) for balance in shown} == {(2, 20), (3, 10)}


def test_the_clock_of_the_fake_starts_now_moves_forward_only_and_has_milliseconds() -> None:
    clock = FakeClock(lambda: datetime(2026, 3, 1, 1, 0, 0, 123_456, tzinfo=UTC))
    clock.advance(timedelta(hours=1))
    assert clock.now() == datetime(2026, 3, 1, 2, 0, 0, 123_000, tzinfo=UTC)
    with pytest.raises(ValueError, match="only be moved forward"):
        clock.advance(timedelta(seconds=-1))
    assert FakeClock().now().tzinfo is UTC
    ledger = FakeLedger(lambda: datetime(2026, 3, 1, tzinfo=UTC))
    ledger.add(ADDITION)
    assert ledger.transactions(user_id=7)[0].created_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert FakeLedger(clock).clock is clock
    assert FakeCreditService(ledger).clock is ledger.clock


def test_an_atomic_batch_of_the_fake_leaves_no_trace_of_any_of_its_writes() -> None:
    ledger = FakeLedger()
    ledger.add(ADDITION)
    transfer = TransferCreditsRequest(
        user_id=7, app_id=1, credits=4, created_by=1, to_user_id=8, idempotency_key="t"
    )
    moved, refusal = ledger.write_all([transfer, _purchase(11)])
    assert isinstance(moved, Refused)
    assert isinstance(refusal, Refused)
    assert moved.reason is ErrorReason.BATCH_ABORTED
    assert (ledger.balance(app_id=1, user_id=7), ledger.balance(app_id=1, user_id=8)) == (10, 0)
    assert ledger.transactions(user_id=8) == ()
    assert not ledger.write(transfer).replayed


def _grant(app_id: int, priority: int = 1) -> GrantCreditsRequest:
    return GrantCreditsRequest(user_id=7, app_id=app_id, created_by=1, credits=1, priority=priority)


def _ticking() -> FakeClock:
    """Return a clock on which a second passes whenever it is read."""
    start, ticks = datetime(2026, 3, 1, tzinfo=UTC), itertools.count()
    return FakeClock(lambda: start + timedelta(seconds=next(ticks)))


def test_the_writes_of_an_atomic_batch_of_the_fake_have_one_time() -> None:
    ledger = FakeLedger(_ticking())
    ledger.write_all([_grant(1), _grant(2), _grant(3)])
    assert len({entry.created_at for entry in ledger.transactions(user_id=7)}) == 1


@pytest.mark.parametrize("seconds", range(5, 15))
async def test_a_list_of_holds_of_the_fake_is_that_of_one_time_although_a_hold_ends(
    seconds: int,
) -> None:
    ledger = FakeLedger(_ticking())
    ledger.add(ADDITION)
    ledger.write(
        PlaceHoldRequest(
            user_id=7, app_id=1, credits=5, created_by=1, expires_after_seconds=seconds
        )
    )
    request = ListHoldsRequest(user_id=7, app_id=1)
    async with fake_transport(FakeCreditService(ledger), ClientSettings()) as transport:
        answers = [
            await transport.unary(
                methods.HOLDS,
                request,
                request_id="r",
                timeout_seconds=60,
                metadata={},
                sending=lambda: None,
            )
            for _ in range(seconds)
        ]
    shown = [answer.reply for answer in answers]
    assert {(len(page.holds), page.revision) for page in shown} == {(1, 2), (0, 3)}


def test_an_atomic_batch_of_the_fake_has_the_largest_size_of_the_server() -> None:
    ledger = FakeLedger()
    for priority in range(GRANTS_MAX):
        ledger.write(_grant(1, priority))
    moves = [
        TransferCreditsRequest(
            user_id=7, app_id=app, created_by=1, to_app_id=3 - app, credits=GRANTS_MAX
        )
        for app in [1, 2] * 10
    ]
    results = ledger.write_all(moves)
    assert len(results) == len(moves)
    (rejected,) = [
        place
        for place, each in enumerate(results)
        if isinstance(each, Refused) and each.reason is ErrorReason.BATCH_TOO_LARGE
    ]
    aborted = [each for each in results if isinstance(each, Refused) and each.metadata == {
        "index": str(rejected)
    }]  # fmt: skip
    assert len(aborted) == len(moves) - 1
    assert len(ledger.transactions(user_id=7)) == GRANTS_MAX
    assert all(isinstance(each, Receipt) for each in ledger.write_all(moves[:rejected]))


def test_an_account_of_the_fake_can_be_full() -> None:
    ledger = FakeLedger()
    for number in range(ACCOUNT_ITEMS_MAX):
        app_id, priority = 1 + number // GRANTS_MAX, number % GRANTS_MAX
        ledger.write(_grant(app_id, priority))
    with pytest.raises(Refused) as full:
        ledger.write(_grant(99))
    assert full.value.reason is ErrorReason.ACCOUNT_FULL
    assert full.value.metadata == {"limit": str(ACCOUNT_ITEMS_MAX)}
    ledger.add(ADDITION)
    ledger.use(_purchase(11))


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.grant(**WHO, credits=1),
        lambda client: client.hold(**WHO, credits=1),
        lambda client: client.grants(user_id=7, app_id=1),
        lambda client: client.set_app_policy(app_id=1, created_by=3),
    ],
)
async def test_the_new_calls_of_the_fake_can_be_made_to_fail_too(
    call: Callable[[CreditClient], Awaitable[object]],
) -> None:
    service = FakeCreditService()
    settings = ClientSettings(retry_attempts_max=1)
    async with fake_credits(service, settings=settings) as client:
        await client.add(**WHO, credits=5)
        service.fail_next(ErrorReason.OVERLOADED)
        with pytest.raises(errors.Overloaded):
            await call(client)
        await call(client)


async def test_the_examples_of_the_readme_run() -> None:
    page = (Path(__file__).parents[2] / "packages/credit-client/README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ours = [block for block in blocks if "timedelta" in block]
    assert len(ours) == 2
    service = FakeCreditService()

    async def answer() -> int:
        return 7

    async with fake_credits(service) as client:
        names = {
            "credits": client,
            "answer": answer,
            "FakeCreditService": FakeCreditService,
            "fake_credits": fake_credits,
        }
        for block in ours:
            code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await eval(code, dict(names))
        assert await client.balance(app_id=1, user_id=7) == 46


def test_the_fake_serves_every_call_of_the_contract() -> None:
    paths = {method_path(method) for service in SERVICES for method in service.methods}
    assert FakeCreditService().__mapping__().keys() == paths
