"""Serve metrics and the probes of an orchestrator, over HTTP on a port of their own.

A thread serves them, not the event loop, so they can be read while the loop is blocked.

prometheus-client renders `/metrics`. Its `start_http_server` is not enough: it serves the metrics
under every path, resolves this machine's name, which can block for long, sets no timeout on a
client that sends nothing, and does not report that its thread has ended.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from socket import AF_INET, AF_INET6
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

# How often the thread checks whether to stop. A stop waits for up to this time.
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposition:
    """A running HTTP server of metrics.

    Attributes:
        host: The address on which it listens.
        port: Its port.
        ended: Done when its thread has ended.
    """

    host: str
    port: int
    ended: Future[None]

    async def run(self) -> None:
        """Return when the thread ends, or raise its exception."""
        await asyncio.wrap_future(self.ended)


@contextmanager
def exposed(
    registry: CollectorRegistry,
    *,
    ready: Callable[[], bool],
    host: str,
    port: int,
    any_port_if_in_use: bool = False,
) -> Iterator[Exposition]:
    """Serve `/metrics`, `/healthz` and `/readyz` inside the context.

    Args:
        registry: The metrics.
        ready: Returns whether calls are served. It runs in a thread and must not block.
        host: The address to listen on.
        port: The port; 0 for any free port.
        any_port_if_in_use: Whether to use any free port if this one is in use.

    Raises:
        StartError: The server cannot listen on the address.
    """
    # They would double the output, and only repeat when the server started.
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no annotation
    server = _listening(host, port, any_port_if_in_use=any_port_if_in_use)
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


class _Request(WSGIRequestHandler):
    """A request. It is not logged."""

    # Seconds for each read and write, so that a client that sends nothing does not keep its thread.
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


class _HttpServer(ThreadingMixIn, WSGIServer):
    """Serves each request in a thread that does not outlive the process."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        super().__init__((host, port), _Request)

    def server_bind(self) -> None:
        """Bind without `WSGIServer`'s look-up of this machine's name, which can block for long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # bytes only for other families
        self.setup_environ()

    # Any: the parameters of the base in socketserver.
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error. The base prints it, and the thread ends if that fails."""
        log.warning("request for metrics failed", exc_info=True)  # noqa: LOG014 - the base calls it in its handler


def _listening(host: str, port: int, *, any_port_if_in_use: bool) -> _HttpServer:
    try:
        return _HttpServer(host, port)
    except OSError as error:
        if not any_port_if_in_use or error.errno != errno.EADDRINUSE:
            raise StartError(
                f"Cannot serve metrics on {host} port {port}: {error.strerror or error}."
                " Choose another address with --metrics-host and --metrics-port, or set"
                " --no-metrics."
            ) from error
    server = _HttpServer(host, 0)
    log.warning(
        "the port for metrics is in use: metrics are served on another; --metrics-port sets it",
        port=port,
        instead=server.server_port,
    )
    return server


def _routes(registry: CollectorRegistry, ready: Callable[[], bool]) -> "WSGIApplication":
    """Return an application that serves the three paths and answers 404 to all others."""
    metrics = make_wsgi_app(registry)

    def route(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = [("Content-Type", "text/plain; charset=utf-8")]
        if path not in _PATHS:
            status, text = "404 Not Found", f"not found; the paths are {', '.join(_PATHS)}"
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
    ended.set_running_or_notify_cancel()  # a task that waits for it cannot cancel it
    try:
        server.serve_forever(_POLL_SECONDS)
    except Exception as error:  # noqa: BLE001 - the supervisor logs it
        ended.set_exception(error)
    else:
        ended.set_result(None)
