"""Watch a user or an app with the SDK, and record the events."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

from credit_client.call import Caller
from credit_client.errors import CreditError

from credit_torture.record import Recorder, message_line

_PAUSE_SECONDS = 0.1


class Watcher:
    """One watch. The SDK continues it on a new connection whenever the connection breaks.

    Attributes:
        begun: Set when the first event has arrived. Entries that are requested later must arrive.
    """

    def __init__(self, caller: Caller, path: Path, scope: Mapping[str, int]) -> None:
        """Begin to watch.

        Args:
            caller: Makes the call.
            path: The file of the events.
            scope: `user_id` or `app_id`.
        """
        self.begun = asyncio.Event()
        self._caller = caller
        self._scope = dict(scope)
        self._recorder = Recorder(path)
        self._latest: Counter[int] = Counter()
        self._arrived = asyncio.Condition()
        self._failed = False
        self._task = asyncio.create_task(self._run())

    async def close(self, acknowledged: Mapping[int, int]) -> None:
        """Wait until the acknowledged entries have arrived, and end the watch.

        This only waits for the last entries. The check finds lost entries later.

        Args:
            acknowledged: The `sequence` of the last entry that must arrive, by user.
        """
        user = self._scope.get("user_id")
        required = {each: last for each, last in acknowledged.items() if user in (None, each)}
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._failed or self._has(required))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._recorder.write({"closed": time.monotonic_ns(), "required": list(required.items())})
        self._recorder.close()

    def _has(self, required: Mapping[int, int]) -> bool:
        return all(self._latest[user] >= last for user, last in required.items())

    async def _run(self) -> None:
        while not self._failed:
            try:
                await self._follow()
            except CreditError as error:
                if self.begun.is_set():
                    self._recorder.write({"failed": repr(error)})
                    async with self._arrived:
                        self._failed = True
                        self._arrived.notify_all()
                await asyncio.sleep(_PAUSE_SECONDS)  # an app must retry before the first event

    async def _follow(self) -> None:
        revision = 0
        async with aclosing(self._caller.watch(dict(self._scope), progress=True)) as events:
            async for event in events:
                if event.snapshot is not None:
                    revision = event.snapshot.revision
                if not self.begun.is_set():
                    began = {"began": time.monotonic_ns(), "revision": revision}
                    self._recorder.write({"scope": self._scope, **began})
                    self.begun.set()
                if event.transaction is not None:
                    entry = event.transaction
                    self._recorder.write({"entry": message_line(entry)})
                    self._latest[entry.user_id] = max(self._latest[entry.user_id], entry.sequence)
                    async with self._arrived:
                        self._arrived.notify_all()
