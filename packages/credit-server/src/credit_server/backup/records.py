"""The records of a ledger in the order of a backup, cut into chunks."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

from credit_server.backup.chunk import RECORDS_MAX, Chunk, file_name
from credit_server.backup.errors import LedgerDamaged
from credit_server.backup.history import Histories
from credit_server.store.exporting import (
    CHANGING,
    SECRET,
    AccountState,
    LedgerReader,
    Position,
)
from credit_server.store.extended_json import Document, NotRepresentable, to_line
from credit_server.store.schema import CREDIT_TRANSACTIONS

Sink = Callable[[str, Iterator[bytes]], None]
"""Receives the name of a chunk's file, and its lines."""


def changing(secrets: bool) -> Sequence[str]:
    """Return the collections that are read at the snapshot, in the order of a backup."""
    return CHANGING + (SECRET if secrets else ())


def history(
    reader: LedgerReader, name: str, accounts: Iterator[AccountState], after: Position
) -> Iterator[Document]:
    """Iterate over the entries or purchases that belong to a state of the accounts.

    Raises:
        LedgerDamaged: An account and its history do not agree.
    """
    histories = Histories(accounts, after=after, has_account=reader.has_account)
    found = reader.history(name, after)
    if name == CREDIT_TRANSACTIONS:
        return histories.entries(found)
    return (reader.as_of(each, revision) for each, revision in histories.purchases(found))


def chunks(
    collection: str, documents: Iterator[Document], sink: Sink, *, first: int = 1, placed: bool
) -> Iterator[Chunk]:
    """Pass documents to a sink, chunk by chunk, and yield each chunk when it is complete.

    Args:
        collection: Their collection.
        documents: All documents from the first chunk on.
        sink: Receives the lines.
        first: The number of the first chunk.
        placed: Whether the documents are in the order of histories, so that an export can continue
            after a chunk.

    Raises:
        LedgerDamaged: A document has a value that a backup cannot have.
    """
    number = first
    while (head := next(documents, None)) is not None:
        lines = _Lines(collection, chain((head,), islice(documents, RECORDS_MAX - 1)))
        file = file_name(collection, number)
        sink(file, iter(lines))
        yield lines.chunk(file, placed=placed)
        number += 1


class _Lines:
    """The lines of a chunk, with their digest when all were read."""

    def __init__(self, collection: str, documents: Iterator[Document]) -> None:
        self._collection = collection
        self._documents = documents
        self._digest = hashlib.sha256()
        self._records = 0
        self._last: Document = {}

    def __iter__(self) -> Iterator[bytes]:
        for document in self._documents:
            try:
                line = to_line(document)
            except NotRepresentable as error:
                raise LedgerDamaged(
                    f"The document {document.get('_id')} of {self._collection} cannot be exported:"
                    f" {error}. No backup was completed."
                ) from None
            self._digest.update(line)
            self._records += 1
            self._last = document
            yield line

    def chunk(self, file: str, *, placed: bool) -> Chunk:
        """Return the chunk, when all lines were read."""
        last = (self._last["user_id"], self._last["sequence"]) if placed else ()
        return Chunk(file, self._collection, self._records, self._digest.hexdigest(), last)
