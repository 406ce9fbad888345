"""The worker's side: its assignment, the connections that it gets, and when it stops."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass

import structlog
from grpclib.health.check import ServiceStatus
from pydantic import SecretStr

from credit_server.settings import ServerSettings
from credit_server.workers.channel import Channel
from credit_server.workers.turns import open_turns

log = structlog.get_logger("credit_server")

# The name does not begin with CREDIT_, because it is not a setting.
_VARIABLE = "_CREDIT_SERVER_WORKER"

# How often the number of open connections is reported, if it has changed. The supervisor adds the
# connections that it has passed since.
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What a supervisor gives to a worker, in a variable of its environment.

    Attributes:
        number: The worker's number, from 1.
        count: The number of workers, which divide the server's limits.
        channel: The descriptor of its end of the channel.
        metrics: The descriptor of its end of the socket for metrics.
        turns: The descriptors of the shards' turns: see `workers.turns`.
        mongodb_uri: The connection string of an embedded mongod; None: the settings name a MongoDB.
    """

    number: int
    count: int
    channel: int
    metrics: int
    turns: Sequence[int]
    mongodb_uri: str | None

    def environment(self) -> Mapping[str, str]:
        """Return the variable with the assignment."""
        return {_VARIABLE: json.dumps(asdict(self))}

    def settings(self, whole: ServerSettings) -> ServerSettings:
        """Return the settings of this worker."""
        changes: dict[str, object] = {"metrics": False}  # the supervisor serves them
        if self.mongodb_uri is not None:
            changes["mongodb_uri"] = SecretStr(self.mongodb_uri)
        # The supervisor's number applies, because `auto` could give another number now.
        counted = whole.model_copy(update={"workers": self.count})
        return counted.of_one_worker().model_copy(update=changes)


def take_assignment(environment: MutableMapping[str, str] = os.environ) -> Assignment | None:
    """Take the assignment of this process out of the environment; None: it has none."""
    text = environment.pop(_VARIABLE, None)
    return None if text is None else Assignment(**json.loads(text))


class _ReportedStatus(ServiceStatus):
    """The status of the health service, which is also reported to the supervisor."""

    def __init__(self, report: Callable[[str], bool]) -> None:
        super().__init__()
        self._report = report

    def set(self, value: bool | None) -> None:
        """Set the status, and report it."""
        super().set(value)
        self._report(f"health {int(bool(value))}")


class Worker:
    """This process as a worker. Create it on the event loop that serves.

    Attributes:
        stopped: Is set when this worker must stop: the server stops, is restarted or was killed, or
            this process was sent SIGTERM.
        may_drain: Is set when no more connections come, so that the open ones can be drained.
        status: The status of the health service.
        turns: The turns of the committer's shards.
        metrics: The socket on which the supervisor requests metrics.
        others_serve: Whether other workers continue: health then stays SERVING while it drains.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.stopped = asyncio.Event()
        self.may_drain = asyncio.Event()
        self.others_serve = True
        self.turns = open_turns(assignment.turns)
        self.metrics = socket.socket(fileno=assignment.metrics)
        self._accept: Callable[[socket.socket], None] = socket.socket.close
        self._received = 0
        self._channel = Channel(socket.socket(fileno=assignment.channel), self._on_message)
        self.status: ServiceStatus = _ReportedStatus(self._channel.send)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        loop.add_signal_handler(signal.SIGINT, self._leave)
        self._ending = asyncio.create_task(self._end_with_supervisor())

    def serve(self, accept: Callable[[socket.socket], None]) -> None:
        """Take connections from now on, and pass each to a function that serves it."""
        self._accept = accept
        self._channel.send("ready")

    async def report(self, connections: Callable[[], int]) -> None:
        """Report the number of open connections whenever it has changed, until cancelled."""
        reported = (0, 0)
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            current = (connections(), self._received)
            if current != reported:
                self._channel.send("connections {} {}".format(*current))
                reported = current

    async def leave(self) -> None:
        """Wait until the supervisor passes no more connections."""
        if not self.stopped.is_set():  # a part of this worker has failed
            self._channel.send("leaving")
        await self.may_drain.wait()

    def _leave(self) -> None:
        """Stop by a signal to this process alone; a second one does not wait for the supervisor."""
        if self.stopped.is_set():
            self.may_drain.set()
        # The supervisor answers with "drain", after the connections that it has sent already.
        self._channel.send("leaving")
        self.stopped.set()

    async def _end_with_supervisor(self) -> None:
        await self._channel.closed.wait()
        if not self.may_drain.is_set():
            log.warning("the supervisor has ended: the worker finishes its calls and stops")
        self.others_serve = False
        self.stopped.set()
        self.may_drain.set()

    def _on_message(self, message: str, passed: socket.socket | None) -> None:
        match message:
            case "connection" if passed is not None:
                self._received += 1
                self._accept(passed)
            case "stop":
                self.others_serve = False
                self.stopped.set()
            case "drain":
                self.stopped.set()
                self.may_drain.set()
