"""Keeps clients' tokens out of logs: hpack's at debug, and what h2 says of a malformed header."""

import logging
import re

_LOGGERS = ("hpack.hpack", "hpack.table")

# Bytes as Python shows them, and all that follows, unless they can be nothing but a header's name.
_BYTES_OF_PEER = re.compile(r"""(?<!\w)b(?!':?[a-z-]{1,30}')['"].*""", re.DOTALL)


def _is_of_sending(record: logging.LogRecord) -> bool:
    """Let pass what hpack logs of headers that are sent: answers hold no secret.

    It logs what it reads as a whole block, header by header, and again when its table forgets one.
    """
    return record.funcName != "_shrink" and not record.funcName.startswith(("decode", "_decode"))


def keep_tokens_out() -> None:
    """Set hpack's loggers up; may be called again."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_is_of_sending)


def without_bytes(error: Exception) -> str:
    """Return what h2 says is wrong, without the bytes that its peer has sent.

    A token with the end of the line that it was read from is such a header: h2 shows the value.
    Names such as `:path` stay.
    """
    sentence = _BYTES_OF_PEER.sub("", str(error)).rstrip(" :")
    # The character that must not be there is named too: a line's end would break the log's line.
    return sentence.encode("unicode_escape").decode("ascii")
