"""Random writes, disconnects and slow readers: each watcher's record equals the history.

Two servers share a store, and each has a hub. The watchers move between them.
"""

import asyncio
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from credit_models import WatchResponse
from credit_server.api import watch, watch_hub
from credit_server.store.memory import MemoryStore
from credit_testing.http2_client import Connection

from tests.server.callers import WireCaller
from tests.server.serving import Serving, serving
from tests.server.watching import begin

USERS, APPS = (1, 2, 3), (1, 2)
SCOPES = (
    {"user_id": 1},
    {"user_id": 2},
    {"user_id": 1, "app_id": 2},
    {"app_id": 1},
    {"app_id": 2},
)
WRITES = 120


class Watcher:
    """Reads one stream after another, each from where the one before has ended."""

    def __init__(self, scope: dict[str, Any], servers: list[Serving], draw: Random) -> None:
        self.record: list[tuple[int, int]] = []
        self._scope = scope
        self._servers = servers
        self._draw = draw
        self._token = ""

    async def run(self, written: asyncio.Event) -> None:
        while not written.is_set():
            await self._read(self._draw.randrange(1, 12), window=self._draw.choice([None, 100]))
        await self._read(0, window=None)

    async def _read(self, number: int, *, window: int | None) -> None:
        """Read a stream: so many events, or for 0 all that were written."""
        server = self._draw.choice(self._servers)
        async with Connection.connect(server.port, window=window) as wire:
            watched = await begin(
                WireCaller(wire),
                resume_token=self._token,
                progress_seconds=1,
                end_when_current=number == 0,
                **self._scope,
            )
            if number == 0:
                await watched.ended()
            while number and len(watched.events) < number:
                watched.answer.changed.clear()
                if window is not None:
                    wire.grow(watched.stream, self._draw.randrange(1, 400))
                await watched.answer.changed.wait()
            for event in watched.events:
                self._note(event)

    def _note(self, event: WatchResponse) -> None:
        self._token = event.resume_token
        if event.transaction is not None:
            self.record.append((event.transaction.user_id, event.transaction.sequence))


async def write(servers: list[Serving], draw: Random) -> None:
    async with AsyncExitStack() as stack:
        callers = [
            WireCaller(await stack.enter_async_context(Connection.connect(server.port)))
            for server in servers
        ]
        for _ in range(WRITES // 4):
            await asyncio.gather(
                *(
                    draw.choice(callers).write(
                        "AddCredits", user_id=draw.choice(USERS), app_id=draw.choice(APPS)
                    )
                    for _ in range(4)
                )
            )


async def test_each_record_equals_the_history(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "_WAITING_MAX", 3)
    monkeypatch.setattr(watch, "_PAGE_SIZE", 2)
    draw, store = Random(seed), MemoryStore(page_size=3)
    written = asyncio.Event()
    async with serving(store) as one, serving(store) as two:
        servers = [one, two]
        watchers = [Watcher(scope, servers, Random(draw.random())) for scope in SCOPES]
        # Each stream has begun before the first write: the history then is all of its record.
        for watcher in watchers:
            await watcher._read(1, window=None)
        reading = asyncio.gather(*(watcher.run(written) for watcher in watchers))
        await write(servers, draw)
        written.set()
        await reading
    for scope, watcher in zip(SCOPES, watchers, strict=True):
        assert watcher.record == [
            (each.user_id, each.sequence)
            for each in store._tables.log
            if scope.get("user_id") in (None, each.user_id)
            and scope.get("app_id") in (None, each.app_id)
        ]
        assert watcher.record
