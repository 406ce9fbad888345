"""Read a history: the order in which a user's writes took effect, and the state after each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from credit_client import CreditTransaction, Purchase, TransactionType

from tests.fuzz.journal import Answer, Call, Journal, Kind, Read
from tests.fuzz.ledger_model import Done, State, Write, predict


class Inexplicable(Exception):
    """The writes that were sent cannot explain a history."""


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What happened to one user, as the last lists show it.

    Attributes:
        entries: All transactions.
        purchases: All purchases.
        states: The model's state before the first entry, after it, after the second, and so on.
        asked: When the write of each entry was first sent.
    """

    entries: Sequence[CreditTransaction]
    purchases: Sequence[Purchase]
    states: Sequence[State]
    asked: Sequence[int]


def read_history(journal: Journal, user: int) -> History:
    """Apply a user's last lists to the model.

    Raises:
        Inexplicable: The writes that were sent cannot explain the lists.
    """
    entries, purchases = _last_lists(journal, user)
    sent = journal.writes_by_key(user)
    bought = iter(purchases)
    states, asked = [State()], []
    for place, entry in enumerate(entries, start=1):
        purchase = next(bought, None) if entry.type is TransactionType.USE else None
        write, began = _origin(sent[entry.app_id, entry.idempotency_key], entry, purchase)
        done = Done(sequence=entry.sequence, balance=entry.balance_after, replayed=False)
        if (predicted := predict(states[-1], write)) != done:
            raise Inexplicable(
                f"user {user}: entry {place} is {entry}, where the model predicts {predicted}"
            )
        states.append(states[-1].after(write, done))
        asked.append(began)
    if (left := next(bought, None)) is not None:
        raise Inexplicable(f"user {user}: no write paid for {left}")
    if not _is_in_order([entry.created_at for entry in entries]):
        raise Inexplicable(f"user {user}: an entry is older than the one before it: {entries}")
    return History(entries=entries, purchases=purchases, states=states, asked=asked)


def _origin(
    calls: Sequence[tuple[Call, Write]], entry: CreditTransaction, purchase: Purchase | None
) -> tuple[Write, int]:
    """Return the write that led to an entry, and when it was first sent."""
    origins = [(write, call.began) for call, write in calls if _is_effect(write, entry, purchase)]
    if not origins:
        raise Inexplicable(f"user {entry.user_id}: no write requested {entry} with {purchase}")
    return min(origins, key=lambda origin: origin[1])


def _is_in_order(moments: Sequence[datetime | None]) -> bool:
    given = [moment for moment in moments if moment is not None]
    return len(given) == len(moments) and given == sorted(given)


def _last_lists(
    journal: Journal, user: int
) -> tuple[Sequence[CreditTransaction], Sequence[Purchase]]:
    lists: dict[Kind, Answer] = {}
    for call in journal.calls:
        question = call.question
        if isinstance(question, Read) and question.user_id == user:
            lists[question.kind] = call.answer
    entries, purchases = lists.get(Kind.TRANSACTIONS), lists.get(Kind.PURCHASES)
    if not isinstance(entries, list) or not isinstance(purchases, list):
        raise Inexplicable(f"user {user}: the lists cannot be read: {entries}, {purchases}")
    return entries, purchases


def _is_effect(write: Write, entry: CreditTransaction, purchase: Purchase | None) -> bool:
    """Return whether an entry and its purchase agree with a write in all fields."""
    if (write.user_id, write.app_id, write.credits, write.created_by, write.key) != (
        entry.user_id,
        entry.app_id,
        entry.credits,
        entry.created_by,
        entry.idempotency_key,
    ):
        return False
    if write.report is None:
        return (entry.type, entry.purchase_id, purchase) == (TransactionType.ADD, "", None)
    return purchase is not None and (
        (purchase.id, purchase.transaction_id, purchase.created_at, purchase.sequence)
        == (entry.purchase_id, entry.id, entry.created_at, entry.sequence)
        and (purchase.report_id, purchase.report_name) == write.report
        and (purchase.user_id, purchase.app_id, purchase.credits, purchase.created_by)
        == (entry.user_id, entry.app_id, entry.credits, entry.created_by)
    )
