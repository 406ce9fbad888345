"""The event loop and the process that an open client belongs to."""

import asyncio
import os


class Home:
    """Remembers where a client was opened, and rejects its use anywhere else.

    Connections, timers and waiting calls belong to one event loop; its objects are not safe to use
    from another thread, and a forked process shares the sockets with its parent.
    """

    def __init__(self) -> None:
        """Remember the running event loop and this process.

        Raises:
            RuntimeError: No event loop is running.
        """
        self._loop = asyncio.get_running_loop()
        self._process = os.getpid()

    def check(self) -> None:
        """Do nothing where the client was opened.

        Raises:
            RuntimeError: The client is used elsewhere. Nothing was sent.
        """
        process = os.getpid()
        if process != self._process:
            raise RuntimeError(
                f"this client was opened in process {self._process}, and this is process {process}:"
                " connections cannot be shared after a fork, and nothing was sent. Open a client"
                " in each process, after the fork"
            )
        # `_get_running_loop` is what asyncio's own frameworks use where there may be none.
        running = asyncio._get_running_loop()  # noqa: SLF001
        if running is self._loop:
            return
        if self._loop.is_closed():
            raise RuntimeError(
                "this client was opened in an event loop that is closed, and its connections ended"
                " with that loop; nothing was sent. Open a client inside each event loop:"
                " `async with CreditClient(…)` within what asyncio.run() runs"
            )
        raise RuntimeError(
            "this client was opened in another event loop, and nothing was sent. Open one client"
            " per event loop, or hand the call to the client's loop:"
            " asyncio.run_coroutine_threadsafe(client.balance(…), loop)"
        )
