"""Make the rows of lists from raw documents, whose times were decoded as `DatetimeMS`.

No model parses these documents, because lists are long: see `TransactionRow`.
"""

from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS
from credit_models.ledger import UINT32_MAX, Kind

from credit_server.store.errors import report
from credit_server.store.history import PurchaseRow, RowDetails, TransactionRow
from credit_server.store.port import Unreadable

# A document as the driver returns it.
Raw = Mapping[str, Any]

_KINDS = {kind.value: kind for kind in Kind}

# Details are for other kinds, and for these if they have any of these fields.
_PLAIN = (Kind.ADD, Kind.USE)
_DETAILS = ("related_id", "allocations", "metadata", "note")

_PURCHASE_NUMBERS = ("user_id", "app_id", "credits", "created_by", "sequence")
_NUMBERS = (*_PURCHASE_NUMBERS, "balance_after")

# The exceptions that a document of an unexpected form raises when it is read.
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError)

_NO_FINGERPRINT: Raw = {"report_id": "", "report_name": ""}


def transaction_row(document: Raw) -> TransactionRow:
    """Return the row of a transaction's document.

    Raises:
        Unreadable: The document has another form.
    """
    try:
        _check_numbers(document, _NUMBERS)
        return _transaction_row(document)
    except _MALFORMED as error:
        raise _unreadable("transaction", document, error) from error


def number_of(document: Raw, name: str, most: int) -> int:
    """Return a number of a transaction's document, of which only some fields were read.

    Args:
        document: The document.
        name: The name of the field.
        most: The greatest value that it can have; the least one is `-UINT32_MAX`.

    Raises:
        Unreadable: The field is no such number.
    """
    value = document.get(name)
    if isinstance(value, int) and -UINT32_MAX <= value <= most:
        return value
    raise _unreadable("transaction", document, ValueError(name))


def milliseconds_of(document: Raw, name: str) -> int:
    """Return a time of a transaction's document, in milliseconds since 1970; see `number_of`."""
    moment = document.get(name)
    if isinstance(moment, DatetimeMS):
        return int(moment)
    raise _unreadable("transaction", document, TypeError(name))


def _check_numbers(document: Raw, names: tuple[str, ...]) -> None:
    """Raise an error if a field is no integer, because other types would fail later."""
    for name in names:
        if not isinstance(document[name], int):
            raise TypeError(name)
    if not isinstance(document["created_at"], DatetimeMS):
        raise TypeError("created_at")


def _unreadable(noun: str, document: Raw, error: Exception) -> Unreadable:
    fault = Unreadable(
        f"the {noun} {document.get('_id')} is not valid ({type(error).__name__}: {error})"
    )
    report(fault)
    return fault


def _transaction_row(document: Raw) -> TransactionRow:
    purchase_id = document.get("purchase_id")
    fingerprint = document.get("fingerprint", _NO_FINGERPRINT)
    kind = _KINDS[document["type"]]
    plain = kind in _PLAIN and not any(name in document for name in _DETAILS)
    return TransactionRow(
        document["_id"].binary.hex(),
        document["user_id"],
        document["app_id"],
        document["credits"],
        int(document["created_at"]),
        document["created_by"],
        kind,
        document["balance_after"],
        document["sequence"],
        "" if purchase_id is None else purchase_id.binary.hex(),
        document.get("idempotency_key", ""),
        fingerprint["report_id"],
        fingerprint["report_name"],
        None if plain else _row_details(kind, document),
        document.get("previous_hash", b""),
        document.get("hash", b""),
    )


def _row_details(kind: Kind, document: Raw) -> RowDetails:
    related_id = document.get("related_id")
    return RowDetails(
        effect=document.get("delta", kind.sign * document["credits"]),
        related_id="" if related_id is None else related_id.binary.hex(),
        effective_at=_milliseconds(document.get("effective_at")),
        ends_at=_milliseconds(document.get("ends_at")),
        allocations=tuple(
            (part["grant_id"].binary.hex() if "grant_id" in part else "", part["credits"])
            for part in document.get("allocations", ())
        ),
        metadata=tuple((pair["name"], pair["value"]) for pair in document.get("metadata", ())),
        note=document.get("note", ""),
    )


def _milliseconds(moment: object) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, DatetimeMS):
        raise TypeError("time")
    return int(moment)


def purchase_row(document: Raw) -> PurchaseRow:
    """Return the row of a purchase's document; see `transaction_row`."""
    try:
        _check_numbers(document, _PURCHASE_NUMBERS)
        return _purchase_row(document)
    except _MALFORMED as error:
        raise _unreadable("purchase", document, error) from error


def _purchase_row(document: Raw) -> PurchaseRow:
    return PurchaseRow(
        document["_id"].binary.hex(),
        document["user_id"],
        document["app_id"],
        document["report_id"],
        document["report_name"],
        document["credits"],
        int(document["created_at"]),
        document["created_by"],
        document["transaction_id"].binary.hex(),
        document["sequence"],
        document.get("refunded_credits", 0),
    )
