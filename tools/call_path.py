"""Print the path of one `UseCredits` through the code: the modules and functions that it enters.

Run it as `.venv/bin/python tools/call_path.py`. Constructors and properties are counted; code that
`dataclasses` generates is not. The SDK and the server are real and run in this process, on a real
embedded mongod: no other calls, no identities, no audit log and no metrics. The call is made
several times after a warm-up. Only the shortest path counts, so that timers of the server are not
in it.
"""

import argparse
import asyncio
import contextlib
import itertools
import logging
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import CodeType, FrameType

import structlog
from credit_client import CreditClient
from credit_server.access.audit import AuditLog
from credit_server.access.authorize import Access
from credit_server.api.contract import CONTRACT
from credit_server.api.service import CreditService
from credit_server.commit import Committer
from credit_server.embedded import EmbeddedMongod
from credit_server.grpc.handler import CallLimits
from credit_server.grpc.server import GrpcServer
from credit_server.grpc.standard import with_standard_services
from credit_server.http2.limits import ConnectionLimits
from credit_server.store.mongo import MongoStore
from grpclib.health.check import ServiceStatus

PACKAGES = ("credit_client", "credit_server", "credit_models")
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
HTTP2 = (
    "credit_server.http2.",
    "credit_models.nghttp2",
    "credit_client.call_stream",
    "credit_client.connection",
    "credit_client.keepalive",
    "credit_client.nghttp2_frames",
)
"""The modules that do the work of an HTTP/2 library. Functions of a library are not counted."""
CALLS = 7

Function = tuple[str, str]
"""A module and the qualified name of a function in it."""

Entry = tuple[str, str, int]
"""An entered function, and how many of this project's functions have called it."""


class Recorder:
    """Records the entries of this project's functions in all threads."""

    def __init__(self) -> None:
        self.entered: list[Entry] | None = None
        self._known: dict[CodeType, Function | None] = {}

    def install(self) -> None:
        """Record in this thread, and in threads that start later."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def remove(self) -> None:
        """Stop recording."""
        sys.setprofile(None)
        threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or self.entered is None:
            return
        function = self._function(frame)
        if function is not None:
            self.entered.append((*function, self._depth(frame)))

    def _depth(self, frame: FrameType) -> int:
        depth, caller = 0, frame.f_back
        while caller is not None:
            depth += self._function(caller) is not None
            caller = caller.f_back
        return depth

    def _function(self, frame: FrameType) -> Function | None:
        """Return the function of a frame; None if it is not counted."""
        code = frame.f_code
        if code not in self._known:
            module = str(frame.f_globals.get("__name__", ""))
            ours = (
                module.partition(".")[0] in PACKAGES
                and "._generated" not in module
                # Generated code, such as a dataclass's constructor, and comprehensions, which are
                # functions only up to Python 3.11.
                and not code.co_filename.startswith("<")
                and code.co_name not in COMPREHENSIONS
            )
            self._known[code] = (module, code.co_qualname) if ours else None
        return self._known[code]


@contextlib.asynccontextmanager
async def _client(folder: Path) -> AsyncIterator[CreditClient]:
    """Run a server on its own embedded mongod, and open the SDK on it."""
    async with EmbeddedMongod(data_dir=folder) as mongod:
        store = MongoStore(mongod.uri, database="call_path", timeout_seconds=5.0)
        audit = AuditLog(None, translate=CONTRACT.translate)
        try:
            await store.migrate()
            async with Committer(store) as committer:
                server = GrpcServer(
                    with_standard_services(
                        [CreditService(committer, store, audit)], ServiceStatus(), CONTRACT.files
                    ),
                    limits=CallLimits(message_bytes_max=65536),
                    connections=ConnectionLimits(),
                    access=Access(None, audit=audit, limits=None),
                    contract=CONTRACT,
                )
                await server.start("127.0.0.1", 0, ssl=None)
                try:
                    async with CreditClient(f"127.0.0.1:{server.port}") as client:
                        yield client
                finally:
                    await server.stop(grace_seconds=1)
        finally:
            await store.close()


async def shortest_path() -> list[Entry]:
    """Return the functions that one `UseCredits` enters, in order."""
    recorder = Recorder()
    recorder.install()
    paths = []
    with tempfile.TemporaryDirectory() as folder:
        async with _client(Path(folder)) as client:
            await client.add(user_id=7, app_id=1, credits=1000, created_by=1)
            for number in range(CALLS):
                path: list[Entry] = []
                recorder.entered = path if number else None
                await client.use(
                    user_id=7,
                    app_id=1,
                    report_id="r-1",
                    report_name="Report",
                    credits=1,
                    created_by=1,
                )
                recorder.entered = None
                if number:
                    paths.append(path)
    recorder.remove()
    return min(paths, key=len)


def _layer(module: str) -> str:
    """Return the layer of a module: its package, or the folder in the package."""
    parts = module.split(".")
    return parts[0] if len(parts) < 3 else f"  {parts[1]}"


def _summary(name: str, path: list[Entry]) -> str:
    modules = [module for module, _, _ in path]
    functions = {(module, function) for module, function, _ in path}
    changes = sum(one != other for one, other in itertools.pairwise(modules))
    return (
        f"{name:16} {len(set(modules)):4} modules {len(functions):4} functions"
        f" {len(path):4} calls {changes:4} changes of module"
    )


def main() -> None:
    """Print the figures, and the path itself with `--functions`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # for `head`
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--functions",
        action="store_true",
        help="print each function where it is first entered, indented below its caller. Tasks and"
        " threads begin at the left; several of them take turns",
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    path = asyncio.run(shortest_path())
    if options.functions:
        seen: set[Function] = set()
        for module, function, depth in path:
            if (module, function) not in seen:
                seen.add((module, function))
                print(f"{'  ' * depth}{module}: {function}")  # noqa: T201 - a command prints
    without = [entry for entry in path if not entry[0].startswith(HTTP2)]
    own = [entry for entry in without if not entry[0].startswith("credit_models.")]
    print(_summary("one UseCredits", path))  # noqa: T201
    print(_summary("no HTTP/2", without))  # noqa: T201
    print(_summary("no models either", own))  # noqa: T201
    for package in PACKAGES:
        part = [entry for entry in path if entry[0].partition(".")[0] == package]
        print(_summary(package, part))  # noqa: T201
        for layer in dict.fromkeys(_layer(module) for module, _, _ in part):
            if layer != package:
                print(  # noqa: T201
                    _summary(layer, [entry for entry in part if _layer(entry[0]) == layer])
                )


if __name__ == "__main__":
    main()
