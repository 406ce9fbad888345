"""The surface of the asynchronous client over the synchronous one, for the suite of both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from credit_client import ClientSettings
from credit_client.sync.testing import fake_credits
from credit_client.testing import FakeCreditService

LISTS = {
    "purchases",
    "transactions",
    "holds",
    "watch",
    "alert_events",
    "watch_alerts",
    "dead_letters",
}
WITHOUT_CALL = {"new_key"}


# Any, in this file: the wrapped objects have the methods of the asynchronous ones, by their names.
class OverSync:
    """A synchronous client whose methods are awaited: each runs in a thread of its own."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if name in LISTS:
            return partial(_rows, attribute)
        if name == "hold":
            return lambda **values: _Pending(partial(attribute, **values))
        if name == "hold_of":
            return lambda **values: OverSync(attribute(**values))
        if name == "batch":
            return lambda **values: _Batch(attribute(**values))
        if not callable(attribute) or name in WITHOUT_CALL:
            return attribute
        return partial(asyncio.to_thread, attribute)

    async def __aenter__(self) -> Any:
        await asyncio.to_thread(self._wrapped.__enter__)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await asyncio.to_thread(self._wrapped.__exit__, *raised)


class _Batch(OverSync):
    """A batch: only what sends it is awaited."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        return partial(asyncio.to_thread, attribute) if name == "send" else attribute

    def __len__(self) -> int:
        return len(self._wrapped)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._wrapped)


class _Pending:
    def __init__(self, place: Callable[[], Any]) -> None:
        self._place = place

    async def _placed(self) -> OverSync:
        return OverSync(await asyncio.to_thread(self._place))

    def __await__(self) -> Generator[Any, Any, OverSync]:
        return self._placed().__await__()

    async def __aenter__(self) -> OverSync:
        self._hold = await self._placed()
        return self._hold

    async def __aexit__(self, *raised: Any) -> None:
        await self._hold.__aexit__(*raised)


async def _rows(read: Callable[..., Any], **values: Any) -> AsyncIterator[Any]:
    rows = read(**values)
    while (row := await asyncio.to_thread(next, rows, None)) is not None:
        yield row


@asynccontextmanager
async def sync_credits(
    service: FakeCreditService, settings: ClientSettings
) -> AsyncIterator[OverSync]:
    """Open a synchronous client of a fake service."""
    opening = fake_credits(service, settings=settings)
    client = await asyncio.to_thread(opening.__enter__)
    try:
        yield OverSync(client)
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)
