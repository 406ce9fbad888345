"""A correct service on grpcio. It prints its port, and serves until its standard input ends.

Run as `python grpcio_server.py FOLDER`: the folder holds the modules generated from notes.proto.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types

sys.path.insert(0, sys.argv[1])
import notes_pb2  # type: ignore[import-not-found]  # generated when the tests run
import notes_pb2_grpc  # type: ignore[import-not-found]  # generated when the tests run


# Any: the modules are generated when the tests run.
def _check(note: Any, context: Any) -> None:
    """Reject a time outside the range that its own .proto file documents."""
    times = [note.at, note.inner.at, *(inner.at for inner in note.many)]
    times += [inner.at for inner in note.by_name.values()]
    try:
        for time in times:
            time.ToJsonString()
        note.lasting.ToJsonString()
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


class Notes(notes_pb2_grpc.NotesServicer):  # type: ignore[misc]  # mypy cannot see the generated base
    def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802
        _check(request, context)
        return request

    def Count(self, request_iterator: Iterator[Any], context: Any) -> Any:  # noqa: N802
        total = 0
        for note in request_iterator:
            _check(note, context)
            total += 1
        return notes_pb2.Total(notes=total)

    def Split(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        _check(request, context)
        yield request
        yield request

    def Chat(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        for note in request_iterator:
            _check(note, context)
            yield note


server = grpc.server(ThreadPoolExecutor(max_workers=8))
notes_pb2_grpc.add_NotesServicer_to_server(Notes(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
sys.stdout.write(f"{port}\n")
sys.stdout.flush()
sys.stdin.read()
server.stop(None).wait()
