"""Whose an address is: what counts as one peer."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

_IPV6_HOST_BITS = 64
"""Whoever has one IPv6 address has a network of these many bits (RFC 6177), and counts as one."""


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return an IPv4 address, or the network of an IPv6 one.

    Args:
        address: As the socket tells it; what is no address is returned as it is.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _IPV6_HOST_BITS), strict=False))
