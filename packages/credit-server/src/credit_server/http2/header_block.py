"""Header blocks: decode those of requests, encode those of answers, keep tokens out of logs.

Answers are encoded as HPACK literals that are not indexed. hpack's own encoder looks up each header
in its tables, adds it to them and writes it in Huffman's code, all in Python. Most of an answer's
headers are new each time (a request id, a receipt): they fill the tables with entries that are
never used again. That took an eighth of the processor at full load.
"""

import logging
import re
from collections.abc import Iterable, Sequence

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Decoder, Encoder, HeaderTuple, OversizedHeaderListError
from hpack.exceptions import HPACKError
from hpack.hpack import encode_integer

Header = tuple[bytes, ...]

# A header list is decoded up to this many times its limit, so that its call alone is rejected.
DECODED_FACTOR = 4
# The size of each header beyond its name and value: RFC 9113, section 6.5.2.
ENTRY_BYTES = 32
_KEPT_NAMES = (
    *(b":method", b":scheme", b":path", b":authority"),
    *(b"te", b"content-type", b"user-agent", b"x-request-id"),
)
# The part of a value that is kept of a list that is too long: enough for the answer and the log.
_KEPT_BYTES = 256

# RFC 7541, section 6.1 and appendix A: entry 8 of the static table.
_INDEXED = {(b":status", b"200"): b"\x88"}
# Section 6.2.2: a literal header field without indexing, with a new name.
_LITERAL = b"\x00"

_LOGGERS = ("hpack.hpack", "hpack.table")
# A bytes literal as Python shows it, and all text after it, unless it can only be a header's name.
_BYTES_OF_PEER = re.compile(r"""(?<!\w)b(?!':?[a-z-]{1,30}')['"].*""", re.DOTALL)


class CompressionError(ProtocolError):
    """A header block is not HPACK, so no later block can be read: RFC 9113, section 4.3."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class HeaderDecoder(Decoder):
    """Replaces hpack's decoder in an h2 connection.

    Attributes:
        list_bytes: The size of the latest header list.
        list_bytes_max: The longest list that is returned unchanged. Of a longer one, only the few
            headers that an answer needs are returned. A list of more than `DECODED_FACTOR` times
            as many bytes is an error of the connection: decoding it costs too much, and without
            decoding it HPACK's state is lost.
    """

    def __init__(self, list_bytes_max: int) -> None:
        super().__init__(DECODED_FACTOR * list_bytes_max)
        self.list_bytes = 0
        self.list_bytes_max = list_bytes_max

    def decode(self, data: bytes, raw: bool = False) -> Sequence[HeaderTuple]:
        """Decode a header block.

        Args:
            data: The block.
            raw: Ignored: names and values are bytes, as h2 expects them.

        Raises:
            OversizedHeaderListError: The list is several times too long.
            CompressionError: The block is not HPACK.
        """
        try:
            headers = list(super().decode(data, raw=True))
        except OversizedHeaderListError:
            raise
        except (HPACKError, IndexError, TypeError, ValueError) as error:
            raise CompressionError("a header block is not HPACK") from error
        self.list_bytes = list_bytes(headers)
        return kept(headers) if self.list_bytes > self.list_bytes_max else headers


def list_bytes(headers: Sequence[tuple[bytes, bytes]]) -> int:
    """Return the size of a header list: RFC 9113, section 6.5.2."""
    size = len(headers) * ENTRY_BYTES
    for name, value in headers:
        size += len(name) + len(value)
    return size


def excess(size: int, limit: int) -> str:
    """Return why a header list is rejected for its size in bytes."""
    return f"the request has {size} bytes of headers, and {limit} are allowed"


def kept(headers: Iterable[tuple[bytes, bytes]]) -> list[HeaderTuple]:
    """Return the headers that the answer to a request with too many of them needs."""
    found = dict(headers)
    return [HeaderTuple(name, found[name][:_KEPT_BYTES]) for name in _KEPT_NAMES if name in found]


class LiteralEncoder(Encoder):
    """Replaces hpack's encoder in an h2 connection."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}

    def encode(self, headers: Iterable[Header], huffman: bool = False) -> bytes:  # type: ignore[override] # all that h2 passes
        """Encode a header block.

        Args:
            headers: Names and values. The names are cached: only our own code chooses them, and
                they are few.
            huffman: Ignored: nothing is compressed.
        """
        block = bytearray()
        if self.header_table.resized:
            # Section 4.2: a change of the table's size is acknowledged, though the table is unused.
            block += self._encode_table_size_change()
            self.header_table.resized = False
        for name, value, *_ in headers:
            indexed = _INDEXED.get((name, value))
            if indexed is not None:
                block += indexed
                continue
            prefix = self._names.get(name)
            if prefix is None:
                prefix = self._names[name] = _LITERAL + _string(name)
            block += prefix + _string(value)
        return bytes(block)


def _string(data: bytes) -> bytes:
    """Encode a string literal: section 5.2."""
    return bytes(encode_integer(len(data), 7)) + data


def keep_tokens_out() -> None:
    """Stop hpack's loggers from logging the headers of requests, even at debug.

    It may be called more than once.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_of_sending)


def _is_of_sending(record: logging.LogRecord) -> bool:
    """Return whether a record of hpack is about headers that are sent: answers hold no secret.

    hpack logs a block that it decodes as a whole, header by header, and again when its table evicts
    an entry.
    """
    return record.funcName != "_shrink" and not record.funcName.startswith(("decode", "_decode"))


def without_bytes(error: Exception) -> str:
    """Return the message of an h2 error without the bytes that the client has sent.

    h2 shows the value of a malformed header, such as a token followed by the end of the line that
    it was read from. Names such as `:path` stay.
    """
    sentence = _BYTES_OF_PEER.sub("", str(error)).rstrip(" :")
    # h2 also shows the illegal character: the end of a line would break the log's line.
    return sentence.encode("unicode_escape").decode("ascii")
