"""Listens for calls; an address that cannot be listened on is an error that names the remedy."""

import errno

from credit_server.access.tls import ServerTls
from credit_server.errors import StartError
from credit_server.grpc.server import GrpcServer
from credit_server.http2.listener import try_address
from credit_server.http2.unix_socket import socket_path
from credit_server.settings import ServerSettings
from credit_server.workers.listener import Listener


async def check_address(settings: ServerSettings) -> None:
    """Check that the server can listen, so that no store is started for a server that cannot.

    Raises:
        StartError: It cannot.
    """
    try:
        await try_address(settings.host, settings.port)
    except OSError as error:
        raise _not_listening(settings, error) from error


async def listen(server: GrpcServer, settings: ServerSettings, tls: ServerTls | None) -> None:
    """Listen on the address of the settings.

    Raises:
        StartError: It cannot be listened on.
    """
    try:
        context = None if tls is None else tls.context
        await server.start(settings.host, settings.port, ssl=context)
    except OSError as error:
        raise _not_listening(settings, error) from error


async def listen_for_workers(settings: ServerSettings) -> Listener:
    """Listen on the address of the settings; the connections are then passed to workers.

    Raises:
        StartError: The server cannot listen on the address.
    """
    try:
        return await Listener.bind(settings.host, settings.port)
    except OSError as error:
        raise _not_listening(settings, error) from error


def _not_listening(settings: ServerSettings, error: OSError) -> StartError:
    path = socket_path(settings.host)
    if path is not None:
        return _no_socket(path, error)
    remedy = {
        errno.EADDRINUSE: "another program uses it: choose another with --port, or 0 for any",
        errno.EACCES: "ports below 1024 need privileges: choose another with --port",
        errno.EADDRNOTAVAIL: "this machine does not have that address: see --host",
    }.get(error.errno or 0, "see --host and --port")
    return StartError(f"Cannot listen on {settings.host} port {settings.port}: {remedy}.")


def _no_socket(path: str, error: OSError) -> StartError:
    remedy = {
        errno.EADDRINUSE: "another server listens there: stop it, or choose another path",
        errno.EEXIST: "a file that is not a socket is there: remove it, or choose another path",
        errno.ENOENT: "its folder does not exist: make it",
        errno.EACCES: "its folder cannot be written to: check its permissions",
    }.get(error.errno or 0, error.strerror or str(error))
    return StartError(f"Cannot listen on unix:{path}: {remedy}. See --host.")
