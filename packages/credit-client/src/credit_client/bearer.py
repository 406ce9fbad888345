"""The token that identifies the caller: given once, read from a file, or fetched when needed.

A token is never part of a message, a repr or a log line: with it, anyone can act as the caller.
"""

import asyncio
import base64
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from copy import copy
from pathlib import Path
from typing import Protocol, TypeAlias

from credit_client.errors import TokenUnavailable

TokenFetcher: TypeAlias = Callable[[], str | Awaitable[str]]

# What a header may hold (RFC 9110 section 5.5), without the spaces that would end a token.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TOKEN_RULE = "must be one or more visible ASCII characters, without spaces or line ends"  # noqa: S105

_JWT_PARTS = 3

# The next token is fetched this long before the last one expires, or a tenth of its lifetime
# before, if that is less: the call still has to travel, and clocks differ.
_EARLY_SECONDS_MAX = 30.0
_EARLY_SHARE = 0.1

_HPACK_LOGGERS = ("hpack.hpack", "hpack.table")


class Bearer(Protocol):
    """The source of a client's token."""

    async def token(self) -> str:
        """Return the token for a call.

        Raises:
            TokenUnavailable: There is none.
        """

    def reject(self, token: str) -> None:
        """Drop a token that the server has rejected; the next one may be another."""

    def close(self) -> None:
        """End a fetch that is under way."""


def check_token(text: str) -> str:
    """Return a text that can be sent as a token.

    Raises:
        ValueError: It holds characters that no header may hold; the message does not repeat it.
    """
    if not isinstance(text, str) or _TOKEN.fullmatch(text) is None:
        raise ValueError(_TOKEN_RULE)
    return text


class FixedToken:
    """A token that never changes."""

    def __init__(self, token: str) -> None:
        self._token = check_token(token)

    async def token(self) -> str:
        """See `Bearer.token`."""
        return self._token

    def reject(self, token: str) -> None:
        """See `Bearer.reject`. There is no other token."""

    def close(self) -> None:
        """See `Bearer.close`."""


class FileToken:
    """A token in a file, read again whenever the file has changed, as mounted secrets do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], str] | None = None

    async def token(self) -> str:
        """See `Bearer.token`. A space or line end around the token is not part of it."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._read is None or self._read[0] != version:
                self._read = version, check_token(self._path.read_text("utf-8").strip())
            return self._read[1]
        except OSError as error:
            why = error.strerror or str(error)
        except UnicodeDecodeError:
            why = _TOKEN_RULE  # the error itself holds the file's bytes
        except ValueError as error:
            why = str(error)
        raise TokenUnavailable(f"the token cannot be read from the file {self._path}: {why}")

    def reject(self, token: str) -> None:
        """See `Bearer.reject`. The file is read again: its time may not show a change."""
        if self._read is not None and self._read[1] == token:
            self._read = None

    def close(self) -> None:
        """See `Bearer.close`."""


class FetchedToken:
    """A token that a function of the app returns, kept until it expires or is rejected.

    Calls that need a token at the same time share one fetch. It is a task of its own: a call that
    runs out of time leaves it to the other calls.
    """

    def __init__(self, fetch: TokenFetcher, *, now: Callable[[], float] = time.time) -> None:
        """Fetch nothing yet.

        Args:
            fetch: Returns a token, or an awaitable of one.
            now: The time in seconds since 1970, as `exp` of a JWT counts it.
        """
        self._fetch = fetch
        self._now = now
        self._token: str | None = None
        self._good_until = math.inf
        self._fetching: asyncio.Task[str] | None = None

    async def token(self) -> str:
        """See `Bearer.token`."""
        if self._token is not None and self._now() < self._good_until:
            return self._token
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._fetched())
            self._fetching.add_done_callback(self._done)
        fetching = self._fetching
        await asyncio.wait([fetching])
        if fetching.cancelled():
            raise TokenUnavailable("the token could not be fetched: it was cancelled")
        try:
            return fetching.result()
        except TokenUnavailable as error:
            # Each call adds its own request id and idempotency key to its error.
            raise copy(error) from error.__cause__

    def reject(self, token: str) -> None:
        """See `Bearer.reject`. Calls that were rejected together share one fetch."""
        if self._token == token:
            self._token = None

    def close(self) -> None:
        """See `Bearer.close`."""
        if self._fetching is not None:
            self._fetching.cancel()

    async def _fetched(self) -> str:
        try:
            fetched = self._fetch()
            token = fetched if isinstance(fetched, str) else await fetched
        except Exception as error:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise TokenUnavailable(f"the token could not be fetched: {why}") from error
        try:
            self._token = check_token(token)
        except ValueError as error:
            raise TokenUnavailable(f"the token that was fetched {error}") from None
        self._good_until = _good_until(token, self._now())
        return token

    def _done(self, fetching: asyncio.Task[str]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()  # retrieved, also where every call that waited has ended


def _good_until(token: str, now: float) -> float:
    """Return when to fetch the next token, in seconds since 1970; infinity without an expiry.

    A token that seems to have expired already is kept too: either this clock is wrong, or the
    server rejects the token.
    """
    expires = _expiry(token)
    if expires is None or expires <= now:
        return math.inf
    return expires - min(_EARLY_SECONDS_MAX, _EARLY_SHARE * (expires - now))


def _expiry(token: str) -> float | None:
    """Return `exp` of a JWT (RFC 7519 section 4.1.4), not verified; None for any other token."""
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(claims["exp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return expires if math.isfinite(expires) else None


class _WithoutTokens(logging.Filter):
    """Drops records that name `authorization`, and whole header blocks: they can be decoded."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.funcName == "encode":
            return False
        return not isinstance(record.args, tuple) or b"authorization" not in record.args


_WITHOUT_TOKENS = _WithoutTokens()


def keep_tokens_out_of_logs() -> None:
    """Filter hpack's debug log, which shows every header that is sent. May be called again.

    Marking `authorization` as sensitive (RFC 7541 section 7.1.3) would do it too, but such a header
    is sent in full with each call, and hpack codes Huffman's bits in Python: for a token of 700
    bytes client and server together took 1.03 ms of CPU per call instead of 0.64; indexed they take
    0.67. The attack behind that rule guesses short secrets by the size of what is sent; a signed
    token is too long to guess.
    """
    for name in _HPACK_LOGGERS:
        logging.getLogger(name).addFilter(_WITHOUT_TOKENS)
