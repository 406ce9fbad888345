"""Show at a terminal that a command waits for its server; without a notice it seems to hang.

The notice does not change what the command does. Its client retries for some seconds. In this time
a server that was just started or restarted begins to serve: with the embedded MongoDB after about
four seconds.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Self, TypeVar

from credit_client.cli.exits import complain

_RowT = TypeVar("_RowT")

_NOTICE_AFTER_SECONDS = 1.0


class WaitingNotice:
    """Writes a line to standard error, if it is a terminal, while a call has no answer yet."""

    def __init__(self, target: str) -> None:
        self._text = f"credit: waiting for {target}; press Ctrl-C to stop\n"
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if _is_terminal():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_NOTICE_AFTER_SECONDS, complain, self._text)
        return self

    def __exit__(self, *_: object) -> None:
        self.answered()

    async def until_first(self, rows: AsyncGenerator[_RowT, None]) -> AsyncGenerator[_RowT, None]:
        """Yield the rows of a list. No notice is written among them."""
        async with aclosing(rows):
            async for row in rows:
                self.answered()
                yield row

    def answered(self) -> None:
        """Stop the notice, because the server has answered."""
        if self._timer is not None:
            self._timer.cancel()


def _is_terminal() -> bool:
    return sys.stderr.isatty()
