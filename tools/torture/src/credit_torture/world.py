"""The parts that faults affect: mongods, the links to them, and servers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from credit_testing.mongod import MongodProcess, ReplicaSet
from credit_testing.ports import HOST
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from credit_torture.disk import Disk
from credit_torture.links import Links
from credit_torture.servers import Server, Servers

_ASK_MILLISECONDS = 1000


class Impossible(Exception):
    """A fault cannot happen, or did not happen; the message is the reason."""


@dataclass(kw_only=True, slots=True)
class World:
    """All processes.

    Attributes:
        nodes: The mongods.
        links: The proxies in front of them.
        servers: The servers.
        disk: The disk of the last mongod; None: its size is not limited.
        random: Chooses the parts that faults affect.
    """

    nodes: ReplicaSet
    links: Links
    servers: Servers
    disk: Disk | None
    random: Random
    _struck: set[str] = field(default_factory=set)

    @contextmanager
    def claim(self, *names: str) -> Iterator[None]:
        """Reserve parts for one fault.

        Raises:
            Impossible: Another fault affects one of them.
        """
        if struck := self._struck & set(names):
            raise Impossible(f"another fault affected {', '.join(sorted(struck))}")
        self._struck |= set(names)
        try:
            yield
        finally:
            self._struck -= set(names)

    def name(self, node: MongodProcess) -> str:
        """Return the name of a mongod."""
        return f"node {self.nodes.nodes.index(node)}"

    def names(self) -> list[str]:
        """Return the names of all mongods."""
        return [self.name(node) for node in self.nodes.nodes]

    def server(self, *, workers: int = 1) -> Server:
        """Choose a server with at least this many processes."""
        fitting = [server for server in self.servers if server.workers >= workers]
        if not fitting:
            raise Impossible("no server has workers")
        return self.random.choice(fitting)

    async def primary(self) -> MongodProcess:
        """Return the primary.

        Raises:
            Impossible: There is none, or another fault affects it.
        """
        for node in self.nodes.nodes:
            free = node.pid is not None and self.name(node) not in self._struck
            if free and await _is_primary(node):
                return node
        raise Impossible("there was no primary, or another fault affected it")

    async def secondary(self) -> MongodProcess:
        """Choose a mongod that is not the primary."""
        primary = await self.primary()
        return self.random.choice([node for node in self.nodes.nodes if node is not primary])


def processes(
    nodes: Sequence[MongodProcess], servers: Sequence[Server]
) -> Mapping[str, Sequence[int]]:
    """Return the process ids of each part that connects to mongods, and of this process."""
    of_nodes = {
        f"node {number}": [node.pid] if node.pid is not None else []
        for number, node in enumerate(nodes)
    }
    of_servers = {server.name: server.pids() for server in servers}
    return {"credit-torture": [os.getpid()]} | of_nodes | of_servers


async def _is_primary(node: MongodProcess) -> bool:
    client: AsyncMongoClient[dict[str, Any]]
    with suppress(PyMongoError):
        async with AsyncMongoClient(
            HOST,
            node.port,
            directConnection=True,
            serverSelectionTimeoutMS=_ASK_MILLISECONDS,
            socketTimeoutMS=_ASK_MILLISECONDS,
        ) as client:
            return bool((await client.admin.command("hello"))["isWritablePrimary"])
    return False
