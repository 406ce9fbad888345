"""Addresses are parsed in the forms of gRPC, and invalid ones are reported."""

import pytest
from grpc_fuzz.target import Target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:50051", "localhost", 50051),
        ("[::1]:50051", "::1", 50051),
        ("dns:///shop.example:443", "shop.example", 443),
        ("dns:shop.example:443", "shop.example", 443),
        ("dns:///[::1]:443", "::1", 443),
        ("passthrough:///shop:1", "shop", 1),
        ("ipv4:10.0.0.1:65535", "10.0.0.1", 65535),
        ("ipv6:[fe80::1]:80", "fe80::1", 80),
    ],
)
def test_a_host_and_a_port_are_parsed_in_every_form(text: str, host: str, port: int) -> None:
    target = Target.parse(text)

    assert (target.host, target.port, target.socket) == (host, port, None)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "socket"),
    [
        ("unix:/run/shop.sock", "/run/shop.sock"),
        ("unix:///run/shop.sock", "/run/shop.sock"),
        ("unix:shop.sock", "shop.sock"),
        ("unix-abstract:shop", "\0shop"),
    ],
)
def test_a_unix_socket_is_parsed_in_every_form(text: str, socket: str) -> None:
    target = Target.parse(text)

    assert (target.socket, target.authority) == (socket, "localhost")
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        ("localhost:", "has no port"),
        ("[::1]", "has no port"),
        (":50051", "has no port"),
        ("[]:50051", "has no host"),
        ("localhost:http", "is not host:port"),
        ("localhost:0", "1 to 65535"),
        ("localhost:65536", "1 to 65535"),
        ("localhost:٣", "is not host:port"),
        ("::1:50051", "needs brackets"),
        ("http://localhost:50051", "leave out http://"),
        ("https://localhost:50051", "add --tls"),
        ("dns://8.8.8.8/shop:443", "only that of the system is used"),
        ("xds:///shop:443", "scheme 'xds', which is not supported"),
        ("localhost:50051/path", "is not host:port"),
        ("unix:", "names no socket"),
        ("unix-abstract:", "names no socket"),
    ],
)
def test_an_invalid_address_is_reported_with_the_right_form(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Target.parse(text)
