"""A correct service on grpclib. It prints its port, and serves until its standard input ends.

Run as `python grpclib_server.py FOLDER`: the folder holds the modules generated from notes.proto.
"""

import asyncio
import sys
from typing import Any

from grpclib import GRPCError, Status
from grpclib.server import Server

sys.path.insert(0, sys.argv[1])
import notes_grpc  # type: ignore[import-not-found]  # generated when the tests run
import notes_pb2  # type: ignore[import-not-found]  # generated when the tests run


# Any: the modules are generated when the tests run.
def _check(note: Any) -> Any:
    """Reject a time outside the range that its own .proto file documents."""
    times = [note.at, note.inner.at, *(inner.at for inner in note.many)]
    times += [inner.at for inner in note.by_name.values()]
    try:
        for time in times:
            time.ToJsonString()
        note.lasting.ToJsonString()
    except ValueError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
    return note


class Notes(notes_grpc.NotesBase):  # type: ignore[misc]  # mypy cannot see the generated base
    async def Echo(self, stream: Any) -> None:  # noqa: N802 - the contract's name
        await stream.send_message(_check(await stream.recv_message()))

    async def Count(self, stream: Any) -> None:  # noqa: N802
        total = 0
        async for note in stream:
            _check(note)
            total += 1
        await stream.send_message(notes_pb2.Total(notes=total))

    async def Split(self, stream: Any) -> None:  # noqa: N802
        note = _check(await stream.recv_message())
        await stream.send_message(note)
        await stream.send_message(note)

    async def Chat(self, stream: Any) -> None:  # noqa: N802
        async for note in stream:
            await stream.send_message(_check(note))


async def main() -> None:
    server = Server([Notes()])
    await server.start("127.0.0.1", 0)
    port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]  # it has started
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    await server.wait_closed()


asyncio.run(main())
