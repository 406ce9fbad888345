"""The MongoDB connection string: is what it carries safe from others on the network?"""

from pathlib import Path
from urllib.parse import parse_qsl

from credit_server.doctor.finding import Finding, ok, warning
from credit_server.doctor.permissions import readable_by_others
from credit_server.settings import is_loopback
from credit_server.store.connection import hosts_of

_CHECK = "connection string"

_YES = frozenset({"true", "1"})


def check_connection_string(uri: str, file: Path | None = None) -> Finding:
    """Judge whether a connection string asks for TLS and names a user, and who may read it.

    The former does not matter where every host is this machine. The finding never shows the string
    itself.

    Args:
        uri: The string.
        file: The file that it was read from; None where it came otherwise.
    """
    exposed = None if file is None else readable_by_others(file, _CHECK)
    if exposed is not None:
        return exposed
    if is_local(uri):
        return ok(_CHECK, "names hosts of this machine only")
    scheme, _, rest = uri.partition("://")
    server, _, options_text = rest.partition("?")
    named = "@" in server.partition("/")[0]
    options = {name.lower(): value.lower() for name, value in parse_qsl(options_text)}
    # https://www.mongodb.com/docs/manual/reference/connection-string/: +srv switches TLS on.
    asked = options.get("tls", options.get("ssl"))
    encrypted = asked in _YES or (asked is None and scheme == "mongodb+srv")
    named = named or options.get("authmechanism") == "mongodb-x509"
    if encrypted and named:
        return ok(_CHECK, "asks for TLS and names a user")
    missing = " and ".join(
        what for what, there in (("no TLS (tls=true)", encrypted), ("no user", named)) if not there
    )
    return warning(
        _CHECK,
        f"names hosts of other machines, with {missing}",
        "switch TLS and authentication on in MongoDB, and name both in CREDIT_MONGODB_URI",
    )


def is_local(uri: str) -> bool:
    """Say whether a connection string names hosts of this machine only."""
    return all(is_loopback(_host(host)) for host in hosts_of(uri).split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]
