"""Server addresses: which forms are read, and what is said about the others."""

import pytest
from credit_client.target import Target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:50051", "localhost", 50051),
        ("localhost", "localhost", 50051),
        ("credit.internal.example:1", "credit.internal.example", 1),
        ("credit_server:65535", "credit_server", 65535),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[::1]:7", "::1", 7),
        ("[::1]", "::1", 50051),
        ("dns:///credit.example:443", "credit.example", 443),
        ("dns:///credit.example", "credit.example", 50051),
        ("dns:credit.example:443", "credit.example", 443),
        ("dns:///[::1]:7", "::1", 7),
        ("dns:50051", "dns", 50051),
        ("dns", "dns", 50051),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    target = Target.parse(text)
    assert (target.host, target.port, target.path) == (host, port, None)
    assert target.authority == str(target)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unix:credit.sock", "credit.sock"),
        ("unix:run/credit.sock", "run/credit.sock"),
        ("unix:/run/credit.sock", "/run/credit.sock"),
        ("unix:///run/credit.sock", "/run/credit.sock"),
        ("unix:" + "a" * 107, "a" * 107),
    ],
)
def test_a_unix_domain_socket_is_read_as_grpc_names_it(text: str, path: str) -> None:
    target = Target.parse(text)
    assert target.path == path
    assert target.authority == "localhost"
    assert target.is_loopback
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("127.8.9.1", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("[::2]", False),
        ("localhost.example", False),
        ("notlocalhost", False),
    ],
)
def test_it_is_known_what_stays_on_this_machine(host: str, loopback: bool) -> None:
    assert Target.parse(host).is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":50051",
        "::1",
        "::1:50051",
        "[::1",
        "[localhost]:1",
        "http://localhost:50051",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:port",
        "localhost:٣",
        "a b:1",
        "-a:1",
        "a..b:1",
        "a" * 64 + ":1",
        ".".join(["a" * 60] * 5) + ":1",
        "localhost:1\n",
        "dns://8.8.8.8/credit.example:443",
        "dns://credit.example:443",
        "dns:",
        "dns:///",
        "dns:///a/b",
        "unix:",
        "unix://",
        "unix://credit.sock",
        "unix:a\0b",
        "unix:" + "a" * 108,
    ],
)
def test_another_text_is_refused_with_the_forms_that_are_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port, \[IPv6 address\]:port"):
        Target.parse(text)
