"""Shows the metrics to Prometheus, over HTTP on a port of their own.

A thread serves them, not the event loop: they can be read as well when the loop stands still, which
is when they are wanted most.
"""

import asyncio
import errno
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app

from credit_server.errors import StartError

log = structlog.get_logger("credit_server")


class _Request(WSGIRequestHandler):
    """A request. It is not logged, and a client that says nothing does not keep its thread."""

    timeout = 10  # seconds, for each read and write

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


class _HttpServer(ThreadingMixIn, WSGIServer):
    """Serves each request in a thread that does not outlive the process."""

    daemon_threads = True

    def server_bind(self) -> None:
        # Not WSGIServer's: it asks the network for this machine's name, which may take long.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # bytes only for other families
        self.setup_environ()

    # Any: what socketserver's base takes.
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log it; the base prints it, and where that fails the thread would end."""
        log.warning("a request for metrics failed", exc_info=True)


class _HttpServerIPv6(_HttpServer):
    address_family = AF_INET6


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposition:
    """Metrics that are shown.

    Attributes:
        host: The address that is listened on.
        port: The port.
        ended: Is done when the thread that shows them has ended.
    """

    host: str
    port: int
    ended: Future[None]

    async def run(self) -> None:
        """Return, or raise, when the thread ends."""
        await asyncio.wrap_future(self.ended)


@contextmanager
def exposed(
    registry: CollectorRegistry, *, host: str, port: int, may_give_way: bool = False
) -> Iterator[Exposition]:
    """Show metrics for as long as the context lasts.

    Args:
        registry: What to show.
        host: The address to listen on.
        port: The port; 0: one that is free.
        may_give_way: Whether another port is taken where this one is in use.

    Raises:
        StartError: The address cannot be listened on.
    """
    try:
        server = _server(host, port)
    except OSError as error:
        if not may_give_way or error.errno != errno.EADDRINUSE:
            raise StartError(
                f"Cannot show metrics on {host} port {port}: {error.strerror or error}. Choose"
                " another with --metrics-host and --metrics-port, or say --no-metrics."
            ) from error
        server = _server(host, 0)
        log.warning(
            "another program uses the port for metrics", port=port, instead=server.server_port
        )
    # Half of all that is sent would be the times at which series began, which is when we did.
    disable_created_metrics()  # type: ignore[no-untyped-call] # as the library has it
    server.set_app(make_wsgi_app(registry))
    ended: Future[None] = Future()
    thread = Thread(target=_serve, args=(server, ended), name="metrics", daemon=True)
    thread.start()
    try:
        yield Exposition(host=host, port=server.server_port, ended=ended)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _serve(server: _HttpServer, ended: "Future[None]") -> None:
    ended.set_running_or_notify_cancel()  # who waits for it cannot cancel it
    try:
        # It looks that often whether it is to stop, and the stop waits for it.
        server.serve_forever(0.1)
    except Exception as error:  # noqa: BLE001 - whoever supervises the thread logs it
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _server(host: str, port: int) -> _HttpServer:
    family = _HttpServerIPv6 if ":" in host else _HttpServer
    return family((host, port), _Request)
