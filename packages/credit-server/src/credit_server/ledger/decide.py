"""Decide one command on an account and its history."""

from datetime import datetime
from typing import assert_never

from credit_server.ledger.commands import Add, Command, Known, Use
from credit_server.ledger.outcomes import (
    Accepted,
    BalanceOverflow,
    CreditsLimitExceeded,
    InsufficientCredits,
    KeyReused,
    Outcome,
    Replayed,
    TooManyApps,
)
from credit_server.ledger.records import (
    APPS_MAX,
    UINT32_MAX,
    Account,
    Kind,
    Purchase,
    Transaction,
)


class InvariantViolated(Exception):
    """The ledger is in a state that its rules exclude. This is a bug, never the caller's fault."""


def invariant(condition: bool, sentence: str) -> None:
    """Raise an error if a condition that must always hold is false.

    Unlike `assert`, `python -O` does not remove it.

    Args:
        condition: The condition.
        sentence: What it means, for the log.

    Raises:
        InvariantViolated: The condition is false. Nothing was written: the caller aborts its
            transaction of the store.
    """
    if not condition:
        raise InvariantViolated(sentence)


def decide(
    account: Account,
    command: Command,
    known: Known,
    now: datetime,
    latest: datetime | None = None,
    target: Account | None = None,
) -> Outcome:
    """Return the outcome of a command.

    Refusals follow the precedence of the contract's `errors` option: a reused key first, then the
    caller's limit, then the balance.

    Args:
        account: The user's account.
        command: The command, valid by the contract's constraints.
        known: What the command must know of the history.
        now: The time, UTC, in whole milliseconds.
        latest: The latest time that an entry may have, at least `now`; None: there is no limit.
        target: The account of the user that gets credits by a transfer from another user.

    Returns:
        All effects, or the earlier transaction, or the reason for the refusal.

    Raises:
        InvariantViolated: The command is not for this account, or is not valid; or the earlier
            transaction is of another user or app.
    """
    invariant(command.user_id == account.user_id, "a command is decided on its own user's account")
    invariant(isinstance(command, Add | Use), "the ledger decides adds and uses")
    assert isinstance(command, Add | Use)  # noqa: S101 - for the type checker
    invariant(1 <= command.credits <= UINT32_MAX, "credits are 1 to 2**32 - 1")
    if known.earlier is not None:
        return _repeated(command, known.earlier)
    balance = account.balances.get(command.app_id, 0)
    match command:
        case Add():
            if command.credits > command.credits_max:
                return CreditsLimitExceeded(credits=command.credits, limit=command.credits_max)
            balance_after = balance + command.credits
            if balance_after > UINT32_MAX:
                return BalanceOverflow(balance=balance, credits=command.credits)
            if command.app_id not in account.balances and len(account.balances) >= APPS_MAX:
                return TooManyApps(limit=APPS_MAX)
        case Use():
            balance_after = balance - command.credits
            if balance_after < 0:
                return InsufficientCredits(available=balance, required=command.credits)
        case _:
            assert_never(command)

    # Success is certain from here on: the rest computes the effects.
    return _effects(account, command, balance_after, _created_at(account, now, latest))


def _created_at(account: Account, now: datetime, latest: datetime | None) -> datetime:
    """Return the time of a new entry.

    Clocks of several servers differ and may be set back. So a new entry is not dated before the
    latest entry, as long as a correct server can have given that entry its time. A later time is a
    fault and is not adopted: `sequence` defines the order, and the new entry gets the latest time
    that a correct server can have.
    """
    if account.updated_at is None or account.updated_at <= now:
        return now
    return account.updated_at if latest is None else min(account.updated_at, latest)


def _effects(
    account: Account, command: Add | Use, balance_after: int, created_at: datetime
) -> Accepted:
    invariant(0 <= balance_after <= UINT32_MAX, "a balance stays in 0 to 2**32 - 1")
    sequence = account.revision + 1
    first = account.created_at is None
    purchase = _purchase(command, sequence, created_at) if isinstance(command, Use) else None
    changed = Account(
        user_id=account.user_id,
        id=account.id,
        balances={**account.balances, command.app_id: balance_after},
        apps=account.apps,
        revision=sequence,
        created_at=created_at if first else account.created_at,
        updated_at=created_at,
        created_by=command.created_by if first else account.created_by,
        updated_by=command.created_by,
    )
    entry = Transaction(
        id=command.transaction_id,
        user_id=command.user_id,
        app_id=command.app_id,
        kind=Kind.ADD if purchase is None else Kind.USE,
        credits=command.credits,
        balance_after=balance_after,
        sequence=sequence,
        created_at=created_at,
        created_by=command.created_by,
        key=command.key,
        purchase_id="" if purchase is None else purchase.id,
        report_id="" if purchase is None else purchase.report_id,
        report_name="" if purchase is None else purchase.report_name,
    )
    return Accepted(accounts=(changed,), transactions=(entry,), main=entry, purchase=purchase)


def _purchase(command: Use, sequence: int, created_at: datetime) -> Purchase:
    return Purchase(
        id=command.purchase_id,
        user_id=command.user_id,
        app_id=command.app_id,
        report_id=command.report_id,
        report_name=command.report_name,
        credits=command.credits,
        created_at=created_at,
        created_by=command.created_by,
        transaction_id=command.transaction_id,
        sequence=sequence,
    )


def _repeated(command: Add | Use, earlier: Transaction) -> Replayed | KeyReused:
    """Return the outcome of a command whose key or id an earlier transaction has."""
    invariant(
        (command.user_id, command.app_id) == (earlier.user_id, earlier.app_id),
        "a key belongs to a user in an app",
    )
    fields = _differences(command, earlier)
    return KeyReused(fields=fields) if fields else Replayed(transaction=earlier)


def _differences(command: Add | Use, earlier: Transaction) -> tuple[str, ...]:
    """Return the names of the fields in which a request differs from that of a transaction.

    The user, the app and the key are equal by the look-up. `created_by` is compared, because the
    requester is part of the request.
    """
    kind = Kind.ADD if isinstance(command, Add) else Kind.USE
    if kind is not earlier.kind:
        return ("call",)
    compared = ["credits", "created_by"]
    if isinstance(command, Use):
        compared = ["report_id", "report_name", "credits", "created_by"]
    return tuple(name for name in compared if getattr(command, name) != getattr(earlier, name))
