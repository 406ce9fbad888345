"""The policies of apps, as a client sees them on the wire."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from credit_models import (
    AppId,
    AppPolicy,
    Balance,
    GetSpendingCapResponse,
    SpendingCaps,
    SpendingPeriod,
)
from credit_server.store.memory import MemoryStore
from credit_server.store.port import AppPolicy as StoredPolicy
from credit_server.store.port import Conflict
from grpclib.const import Status

from tests.server.callers import WireCaller, info_of, open_wire, reason_of
from tests.server.clocks import NOON, Clocks
from tests.server.requests import request_of

CAPS = SpendingCaps(per_hour=1, per_month=3)


@pytest.fixture
async def caller() -> AsyncIterator[WireCaller]:
    async with open_wire(clock=Clocks().clock()) as caller:
        yield caller


async def policy(caller: WireCaller) -> AppPolicy:
    answer = await caller.read("GetAppPolicy")
    assert isinstance(answer.policy, AppPolicy)
    return answer.policy


async def set_policy(caller: WireCaller, **changed: Any) -> AppPolicy:
    answer = await caller.read("SetAppPolicy", **changed)
    assert isinstance(answer.policy, AppPolicy)
    return answer.policy


async def set_caps(caller: WireCaller, **changed: Any) -> AppPolicy:
    answer = await caller.read("SetSpendingCap", user_id=None, **changed)
    assert answer.receipt is None
    assert isinstance(answer.policy, AppPolicy)
    return answer.policy


async def test_an_app_without_a_policy_has_the_default_one(caller: WireCaller) -> None:
    assert await policy(caller) == AppPolicy(app_id=1)


async def test_a_policy_changes_where_a_request_sets_it(caller: WireCaller) -> None:
    first = await set_policy(caller)
    changed: dict[str, Any] = {"updated_at": NOON, "updated_by": 9}
    assert first == AppPolicy(app_id=1, allow_negative=True, revision=1, **changed)
    second = await set_caps(caller, caps=CAPS, created_by=9)
    assert second == AppPolicy(app_id=1, allow_negative=True, caps=CAPS, revision=2, **changed)
    assert await set_policy(caller, allow_negative=None, created_by=8) == second
    third = await set_policy(caller, allow_negative=False)
    assert third == AppPolicy(app_id=1, caps=CAPS, revision=3, **changed)
    assert await policy(caller) == third
    fourth = await set_caps(caller, caps=None)
    assert fourth == AppPolicy(app_id=1, revision=4, **changed)


async def test_the_same_policy_again_changes_nothing(caller: WireCaller) -> None:
    first = await set_policy(caller)
    assert await set_policy(caller, created_by=8) == first
    assert (await set_caps(caller, caps=SpendingCaps())).revision == 1


@pytest.mark.parametrize("set_", [set_policy, set_caps])
async def test_a_policy_that_is_only_validated_is_not_changed(
    caller: WireCaller, set_: Any
) -> None:
    before = await policy(caller)
    preview = await set_(caller, validate_only=True)
    assert await policy(caller) == before
    assert await set_(caller) == preview


async def test_a_change_may_require_a_revision(caller: WireCaller) -> None:
    await set_policy(caller, expected_revision=0)
    for call in ("SetAppPolicy", "SetSpendingCap"):
        user = {"user_id": None} if call == "SetSpendingCap" else {"allow_negative": False}
        answer = await caller.call(call, request_of(call, expected_revision=0, **user))
        assert (answer.status, reason_of(answer)) == (Status.ABORTED, "REVISION_CHANGED")
        assert info_of(answer).metadata == {"revision": "1"}
    assert (await set_caps(caller, caps=CAPS, expected_revision=1)).revision == 2


async def test_a_retry_of_a_change_succeeds_although_the_revision_is_its_own(
    caller: WireCaller,
) -> None:
    first = await set_policy(caller, expected_revision=0)
    assert await set_policy(caller, expected_revision=0) == first
    another = request_of("SetAppPolicy", expected_revision=0, created_by=8)
    assert reason_of(await caller.call("SetAppPolicy", another)) == "REVISION_CHANGED"


async def test_the_caps_of_an_app_bind_users_without_caps_of_their_own(caller: WireCaller) -> None:
    await set_caps(caller, caps=SpendingCaps(per_day=10))
    await caller.write("AddCredits", credits=1000)
    refused = await caller.call("UseCredits", request_of("UseCredits", credits=11))
    assert reason_of(refused) == "CAP_EXCEEDED"
    await caller.write("SetSpendingCap", caps=SpendingCaps(per_day=20))
    await caller.write("UseCredits", credits=11)


async def test_the_caps_of_a_user_are_shown_with_what_counts(caller: WireCaller) -> None:
    await set_caps(caller, caps=SpendingCaps(per_day=10))
    await caller.write("AddCredits", credits=1000)
    await caller.write("UseCredits", credits=4)
    shown: GetSpendingCapResponse = await caller.read("GetSpendingCap")
    assert (shown.user_caps, shown.app_caps) == (None, SpendingCaps(per_day=10))
    (day,) = shown.statuses
    assert (day.period, day.cap, day.spent, day.held, day.left) == (SpendingPeriod.DAY, 10, 4, 0, 6)
    own = SpendingCaps(per_hour=3, per_month=50)
    await caller.write("SetSpendingCap", caps=own)
    shown = await caller.read("GetSpendingCap")
    assert (shown.user_caps, shown.app_caps) == (own, SpendingCaps(per_day=10))
    assert [(each.period, each.spent, each.left) for each in shown.statuses] == [
        (SpendingPeriod.HOUR, 4, 0),
        (SpendingPeriod.MONTH, 4, 46),
    ]
    refused = await caller.call("UseCredits", request_of("UseCredits", credits=1))
    ends_at = shown.statuses[0].resets_at
    assert ends_at is not None
    assert f"the hour ends at {ends_at:%Y-%m-%dT%H:%M:%SZ};" in refused.sentence


class Contended(MemoryStore):
    """Another writer is faster a number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    async def set_policy(self, changed: StoredPolicy) -> None:
        if self._times:
            self._times -= 1
            raise Conflict("another writer was faster")
        await super().set_policy(changed)


async def test_a_change_is_decided_again_if_another_one_was_faster() -> None:
    async with open_wire(Contended(4)) as caller:
        assert (await set_policy(caller)).revision == 1
    async with open_wire(Contended(5)) as caller:
        answer = await caller.call("SetAppPolicy", request_of("SetAppPolicy"))
        assert (answer.status, reason_of(answer)) == (Status.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert (await policy(caller)).revision == 0


class Behind(MemoryStore):
    """A store whose reads reach an old primary, which has no policy."""

    async def policy(self, app_id: int) -> StoredPolicy:
        return StoredPolicy(app_id=app_id)


async def test_a_change_is_compared_with_the_latest_policy() -> None:
    async with open_wire(Behind()) as caller:
        assert (await set_policy(caller)).revision == 1
        changed = await set_policy(caller, allow_negative=False)
        assert (changed.revision, changed.allow_negative) == (2, False)


async def test_the_sum_of_an_app_whose_users_owe_more_than_others_have_is_0(
    caller: WireCaller,
) -> None:
    await set_policy(caller)
    await caller.write("AdjustBalance", delta=-50)
    answer = await caller.call("GetAppBalance", AppId(app_id=1))
    assert answer.message(Balance) == Balance(app_id=1)
