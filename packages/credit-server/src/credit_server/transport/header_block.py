"""Writes the headers of answers, as HPACK literals that nothing remembers.

hpack's own encoder looks every header up in its tables, remembers it and writes it in Huffman's
code, all in Python. Most of an answer's headers are new each time (a request id, a receipt): they
fill the tables with what never comes again. It took an eighth of the processor at full load.
"""

from collections.abc import Iterable

from hpack import Encoder
from hpack.hpack import encode_integer

Header = tuple[bytes, ...]

# RFC 7541, section 6.1 and appendix A: entry 8 of the static table.
_INDEXED = {(b":status", b"200"): b"\x88"}
# Section 6.2.2: a literal header field without indexing, with a new name.
_LITERAL = b"\x00"


class LiteralEncoder(Encoder):
    """Takes the place of hpack's encoder in an h2 connection."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}

    def encode(self, headers: Iterable[Header], huffman: bool = False) -> bytes:  # type: ignore[override] # all that h2 passes
        """Write a header block.

        Args:
            headers: Names and values; names are those of our own code, a few.
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
    """Write a string literal: section 5.2."""
    return bytes(encode_integer(len(data), 7)) + data
