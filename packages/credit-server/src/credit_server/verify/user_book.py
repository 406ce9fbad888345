"""Replay the history of one user, and find faults of the history itself."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from credit_models.ledger import GENESIS, Kind, Purchase, Transaction, hash_of

from credit_server.verify.app_book import AppBook
from credit_server.verify.entry_checks import Fault, entry_faults, is_repair
from credit_server.verify.findings import Code, Finding

Find = Callable[[str], Transaction | None]
"""Returns the entry with an id, of any user; None: there is none."""

# Entries that others can refer to are kept to look them up. Beyond this number, they are read from
# the store again, so that a history of any length takes the same memory.
_KEPT_MAX = 20_000

_ADDS = (Kind.ADD, Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)
_PLACES_GRANT = (Kind.GRANT, Kind.SCHEDULE, Kind.TRANSFER_IN)

# The kinds of the entry that an entry of a kind must refer to, in the same app of the same user.
_REFERS_TO = {
    Kind.REFUND: (Kind.USE,),
    Kind.REVOKE: _ADDS,
    Kind.ACTIVATE: (Kind.SCHEDULE,),
    Kind.EXPIRE: _PLACES_GRANT,
    Kind.VOID: _PLACES_GRANT,
    Kind.RELEASE: (Kind.HOLD,),
    Kind.EXTEND: (Kind.HOLD,),
}
_REFERRED_TO = {kind for kinds in _REFERS_TO.values() for kind in kinds}
# An entry of these kinds refers to an entry of any user. `transfers` checks it.
_TRANSFERS = (Kind.TRANSFER_OUT, Kind.TRANSFER_IN)


class RefundedUse(NamedTuple):
    """The credits that were refunded of a USE, its app, and its sequence."""

    credits: int
    app_id: int
    sequence: int


_NOT_REFUNDED = RefundedUse(0, 0, 0)


class UserBook:
    """Replays the entries of one user in the order of their sequence.

    Attributes:
        user_id: The user.
        apps: The books of the user's apps.
        heads: The hash of the latest entry in an app, for each app whose entries have hashes.
        first: The first entry; None: there is none.
        last: The last entry.
        entries: How many entries there are.
        is_whole: Whether every entry from 1 on is there and was read. The account of a history that
            is not whole cannot be recomputed.
        is_sound: Whether no fault of the history was found.
        refunds: What was refunded of each refunded USE, by its id.
        findings: What was found, in order.
    """

    def __init__(self, user_id: int, counted_since: dict[int, int], find: Find) -> None:
        """Begin without entries.

        Args:
            user_id: The user.
            counted_since: For apps whose caps are counted: the `sequence` from which they are.
            find: Finds entries that are no longer in memory.
        """
        self.user_id = user_id
        self.apps: dict[int, AppBook] = {}
        self.heads: dict[int, bytes] = {}
        self.first: Transaction | None = None
        self.last: Transaction | None = None
        self.entries = 0
        self.is_whole = True
        self.is_sound = True
        self.refunds: dict[str, RefundedUse] = {}
        self.findings: list[Finding] = []
        self._counted_since = counted_since
        self._find = find
        self._kept: dict[str, Transaction] = {}
        self._reversed: dict[str, int] = {}
        # The results that entries record, by the sequence after which the state must equal them.
        self._results: dict[int, list[Transaction]] = {}
        self._sequence = 0

    def unreadable(self, sequence: int | None) -> None:
        """Record that an entry cannot be read. The caller adds the finding."""
        self.is_whole = self.is_sound = False
        if sequence is not None:
            self._sequence = max(self._sequence, sequence)

    def apply(self, entry: Transaction, purchase: Purchase | None) -> None:
        """Apply the next entry.

        Args:
            entry: The entry.
            purchase: The purchase with the same sequence; None: there is none.
        """
        self.entries += 1
        self.first = self.first or entry
        if not self._in_order(entry):
            return
        self._note(entry, entry_faults(self.last, entry))
        self._note(entry, self._check_chain(entry))
        if entry.kind is Kind.USE or purchase is not None:
            self._note(entry, purchase_faults(entry, purchase), of_history=False)
        if self.is_whole:
            self._replay(entry)
        self.last = entry

    def _replay(self, entry: Transaction) -> None:
        """Apply an entry to the book of its app. No earlier entry may be missing."""
        book = self.apps.get(entry.app_id)
        if book is None:
            book = self.apps[entry.app_id] = AppBook(self._counted_since.get(entry.app_id))
        related = self._related(entry)
        self._note(entry, self._check_link(entry, related))
        self._note(entry, book.apply(entry, related))
        if is_repair(entry) and entry.balance_after == book.balance:
            self._forgive(entry.app_id)
        self._note(entry, self._check_results(entry))
        if entry.kind in _REFERRED_TO:
            if len(self._kept) == _KEPT_MAX:
                self._kept.clear()
            self._kept[entry.id] = entry

    def _forgive(self, app_id: int) -> None:
        """Drop the findings that an ADJUST corrected: its balance is the sum of the effects."""
        self.findings = [
            each
            for each in self.findings
            if (each.code, each.app_id) != (Code.RUNNING_BALANCE, app_id)
        ]

    def add(self, code: Code, found: str, *, app_id: int = 0, sequence: int = 0) -> None:
        """Add a finding."""
        finding = Finding(
            code=code, found=found, user_id=self.user_id, app_id=app_id, sequence=sequence
        )
        self.findings.append(finding)

    def missing_end(self, revision: int) -> None:
        """Add a finding: the account has more entries than the history, whose end is missing."""
        first = self._sequence + 1
        which = f"{first}" if first == revision else f"{first} to {revision}"
        self.add(Code.SEQUENCE_GAP, f"the entries {which} are missing", sequence=first)
        self.is_whole = self.is_sound = False

    def _in_order(self, entry: Transaction) -> bool:
        """Check the sequence; return whether the entry can be applied."""
        expected = self._sequence + 1
        if entry.sequence == expected:
            self._sequence = expected
            return True
        self.is_whole = self.is_sound = False
        if entry.sequence < expected:
            found = f"entry {entry.id} has the sequence {entry.sequence} of another entry"
            self.add(Code.SEQUENCE_DUPLICATE, found, app_id=entry.app_id, sequence=entry.sequence)
            return False
        missing = entry.sequence - expected
        which = f"{expected}" if missing == 1 else f"{expected} to {entry.sequence - 1}"
        self.add(Code.SEQUENCE_GAP, f"the entries {which} are missing", sequence=expected)
        self._sequence = entry.sequence
        return True

    def _check_chain(self, entry: Transaction) -> Iterator[Fault]:
        """Check the hashes of an entry; see `CreditTransaction.hash` in the contract."""
        head = self.heads.get(entry.app_id, GENESIS)
        if not entry.hash:
            if head or entry.previous_hash:
                yield Code.CHAIN, "the entry has no hash, but the previous one has one"
            return
        self.heads[entry.app_id] = entry.hash
        # After a gap, the previous entry is not known.
        if self.is_whole and entry.previous_hash != head:
            yield Code.CHAIN, "previous_hash is not the hash of the previous entry in the app"
        if entry.hash != hash_of(entry, entry.previous_hash):
            yield Code.CHAIN, "the hash does not match the entry's fields"

    def _related(self, entry: Transaction) -> Transaction | None:
        if entry.kind not in _REFERS_TO:
            return None
        related_id = entry.details.related_id
        found = self._kept.get(related_id) or (self._find(related_id) if related_id else None)
        if found is None or found.user_id != self.user_id or found.sequence >= entry.sequence:
            return None
        return found

    def _check_link(self, entry: Transaction, related: Transaction | None) -> Iterator[Fault]:
        wanted = _REFERS_TO.get(entry.kind)
        if wanted is None:
            if entry.details.related_id and entry.kind not in (*_TRANSFERS, Kind.USE):
                yield Code.LINK, f"{entry.kind.name} refers to an entry"
            return
        if related is None or related.app_id != entry.app_id or related.kind not in wanted:
            what = "which is no earlier entry of the user in the app"
            if related is not None and related.app_id == entry.app_id:
                what = f"which is a {related.kind.name}"
            related_id = entry.details.related_id or "nothing"
            yield Code.LINK, f"{entry.kind.name} refers to {related_id}, {what}"
        elif entry.kind in (Kind.REFUND, Kind.REVOKE):
            yield from self._check_reversal(entry, related)

    def _check_reversal(self, entry: Transaction, reversed_: Transaction) -> Iterator[Fault]:
        total = self._reversed.get(reversed_.id, 0) + entry.credits
        recorded = entry.details.related_total
        if recorded != total or total > reversed_.credits:
            yield (
                Code.REVERSAL_TOTAL,
                (
                    f"{entry.kind.name} records {recorded} reversed credits of {reversed_.credits};"
                    f" all reversals are {total}"
                ),
            )
        self._reversed[reversed_.id] = total
        if entry.kind is Kind.REFUND:
            self.refunds[reversed_.id] = RefundedUse(total, reversed_.app_id, reversed_.sequence)

    def _check_results(self, entry: Transaction) -> Iterator[Fault]:
        """Compare the results that entries record with the state after their last entry."""
        if final := entry.details.final_revision:
            if final <= entry.sequence:
                yield Code.FINAL_STATE, f"records the revision {final}, which is an earlier one"
            else:
                self._results.setdefault(final, []).append(entry)
        for main in self._results.pop(entry.sequence, ()):
            balance = self.apps[main.app_id].balance_after
            if main.details.final_balance != balance:
                yield (
                    Code.FINAL_STATE,
                    (
                        f"entry {main.sequence} records the balance {main.details.final_balance}"
                        f" after entry {entry.sequence}, which leaves {balance}"
                    ),
                )

    def refunded(self, transaction_id: str) -> RefundedUse:
        """Return what was refunded of a USE."""
        return self.refunds.get(transaction_id, _NOT_REFUNDED)

    def finish(self) -> None:
        """Check the results that entries record for a state after the end of the history."""
        if not self.is_whole:
            return
        for final, mains in self._results.items():
            for main in mains:
                found = f"records the revision {final}, which the history does not reach"
                self.add(Code.FINAL_STATE, found, app_id=main.app_id, sequence=main.sequence)
                self.is_sound = False

    def _note(
        self, entry: Transaction, faults: Iterator[Fault], *, of_history: bool = True
    ) -> None:
        for code, found in faults:
            self.add(code, found, app_id=entry.app_id, sequence=entry.sequence)
            # The effects add up whatever balance the entries record.
            if of_history and code is not Code.RUNNING_BALANCE:
                self.is_sound = False


def purchase_faults(entry: Transaction, purchase: Purchase | None) -> Iterator[Fault]:
    """Yield the differences between an entry and the purchase with its sequence."""
    if entry.kind is not Kind.USE:
        yield Code.PURCHASE_UNPAID, f"{entry.kind.name} has a purchase"
        return
    if purchase is None:
        yield Code.PURCHASE_MISSING, f"the purchase {entry.purchase_id} does not exist"
        return
    if (purchase.id, purchase.transaction_id) != (entry.purchase_id, entry.id):
        yield (
            Code.PURCHASE_DIFFERS,
            (
                f"the purchase {purchase.id} names the transaction {purchase.transaction_id},"
                f" and the transaction {entry.id} names the purchase {entry.purchase_id}"
            ),
        )
    names = ("app_id", "credits", "created_at", "created_by")
    differing = [name for name in names if getattr(entry, name) != getattr(purchase, name)]
    if differing:
        yield Code.PURCHASE_DIFFERS, f"the purchase {purchase.id} has another {_and(differing)}"
    reports = [n for n in ("report_id", "report_name") if getattr(entry, n) != getattr(purchase, n)]
    if reports:
        yield Code.FINGERPRINT, f"the purchase {purchase.id} has another {_and(reports)}"


def _and(names: list[str]) -> str:
    return ", ".join(names)
