"""Correct findings: rebuild documents from a sound history, and record each correction.

Existing entries are never changed. If the history itself has findings, a new entry cannot correct
them, so the account is not changed either.

Each account that is rebuilt gets an ADJUST entry, in the same transaction of the store. The entry
records who corrected what, and why. It also changes the account's revision, so that no server
overwrites the rebuilt account from its cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from credit_models.ledger import (
    NOTHING_FOUND,
    Accepted,
    Account,
    AdjustBalance,
    Details,
    Kind,
    Transaction,
    decide,
)
from credit_models.ledger.draft import Draft, created_at
from credit_models.ledger.uses import purchase_of

from credit_server.store.repairing import Repairing
from credit_server.store.verification import BadDocument, Span
from credit_server.verify.account_check import StoredAccount, check_account, recomputed
from credit_server.verify.entry_checks import REPAIR
from credit_server.verify.findings import Code, Finding
from credit_server.verify.span_check import counted_since, replay, stored_account, unreadable
from credit_server.verify.user_book import UserBook

# The findings that a rebuilt account corrects.
_OF_ACCOUNT = frozenset(
    {
        Code.ACCOUNT_MISSING,
        Code.REVISION,
        Code.RUNNING_BALANCE,
        Code.BALANCE,
        Code.GRANT_LEFT,
        Code.GRANT_TERMS,
        Code.HOLD,
        Code.HOLD_TERMS,
        Code.CAP,
        Code.CAP_COUNTER,
        Code.CHAIN_HEAD,
        Code.ALERT,
        Code.DUE_TIME,
        Code.ACCOUNT_DATES,
    }
)
# A repair continues a chain of hashes, but begins none, because servers of 0.3.0 may still run.
_NO_GENESIS = None

_OF_PURCHASES = frozenset({Code.PURCHASE_MISSING, Code.REFUNDED})


class State(Enum):
    """The result of a correction."""

    PLANNED = "would"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The operator's options.

    Attributes:
        created_by: The operator's number, recorded in the entries.
        reason: The reason, recorded as the note of the entries.
        keeps_account: Whether the stored balance is right where it differs from the history; an
            ADJUST then adds the difference to the history.
        apply: Whether to write; otherwise only what would be written is reported.
    """

    created_by: int
    reason: str
    keeps_account: bool
    apply: bool


@dataclass(kw_only=True, slots=True)
class Correction:
    """The correction of a user or an app, or the reason why there is none.

    Attributes:
        user_id: The user; 0: none.
        app_id: The app; 0: none.
        state: The result.
        findings: The kinds of findings that it concerns.
        actions: The changes that were or would be written, or the reason why there are none.
        transaction_ids: The entries that were written.
    """

    user_id: int = 0
    app_id: int = 0
    state: State
    findings: tuple[str, ...]
    actions: list[str] = field(default_factory=list)
    transaction_ids: list[str] = field(default_factory=list)


Now = Callable[[], datetime]


def now_utc() -> datetime:
    """Return the time, in whole milliseconds."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def repair_user(
    reader: Repairing, user_id: int, order: Order, now: Now = now_utc
) -> Correction | None:
    """Correct what concerns one user, in one transaction; None: there is nothing to correct.

    Raises:
        StoreError: The store cannot be reached, or rejects a command. Nothing was written.
    """
    try:
        return reader.transaction(
            lambda: _UserRepair(reader, user_id, order, now()).run(), commit=order.apply
        )
    except _Refused as refused:
        return refused.correction


class _Refused(Exception):
    """Nothing is written for a user; the correction has the reason."""

    def __init__(self, correction: Correction, reason: str) -> None:
        correction.state = State.REFUSED
        correction.actions = [f"{reason}; nothing is written"]
        self.correction = correction


def repair_total(reader: Repairing, app_id: int, order: Order) -> Correction | None:
    """Make the total of an app the sum of its balances.

    Writes of servers change both by the same credits, so they do not change the difference.
    """

    def run() -> Correction | None:
        totals, held = reader.totals()
        difference = held.get(app_id, 0) - totals.get(app_id, 0)
        if not difference:
            return None
        reader.add_to_total(app_id, difference)
        return Correction(
            app_id=app_id,
            state=_state(order),
            findings=(Code.APP_TOTAL.value,),
            actions=[f"add {difference} to the total of the app"],
        )

    return reader.transaction(run, commit=order.apply)


def repair_directory(reader: Repairing, order: Order) -> Correction | None:
    """Raise the counter of user ids to the greatest id that was given."""

    def run() -> Correction | None:
        greatest, last = reader.directory_end()
        if greatest <= last:
            return None
        reader.set_directory_counter(greatest)
        return Correction(
            state=_state(order),
            findings=(Code.DIRECTORY_COUNTER.value,),
            actions=[f"set the last given user id to {greatest}"],
        )

    return reader.transaction(run, commit=order.apply)


def _state(order: Order) -> State:
    return State.DONE if order.apply else State.PLANNED


class _UserRepair:
    """Corrects one user, within one transaction."""

    def __init__(self, reader: Repairing, user_id: int, order: Order, now: datetime) -> None:
        self._reader = reader
        self._user_id = user_id
        self._order = order
        self._now = now
        self._findings: list[Finding] = []

    def run(self) -> Correction | None:
        """Write what corrects the user."""
        stored, is_readable = self._read_account()
        book = self._replay(stored)
        if book is None:
            return None
        if is_readable:
            check_account(book, stored)
        self._findings += book.findings
        codes = {finding.code for finding in self._findings}
        if not codes:
            return None
        correction = Correction(
            user_id=self._user_id,
            state=_state(self._order),
            findings=tuple(sorted(code.value for code in codes)),
        )
        if refusal := self._refusal(book, codes, is_readable=is_readable):
            raise _Refused(correction, refusal)
        self._repair_purchases(book, correction)
        if codes & _OF_ACCOUNT or not is_readable:
            self._rebuild(book, stored, correction)
        if not correction.actions:
            raise _Refused(correction, _advice(codes))
        return correction

    def _refusal(self, book: UserBook, codes: set[Code], *, is_readable: bool) -> str | None:
        """Return why nothing about the user can be corrected; None: something can be."""
        if Code.ACCOUNT_DUPLICATE in codes:
            return _advice({Code.ACCOUNT_DUPLICATE})
        if not (book.is_whole and book.is_sound and book.last is not None):
            of_history = codes - _OF_ACCOUNT - _OF_PURCHASES
            return f"the history itself has findings. {_advice(of_history or codes)}"
        others = codes - _OF_ACCOUNT - _OF_PURCHASES - {Code.UNREADABLE}
        if others == codes and is_readable:
            return _advice(codes)
        return None

    def _read_account(self) -> tuple[StoredAccount | None, bool]:
        bad: list[BadDocument] = []
        stored: StoredAccount | None = None
        is_readable, count = True, 0
        for records in self._reader.users(Span(self._user_id, self._user_id + 1), bad):
            for record in records.accounts:
                count += 1
                if isinstance(record, BadDocument):
                    is_readable = False
                    self._findings.append(unreadable(record))
                else:
                    stored = stored_account(record)
        if count > 1:
            self._findings.append(
                Finding(code=Code.ACCOUNT_DUPLICATE, found="", user_id=self._user_id)
            )
        return stored, is_readable

    def _replay(self, stored: StoredAccount | None) -> UserBook | None:
        """Replay the history; None: the user has no documents."""
        book: UserBook | None = None
        span = Span(self._user_id, self._user_id + 1)
        since = counted_since(stored)
        for records in self._reader.users(span, []):
            book = replay(self._reader, records, since, self._findings.append)
        if book is None:
            return None
        uncounted = [app_id for app_id, app in book.apps.items() if app.counts_nothing]
        if uncounted:
            # The account does not show where counting began: all uses of the periods are counted.
            since |= dict.fromkeys(uncounted, 1)
            for records in self._reader.users(span, []):
                book = replay(self._reader, records, since, self._findings.append)
        return book

    def _repair_purchases(self, book: UserBook, correction: Correction) -> None:
        for finding in book.findings:
            entry = self._reader.entry_at(self._user_id, finding.sequence)
            if entry is None or entry.kind is not Kind.USE:
                continue
            refunded = book.refunded(entry.id).credits
            if finding.code is Code.PURCHASE_MISSING:
                self._reader.put_purchase(purchase_of(entry))
                if refunded:
                    self._reader.set_refunded(self._user_id, entry.sequence, refunded)
                correction.actions.append(f"write the purchase of entry {entry.sequence}")
            elif finding.code is Code.REFUNDED:
                self._reader.set_refunded(self._user_id, entry.sequence, refunded)
                correction.actions.append(
                    f"set the refunded credits of the purchase of entry {entry.sequence} to"
                    f" {refunded}"
                )

    def _rebuild(
        self, book: UserBook, stored: StoredAccount | None, correction: Correction
    ) -> None:
        """Rebuild the account, and write the entries that correct it."""
        account = recomputed(book, None if stored is None else stored.account)
        differences = _differences(account, stored)
        entries: list[Transaction] = []
        if self._order.keeps_account:
            for app_id, difference in differences.items():
                account, added = self._adjusted(account, app_id, difference, correction)
                entries += added
        if not entries:
            account, entries = self._marked(account, differences, correction)
        for app_id, balance in account.balances.items():
            if balance < 0 <= (0 if stored is None else stored.account.balance(app_id)):
                raise _Refused(correction, f"the balance in app {app_id} would become {balance}")
        self._reader.replace_account(account)
        self._reader.add_entries(entries)
        correction.actions.insert(0, "rebuild the account from the history")
        correction.transaction_ids = [entry.id for entry in entries]

    def _marked(
        self, account: Account, differences: dict[int, int], correction: Correction
    ) -> tuple[Account, list[Transaction]]:
        """Return the account with an entry that records the correction and changes no balance."""
        draft = Draft(account, created_at(account, self._now, None), _NO_GENESIS)
        app_id = next(iter(differences), min(account.balances))
        entry = draft.record(
            draft.app(app_id),
            Kind.ADJUST,
            # The credits of an entry are at least 1.
            max(1, abs(differences.get(app_id, 0))),
            Details(delta=0, note=self._order.reason, metadata=_metadata(correction)),
            created_by=self._order.created_by,
            own_id=self._reader.new_id(),
        )
        correction.actions.append(f"write an ADJUST without effect as entry {entry.sequence}")
        return draft.account(), draft.entries

    def _adjusted(
        self, account: Account, app_id: int, difference: int, correction: Correction
    ) -> tuple[Account, list[Transaction]]:
        """Return the account with an ADJUST by a difference, by the ledger's rules."""
        command = AdjustBalance(
            user_id=self._user_id,
            app_id=app_id,
            created_by=self._order.created_by,
            key="",
            transaction_id=self._reader.new_id(),
            delta=difference,
            note=self._order.reason,
            metadata=_metadata(correction),
        )
        outcome = decide(account, command, NOTHING_FOUND, self._now, genesis=_NO_GENESIS)
        if not isinstance(outcome, Accepted):
            raise _Refused(
                correction,
                f"the ledger rejects an ADJUST of {difference} in app {app_id}: {outcome}",
            )
        sequence = outcome.main.sequence
        correction.actions.append(
            f"write an ADJUST of {difference} in app {app_id} as entry {sequence}"
        )
        return outcome.accounts[0], list(outcome.transactions)


def _differences(account: Account, stored: StoredAccount | None) -> dict[int, int]:
    """Return by how much the stored balances exceed the history, by app."""
    if stored is None:
        return {}
    balances = stored.account.balances
    return {
        app_id: difference
        for app_id in sorted(account.balances)
        if (difference := balances.get(app_id, 0) - account.balance(app_id))
    }


def _metadata(correction: Correction) -> tuple[tuple[str, str], ...]:
    return ((REPAIR, ", ".join(correction.findings)[:512]),)


def _advice(codes: set[Code]) -> str:
    """Return the remedy for findings that a repair cannot correct."""
    remedies = dict.fromkeys(code.remedy.value for code in Code if code in codes)
    return "; ".join(remedies)


def repairs(reader: Repairing, findings: list[Finding], order: Order) -> Iterator[Correction]:
    """Correct the findings of a verification, the users first: totals follow from them.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    users = dict.fromkeys(finding.user_id for finding in findings if finding.user_id)
    for user_id in users:
        correction = repair_user(reader, user_id, order)
        if correction is not None:
            yield correction
    for app_id in dict.fromkeys(f.app_id for f in findings if f.code is Code.APP_TOTAL):
        correction = repair_total(reader, app_id, order)
        if correction is not None:
            yield correction
    if any(finding.code is Code.DIRECTORY_COUNTER for finding in findings):
        correction = repair_directory(reader, order)
        if correction is not None:
            yield correction
    for code in dict.fromkeys(f.code for f in findings if not f.user_id and _is_left(f.code)):
        yield Correction(state=State.REFUSED, findings=(code.value,), actions=[_advice({code})])


def _is_left(code: Code) -> bool:
    return code not in (Code.APP_TOTAL, Code.DIRECTORY_COUNTER)
