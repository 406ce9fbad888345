"""Read accounts from BSON.

To read an account with 256 grants by its model takes 3 ms. A tenth of that is enough if most of its
grants and holds were read before, because they are kept with their bytes (2-core machine).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from credit_models.ledger import Account, AppAccount, Grant, Hold

from credit_server.store.app_documents import GrantDocument, HoldDocument
from credit_server.store.documents import AccountDocument
from credit_server.store.fields import DECODED

# For the cursors that read accounts.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

# The number of grants, and of holds, that are kept with their bytes.
_KEPT_MAX = 1 << 14

# The size in bytes from which it is faster to decode an account with grants or holds part by part.
_LARGE = 1024


@lru_cache(_KEPT_MAX)
def _grant(raw: bytes) -> Grant:
    return GrantDocument.model_validate(bson.decode(raw, DECODED)).to_grant()


@lru_cache(_KEPT_MAX)
def _hold(raw: bytes) -> Hold:
    return HoldDocument.model_validate(bson.decode(raw, DECODED)).to_hold()


# Any: grants or holds.
_ARRAYS: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
    ("grants", _grant),
    ("scheduled", _grant),
    ("holds", _hold),
)


def read_account(raw: RawBSONDocument) -> Account:
    """Return the account of a document.

    Raises:
        pydantic.ValidationError: The document is not valid.
    """
    if len(raw.raw) < _LARGE or b"apps" not in raw.raw:
        return AccountDocument.model_validate(bson.decode(raw.raw, DECODED)).to_account()
    arrays: dict[int, dict[str, tuple[Any, ...]]] = {}
    document = {
        name: [_without_arrays(app, arrays) for app in value]
        if name == "apps" and _are_documents(value)
        else _decoded(value)
        for name, value in raw.items()
    }
    account = AccountDocument.model_validate(document).to_account()
    apps = {
        app_id: AppAccount.of(caps=app.caps, spent=app.spent, alerts=app.alerts, **arrays[app_id])
        for app_id, app in account.apps.items()
    }
    return replace(account, apps=apps)


def _without_arrays(
    app: RawBSONDocument, arrays: dict[int, dict[str, tuple[Any, ...]]]
) -> dict[str, Any]:
    """Return the document of an app without its arrays, which are read and added to `arrays`."""
    fields = dict(app)
    read = arrays.setdefault(fields.get("app_id", 0), {})
    for name, element in _ARRAYS:
        value = fields.get(name)
        # The model rejects what is no array of documents.
        if value and _are_documents(value):
            read[name] = tuple(element(each.raw) for each in value)
            del fields[name]
    return {name: _decoded(value) for name, value in fields.items()}


def _are_documents(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, RawBSONDocument) for each in value)


# Any: a value of BSON.
def _decoded(value: Any) -> Any:
    if isinstance(value, RawBSONDocument):
        return bson.decode(value.raw, DECODED)
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value
