"""Make a backup of an earlier moment from a backup: leave out what is newer, rebuild the rest.

Entries and purchases are never changed, so those of the earlier moment are known. Accounts and
refunded credits are rebuilt from the entries, as `verify` computes them. `_EARLIER` has the rules
for all other documents.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import dropwhile, groupby, islice
from pathlib import Path

from credit_models.ledger import Kind, Transaction
from credit_models.ledger.uses import purchase_of
from pydantic import ValidationError

from credit_server.backup import chunk
from credit_server.backup.chunk import Chunk
from credit_server.backup.errors import BackupUnusable
from credit_server.backup.export import Advance, accounts, newest_event
from credit_server.backup.folder import claimed
from credit_server.backup.history import Histories
from credit_server.backup.manifest import Manifest
from credit_server.backup.records import changing, chunks
from credit_server.store import schema
from credit_server.store.documents import AccountDocument, TransactionDocument
from credit_server.store.exporting import BEGINNING
from credit_server.store.extended_json import Document, from_line
from credit_server.verify.account_check import recomputed
from credit_server.verify.user_book import UserBook

# The most entries that are kept because later ones refer to them.
_SOUGHT_MAX = 20_000

# The most users whose faults an error names.
_FAULTS_MAX = 10

_Keep = Callable[[Document, datetime], bool]

_EARLIER: Mapping[str, _Keep] = {
    # A policy has no history. A policy that was changed later is kept as it is, because without it
    # the caps of the app would be missing.
    schema.APP_POLICIES: lambda found, until: found["revision"] > 1 or found["updated_at"] <= until,
    schema.ALERT_EVENTS: lambda found, until: found["created_at"] <= until,
    # The events that were removed since then are not in the backup.
    schema.REMOVED_EVENTS: lambda found, until: True,
    # Apps keep the numbers that they have looked up, so a number stays that of its user, and is not
    # given to another one.
    schema.DIRECTORY: lambda found, until: True,
    schema.COUNTERS: lambda found, until: True,
    schema.WEBHOOKS: lambda found, until: found["created_at"] <= until,
    schema.WEBHOOK_DELIVERIES: lambda found, until: found["event"]["created_at"] <= until,
}


@dataclass(kw_only=True, slots=True)
class Rewound:
    """A backup of an earlier moment.

    Attributes:
        source: The backup from which this one was made.
        manifest: The backup.
        newest_event: The greatest position of an event of an alert in the backup; 0: it has none.
        policies: The apps whose policies were changed after the moment. The backup has these
            policies as of the time when `source` was made.
    """

    source: Manifest
    manifest: Manifest
    newest_event: int = 0
    policies: list[int] = field(default_factory=list)


def rewind(source: Manifest, folder: Path, until: datetime, advance: Advance) -> Rewound:
    """Write the backup of an earlier moment.

    Args:
        source: A backup that was checked.
        folder: The folder for the other backup: new or empty.
        until: The moment, with a time zone. Entries of exactly this time belong to the backup.
        advance: Receives the progress.

    Raises:
        BackupUnusable: The backup is of an earlier moment, or has no entry of the moment or before,
            or its histories are not sound, or not in the order of time, or a document cannot be
            read, or the moment is between the sides of a transfer.
    """
    if until > datetime.fromisoformat(source.header.moment):
        raise BackupUnusable(
            f"{source.folder} has the ledger of {source.header.moment}, which is before"
            f" {until.isoformat()}: name an earlier time, or import a later backup"
        )
    header = replace(
        source.header,
        release=version("credit-server"),
        moment=until.astimezone(UTC).isoformat(timespec="milliseconds"),
    )
    made = Rewound(source=source, manifest=Manifest(folder=folder, header=header))
    ledger = _Ledger(source, until)
    with claimed(folder):
        for collection in changing(source.header.secrets):
            found = _readable(collection, _changing(ledger, made, collection))
            _add(made.manifest, collection, found, advance)
        if not made.manifest.of(schema.USER_CREDITS):
            raise BackupUnusable(
                f"{source.folder} has no entry of {until.isoformat()} or earlier: name a later"
                " time. Nothing was imported"
            )
        made.manifest.create()
        for collection, found in (
            (schema.CREDIT_TRANSACTIONS, _entries(ledger, made.manifest)),
            (schema.PURCHASES, _purchases(ledger, made.manifest)),
        ):
            _add(made.manifest, collection, _readable(collection, found), advance)
        made.manifest.create()
        made.manifest.complete()
        made.newest_event = newest_event(made.manifest)
    return made


def _add(
    manifest: Manifest, collection: str, documents: Iterator[Document], advance: Advance
) -> None:
    placed = collection in (schema.CREDIT_TRANSACTIONS, schema.PURCHASES)

    def write(file: str, lines: Iterator[bytes]) -> None:
        chunk.write_file(manifest.folder, file, lines)

    for each in chunks(collection, documents, write, placed=placed):
        manifest.chunks.append(each)
        advance(each.records)


def _readable(collection: str, documents: Iterator[Document]) -> Iterator[Document]:
    """Iterate over documents that are made from others, and reject damaged ones.

    Raises:
        BackupUnusable: A document has no field of a name, or one of another type.
    """
    try:
        yield from documents
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise BackupUnusable(
            f"{collection} of the earlier moment cannot be made, because a document is damaged"
            f" ({type(error).__name__}: {error}). Nothing was imported: import the backup without"
            " --until, then run credit-server verify"
        ) from error


class _Ledger:
    """The documents of a backup, and the entries of it that belong to the earlier moment."""

    def __init__(self, source: Manifest, until: datetime) -> None:
        self.source = source
        self.until = until

    def documents(self, collection: str) -> Iterator[Document]:
        """Iterate over all documents of a collection."""
        return self._lines(self.source.of(collection))

    def histories(self, *, of: int | None = None) -> Iterator[tuple[int, Iterator[Document]]]:
        """Iterate over the users with their entries of the earlier moment.

        Args:
            of: Only this user; None: all.

        Raises:
            BackupUnusable: Entries of a user are not in the order of time.
        """
        found = self.source.of(schema.CREDIT_TRANSACTIONS)
        if of is not None:
            found = [each for each in found if each.last >= (of, 0)]
        for user_id, entries in groupby(self._lines(found), lambda each: int(each["user_id"])):
            if of is None or user_id == of:
                yield user_id, self._earlier(entries)
            if user_id == of:
                return

    def _earlier(self, entries: Iterator[Document]) -> Iterator[Document]:
        later: Document | None = None
        for entry in entries:
            if entry["created_at"] > self.until:
                later = later or entry
            elif later is None:
                yield entry
            else:
                raise BackupUnusable(
                    f"entry {entry['sequence']} of user {entry['user_id']} is earlier than entry"
                    f" {later['sequence']}, because a clock was wrong: name a time before"
                    f" {entry['created_at'].isoformat()}, or after"
                    f" {later['created_at'].isoformat()}. Nothing was imported"
                )

    def transactions(self, user_id: int) -> Iterator[Transaction]:
        """Iterate over the entries of a user at the earlier moment."""
        for _, entries in self.histories(of=user_id):
            yield from map(_transaction_of, entries)

    def _lines(self, found: list[Chunk]) -> Iterator[Document]:
        for each in found:
            yield from map(from_line, chunk.read_lines(self.source.folder, each))


def _changing(ledger: _Ledger, made: Rewound, collection: str) -> Iterator[Document]:
    if collection == schema.USER_CREDITS:
        yield from _accounts(ledger)
        return
    until = ledger.until
    for document in ledger.documents(collection):
        if _EARLIER[collection](document, until):
            if collection == schema.APP_POLICIES and document["updated_at"] > until:
                made.policies.append(document["app_id"])
            yield document


def _accounts(ledger: _Ledger) -> Iterator[Document]:
    """Rebuild the accounts of the users who had entries.

    Raises:
        BackupUnusable: Histories are not sound, or a transfer has only one of its sides.
    """
    stored = ledger.documents(schema.USER_CREDITS)
    transfers, faults = _Transfers(), list[str]()
    for user_id, entries in ledger.histories():
        account = next((each for each in stored if each["user_id"] == user_id), None)
        if account is None:
            raise BackupUnusable(f"user {user_id} has entries and no account. Nothing was imported")
        try:
            book = _book(ledger, account, entries, transfers)
        except BackupUnusable as error:
            faults.append(str(error))
            continue
        if book is not None:
            # Nothing of the stored account is needed, so it may be damaged.
            rebuilt = AccountDocument.from_account(recomputed(book, None)).to_bson()
            yield {"_id": account["_id"], **rebuilt}
    if faults:
        more = [f"and {len(faults) - _FAULTS_MAX} more users"] if faults[_FAULTS_MAX:] else []
        raise BackupUnusable("\n".join([*faults[:_FAULTS_MAX], *more]))
    if transfers.open:
        raise BackupUnusable(
            f"{len(transfers.open)} transfers have one side before and one side after"
            f" {ledger.until.isoformat()}, because a clock was wrong: name another time. Nothing"
            " was imported"
        )


class _Related:
    """Finds entries of a user to which later ones refer.

    The look-ups come in the order of the entries that refer. So two passes over the history find
    the entries for many look-ups: one for each look-up would take a time that is quadratic.
    """

    def __init__(self, ledger: _Ledger, user_id: int) -> None:
        self._ledger = ledger
        self._user_id = user_id
        self._sought: set[str] = set()
        self._found: dict[str, Transaction] = {}

    def find(self, id_: str) -> Transaction | None:
        """Return the entry with an id; None: the user has none."""
        if id_ not in self._sought:
            entries = self._ledger.transactions(self._user_id)
            named = (entry.details.related_id for entry in entries)
            following = filter(None, dropwhile(lambda each: each != id_, named))
            self._sought = {id_, *islice(following, _SOUGHT_MAX)}
            entries = self._ledger.transactions(self._user_id)
            self._found = {entry.id: entry for entry in entries if entry.id in self._sought}
        return self._found.get(id_)


class _Transfers:
    """Adds up both sides of each transfer. They can be in the histories of two users.

    Attributes:
        open: The credits of each transfer that were taken and not added, by its TRANSFER_OUT;
            negative if they were added and not taken.
    """

    def __init__(self) -> None:
        self.open: dict[str, int] = {}

    def add(self, entry: Transaction) -> None:
        """Add an entry of any kind."""
        if entry.kind is Kind.TRANSFER_OUT:
            id_, credits_ = entry.id, entry.credits
        elif entry.kind is Kind.TRANSFER_IN:
            id_, credits_ = entry.details.related_id, -entry.credits
        else:
            return
        if left := self.open.pop(id_, 0) + credits_:
            self.open[id_] = left


def _book(
    ledger: _Ledger, account: Document, entries: Iterator[Document], transfers: _Transfers
) -> UserBook | None:
    """Replay the history of a user; None: the user had no entries.

    Raises:
        BackupUnusable: The history is damaged.
    """
    user_id = int(account["user_id"])
    find = _Related(ledger, user_id).find
    # Where the account begins to count used credits, by app.
    since = {
        app["app_id"]: app["spent"][0]["since"] for app in account.get("apps", ()) if "spent" in app
    }
    book = UserBook(user_id, since, find)
    for entry in map(_transaction_of, entries):
        _replay(book, entry)
        transfers.add(entry)
    if book.last is None:
        return None
    uncounted = [app_id for app_id, app in book.apps.items() if app.counts_nothing]
    if uncounted:
        # The account began to count after the moment, so all uses of the periods are counted.
        book = UserBook(user_id, since | dict.fromkeys(uncounted, 1), find)
        for entry in ledger.transactions(user_id):
            _replay(book, entry)
    book.finish()
    if book.findings or not book.is_whole:
        found = book.findings[0].found if book.findings else "an entry is missing"
        raise BackupUnusable(
            f"the history of user {user_id} is damaged ({found}), so the account cannot be"
            " rebuilt. Nothing was imported: import the backup without --until, then run"
            " credit-server verify"
        )
    return book


def _replay(book: UserBook, entry: Transaction) -> None:
    # The entry has all data of its purchase. The purchases are not rebuilt.
    book.apply(entry, purchase_of(entry) if entry.kind is Kind.USE else None)


def _transaction_of(document: Document) -> Transaction:
    try:
        return TransactionDocument.model_validate(document).to_transaction()
    except ValidationError as error:
        raise BackupUnusable(
            f"entry {document['sequence']} of user {document['user_id']} cannot be read. Nothing"
            " was imported: import the backup without --until, then run credit-server verify"
        ) from error


def _entries(ledger: _Ledger, manifest: Manifest) -> Iterator[Document]:
    histories = Histories(accounts(manifest), after=BEGINNING, has_account=lambda _: True)
    return histories.entries(ledger.documents(schema.CREDIT_TRANSACTIONS))


def _purchases(ledger: _Ledger, manifest: Manifest) -> Iterator[Document]:
    """Iterate over the purchases, with the credits that were refunded up to the earlier moment."""
    histories = Histories(accounts(manifest), after=BEGINNING, has_account=lambda _: True)
    users = ledger.histories()
    user_id, refunded = 0, dict[object, int]()
    for purchase, _ in histories.purchases(ledger.documents(schema.PURCHASES)):
        while user_id < purchase["user_id"]:
            user_id, entries = next(users)
            # The latest refund of a purchase has the sum of its refunded credits so far.
            refunded = {
                each["related_id"]: each["related_total"]
                for each in entries
                if each["type"] == Kind.REFUND.value
            }
        total = refunded.get(purchase["transaction_id"])
        if total is None:
            yield {name: each for name, each in purchase.items() if name != "refunded_credits"}
        else:
            yield {**purchase, "refunded_credits": total}
