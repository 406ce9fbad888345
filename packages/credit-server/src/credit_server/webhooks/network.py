"""Connect only to the public internet, so that no webhook reaches a private service.

An app chooses the URL of its webhook. For each connection, the server resolves the addresses of the
host once, checks them, and connects to a checked address. So a name that resolves to another
address a moment later (DNS rebinding) has no effect. TLS still checks the name.
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpcore
from httpcore import SOCKET_OPTION

# IANA allocates public IPv6 addresses from this network only. So addresses that contain an IPv4
# address (such as those of NAT64, RFC 6052), site-local addresses and SRv6 SIDs are outside of it.
_UNICAST = IPv6Network("2000::/3")

# Networks that Python 3.11 takes for public. 6to4 leads to IPv4 addresses (RFC 3056), as its relays
# do (RFC 7526); 3fff::/20 is for documentation (RFC 9637), and 192.0.0.0/24 for protocols (RFC
# 6890).
_SPECIAL_IPV6 = (IPv6Network("2002::/16"), IPv6Network("3fff::/20"))
_SPECIAL_IPV4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))

# One text for all faults of a host, so that no tenant learns which internal names exist.
_HOST_FAULT = "the host cannot be resolved, or has an address that is not public"

# How many addresses of a host are tried, and how long each is tried if there is a next one.
_ADDRESSES_MAX = 4
_CONNECT_SECONDS = 4.0


class HostNotAllowed(Exception):
    """The host of a URL cannot be resolved, or has an address that is not public."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address belongs to the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _UNICAST or any(address in network for network in _SPECIAL_IPV6):
            return False
    elif any(address in network for network in _SPECIAL_IPV4):
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
        """Connect to the first address of a host that answers.

        Raises:
            HostNotAllowed: The host has no address, or one that is not public.
            httpcore.ConnectError: No address answers.
            httpcore.ConnectTimeout: The last address does not answer in time.
        """
        first, *others = (await self._addresses(host, port))[:_ADDRESSES_MAX]
        while others:
            try:
                return await self._backend.connect_tcp(
                    first, port, _CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                first, *others = others
        return await self._backend.connect_tcp(first, port, timeout, local_address, socket_options)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label is empty or too long
            raise HostNotAllowed(_HOST_FAULT) from error
        addresses = [str(each[4][0]) for each in found]
        # A zone, such as that of a link-local address, is not part of the address.
        public = (is_public(ip_address(address.partition("%")[0])) for address in addresses)
        if not addresses or not (self._allow_private or all(public)):
            raise HostNotAllowed(_HOST_FAULT)
        return addresses

    async def sleep(self, seconds: float) -> None:
        """Wait, for httpcore's own retries."""
        await asyncio.sleep(seconds)
