"""Serves metrics and the probes of an orchestrator, over HTTP on a port of their own.

A thread serves them, not the event loop: they can be read while the loop is blocked, which is when
they are needed most.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app

from credit_server.errors import StartError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger("credit_server")


_PATHS = ("/metrics", "/healthz", "/readyz")


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
        log.warning("a request for metrics failed", exc_info=True)  # noqa: LOG014 - the base calls it in its handler


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
    registry: CollectorRegistry,
    *,
    ready: Callable[[], bool],
    host: str,
    port: int,
    may_give_way: bool = False,
) -> Iterator[Exposition]:
    """Serve `/metrics`, `/healthz` and `/readyz` inside the context.

    Args:
        registry: The metrics.
        ready: Returns whether calls are served. A thread calls it, so it must not block.
        host: The address to listen on.
        port: The port; 0: any free one.
        may_give_way: Whether to use any free port if this one is in use.

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
    server.set_app(_routes(registry, ready))
    ended: Future[None] = Future()
    thread = Thread(target=_serve, args=(server, ended), name="metrics", daemon=True)
    thread.start()
    try:
        yield Exposition(host=host, port=server.server_port, ended=ended)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _routes(registry: CollectorRegistry, ready: Callable[[], bool]) -> "WSGIApplication":
    """Return an application that answers 404 to every path but its three."""
    metrics = make_wsgi_app(registry)

    def route(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if path not in _PATHS:
            status, text = "404 Not Found", f"not found: there are {', '.join(_PATHS)}"
        elif method not in ("GET", "HEAD"):
            status, text = "405 Method Not Allowed", "use GET"
            headers.append(("Allow", "GET, HEAD"))
        elif path == "/metrics":
            body = metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
            return body if method == "GET" else []
        elif path == "/healthz" or ready():
            status, text = "200 OK", "ok"
        else:
            status, text = "503 Service Unavailable", "not serving"
        start_response(status, headers)
        return [f"{text}\n".encode()] if method != "HEAD" else []

    return route


def _serve(server: _HttpServer, ended: "Future[None]") -> None:
    ended.set_running_or_notify_cancel()  # who waits for it cannot cancel it
    try:
        # It looks that often whether it is to stop, and the stop waits for it.
        server.serve_forever(0.1)
    except Exception as error:  # noqa: BLE001 - the supervisor logs it
        ended.set_exception(error)
    else:
        ended.set_result(None)


def _server(host: str, port: int) -> _HttpServer:
    family = _HttpServerIPv6 if ":" in host else _HttpServer
    return family((host, port), _Request)
