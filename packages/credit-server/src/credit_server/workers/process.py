"""One worker as the supervisor sees it: its process, what it has reported, its connections."""

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Sequence

from credit_server.telemetry.workers import WorkerMetrics
from credit_server.workers.channel import Channel, channel_pair
from credit_server.workers.worker import Assignment


class WorkerProcess:
    """A worker that was started.

    Attributes:
        number: Its number, from 1; the worker that replaces it has the same.
        settled: Is set when it serves, or has ended instead.
        leaving: Is set when it takes no more connections: it stops, or has ended.
        ended: Is set when its process has ended.
        ready: Whether it has begun to serve.
        healthy: Whether its health is SERVING.
        metrics: Its metrics.
        passed: How many connections were passed to it.
    """

    def __init__(
        self,
        number: int,
        process: Process,
        channel: socket.socket,
        metrics: WorkerMetrics,
    ) -> None:
        self.number = number
        self.settled = asyncio.Event()
        self.leaving = asyncio.Event()
        self.ended = asyncio.Event()
        self.ready = False
        self.healthy = False
        self.metrics = metrics
        self._process = process
        self._channel = Channel(channel, self._on_message)
        self._open = 0  # as it has reported
        self._received = 0
        self.passed = 0
        self._began = time.monotonic()
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def launch(
        cls, number: int, count: int, *, turns: Sequence[int], mongodb_uri: str | None
    ) -> "WorkerProcess":
        """Start a worker: this program again, with the same command line and environment.

        The program is executed, not forked: the supervisor has threads, and a rolling restart must
        run the program that is installed at that time.

        Args:
            number: Its number.
            count: The number of workers.
            turns: The descriptors of the shards' turns.
            mongodb_uri: The connection string of an embedded mongod; None: the settings name a
                MongoDB.
        """
        ours, its = channel_pair()
        from_worker, to_supervisor = socket.socketpair()
        assignment = Assignment(
            number=number,
            count=count,
            channel=its.fileno(),
            metrics=to_supervisor.fileno(),
            turns=turns,
            mongodb_uri=mongodb_uri,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **assignment.environment()},
                pass_fds=(its.fileno(), to_supervisor.fileno(), *turns),
                # A terminal's Ctrl-C reaches the supervisor alone, which stops them in order.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            from_worker.close()
            raise
        finally:
            its.close()
            to_supervisor.close()
        return cls(number, process, ours, WorkerMetrics(from_worker))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Its exit status, or minus the number of the signal that ended it; None: it runs."""
        return self._process.returncode

    def seconds(self) -> float:
        """Return for how long it has run."""
        return time.monotonic() - self._began

    @property
    def connections(self) -> int:
        """The number of its connections: those that it reported, and those passed to it since."""
        return self._open + self.passed - self._received

    def pass_on(self, connection: socket.socket) -> bool:
        """Pass a connection to it; return whether that was possible."""
        sent = self._channel.send("connection", connection)
        self.passed += sent
        return sent

    def stop(self) -> None:
        """Make it report NOT_SERVING; it serves connections and calls until `drain`."""
        self._channel.send("stop")

    def drain(self) -> None:
        """Make it finish its calls and end; no connection may be passed to it any more."""
        self.leaving.set()
        self._channel.send("drain")

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()

    async def _watch(self) -> None:
        await self._process.wait()
        self._channel.close()
        self.healthy = False
        self.leaving.set()
        self.ended.set()
        self.settled.set()

    def _on_message(self, message: str, _: socket.socket | None) -> None:
        word, *numbers = message.split()
        match word:
            case "ready":
                self.ready = True
                self.settled.set()
            case "health":
                self.healthy = numbers == ["1"]
            case "connections":
                self._open, self._received = map(int, numbers)
            case "leaving":
                self.drain()
