"""Provide ledgers with one bug each, which the machine and its auditor must find."""

from collections.abc import Callable
from dataclasses import replace

from credit_client import CreditTransaction, Purchase, Receipt, UserCredits
from credit_client.testing import FakeLedger
from credit_client.testing.ledger import Refused
from credit_models import CreditRequest, ErrorReason, PurchaseRequest, ledger
from credit_models.translation.messages import receipt_to_message


class ForgetsKeys(FakeLedger):
    """A resend has a second effect."""

    def add(self, request: CreditRequest) -> Receipt:
        self._user(request.user_id).by_key.clear()
        return super().add(request)


class TakesAnyRequestForAReplay(FakeLedger):
    """A used key gets the first answer, even for another request."""

    def add(self, request: CreditRequest) -> Receipt:
        by_key = self._user(request.user_id).by_key
        known = by_key.get((request.app_id, request.idempotency_key))
        if known is None:
            return super().add(request)
        return receipt_to_message(ledger.Receipt(transaction=known, replayed=True))


class SharesKeysBetweenApps(FakeLedger):
    """A key that was used in one app is refused in another, as until 0.1.0."""

    def add(self, request: CreditRequest) -> Receipt:
        for app_id, key in self._user(request.user_id).by_key:
            if key == request.idempotency_key and app_id != request.app_id:
                raise Refused(
                    ErrorReason.IDEMPOTENCY_KEY_REUSED, "planted", metadata={"fields": "app_id"}
                )
        return super().add(request)


class RemembersRefusals(FakeLedger):
    """A key that was refused once cannot succeed later."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals: dict[tuple[int, int, str], Refused] = {}

    def use(self, request: PurchaseRequest) -> Receipt:
        key = (request.user_id, request.app_id, request.idempotency_key)
        refusal = self._refusals.get(key)
        if refusal is not None:
            raise refusal
        try:
            return super().use(request)
        except Refused as refused:
            self._refusals[key] = refused
            raise


class LosesUpdates(FakeLedger):
    """A purchase is decided on the balance before the latest write, as if two had read at once."""

    def use(self, request: PurchaseRequest) -> Receipt:
        user = self._user(request.user_id)
        latest = next(reversed(user.entries.values()), None)
        if latest is not None and latest.app_id == request.app_id:
            balance = latest.balance_after - latest.effect
            balances = {**user.account.balances, request.app_id: balance}
            user.account = replace(user.account, balances=balances)
        return super().use(request)


class LosesPurchases(FakeLedger):
    """The credits are taken and nothing is bought."""

    def use(self, request: PurchaseRequest) -> Receipt:
        receipt = super().use(request)
        if not receipt.replayed:
            self._user(request.user_id).purchases.clear()
        return receipt


class ShowsYesterday(FakeLedger):
    """A user's credits are those before the latest write."""

    def user_credits(self, *, user_id: int) -> UserCredits:
        shown = super().user_credits(user_id=user_id)
        shown.revision = max(0, shown.revision - 1)
        return shown


class ForgetsTheLatestEntry(FakeLedger):
    """A list ends before the latest write."""

    def transactions(
        self, *, user_id: int, after_sequence: int = 0
    ) -> tuple[CreditTransaction, ...]:
        return super().transactions(user_id=user_id, after_sequence=after_sequence)[:-1]


class ListsBackwards(FakeLedger):
    """Purchases come newest first."""

    def purchases(self, *, user_id: int, after_sequence: int = 0) -> tuple[Purchase, ...]:
        return super().purchases(user_id=user_id, after_sequence=after_sequence)[::-1]


class MiscountsTotals(FakeLedger):
    """The sum of an app has one user too few."""

    def balance(self, *, app_id: int, user_id: int | None = None) -> int:
        if user_id is None:
            user_id = next(iter(self._users), 1)
        return super().balance(app_id=app_id, user_id=user_id)


class WrapsAround(FakeLedger):
    """A balance is a signed integer somewhere on its way."""

    def balance(self, *, app_id: int, user_id: int | None = None) -> int:
        return super().balance(app_id=app_id, user_id=user_id) & 0x7FFFFFFF


BROKEN: tuple[Callable[[], FakeLedger], ...] = (
    ForgetsKeys,
    TakesAnyRequestForAReplay,
    SharesKeysBetweenApps,
    RemembersRefusals,
    LosesUpdates,
    LosesPurchases,
    ShowsYesterday,
    ForgetsTheLatestEntry,
    ListsBackwards,
    MiscountsTotals,
    WrapsAround,
)
