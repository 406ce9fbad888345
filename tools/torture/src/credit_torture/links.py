"""Proxies in front of the mongods, which cut the network between any two processes.

Each mongod's host in the configuration of the replica set is a proxy, so the other mongods and the
servers reach it only through that proxy. A cut link passes no bytes and keeps its connections open,
like a network that loses every packet. A new connection over a cut link is opened, but gets no
answer. When the link is restored, the bytes that were sent during the cut arrive.
"""

import asyncio
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from credit_testing.ports import HOST, lasting_port

_CHUNK_BYTES = 2**16
_POLL_SECONDS = 0.05
_RESOLVE_ATTEMPTS = 40
_ENDED = "ended"

Link = tuple[str, str]
"""The name of the process that connects, and that of the mongod that it connects to."""
Processes = Callable[[], Mapping[str, Collection[int]]]
"""Returns the process ids behind each name."""
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection through a proxy; `owner` is "" until it is known which process opened it."""

    port: int
    proxy: int
    target: str
    owner: str = ""


@dataclass(eq=False, slots=True)
class _Cut:
    """Links that are cut together; `held` is whether anything was sent over them during the cut."""

    links: Collection[Link]
    held: bool = False


class NotCut(Exception):
    """A cut had no effect, or possibly had none; the message is the reason."""


class Links:
    """The proxies of all mongods."""

    def __init__(self, processes: Processes) -> None:
        """Prepare, without opening a proxy.

        Args:
            processes: Returns the processes that connect; it is called for each new connection, and
                for the connections whose process was unknown when a cut begins.
        """
        self._processes = processes
        self._targets: dict[int, int] = {}
        self._cuts: list[_Cut] = []
        self._open: set[_Connection] = set()
        self._sought: list[_Connection] = []
        self._searching = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    def advertise(self, target: int) -> int:
        """Reserve the proxy of a mongod's port, and return the proxy's port."""
        port = lasting_port()
        self._targets[port] = target
        return port

    async def __aenter__(self) -> Self:
        """Open the proxies."""
        for number, (port, target) in enumerate(self._targets.items()):
            server = await asyncio.start_server(self._handler(f"node {number}", target), HOST, port)
            self._stack.callback(server.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the proxies and their connections."""
        await self._stack.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def cut(self, links: Iterable[Link]) -> AsyncIterator[None]:
        """Cut links for the duration of the context.

        Raises:
            NotCut: When the context begins: the process of a connection is unknown, so the cut may
                not affect it. When it ends: nothing was sent over the links.
        """
        await self._resolve()
        cut = _Cut(list(links))
        self._cuts.append(cut)
        try:
            yield
        finally:
            self._cuts.remove(cut)
        if not cut.held:
            raise NotCut("nothing was sent over the links that were cut")

    async def _resolve(self) -> None:
        """Find the processes of the connections that were opened before they were known."""
        for _ in range(_RESOLVE_ATTEMPTS):
            unowned = [each for each in self._open if not each.owner]
            if not unowned:
                return
            await asyncio.gather(*map(self._find_owner, unowned))
            await asyncio.sleep(_POLL_SECONDS)  # a process that has just ended may be listed
        raise NotCut("no known process had opened a connection")

    async def _find_owner(self, connection: _Connection) -> None:
        """Find the process of a connection.

        A search reads all descriptors of all processes. Connections that open during a search share
        the next one. A search for each connection used all CPU time when mongods and servers
        connected often.
        """
        self._sought.append(connection)
        async with self._searching:
            if connection in self._sought:
                sought, self._sought = self._sought, []
                # In a thread: the loop carries the bytes of all links.
                await asyncio.to_thread(_find_owners, sought, self._processes)

    def _handler(self, name: str, target: int) -> _Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer, name, target)
            writer.transport.abort()

        return serve

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, target: int
    ) -> None:
        _, port = writer.get_extra_info("peername")
        _, proxy = writer.get_extra_info("sockname")
        connection = _Connection(port, proxy, name)
        await self._find_owner(connection)
        there_reader, there = await asyncio.open_connection(HOST, target)
        self._open.add(connection)
        passing = [
            asyncio.create_task(self._pass(connection, reader, there)),
            asyncio.create_task(self._pass(connection, there_reader, writer)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(connection)
            there.transport.abort()  # first: the wait can be cancelled
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._restored(connection)
            writer.write(data)
            await writer.drain()
        await self._restored(connection)  # a cut link passes no end of a connection

    async def _restored(self, connection: _Connection) -> None:
        link = connection.owner, connection.target
        while cuts := [cut for cut in self._cuts if link in cut.links]:
            for cut in cuts:
                cut.held = True
            await asyncio.sleep(_POLL_SECONDS)


def _find_owners(connections: Collection[_Connection], processes: Processes) -> None:
    """Set the owner of each connection.

    The owner stays "" if it is unknown, and is `_ENDED` if no process has the socket any longer.
    """
    ends = {(f"{each.port:04X}", f"{each.proxy:04X}"): each for each in connections}
    wanted: dict[str, _Connection] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local, remote, more = line.split(maxsplit=3)
        # Two sockets may have the same local port and different destinations.
        if found := ends.get((local[-4:], remote[-4:])):
            wanted[f"socket:[{more.split()[6]}]"] = found
    wanted.pop("socket:[0]", None)
    for connection in connections:
        if connection not in wanted.values():
            connection.owner = _ENDED
    for name, pids in processes().items():
        for pid in pids:
            if not wanted:
                return
            for descriptor in _descriptors(pid):
                if found := wanted.pop(descriptor, None):
                    found.owner = name


def _descriptors(pid: int) -> Iterator[str]:
    """Yield the target of each descriptor of a process.

    The code uses strings, because `Path` objects take five times as long.
    """
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for number in os.listdir(folder):  # noqa: PTH208
            with suppress(OSError):
                yield os.readlink(f"{folder}/{number}")  # noqa: PTH115
