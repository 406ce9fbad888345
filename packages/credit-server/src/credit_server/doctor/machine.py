"""This machine: the address, the data directory and the limits that a server would meet."""

import asyncio
import errno
import os
import resource
import shutil
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.http2.listener import try_address
from credit_server.http2.unix_socket import socket_path
from credit_server.settings import ServerSettings, is_loopback

SERVICE = "credit.v1.CreditService"

_FREE_BYTES_FAILS = 256 * 1024 * 1024
_FREE_BYTES_WARNING = 2 * 1024 * 1024 * 1024
# The storage engine, the driver, the logs, and whatever the process has open besides.
_FILES_BESIDES_CONNECTIONS = 200

_HEALTH_SECONDS = 2.0


def check_settings(settings: ServerSettings) -> Finding:
    """Judge settings that are valid, and risky all the same."""
    if settings.insecure and not is_loopback(settings.host):
        return warning(
            "settings",
            f"{settings.host} can be reached from other machines, and --insecure is set",
            "use TLS and identities, or make sure that the network itself is trusted",
        )
    return ok("settings", "are valid")


def invalid_settings(explained: str) -> Finding:
    """Make the finding of settings that no server would start with."""
    return fails("settings", explained, "mend them; nothing else could be checked")


async def check_address(host: str, port: int, *, tls: bool = False) -> Finding:
    """Find out whether a server could listen, or a credit-server already does.

    Args:
        host: Where to listen.
        port: The port; 0 for any.
        tls: Whether a server with the same settings would answer with TLS alone.
    """
    check = "address"
    path = socket_path(host)
    if port == 0 and path is None:
        return ok(check, "any free port is taken")
    where = f"{host} port {port}" if path is None else f"the socket {path}"
    try:
        await try_address(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return await _in_use(check, where, _channel(host, port, path, tls=tls))
        return fails(
            check, f"{where} cannot be listened on: {error.strerror}", "see --host, --port"
        )
    return ok(check, f"{where} is free")


def _channel(host: str, port: int, path: str | None, *, tls: bool) -> Channel:
    context = _any_certificate() if tls else None
    if path is not None:
        return Channel(path=path, ssl=context)
    return Channel(_reachable(host), port, ssl=context)


async def _in_use(check: str, where: str, channel: Channel) -> Finding:
    try:
        async with asyncio.timeout(_HEALTH_SECONDS):
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=SERVICE))
    except (GRPCError, StreamTerminatedError, OSError, TimeoutError):
        return warning(
            check,
            f"{where} is in use, by a program that does not report its health",
            "if it is not your credit-server: stop it, or choose another port with --port",
        )
    finally:
        channel.close()
    serving = answer.status == answer.SERVING
    found = f"a credit-server listens on {where}"
    if serving:
        return ok(check, f"{found} and serves")
    return warning(check, f"{found} and says that it does not serve", "see its log")


def _any_certificate() -> ssl.SSLContext:
    """Make a context that asks nobody who they are: health is all that is asked, and no secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryFacts:
    """What is known of a data directory.

    Attributes:
        path: Where it is.
        mode: Its permissions; None when it is not there.
        writable: Whether this process may write to it, or make it.
        free_bytes: What is free on its disk.
    """

    path: Path
    mode: int | None
    writable: bool
    free_bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a directory that need not exist."""
        absolute = path.expanduser().resolve()
        there = absolute
        while not there.exists():
            there = there.parent
        return cls(
            path=absolute,
            mode=stat.S_IMODE(absolute.stat().st_mode) if there == absolute else None,
            writable=os.access(there, os.W_OK | os.X_OK),
            free_bytes=shutil.disk_usage(there).free,
        )


def check_data_directory(facts: DirectoryFacts) -> list[Finding]:
    """Judge the directory of the embedded store."""
    check = "data directory"
    if not facts.writable:
        first = fails(check, f"{facts.path} cannot be written to", "set CREDIT_DATA_DIR to another")
    elif facts.mode is not None and facts.mode & 0o077:
        first = warning(
            check,
            f"{facts.path} is open to other users (mode {facts.mode:04o})",
            f"run: chmod 700 {facts.path}",
        )
    elif facts.mode is None:
        first = ok(check, f"{facts.path} is not there yet; the first start makes it")
    else:
        first = ok(check, f"{facts.path} is its owner's alone")
    return [first, _disk(facts.free_bytes)]


def _disk(free_bytes: int) -> Finding:
    check = "disk"
    found = f"{free_bytes / 1e9:.1f} GB are free"
    remedy = "free some space, or move the data directory; MongoDB stops when the disk is full"
    if free_bytes < _FREE_BYTES_FAILS:
        return fails(check, found, remedy)
    if free_bytes < _FREE_BYTES_WARNING:
        return warning(check, found, remedy)
    return ok(check, found)


def open_files_limit() -> int:
    """Return how many files this process, and a server started like it, may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_open_files(limit: int, *, connections_max: int) -> Finding:
    """Judge whether a server may have as many connections open as its settings allow."""
    check = "open files"
    needed = connections_max + _FILES_BESIDES_CONNECTIONS
    if limit < needed:
        return warning(
            check,
            f"a process may open {limit}, and {connections_max} connections need about {needed}",
            f"raise it (ulimit -n {needed}, or LimitNOFILE of the unit), or lower"
            " CREDIT_CONNECTIONS_MAX",
        )
    return ok(check, f"a process may open {limit}, about {needed} are needed")
