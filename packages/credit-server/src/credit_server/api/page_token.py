"""Page tokens: where the next page of a query begins, bound to the query and its caller.

A token needs no secret. It contains only a `sequence`, and the caller's permissions are checked for
each page as for the first one: a forged token returns nothing that `after_sequence` would not. The
hash detects tokens that were sent with another request by mistake. Because there is no secret, a
token is valid on every server, also after a restart.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import replace

from credit_models import QueryTransactionsRequest
from credit_models.codec import encode

# The version of the format, the sequence, and the hash of the query.
_FORMAT = struct.Struct(">BQ16s")
_VERSION = 1

# The largest `sequence` that the store has.
_SEQUENCE_MAX = 2**63 - 1


class PageTokenInvalid(Exception):
    """A page token does not belong to the query or to its caller."""


def make_token(request: QueryTransactionsRequest, caller: str, sequence: int) -> str:
    """Return the token of the page that follows a sequence.

    Args:
        request: The request of the page before.
        caller: The name of the identity; empty if there is none.
        sequence: The sequence after which the page begins, 0 to 2**63 - 1.
    """
    data = _FORMAT.pack(_VERSION, sequence, _hash(request, caller))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sequence_of(request: QueryTransactionsRequest, caller: str) -> int:
    """Return the sequence in the token of a request.

    Args:
        request: The request; it has a token.
        caller: The name of the identity; empty if there is none.

    Raises:
        PageTokenInvalid: The token was not made for this request and this caller.
    """
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        version, sequence, found = _FORMAT.unpack(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error, struct.error):
        raise PageTokenInvalid from None
    if version != _VERSION or found != _hash(request, caller) or sequence > _SEQUENCE_MAX:
        raise PageTokenInvalid
    return int(sequence)


def _hash(request: QueryTransactionsRequest, caller: str) -> bytes:
    # Protobuf does not define the order of a map's pairs in bytes, so the metadata are added
    # separately.
    bare = replace(request, page_size=0, page_token="", metadata={})
    pairs = repr(sorted(request.metadata.items()))
    parts = (encode(bare), pairs.encode(), caller.encode())
    lengths = b"".join(len(part).to_bytes(4, "big") for part in parts)
    return hashlib.sha256(lengths + b"".join(parts)).digest()[:16]
