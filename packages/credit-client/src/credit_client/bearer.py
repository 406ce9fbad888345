"""The token that proves who calls: given once, read from a file, or fetched when it is needed.

A token is never part of a message, a repr or a log line, for whoever has it can act as the caller.
"""

import asyncio
import base64
import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from copy import copy
from pathlib import Path
from typing import Protocol, TypeAlias

from credit_client.errors import TokenUnavailable

TokenFetcher: TypeAlias = Callable[[], str | Awaitable[str]]

# What a header may hold (RFC 9110 section 5.5) without the blanks that would end a token.
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TOKEN_RULE = "must be one or more visible ASCII characters, without blanks or line ends"  # noqa: S105

_JWT_PARTS = 3

# A token is fetched anew this long before it expires, or a tenth of its time before where that is
# less: the call still has to travel, and clocks differ.
_EARLY_SECONDS_MAX = 30.0
_EARLY_SHARE = 0.1


class Bearer(Protocol):
    """Where a client's token comes from."""

    async def token(self) -> str:
        """Gives the token for a call.

        Raises:
            TokenUnavailable: There is none.
        """

    def reject(self, token: str) -> None:
        """Learns that the server does not take a token; the next one may be another."""

    def close(self) -> None:
        """Ends what is under way."""


def check_token(text: str) -> str:
    """Gives back a text that can be sent as a token.

    Raises:
        ValueError: It holds what no header may; the message does not repeat it.
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
        """See `Bearer.token`. A blank or line end around the token is not part of it."""
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
        raise TokenUnavailable(f"the token in the file {self._path}: {why}")

    def reject(self, token: str) -> None:
        """See `Bearer.reject`. The file is read again, in case that its time tells no change."""
        if self._read is not None and self._read[1] == token:
            self._read = None

    def close(self) -> None:
        """See `Bearer.close`."""


class FetchedToken:
    """A token that a function of the app gets, kept until it expires or is rejected.

    Calls that need a token at the same time wait for one and the same fetch. It is a task of its
    own: a call that runs out of time leaves it to the others.
    """

    def __init__(self, fetch: TokenFetcher, *, now: Callable[[], float] = time.time) -> None:
        """Fetches nothing yet.

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
            # Each call writes its own request id and idempotency key into its error.
            raise copy(error) from error.__cause__

    def reject(self, token: str) -> None:
        """See `Bearer.reject`. Of calls that were rejected together one alone fetches."""
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
            fetching.exception()  # seen, also where every call that waited for it has left


def _good_until(token: str, now: float) -> float:
    """When to fetch the next token, in seconds since 1970; never for one that tells no end.

    One that seems to have expired already is kept too: either this clock is wrong, or the server
    will say so.
    """
    expires = _expiry(token)
    if expires is None or expires <= now:
        return math.inf
    return expires - min(_EARLY_SECONDS_MAX, _EARLY_SHARE * (expires - now))


def _expiry(token: str) -> float | None:
    """`exp` of a JWT (RFC 7519 section 4.1.4), not verified; None for any other token."""
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(claims["exp"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return expires if math.isfinite(expires) else None
