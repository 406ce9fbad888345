"""What `credit-server serve` prints once it serves: addresses, store, protection, a line to try."""

import os

from credit_models.http2_engine import chosen

from credit_server.http2.unix_socket import socket_path
from credit_server.settings import ServerSettings, is_loopback
from credit_server.store.connection import hosts_of


def banner(settings: ServerSettings, port: int, metrics_address: str | None = None) -> str:
    """Describe a server that has started.

    Args:
        settings: Its settings.
        port: The port that it listens on.
        metrics_address: Where it shows its metrics, as host:port; None: nowhere.
    """
    address = address_of(settings.host, port)
    metrics = "no metrics" if metrics_address is None else f"http://{metrics_address}/metrics"
    lines = [
        f"credit-server listens on {address} ({_protection(settings)})",
        f"  store  {_store(settings)}",
        f"  http2  {chosen(settings.http2)}",
        *([f"  work   {settings.workers} workers"] if settings.workers > 1 else []),
        f"  scrape {metrics}",
        "  stop   Ctrl-C or SIGTERM",
    ]
    if settings.tls_certificate is None and not settings.has_identities:
        lines.append(f"  try    credit add --target {address} --user 7 --app 1 --credits 120")
    return "\n".join(lines)


def address_of(host: str, port: int) -> str:
    """Return an address as clients write it: host:port, [IPv6]:port or unix:path."""
    path = socket_path(host)
    if path is not None:
        return f"unix:{path}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _store(settings: ServerSettings) -> str:
    if settings.mongodb_uri is None:
        return f"embedded mongod, data in {os.path.realpath(settings.data_dir)}"
    hosts = hosts_of(settings.mongodb_uri.get_secret_value())
    return f"MongoDB {hosts}, database {settings.mongodb_database}"


def _protection(settings: ServerSettings) -> str:
    """Describe how the server knows its callers, and who can call where it does not."""
    parts = ["no TLS" if settings.tls_certificate is None else "TLS 1.3"]
    if settings.token_keys is not None:
        parts.append("tokens")
    if settings.identities_file is not None:
        parts.append("client certificates")
    if not settings.has_identities:
        parts.append(f"no identities, open to {_reach(settings.host)}")
    return ", ".join(parts)


def _reach(host: str) -> str:
    if socket_path(host) is not None:
        return "all who may write to the socket's file"
    return "all of this machine" if is_loopback(host) else "all of the network: INSECURE"
