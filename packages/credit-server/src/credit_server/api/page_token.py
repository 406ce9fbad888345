"""Page tokens: where the next page of a query begins, bound to the query and its caller.

A token needs no secret. It contains only a position, and the caller's permissions are checked for
each page as for the first one: a forged token returns nothing that a bound in the request would
not. The hash detects tokens that were sent with another request by mistake. Because there is no
secret, a token is valid on every server, also after a restart.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import replace

from credit_models import QueryPurchasesRequest, QueryTransactionsRequest
from credit_models.codec import encode

from credit_server.store.history import FIRST_ID, LAST_ID, Position

# The version of the format, a sequence or a time in milliseconds, an id, and the hash of the query.
_FORMAT = struct.Struct(">BQ12s16s")
_VERSION = 1

# The largest number that the store has.
_NUMBER_MAX = 2**63 - 1

# No id follows this one, so no page begins after it.
_NO_ID = bytes.fromhex(LAST_ID)

HistoryRequest = QueryTransactionsRequest | QueryPurchasesRequest


class PageTokenInvalid(Exception):
    """A page token does not belong to the query or to its caller."""


def make_token(request: HistoryRequest, caller: str, last: int | Position) -> str:
    """Return the token of the page that follows an entry.

    Args:
        request: The request of the page before.
        caller: The name of the identity; empty if there is none.
        last: The sequence of the entry, 0 to 2**63 - 1; its position if the request has no user.
    """
    number, id_ = last if isinstance(last, Position) else (last, FIRST_ID)
    data = _FORMAT.pack(_VERSION, number, bytes.fromhex(id_), _hash(request, caller))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def last_of(request: HistoryRequest, caller: str) -> int | Position:
    """Return the entry after which the page begins: what `make_token` was given.

    Args:
        request: The request; it has a token.
        caller: The name of the identity; empty if there is none.

    Raises:
        PageTokenInvalid: The token was not made for this request and this caller.
    """
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        version, number, id_, found = _FORMAT.unpack(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error, struct.error):
        raise PageTokenInvalid from None
    if version != _VERSION or found != _hash(request, caller) or number > _NUMBER_MAX:
        raise PageTokenInvalid
    if request.user_id is not None:
        return int(number)
    if id_ == _NO_ID:
        raise PageTokenInvalid
    return Position(number, id_.hex())


def _hash(request: HistoryRequest, caller: str) -> bytes:
    bare, pairs = replace(request, page_size=0, page_token=""), ""
    if isinstance(bare, QueryTransactionsRequest):
        # Protobuf does not define the order of a map's pairs in bytes, so the metadata are added
        # separately.
        pairs = repr(sorted(bare.metadata.items()))
        bare = replace(bare, metadata={})
    parts = (type(bare).__name__.encode(), encode(bare), pairs.encode(), caller.encode())
    lengths = b"".join(len(part).to_bytes(4, "big") for part in parts)
    return hashlib.sha256(lengths + b"".join(parts)).digest()[:16]
