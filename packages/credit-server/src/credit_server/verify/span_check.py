"""Check the users of one range: replay their histories, and compare them with what is stored."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from credit_models.ledger import Kind, Purchase, Transaction

from credit_server.store.verification import (
    AccountRecord,
    BadDocument,
    Span,
    UserRecords,
    Verification,
)
from credit_server.verify.account_check import StoredAccount, check_account
from credit_server.verify.findings import Code, Finding
from credit_server.verify.transfers import Add, Transfers
from credit_server.verify.user_book import UserBook

# The findings of each kind that a range reports in full. More are only counted.
SHOWN_MAX = 100


@dataclass(kw_only=True, slots=True)
class Found:
    """What was checked and found.

    Attributes:
        users: How many users were checked.
        entries: How many entries were checked.
        counts: How many findings of each kind there are.
        findings: The first `SHOWN_MAX` of each kind.
        places: The user and the app of every finding of each kind; 0: none. A repair uses these.
    """

    users: int = 0
    entries: int = 0
    counts: Counter[Code] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    places: dict[Code, set[tuple[int, int]]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        self.places.setdefault(finding.code, set()).add((finding.user_id, finding.app_id))
        self.counts[finding.code] += 1
        if self.counts[finding.code] <= SHOWN_MAX:
            self.findings.append(finding)

    def add_all(self, other: "Found") -> None:
        """Add what was found in another part of the database."""
        self.users += other.users
        self.entries += other.entries
        shown = Counter(finding.code for finding in self.findings)
        for finding in other.findings:
            shown[finding.code] += 1
            if shown[finding.code] <= SHOWN_MAX:
                self.findings.append(finding)
        self.counts += other.counts
        for code, places in other.places.items():
            self.places.setdefault(code, set()).update(places)


def check_span(reader: Verification, span: Span) -> Found:
    """Check the users of a range at one snapshot.

    Raises:
        StoreError: The store cannot be read.
    """
    found = Found()
    bad: list[BadDocument] = []
    with reader.snapshot():
        transfers = Transfers(reader, found.add)
        for records in reader.users(span, bad):
            book = _check_user(reader, records, found, transfers)
            for finding in book.findings:
                found.add(finding)
            found.users += 1
        transfers.flush()
    for document in bad:
        found.add(unreadable(document))
    return found


def _check_user(
    reader: Verification, records: UserRecords, found: Found, transfers: Transfers
) -> UserBook:
    stored, is_readable = _read_account(records, found)
    book = replay(reader, records, counted_since(stored), found.add, transfers)
    found.entries += book.entries
    if is_readable:
        check_account(book, stored)
    return book


def _read_account(records: UserRecords, found: Found) -> tuple[StoredAccount | None, bool]:
    """Return the account of a user, and whether it could be read."""
    accounts = list(records.accounts)
    for account in accounts:
        if isinstance(account, BadDocument):
            found.add(unreadable(account))
    if len(accounts) > 1:
        sentence = f"there are {len(accounts)} accounts"
        found.add(Finding(code=Code.ACCOUNT_DUPLICATE, found=sentence, user_id=records.user_id))
    if any(isinstance(account, BadDocument) for account in accounts):
        return None, False
    read = [account for account in accounts if isinstance(account, AccountRecord)]
    return (stored_account(read[0]) if read else None), True


def stored_account(record: AccountRecord) -> StoredAccount:
    """Return an account that was read."""
    return StoredAccount(account=record.account, due_at=record.due_at, app_due_at=record.app_due_at)


def counted_since(stored: StoredAccount | None) -> dict[int, int]:
    """Return the `sequence` from which an account counts used credits, by app."""
    apps = {} if stored is None else stored.account.apps
    return {app_id: app.spent[0].since for app_id, app in apps.items() if app.spent}


def replay(
    reader: Verification,
    records: UserRecords,
    since: dict[int, int],
    add: Add,
    transfers: Transfers | None = None,
) -> UserBook:
    """Replay the history of a user, and compare its purchases.

    Args:
        reader: Finds entries that are no longer in memory.
        records: The user's documents.
        since: What `counted_since` returns for the user's account.
        add: Receives the findings about documents that cannot be read.
        transfers: Receives the entries of transfers; None: their other side is not checked.
    """
    book = UserBook(records.user_id, since, reader.entry)
    purchases = _Purchases(records.purchases, book, add)
    for entry in records.entries:
        if isinstance(entry, BadDocument):
            add(unreadable(entry))
            book.unreadable(entry.sequence)
            continue
        book.apply(entry, purchases.of(entry))
        if transfers is not None and entry.kind in (Kind.TRANSFER_OUT, Kind.TRANSFER_IN):
            transfers.add(entry)
    purchases.finish()
    book.finish()
    return book


class _Purchases:
    """The purchases of a user, read side by side with the entries."""

    def __init__(
        self, purchases: Iterator[Purchase | BadDocument], book: UserBook, add: Add
    ) -> None:
        self._purchases = purchases
        self._book = book
        self._add = add
        # The refunds that purchases show, by the transaction that paid for them.
        self._shown: dict[str, Purchase] = {}
        self._next = self._advance()

    def of(self, entry: Transaction) -> Purchase | None:
        """Return the purchase with the sequence of an entry."""
        while self._next is not None and self._next.sequence < entry.sequence:
            self._unpaid(self._next)
            self._next = self._advance()
        purchase = self._next
        if purchase is None or purchase.sequence != entry.sequence:
            return None
        self._next = self._advance()
        return purchase

    def finish(self) -> None:
        """Check the remaining purchases, and the refunds of all purchases."""
        while self._next is not None:
            self._unpaid(self._next)
            self._next = self._advance()
        if not self._book.is_whole:
            return
        for id_ in {**self._shown, **self._book.refunds}:
            purchase, made = self._shown.get(id_), self._book.refunded(id_)
            shown = 0 if purchase is None else purchase.refunded_credits
            if shown != made.credits:
                self._book.add(
                    Code.REFUNDED,
                    f"the purchase paid by {id_} shows {shown} refunded credits, not"
                    f" {made.credits}",
                    app_id=made.app_id if purchase is None else purchase.app_id,
                    sequence=made.sequence if purchase is None else purchase.sequence,
                )

    def _unpaid(self, purchase: Purchase) -> None:
        self._book.add(
            Code.PURCHASE_UNPAID,
            f"the purchase {purchase.id} has no transaction {purchase.transaction_id}",
            app_id=purchase.app_id,
            sequence=purchase.sequence,
        )

    def _advance(self) -> Purchase | None:
        for purchase in self._purchases:
            if isinstance(purchase, BadDocument):
                self._add(unreadable(purchase))
                continue
            if purchase.refunded_credits:
                self._shown[purchase.transaction_id] = purchase
            return purchase
        return None


def unreadable(document: BadDocument) -> Finding:
    """Return the finding of a document that cannot be read."""
    return Finding(
        code=Code.UNREADABLE,
        found=f"{document.collection} {document.id}: {document.reason}",
        user_id=document.user_id,
        sequence=document.sequence or 0,
    )
