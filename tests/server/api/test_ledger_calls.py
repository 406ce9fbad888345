"""Each write of the contract, as a client sees it on the wire: alone and as an operation."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from credit_models import (
    CreditTransaction,
    TransactionType,
    UserId,
)
from credit_testing.http2_client import Connection

from tests.server.callers import WireCaller, receipt_of
from tests.server.clocks import Clocks
from tests.server.requests import WRITES, prepared
from tests.server.serving import serving

TYPES = {
    "AddCredits": TransactionType.ADD,
    "UseCredits": TransactionType.USE,
    "GrantCredits": TransactionType.GRANT,
    "VoidGrant": TransactionType.VOID,
    "PlaceHold": TransactionType.HOLD,
    "CaptureHold": TransactionType.USE,
    "ReleaseHold": TransactionType.RELEASE,
    "ExtendHold": TransactionType.EXTEND,
    "ReverseTransaction": TransactionType.REFUND,
    "TransferCredits": TransactionType.TRANSFER_OUT,
    "AdjustBalance": TransactionType.ADJUST,
    "SetSpendingCap": TransactionType.CAP,
}
EFFECTS = {
    "AddCredits": 50,
    "UseCredits": -50,
    "GrantCredits": 50,
    "VoidGrant": -50,
    "PlaceHold": -50,
    "CaptureHold": -20,
    "ReleaseHold": 20,
    "ExtendHold": 0,
    "ReverseTransaction": 20,
    "TransferCredits": -50,
    "AdjustBalance": 50,
    "SetSpendingCap": 0,
}
PLAIN = ("AddCredits", "UseCredits")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def caller(clocks: Clocks) -> AsyncIterator[WireCaller]:
    async with (
        serving(clock=clocks.clock()) as served,
        Connection.connect(served.port) as wire,
    ):
        yield WireCaller(wire)


async def entries(caller: WireCaller, user: int = 7) -> list[CreditTransaction]:
    answer = await caller.call("ListUserTransactions", UserId(user_id=user))
    return answer.messages(CreditTransaction)


async def test_every_write_of_the_contract_is_tried_here() -> None:
    assert set(TYPES) == set(EFFECTS) == set(WRITES)


@pytest.mark.parametrize("around", ["", "BatchWrite/", "Write/"])
@pytest.mark.parametrize("call", WRITES)
async def test_a_write_has_its_receipt_and_its_entry(
    caller: WireCaller, call: str, around: str
) -> None:
    request = await prepared(caller, call)
    receipt = receipt_of(around + call, await caller.call(around + call, request))
    (entry,) = [each for each in await entries(caller) if each.id == receipt.transaction_id]
    assert (entry.type, entry.effect) == (TYPES[call], EFFECTS[call])
    assert (receipt.sequence, receipt.balance) == (entry.sequence, entry.balance_after)
    assert not receipt.replayed
    assert not receipt.validated
    if call not in PLAIN:
        assert (receipt.type, receipt.effect) == (entry.type, entry.effect)
        assert receipt.balance_before == receipt.balance - receipt.effect
        assert (receipt.credits, receipt.related_id) == (entry.credits, entry.related_id)


@pytest.mark.parametrize("call", WRITES)
async def test_a_write_with_the_same_key_takes_effect_once(caller: WireCaller, call: str) -> None:
    request = replace(await prepared(caller, call), idempotency_key="k")
    first = receipt_of(call, await caller.call(call, request))
    before = await entries(caller)
    for around in ("", "BatchWrite/", "Write/"):
        again = receipt_of(around + call, await caller.call(around + call, request))
        assert again == replace(first, replayed=True)
    assert await entries(caller) == before


@pytest.mark.parametrize("around", ["", "BatchWrite/", "Write/"])
@pytest.mark.parametrize("call", [call for call in WRITES if call not in PLAIN])
async def test_a_write_that_is_only_validated_shows_its_effect_and_writes_nothing(
    caller: WireCaller, call: str, around: str
) -> None:
    request = await prepared(caller, call)
    before = await entries(caller)
    validated = replace(request, validate_only=True, idempotency_key="k")
    for _ in range(2):
        preview = receipt_of(around + call, await caller.call(around + call, validated))
        assert (preview.validated, preview.replayed) == (True, False)
        assert (preview.transaction_id, preview.purchase_id) == ("validated", "")
    assert await entries(caller) == before
    actual = receipt_of(call, await caller.call(call, request))
    preview.transaction_id, preview.purchase_id = actual.transaction_id, actual.purchase_id
    assert actual.hash
    assert preview == replace(actual, validated=True, hash=b"")


@pytest.mark.parametrize("call", [call for call in WRITES if call not in PLAIN])
async def test_the_note_and_the_metadata_of_a_request_are_those_of_its_entry(
    caller: WireCaller, call: str
) -> None:
    request = await prepared(caller, call)
    noted = replace(request, note="wegen Rückgabe", metadata={"order": "o-1", "a": ""})
    receipt = receipt_of(call, await caller.call(call, noted))
    (entry,) = [each for each in await entries(caller) if each.id == receipt.transaction_id]
    assert (entry.note, entry.metadata) == ("wegen Rückgabe", {"order": "o-1", "a": ""})
