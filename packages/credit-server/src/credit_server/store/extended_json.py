"""Documents as lines of text: MongoDB's Extended JSON, relaxed, for backups.

All integers of the ledger are int64, so a number without a fraction is read as one. See
https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from bson.errors import BSONError
from bson.int64 import Int64
from bson.objectid import ObjectId

# Any: documents hold values of many types.
Document = dict[str, Any]


class NotRepresentable(ValueError):
    """A document has a value of a type that no document of the ledger has."""


def to_line(document: Document) -> bytes:
    r"""Return a document as a line of JSON, which ends with "\n".

    The fields keep their order, so that equal documents have equal lines.

    Raises:
        NotRepresentable: A value has a type that the ledger does not use.
    """
    try:
        return (_ENCODE(document) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise NotRepresentable(str(error)) from None


def from_line(line: bytes) -> Document:
    """Return the document of a line.

    Raises:
        ValueError: The line is not one that `to_line` returns.
    """
    try:
        document = json.loads(line, object_hook=_special, parse_int=Int64)
    except BSONError as error:
        raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError("the line is no JSON object")
    return document


# Any: whatever value the encoder does not know.
def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, ObjectId):
        return {"$oid": str(value)}
    if isinstance(value, datetime):
        text = value.astimezone(UTC).isoformat(timespec="milliseconds")
        return {"$date": text.removesuffix("+00:00") + "Z"}
    if isinstance(value, bytes):
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": "00"}}
    raise TypeError(f"a value has the type {type(value).__name__}")


_ENCODE = json.JSONEncoder(
    default=_value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


# Any: the values of JSON.
def _special(found: dict[str, Any]) -> Any:
    match found:
        case {"$oid": str(text)} if len(found) == 1:
            return ObjectId(text)
        case {"$date": str(text)} if len(found) == 1:
            return datetime.fromisoformat(text)
        case {"$binary": {"base64": str(text), "subType": "00"}} if len(found) == 1:
            return base64.b64decode(text, validate=True)
    return found
