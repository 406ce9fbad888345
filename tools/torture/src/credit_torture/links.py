"""Proxies in front of the mongods, which cut the network between any two processes.

Each mongod's host in the configuration of the replica set is a proxy, so the other mongods and the
servers reach it only through that proxy. A cut link passes no bytes and keeps its connections open,
like a network that loses every packet. A new connection over a cut link is opened, but gets no
answer. When the link is restored, the bytes that were sent during the cut arrive.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from credit_testing.ports import HOST, lasting_port

_CHUNK_BYTES = 2**16
_POLL_SECONDS = 0.05

Link = tuple[str, str]
"""The name of the process that connects, and that of the mongod that it connects to."""
Processes = Callable[[], Mapping[str, Collection[int]]]
"""Returns the process ids behind each name."""
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Links:
    """The proxies of all mongods."""

    def __init__(self, processes: Processes) -> None:
        """Prepare, without opening a proxy.

        Args:
            processes: Returns the processes that connect; it is called for each new connection.
        """
        self._processes = processes
        self._targets: dict[int, int] = {}
        self._cuts: list[Link] = []
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

    @contextmanager
    def cut(self, links: Iterable[Link]) -> Iterator[None]:
        """Cut links for the duration of the context."""
        cuts = list(links)
        self._cuts += cuts
        try:
            yield
        finally:
            for link in cuts:
                self._cuts.remove(link)

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
        link = self._owner(port), name
        there_reader, there = await asyncio.open_connection(HOST, target)
        passing = [
            asyncio.create_task(self._pass(link, reader, there)),
            asyncio.create_task(self._pass(link, there_reader, writer)),
        ]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.transport.abort()  # first: the wait can be cancelled
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._restored(link)
            writer.write(data)
            await writer.drain()
        await self._restored(link)  # a cut link passes no end of a connection

    async def _restored(self, link: Link) -> None:
        while link in self._cuts:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(_POLL_SECONDS)

    def _owner(self, port: int) -> str:
        """Return the name of the process that has connected from a port; "" if it is unknown."""
        inode = _inode(port)
        for name, pids in self._processes().items():
            if inode and any(_has_socket(pid, inode) for pid in pids):
                return name
        return ""


def _inode(port: int) -> str:
    """Return the number of the socket that is bound to a local port and connected."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *more = line.split()
        if int(local.rpartition(":")[2], 16) == port and not remote.endswith(":0000"):
            return more[6]
    return ""


def _has_socket(pid: int, inode: str) -> bool:
    wanted = f"socket:[{inode}]"
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(entry.readlink()) == wanted:
                    return True
    return False
