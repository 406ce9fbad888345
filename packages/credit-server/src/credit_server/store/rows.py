"""Make the rows of lists from raw documents, whose times were decoded as `DatetimeMS`.

No model parses these documents, because lists are long: see `TransactionRow`.
"""

from collections.abc import Mapping
from typing import Any

from credit_models.ledger import Kind

from credit_server.store.history import PurchaseRow, RowDetails, TransactionRow

# A document as the driver returns it.
Raw = Mapping[str, Any]

_KINDS = {kind.value: kind for kind in Kind}

# Details are for other kinds, and for these if they have any of these fields.
_PLAIN = (Kind.ADD, Kind.USE)
_DETAILS = ("related_id", "allocations", "metadata", "note")

_NO_FINGERPRINT: Raw = {"report_id": "", "report_name": ""}


def transaction_row(document: Raw) -> TransactionRow:
    """Return the row of a transaction's document."""
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


# Any: `DatetimeMS`, which the driver does not export as a type of a document's values.
def _milliseconds(moment: Any) -> int | None:
    return None if moment is None else int(moment)


def purchase_row(document: Raw) -> PurchaseRow:
    """Return the row of a purchase's document; see `transaction_row`."""
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
