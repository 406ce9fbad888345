"""The faults: each is a context in which a part is broken, and after which it works again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from credit_testing.mongod import MongodProcess
from pymongo.errors import OperationFailure, PyMongoError

from credit_torture.world import Impossible, World

FULL_DISK = "full disk of a mongod"
"""The name of the only fault that needs a disk of limited size."""

Fault = Callable[[World], AbstractAsyncContextManager[str]]
"""Begins a fault. The context yields the affected part. If the fault has no effect, the context
raises `Impossible` or `NotCut` when it begins or ends."""

_ALLOWED_SECONDS, _WRONG_SECONDS = 1.5, 3600.0
"""How far clocks are moved: within the limit of 2 s, and beyond it."""
_POLL_SECONDS = 0.05
_SUCCESSOR_SECONDS = 60.0
_CHECKPOINT_SECONDS = 1.0
_EXIT_SECONDS = 60.0
"""How long a mongod may run on a full disk before it writes and exits."""


@asynccontextmanager
async def kill_server(world: World) -> AsyncIterator[str]:
    """Kill a server with all its processes, and start it again."""
    server = world.server()
    with world.claim(server.name):
        server.send(signal.SIGKILL)
        await server.end(signal.SIGKILL)
        yield server.name
        await server.start_again()


@asynccontextmanager
async def restart_server(world: World) -> AsyncIterator[str]:
    """Stop a server gracefully, and start it again."""
    server = world.server()
    with world.claim(server.name):
        await server.end(signal.SIGTERM)
        yield server.name
        await server.start_again()


@asynccontextmanager
async def restart_workers(world: World) -> AsyncIterator[str]:
    """Make a server replace its workers one after the other."""
    server = world.server(workers=2)
    with world.claim(server.name):
        assert server.process is not None
        before = set(server.pids())
        server.process.send(signal.SIGHUP)
        try:
            async with asyncio.timeout(_SUCCESSOR_SECONDS):
                while set(server.pids()) <= before:  # noqa: ASYNC110 - a poll
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise Impossible("no new worker was seen") from None
        yield server.name


@asynccontextmanager
async def kill_worker(world: World) -> AsyncIterator[str]:
    """Kill one process of a server, which the server replaces."""
    server = world.server(workers=2)
    with world.claim(server.name):
        _send(_worker(world, server.pids()), signal.SIGKILL)
        yield server.name


@asynccontextmanager
async def stop_worker(world: World) -> AsyncIterator[str]:
    """Suspend one process of a server."""
    server = world.server(workers=2)
    with world.claim(server.name):
        worker = _worker(world, server.pids())
        _send(worker, signal.SIGSTOP)
        yield server.name
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


@asynccontextmanager
async def stop_server(world: World) -> AsyncIterator[str]:
    """Suspend all processes of a server."""
    server = world.server()
    with world.claim(server.name):
        server.send(signal.SIGSTOP)
        yield server.name
        server.send(signal.SIGCONT)


@asynccontextmanager
async def move_clock(world: World) -> AsyncIterator[str]:
    """Move the clock of a server within the limit."""
    async with _moved(world, world.random.uniform(-_ALLOWED_SECONDS, _ALLOWED_SECONDS)) as name:
        yield name


@asynccontextmanager
async def break_clock(world: World) -> AsyncIterator[str]:
    """Move the clock of a server by an hour."""
    async with _moved(world, world.random.choice((-1, 1)) * _WRONG_SECONDS) as name:
        yield name


@asynccontextmanager
async def _moved(world: World, seconds: float) -> AsyncIterator[str]:
    server = world.server()
    with world.claim(server.name):
        server.clock.move(seconds)
        yield f"{server.name} by {seconds:.1f} s"
        server.clock.move(0)


@asynccontextmanager
async def kill_primary(world: World) -> AsyncIterator[str]:
    """Kill the primary, and start it again."""
    async with _killed(world, await world.primary()) as name:
        yield name


@asynccontextmanager
async def kill_secondary(world: World) -> AsyncIterator[str]:
    """Kill a secondary, and start it again."""
    async with _killed(world, await world.secondary()) as name:
        yield name


@asynccontextmanager
async def _killed(world: World, node: MongodProcess) -> AsyncIterator[str]:
    with world.claim(world.name(node)):
        await node.end(signal.SIGKILL)
        yield world.name(node)
        node.launch()


@asynccontextmanager
async def stop_primary(world: World) -> AsyncIterator[str]:
    """Suspend the primary. When it continues, it first acts as the primary."""
    async with _stopped(world, await world.primary()) as name:
        yield name


@asynccontextmanager
async def stop_secondary(world: World) -> AsyncIterator[str]:
    """Suspend a secondary."""
    async with _stopped(world, await world.secondary()) as name:
        yield name


@asynccontextmanager
async def _stopped(world: World, node: MongodProcess) -> AsyncIterator[str]:
    with world.claim(world.name(node)):
        node.send(signal.SIGSTOP)
        yield world.name(node)
        node.send(signal.SIGCONT)


@asynccontextmanager
async def step_down(world: World) -> AsyncIterator[str]:
    """Make the primary step down."""
    node = await world.primary()
    with world.claim(world.name(node)):
        try:
            await node.step_down()
        except OperationFailure as error:
            reason = (error.details or {}).get("codeName", error.code)
            raise Impossible(f"the primary rejected it: {reason}") from error
        yield world.name(node)


@asynccontextmanager
async def restart_mongods(world: World) -> AsyncIterator[str]:
    """Kill all mongods at once, and start them again."""
    with world.claim(*world.names()):
        await asyncio.gather(*(node.end(signal.SIGKILL) for node in world.nodes.nodes))
        yield "all nodes"
        for node in world.nodes.nodes:
            node.launch()


@asynccontextmanager
async def cut_primary_from_nodes(world: World) -> AsyncIterator[str]:
    """Cut the primary off from the other mongods; servers still reach it."""
    async with _cut_off(world, await world.primary(), servers=False) as name:
        yield name


@asynccontextmanager
async def cut_primary_from_all(world: World) -> AsyncIterator[str]:
    """Cut the primary off from mongods and servers."""
    async with _cut_off(world, await world.primary(), servers=True) as name:
        yield name


@asynccontextmanager
async def cut_secondary(world: World) -> AsyncIterator[str]:
    """Cut a secondary off from the other mongods."""
    async with _cut_off(world, await world.secondary(), servers=False) as name:
        yield name


@asynccontextmanager
async def _cut_off(world: World, node: MongodProcess, *, servers: bool) -> AsyncIterator[str]:
    name = world.name(node)
    others = [other for other in world.names() if other != name]
    reaching = [*others, *(server.name for server in world.servers)] if servers else others
    links = [(name, other) for other in others] + [(other, name) for other in reaching]
    with world.claim(name):
        async with world.links.cut(links):
            yield name


@asynccontextmanager
async def cut_one_link(world: World) -> AsyncIterator[str]:
    """Cut the link between the primary and one other mongod, in one direction or both."""
    primary, other = await world.primary(), await world.secondary()
    if primary is other:
        raise Impossible("the primary changed in the meantime")
    there = world.name(primary), world.name(other)
    back = there[1], there[0]
    links = world.random.choice(([there], [back], [there, back]))
    with world.claim(*there):
        async with world.links.cut(links):
            yield ", ".join(" to ".join(link) for link in links)


@asynccontextmanager
async def cut_server_from_primary(world: World) -> AsyncIterator[str]:
    """Cut the link from a server to the primary."""
    server, primary = world.server(), world.name(await world.primary())
    with world.claim(server.name):
        async with world.links.cut([(server.name, primary)]):
            yield f"{server.name} to {primary}"


@asynccontextmanager
async def fill_disk(world: World) -> AsyncIterator[str]:
    """Fill the disk of a mongod until a write makes it exit. Then free the space and start it."""
    node, disk = world.nodes.nodes[-1], world.disk
    assert disk is not None
    with world.claim(world.name(node)):
        try:
            await asyncio.to_thread(disk.fill)
            async with asyncio.timeout(_EXIT_SECONDS):
                while node.pid is not None:
                    with suppress(PyMongoError):
                        await node.write_checkpoint()
                    await asyncio.sleep(_CHECKPOINT_SECONDS)
            yield world.name(node)
        except TimeoutError as error:
            raise Impossible("the mongod did not exit although its disk was full") from error
        finally:
            await asyncio.to_thread(disk.free)
        await node.end(signal.SIGKILL)
        node.launch()


def _send(worker: int, number: signal.Signals) -> None:
    try:
        os.kill(worker, number)
    except ProcessLookupError as error:
        raise Impossible("the worker had ended") from error


def _worker(world: World, pids: list[int]) -> int:
    """Choose a worker among a supervisor and its workers."""
    if len(pids) < 2:
        raise Impossible("no worker ran")
    return world.random.choice(pids[1:])


FAULTS: Mapping[str, Fault] = {
    "kill -9 of a server": kill_server,
    "kill -9 of a worker": kill_worker,
    "kill -9 of the primary": kill_primary,
    "kill -9 of a secondary": kill_secondary,
    "kill -9 of all mongods": restart_mongods,
    "SIGSTOP of a server": stop_server,
    "SIGSTOP of a worker": stop_worker,
    "SIGSTOP of the primary": stop_primary,
    "SIGSTOP of a secondary": stop_secondary,
    "step-down of the primary": step_down,
    "restart of a server": restart_server,
    "rolling restart of workers": restart_workers,
    "clock moved within the limit": move_clock,
    "clock moved by an hour": break_clock,
    "primary cut off from the mongods": cut_primary_from_nodes,
    "primary cut off from all": cut_primary_from_all,
    "secondary cut off": cut_secondary,
    "link of two mongods cut": cut_one_link,
    "server cut off from the primary": cut_server_from_primary,
    FULL_DISK: fill_disk,
}
"""All faults, by their names in the report."""
