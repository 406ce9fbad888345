"""Provide ledgers with one bug each, which the machine and its auditor must find."""

from collections.abc import Callable

from credit_client import CreditTransaction, Purchase, Receipt, UserCredits
from credit_client.testing import FakeLedger
from credit_client.testing.ledger import Refused
from credit_models import CreditRequest, ErrorReason, PurchaseRequest


class ForgetsKeys(FakeLedger):
    """A resend has a second effect."""

    def add(self, request: CreditRequest) -> Receipt:
        self._accounts[request.user_id].answers.clear()
        return super().add(request)


class TakesAnyRequestForAReplay(FakeLedger):
    """A used key gets the first answer, even for another request."""

    def add(self, request: CreditRequest) -> Receipt:
        answers = self._accounts[request.user_id].answers
        known = answers.get((request.app_id, request.idempotency_key))
        return super().add(request) if known is None else known[1]


class SharesKeysBetweenApps(FakeLedger):
    """A key that was used in one app is refused in another, as until 0.1.0."""

    def add(self, request: CreditRequest) -> Receipt:
        for app_id, key in self._accounts[request.user_id].answers:
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
        account = self._accounts[request.user_id]
        if account.transactions and account.transactions[-1].app_id == request.app_id:
            latest = account.transactions[-1]
            sign = 1 if latest.purchase_id else -1
            account.balances[request.app_id] += sign * latest.credits
        return super().use(request)


class LosesPurchases(FakeLedger):
    """The credits are taken and nothing is bought."""

    def use(self, request: PurchaseRequest) -> Receipt:
        receipt = super().use(request)
        if not receipt.replayed:
            self._accounts[request.user_id].purchases.clear()
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
            user_id = next(iter(self._accounts), 1)
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
