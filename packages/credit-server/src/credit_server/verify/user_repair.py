"""Correct one user: rebuild what follows from a sound history, and write an entry about it.

History is never changed. A history with findings of its own cannot be corrected by adding to it,
and its account is left as it is.

Each account that is rebuilt gets an ADJUST entry, in the same transaction of the store. It shows
the user's history who has corrected what and why. It also changes the account's revision, so that
no server writes a cached copy of the former account over the rebuilt one.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from credit_models.ledger import (
    NOTHING_FOUND,
    UINT32_MAX,
    Accepted,
    Account,
    AdjustBalance,
    AlertEvent,
    Details,
    Kind,
    Transaction,
    decide,
)
from credit_models.ledger.chain import created_at
from credit_models.ledger.draft import Draft
from credit_models.ledger.invariants import InvariantViolated
from credit_models.ledger.uses import purchase_of

from credit_server.store.port import (
    CommitUnknown,
    Interrupted,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from credit_server.store.repairing import Repairing
from credit_server.store.verification import BadDocument, Span
from credit_server.verify.account_check import StoredAccount, check_account, recomputed
from credit_server.verify.correction import Correction, Order, State, advice, names, state_of
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
_OF_PURCHASES = frozenset({Code.PURCHASE_MISSING, Code.REFUNDED})

# The findings about a user that come from documents of other users and of apps. The replay of the
# user's own history finds none of them.
_FOUND_ELSEWHERE = frozenset({Code.TRANSFER, Code.ALERT_EVENT, Code.KEY_DUPLICATE})

# An entry continues a chain of hashes. It begins none, because servers of 0.3.0 may still run.
_NO_GENESIS = None

# After these errors no other user can be corrected either. Any other error is about one user.
_ENDS_THE_RUN = (StoreUnavailable, Interrupted, CommitUnknown, StoreMisconfigured)

Now = Callable[[], datetime]


def now_utc() -> datetime:
    """Return the time, in whole milliseconds."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(kw_only=True, slots=True)
class UserResult:
    """What became of one user.

    Attributes:
        corrections: What was corrected, and what is left; empty: there is nothing to correct.
        moved_apps: The apps in which the correction moves the sum of the balances and the total
            by different credits.
        doubtful_apps: The apps in which the balance of the user may be wrong, because it could not
            be corrected.
    """

    corrections: list[Correction] = field(default_factory=list)
    moved_apps: set[int] = field(default_factory=set)
    doubtful_apps: set[int] = field(default_factory=set)


def repair_user(
    reader: Repairing, user_id: int, order: Order, found: Collection[Code], now: Now = now_utc
) -> UserResult:
    """Correct what concerns one user, in one transaction.

    Args:
        reader: The database.
        user_id: The user.
        order: What the operator asked for.
        found: What a verification has found about the user.
        now: Returns the time of new entries.

    Raises:
        StoreError: The store is unavailable. Nothing was written for the user.
    """
    elsewhere = _FOUND_ELSEWHERE.intersection(found)
    try:
        return reader.transaction(
            lambda: _UserRepair(reader, user_id, order, now()).run(elsewhere), commit=order.apply
        )
    except _ENDS_THE_RUN:
        raise
    except _Refused as refused:
        codes, reason = refused.codes | elsewhere, str(refused)
    except (InvariantViolated, StoreError, OverflowError) as error:  # BSON's integers have 64 bits
        codes, reason = set(found), f"the ledger or the store rejects the correction: {error}"
    correction = Correction(
        user_id=user_id,
        state=State.REFUSED,
        findings=names(codes),
        actions=[f"{reason}; nothing is written"],
    )
    return UserResult(corrections=[correction], doubtful_apps=reader.apps_of(user_id))


class _Refused(Exception):
    """Nothing is written for a user whose balances may be wrong; the message is the reason."""

    def __init__(self, codes: set[Code], reason: str) -> None:
        super().__init__(reason)
        self.codes = codes


@dataclass(kw_only=True, slots=True)
class _State:
    """The documents of a user, and what is wrong with them.

    Attributes:
        stored: The account; None: there is none that can be read.
        is_readable: Whether no account is unreadable.
        book: The replayed history; None: the user has no documents.
        codes: The kinds of findings.
    """

    stored: StoredAccount | None
    is_readable: bool
    book: UserBook | None
    codes: set[Code]


class _UserRepair:
    """Corrects one user, within one transaction."""

    def __init__(self, reader: Repairing, user_id: int, order: Order, now: datetime) -> None:
        self._reader = reader
        self._user_id = user_id
        self._order = order
        self._now = now
        self._codes: set[Code] = set()
        self._actions: list[str] = []
        self._entries: list[Transaction] = []
        self._events: list[AlertEvent] = []

    def run(self, elsewhere: frozenset[Code]) -> UserResult:
        """Write what corrects the user, and examine what is left afterwards.

        Args:
            elsewhere: What was found about the user in documents of others.

        Raises:
            _Refused: The user cannot be corrected.
        """
        result = UserResult()
        before = self._examine()
        self._codes = before.codes
        left = before.codes | elsewhere
        if before.book is not None and before.codes:
            self._refuse(before, before.book)
            self._repair_purchases(before.book)
            if before.codes & _OF_ACCOUNT or not before.is_readable:
                result.moved_apps = self._rebuild(before.book, before.stored)
            if self._actions:
                left = self._examine().codes | elsewhere
                result.corrections.append(self._correction(before.codes - left))
        if left:
            result.corrections.append(
                Correction(
                    user_id=self._user_id,
                    state=State.REFUSED,
                    findings=names(left),
                    actions=[advice(left)],
                )
            )
        return result

    def _correction(self, codes: set[Code]) -> Correction:
        return Correction(
            user_id=self._user_id,
            state=state_of(self._order),
            findings=names(codes),
            actions=self._actions,
            transaction_ids=[entry.id for entry in self._entries],
        )

    def _refuse(self, state: _State, book: UserBook) -> None:
        """Raise an error if the account does not follow from the history."""
        codes = state.codes
        if Code.ACCOUNT_DUPLICATE in codes:
            raise _Refused(codes, advice({Code.ACCOUNT_DUPLICATE}))
        if not (book.is_whole and book.is_sound and book.last is not None):
            of_history = codes - _OF_ACCOUNT - _OF_PURCHASES
            what = f"the history itself has findings. {advice(of_history or codes)}"
            raise _Refused(codes, what)

    # What is stored.

    def _examine(self) -> _State:
        """Read and check the documents of the user, as the transaction sees them."""
        findings: list[Finding] = []
        stored, is_readable = self._read_account(findings)
        book = self._replay(stored, findings)
        if book is not None:
            if is_readable:
                check_account(book, stored)
            findings += book.findings
        codes = {finding.code for finding in findings}
        return _State(stored=stored, is_readable=is_readable, book=book, codes=codes)

    def _read_account(self, findings: list[Finding]) -> tuple[StoredAccount | None, bool]:
        bad: list[BadDocument] = []
        stored: StoredAccount | None = None
        is_readable, count = True, 0
        for records in self._reader.users(Span(self._user_id, self._user_id + 1), bad):
            for record in records.accounts:
                count += 1
                if isinstance(record, BadDocument):
                    is_readable = False
                    findings.append(unreadable(record))
                else:
                    stored = stored_account(record)
        if count > 1:
            findings.append(Finding(code=Code.ACCOUNT_DUPLICATE, found="", user_id=self._user_id))
        return stored, is_readable

    def _replay(self, stored: StoredAccount | None, findings: list[Finding]) -> UserBook | None:
        """Replay the history; None: the user has no documents."""
        book: UserBook | None = None
        span = Span(self._user_id, self._user_id + 1)
        since = counted_since(stored)
        for records in self._reader.users(span, []):
            book = replay(self._reader, records, since, findings.append)
        if book is None:
            return None
        uncounted = [app_id for app_id, app in book.apps.items() if app.counts_nothing]
        if uncounted:
            # The account does not show where counting began: all uses of the periods are counted.
            since |= dict.fromkeys(uncounted, 1)
            for records in self._reader.users(span, []):
                book = replay(self._reader, records, since, findings.append)
        return book

    # What is written.

    def _repair_purchases(self, book: UserBook) -> None:
        for finding in book.findings:
            entry = self._reader.entry_at(self._user_id, finding.sequence)
            if entry is None or entry.kind is not Kind.USE:
                continue
            refunded = book.refunded(entry.id).credits
            if finding.code is Code.PURCHASE_MISSING:
                self._reader.put_purchase(purchase_of(entry))
                if refunded:
                    self._reader.set_refunded(self._user_id, entry.sequence, refunded)
                self._actions.append(f"write the purchase of entry {entry.sequence}")
            elif finding.code is Code.REFUNDED:
                self._reader.set_refunded(self._user_id, entry.sequence, refunded)
                self._actions.append(
                    f"set the refunded credits of the purchase of entry {entry.sequence} to"
                    f" {refunded}"
                )

    def _rebuild(self, book: UserBook, stored: StoredAccount | None) -> set[int]:
        """Rebuild the account, and write the entries that correct it.

        Returns:
            The apps in which the sum of the balances moves by other credits than the total.
        """
        self._actions.insert(0, "rebuild the account from the history")
        account = recomputed(book, None if stored is None else stored.account)
        self._check_balances(account)
        differences = _differences(account, stored)
        to_mark = {each.app_id for each in book.findings if each.code is Code.RUNNING_BALANCE}
        if self._order.keeps_account:
            for app_id, difference in differences.items():
                account = self._adjusted(account, app_id, difference)
            to_mark -= differences.keys()
        else:
            to_mark |= differences.keys()
        if not to_mark and not self._entries:
            to_mark = {min(account.balances)}
        account = self._marked(account, to_mark, differences)
        for app_id, balance in account.balances.items():
            if balance < 0 <= (0 if stored is None else stored.account.balance(app_id)):
                raise _Refused(self._codes, f"the balance in app {app_id} would become {balance}")
        self._reader.replace_account(account)
        self._reader.add_entries(self._entries)
        self._reader.add_events(self._events)
        if stored is None:  # outside of the transaction, the account is still the former one
            return self._reader.apps_of(self._user_id)
        return set(differences)

    def _check_balances(self, account: Account) -> None:
        for app_id, balance in account.balances.items():
            if abs(balance) > UINT32_MAX:
                reason = (
                    f"the history in app {app_id} adds up to {balance}, which no balance can be"
                )
                raise _Refused(self._codes, reason)

    def _marked(self, account: Account, apps: set[int], differences: dict[int, int]) -> Account:
        """Return the account with entries that change no balance and show the correction."""
        if not apps:
            return account
        draft = Draft(account, created_at(account, self._now, None), _NO_GENESIS)
        for app_id in sorted(apps):
            entry = draft.record(
                draft.app(app_id),
                Kind.ADJUST,
                # An entry concerns at least one credit.
                min(UINT32_MAX, max(1, abs(differences.get(app_id, 0)))),
                Details(delta=0, note=self._order.reason, metadata=self._metadata()),
                created_by=self._order.created_by,
                own_id=self._reader.new_id(),
            )
            self._actions.append(
                f"write an ADJUST without effect in app {app_id} as entry {entry.sequence}"
            )
        self._entries += draft.entries
        return draft.account()

    def _adjusted(self, account: Account, app_id: int, difference: int) -> Account:
        """Return the account with an ADJUST by a difference, by the ledger's rules."""
        command = AdjustBalance(
            user_id=self._user_id,
            app_id=app_id,
            created_by=self._order.created_by,
            key="",
            transaction_id=self._reader.new_id(),
            delta=difference,
            note=self._order.reason,
            metadata=self._metadata(),
            policy=self._reader.policy(app_id),
        )
        outcome = decide(account, command, NOTHING_FOUND, self._now, genesis=_NO_GENESIS)
        if not isinstance(outcome, Accepted):
            raise _Refused(
                self._codes,
                f"the ledger rejects an ADJUST of {difference} in app {app_id}: {outcome}",
            )
        self._entries += outcome.transactions
        self._events += outcome.events
        self._actions.append(
            f"write an ADJUST of {difference} in app {app_id} as entry {outcome.main.sequence}"
        )
        return outcome.accounts[0]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((REPAIR, ", ".join(names(self._codes))[:512]),)


def _differences(account: Account, stored: StoredAccount | None) -> dict[int, int]:
    """Return what the stored balances have more than the history, by app."""
    if stored is None:
        return {}
    balances = stored.account.balances
    return {
        app_id: difference
        for app_id in sorted({*account.balances, *balances})
        if (difference := balances.get(app_id, 0) - account.balance(app_id))
    }
