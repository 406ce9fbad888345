"""A fake service in a thread of its own, for commands, which have an event loop of their own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from credit_client.testing import FakeCreditService, FakeLedger
from grpclib.events import RecvRequest


class Served:
    """A served `FakeCreditService`, from `with` on.

    Attributes:
        service: The service.
        port: Where it listens.
        authorizations: What the callers sent as such, in their order.
    """

    def __init__(
        self,
        serve: Callable[..., AbstractAsyncContextManager[int]],
        ledger: FakeLedger | None = None,
    ) -> None:
        self.authorizations: list[object] = []
        self.service = FakeCreditService(ledger)
        self._serve = serve
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])

    async def _run(self) -> None:
        async with self._serve(self.service, received=self._note) as self.port:
            self._ready.set()
            await self._stop.wait()

    async def _note(self, event: RecvRequest) -> None:
        if "authorization" in event.metadata:
            self.authorizations.append(event.metadata["authorization"])

    def __enter__(self) -> "Served":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()
