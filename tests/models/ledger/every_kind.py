"""A history that has every kind of entry, in two apps of one user and in those of another."""

from datetime import timedelta
from typing import Any

from credit_models.ledger import (
    Accepted,
    AdjustBalance,
    Caps,
    CaptureHold,
    Category,
    Direction,
    ExtendHold,
    GrantCredits,
    Kind,
    PlaceHold,
    ReleaseHold,
    ReverseTransaction,
    SetAlert,
    SetSpendingCap,
    Settle,
    TransferCredits,
    VoidGrant,
)

from tests.models.ledger.history import Ledger

HOUR = timedelta(hours=1)


class _StoredLedger(Ledger):
    """A history whose ids a database can store."""

    def common(self, id: str = "") -> dict[str, Any]:  # noqa: A002 - the attribute's name
        common = super().common(id)
        number = self._number
        return {**common, "transaction_id": f"{number:024x}", "key": f"order-{number}-ключ"}

    def report(self, report: str = "r") -> dict[str, Any]:
        return {**super().report(report), "purchase_id": f"{1000 + self._number:024x}"}


def every_kind() -> Ledger:
    """Return the history; user 7 has all kinds in app 1."""
    ledger = _StoredLedger()
    added = ledger.add(1000)
    used = ledger.use(30)
    ledger.do(GrantCredits, credits=50, expires_after=HOUR, category=Category.PAID, note="Dür")
    ledger.do(
        GrantCredits,
        credits=20,
        effective_at=ledger.now + HOUR,
        expires_after=HOUR,
        metadata=(("a", ""), ("заказ", "4711")),
    )
    voided = ledger.do(GrantCredits, credits=15)
    ledger.do(VoidGrant, grant_id=voided.id, note="A mistake")
    held = ledger.do(PlaceHold, credits=60, purpose="An answer")
    ledger.do(ExtendHold, hold_id=held.id, expires_after=timedelta(minutes=30))
    ledger.do(CaptureHold, hold_id=held.id, credits=25, **ledger.report())
    released = ledger.do(PlaceHold, credits=5)
    ledger.do(ReleaseHold, hold_id=released.id)
    ledger.do(PlaceHold, credits=3)  # it ends by itself
    ledger.do(ReverseTransaction, reversed_id=used.id, credits=10, metadata=(("case", "12"),))
    ledger.do(ReverseTransaction, reversed_id=added.id, credits=100)
    ledger.do(TransferCredits, to_user_id=8, to_app_id=1, credits=7)
    ledger.do(TransferCredits, to_user_id=7, to_app_id=2, credits=9)
    ledger.do(SetSpendingCap, caps=Caps(day=5000))
    ledger.do(SetAlert, credits=100, direction=Direction.FALLS_BELOW)
    ledger.wait(hours=3)
    settle = ledger.outcome(Settle)
    assert isinstance(settle, Accepted)
    ledger.write(settle)
    ledger.do(AdjustBalance, delta=-ledger.balance, note="A dispute")
    assert {entry.kind for entry in ledger.entries[7] if entry.app_id == 1} == set(Kind) - {
        Kind.TRANSFER_IN
    }
    assert {entry.kind for entry in ledger.entries[8]} == {Kind.TRANSFER_IN}
    return ledger
