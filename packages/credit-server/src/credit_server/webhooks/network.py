"""Connect only to the public internet, so that no webhook reaches a private service.

An app chooses the URL of its webhook. For each connection, the server resolves the addresses of the
host once, checks them, and connects to a checked address. So a name that resolves to another
address a moment later (DNS rebinding) has no effect. TLS still checks the name.
"""

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpcore
from httpcore import SOCKET_OPTION

# Networks that can lead to an IPv4 address: NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
_TRANSLATED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))


class AddressNotAllowed(Exception):
    """The host of a URL has an address that is not public."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address belongs to the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TRANSLATED):
            return False
    return address.is_global and not address.is_multicast


def url_fault(url: str) -> str:
    """Return why a valid URL is not allowed for a webhook; empty if it is allowed.

    This does not resolve names: they are resolved when an event is sent.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "must begin with https://"
    try:
        address = ip_address(parts.hostname or "")
    except ValueError:  # a name
        return ""
    return "" if is_public(address) else "must not have a private address"


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses, for `httpcore`."""

    def __init__(
        self, *, allow_private: bool, backend: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        """Prepare to connect.

        Args:
            allow_private: Whether private addresses are allowed.
            backend: Makes the connections; None: anyio's.
        """
        self._allow_private = allow_private
        self._backend = backend or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of httpcore
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host.

        Raises:
            AddressNotAllowed: One of the addresses is not public.
            httpcore.ConnectError: The host has no address, or does not answer.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"the host cannot be resolved: {error}") from error
        addresses = [str(each[4][0]) for each in found]
        if not addresses:
            raise httpcore.ConnectError("the host has no address")
        if not self._allow_private:
            for address in addresses:
                # A zone, such as that of a link-local address, is not part of the address.
                if not is_public(ip_address(address.partition("%")[0])):
                    raise AddressNotAllowed("the host has an address that is not public")
        return await self._backend.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        """Wait, for httpcore's own retries."""
        await asyncio.sleep(seconds)
