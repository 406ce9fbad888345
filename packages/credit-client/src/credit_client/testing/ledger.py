"""The ledger's rules on dictionaries: what the service does, without its database."""

import copy
import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from credit_models import (
    Balance,
    CreditRequest,
    CreditTransaction,
    ErrorReason,
    Purchase,
    PurchaseRequest,
    Receipt,
    TransactionType,
    UserCredits,
)
from credit_models.constraints import Violation

UINT32_MAX = 2**32 - 1
APPS_MAX = 1000

_Write = CreditRequest | PurchaseRequest


class Refused(Exception):
    """The contract's answer to a request that is rejected.

    Attributes:
        reason: The contract's reason.
        metadata: The metadata that the contract defines for the reason.
        violations: The broken fields, for INVALID_FIELD.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)


@dataclass(kw_only=True, slots=True)
class _Account:
    balances: dict[int, int] = field(default_factory=dict)
    transactions: list[CreditTransaction] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    answers: dict[tuple[int, str], tuple[_Write, Receipt]] = field(default_factory=dict)


def _now() -> dt.datetime:
    now = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class FakeLedger:
    """All accounts. Requests must be valid; nothing is awaited, so that no two ever overlap."""

    def __init__(
        self, clock: Callable[[], dt.datetime] = _now, *, credits_max: int = UINT32_MAX
    ) -> None:
        """Make an empty ledger.

        Args:
            clock: Returns the time of a write, with a time zone.
            credits_max: The most credits that one call may add.
        """
        self._clock = clock
        self._credits_max = credits_max
        self._accounts: defaultdict[int, _Account] = defaultdict(_Account)

    def add(self, request: CreditRequest) -> Receipt:
        """Add credits.

        Raises:
            Refused: The key is used, or the credits or the balance would be too large.
        """
        account = self._accounts[request.user_id]
        replayed = _replayed(account, request)
        if replayed is not None:
            return replayed
        if request.credits > self._credits_max:
            raise Refused(
                ErrorReason.CREDITS_LIMIT_EXCEEDED,
                f"the request adds {request.credits} credits, one call may add {self._credits_max}",
                metadata={"credits": request.credits, "limit": self._credits_max},
            )
        balance = account.balances.get(request.app_id, 0)
        if balance + request.credits > UINT32_MAX:
            raise Refused(
                ErrorReason.BALANCE_OVERFLOW,
                f"the balance is {balance}; {request.credits} more do not fit",
                metadata={"balance": balance, "credits": request.credits},
            )
        if request.app_id not in account.balances and len(account.balances) >= APPS_MAX:
            raise Refused(
                ErrorReason.TOO_MANY_APPS,
                f"the user has credits in {APPS_MAX} apps",
                metadata={"limit": APPS_MAX},
            )
        return self._apply(account, request, TransactionType.ADD, balance + request.credits)

    def use(self, request: PurchaseRequest) -> Receipt:
        """Take credits and record the purchase.

        Raises:
            Refused: The key is used, or there are too few credits.
        """
        account = self._accounts[request.user_id]
        replayed = _replayed(account, request)
        if replayed is not None:
            return replayed
        balance = account.balances.get(request.app_id, 0)
        if balance < request.credits:
            shortfall = request.credits - balance
            raise Refused(
                ErrorReason.INSUFFICIENT_CREDITS,
                f"{request.credits} credits are needed and {balance} are there",
                metadata={
                    "available": balance,
                    "required": request.credits,
                    "shortfall": shortfall,
                },
            )
        receipt = self._apply(account, request, TransactionType.USE, balance - request.credits)
        account.purchases.append(
            Purchase(
                id=receipt.purchase_id,
                user_id=request.user_id,
                app_id=request.app_id,
                report_id=request.report_id,
                report_name=request.report_name,
                credits=request.credits,
                created_at=account.transactions[-1].created_at,
                created_by=request.created_by,
                transaction_id=receipt.transaction_id,
                sequence=receipt.sequence,
            )
        )
        return receipt

    def write(self, request: CreditRequest | PurchaseRequest) -> Receipt:
        """Do what `add` or `use` does, by the request's type.

        Raises:
            Refused: As `add` or `use` raises.
        """
        return self.add(request) if isinstance(request, CreditRequest) else self.use(request)

    def write_all(
        self, requests: Sequence[CreditRequest | PurchaseRequest]
    ) -> Sequence[Receipt | Refused]:
        """Make all writes, or none: then each has its refusal, if only `BATCH_ABORTED`."""
        before = copy.deepcopy({each.user_id: self._account(each.user_id) for each in requests})
        results = [self._result(request) for request in requests]
        first = next((at for at, each in enumerate(results) if isinstance(each, Refused)), None)
        if first is None:
            return results
        self._accounts.update(before)
        aborted = Refused(
            ErrorReason.BATCH_ABORTED,
            f"operation {first} of the batch was rejected",
            metadata={"index": first},
        )
        return [each if isinstance(each, Refused) else aborted for each in results]

    def user_credits(self, *, user_id: int) -> UserCredits:
        """Return a user's balances in all apps."""
        account = self._accounts.get(user_id)
        if account is None or not account.transactions:
            return UserCredits(user_id=user_id)
        first, last = account.transactions[0], account.transactions[-1]
        return UserCredits(
            id=_id(user_id, 0),
            user_id=user_id,
            balances=[
                Balance(app_id=app_id, balance=balance)
                for app_id, balance in sorted(account.balances.items())
            ],
            created_at=first.created_at,
            updated_at=last.created_at,
            created_by=first.created_by,
            updated_by=last.created_by,
            revision=last.sequence,
        )

    def balance(self, *, app_id: int, user_id: int | None = None) -> int:
        """Return a user's balance in an app, or the sum over all users.

        Raises:
            Refused: The sum is too large for the answer.
        """
        accounts = self._accounts.values() if user_id is None else [self._account(user_id)]
        total = sum(account.balances.get(app_id, 0) for account in accounts)
        if total > UINT32_MAX:
            raise Refused(
                ErrorReason.APP_TOTAL_OVERFLOW,
                f"the sum over all users is {total}",
                metadata={"total": total},
            )
        return total

    def purchases(self, *, user_id: int, after_sequence: int = 0) -> tuple[Purchase, ...]:
        """Return a user's purchases after a sequence, oldest first."""
        purchases = self._account(user_id).purchases
        return tuple(one for one in purchases if one.sequence > after_sequence)

    def transactions(
        self, *, user_id: int, after_sequence: int = 0
    ) -> tuple[CreditTransaction, ...]:
        """Return a user's transactions after a sequence, oldest first."""
        transactions = self._account(user_id).transactions
        return tuple(one for one in transactions if one.sequence > after_sequence)

    def _account(self, user_id: int) -> _Account:
        return self._accounts.get(user_id) or _Account()

    def _result(self, request: CreditRequest | PurchaseRequest) -> Receipt | Refused:
        try:
            return self.write(request)
        except Refused as refused:
            return refused

    def _apply(
        self, account: _Account, request: _Write, kind: TransactionType, balance: int
    ) -> Receipt:
        # From here on the write is certain: it has been allowed, and nothing below can fail.
        sequence = len(account.transactions) + 1
        transaction_id = _id(request.user_id, sequence)
        purchase_id = f"p{transaction_id}" if kind is TransactionType.USE else ""
        account.balances[request.app_id] = balance
        account.transactions.append(
            CreditTransaction(
                id=transaction_id,
                user_id=request.user_id,
                app_id=request.app_id,
                credits=request.credits,
                created_at=self._clock(),
                created_by=request.created_by,
                type=kind,
                balance_after=balance,
                sequence=sequence,
                purchase_id=purchase_id,
                idempotency_key=request.idempotency_key,
            )
        )
        receipt = Receipt(
            transaction_id=transaction_id,
            purchase_id=purchase_id,
            balance=balance,
            sequence=sequence,
        )
        if request.idempotency_key:
            account.answers[request.app_id, request.idempotency_key] = (request, receipt)
        return receipt


def _replayed(account: _Account, request: _Write) -> Receipt | None:
    known = account.answers.get((request.app_id, request.idempotency_key))
    if known is None:
        return None
    earlier, receipt = known
    different = _different_fields(earlier, request)
    if different:
        raise Refused(
            ErrorReason.IDEMPOTENCY_KEY_REUSED,
            f"the key was used for another request: {', '.join(different)} differ",
            metadata={"fields": ",".join(different)},
        )
    return replace(receipt, replayed=True)


def _different_fields(earlier: _Write, request: _Write) -> list[str]:
    if type(earlier) is not type(request):
        return ["call"]
    return [
        field.name
        for field in fields(request)
        if getattr(earlier, field.name) != getattr(request, field.name)
    ]


def _id(user_id: int, sequence: int) -> str:
    return f"{user_id:08x}{sequence:016x}"
