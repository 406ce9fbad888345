"""TLS on real sockets: which clients can connect, and certificates that change meanwhile."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from credit_server.access import FileUnusable, open_tls
from credit_server.access.tls import ServerTls, TlsFiles
from credit_server.access.watched_file import LOOK_SECONDS
from credit_server.development.certificate import (
    CertificateFiles,
    end_of,
    key_of,
    make_certificates,
)
from credit_server.settings import AccessSettings
from credit_testing.http2_client import Connection
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.server.access.signing import Clock, replace
from tests.server.loops import on_both_loops
from tests.server.serving import is_served
from tests.server.serving import serving as served

Logged = list[MutableMapping[str, Any]]  # Any: structlog's own type


@pytest.fixture
def made(tmp_path: Path) -> CertificateFiles:
    return make_certificates(tmp_path / "a", client="spiffe://example.org/shop", days=1)


@pytest.fixture
def others(tmp_path: Path) -> CertificateFiles:
    """The same of another CA."""
    return make_certificates(tmp_path / "b", client="spiffe://example.org/shop", days=1)


def server_files(made: CertificateFiles, *, client_ca: bool = False, **more: Any) -> TlsFiles:
    ca = made.ca if client_ca else None
    return TlsFiles(certificate=made.server, key=key_of(made.server), client_ca=ca, **more)


@asynccontextmanager
async def serving(files: TlsFiles, clock: Clock | None = None) -> AsyncIterator[int]:
    """Start a server with TLS, and yield its port."""
    async with served(tls=ServerTls(files, clock=clock or Clock()).context) as running:
        yield running.port


def client_context(
    made: CertificateFiles, *, owner: CertificateFiles | None = None, alpn: str | None = "h2"
) -> ssl.SSLContext:
    """Make a client that trusts one CA, and has a certificate of the same or another, or none."""
    context = ssl.create_default_context(cafile=made.ca)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if owner is not None:
        context.load_cert_chain(owner.client, key_of(owner.client))
    return context


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext, host: str = "localhost"
) -> AsyncIterator[tuple[Connection, ssl.SSLObject]]:
    """Connect, and yield the connection and its TLS."""
    async with Connection.connect(port, tls=context, host=host) as wire:
        assert wire.tls is not None
        yield wire, wire.tls


async def is_closed(port: int, context: ssl.SSLContext) -> None:
    """Return when the server has closed a connection, in the handshake or right after."""
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
    except (ssl.SSLError, ConnectionError):
        return
    try:
        await reader.read()
    except (ssl.SSLError, ConnectionError):
        pass
    finally:
        writer.close()


@on_both_loops
async def test_calls_are_served_over_tls_1_3(made: CertificateFiles) -> None:
    async with serving(server_files(made)) as port:
        for host in ("localhost", "127.0.0.1"):  # an address comes without a server name
            async with connected(port, client_context(made), host) as (wire, tls):
                await is_served(wire)
                assert tls.version() == "TLSv1.3"
                assert tls.selected_alpn_protocol() == "h2"
                assert tls.compression() is None
                assert tls.session is None or not tls.session.has_ticket


@on_both_loops
@pytest.mark.parametrize("alpn", [None, "http/1.1"])
async def test_a_client_that_does_not_ask_for_h2_is_closed(
    alpn: str | None, made: CertificateFiles
) -> None:
    async with (
        serving(server_files(made)) as port,
        connected(port, client_context(made)) as (bystander, _),
    ):
        await is_closed(port, client_context(made, alpn=alpn))
        await is_served(bystander)


async def test_tls_1_2_is_rejected(made: CertificateFiles) -> None:
    old = client_context(made)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(server_files(made)) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")


@on_both_loops
async def test_a_client_needs_a_certificate_of_the_right_ca(
    made: CertificateFiles, others: CertificateFiles
) -> None:
    async with (
        serving(server_files(made, client_ca=True)) as port,
        connected(port, client_context(made, owner=made)) as (wire, _),
    ):
        await is_served(wire)
        await is_closed(port, client_context(made))
        await is_closed(port, client_context(made, owner=others))
        await is_served(wire)


async def test_a_servers_certificate_is_not_good_for_a_client(made: CertificateFiles) -> None:
    context = client_context(made)
    context.load_cert_chain(made.server, key_of(made.server))
    async with serving(server_files(made, client_ca=True)) as port:
        await is_closed(port, context)


async def test_a_wrong_certificate_is_rejected_even_if_certificates_are_optional(
    made: CertificateFiles, others: CertificateFiles
) -> None:
    files = server_files(made, client_ca=True, client_required=False)
    async with serving(files) as port:
        async with connected(port, client_context(made)) as (wire, _):
            await is_served(wire)
        await is_closed(port, client_context(made, owner=others))


def install(new: CertificateFiles, old: CertificateFiles) -> None:
    """Replace a server's certificate, its key and the CA by others."""
    for source, target in (
        (new.server, old.server),
        (key_of(new.server), key_of(old.server)),
        (new.ca, old.ca),
    ):
        replace(target, source.read_bytes())


@on_both_loops
async def test_a_new_certificate_applies_to_new_connections_and_the_open_one_continues(
    made: CertificateFiles, others: CertificateFiles
) -> None:
    clock = Clock()
    first, second = client_context(made), client_context(others)
    async with serving(server_files(made), clock) as port, connected(port, first) as (wire, _):
        install(others, made)
        clock.now += LOOK_SECONDS
        async with connected(port, second) as (renewed, _):
            await is_served(renewed)
        await is_served(wire)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=first, server_hostname="localhost")


@on_both_loops
async def test_a_replaced_ca_is_no_longer_accepted(
    made: CertificateFiles, others: CertificateFiles
) -> None:
    clock = Clock()
    former, latter = (client_context(made, owner=owner) for owner in (made, others))
    async with (
        serving(server_files(made, client_ca=True), clock) as port,
        connected(port, former) as (wire, _),
    ):
        replace(made.ca, others.ca.read_bytes())
        clock.now += LOOK_SECONDS
        async with connected(port, latter) as (renewed, _):
            await is_served(renewed)
        await is_closed(port, former)
        await is_served(wire)


async def test_half_a_pair_leaves_the_earlier_one_and_is_complained_of_once(
    made: CertificateFiles, others: CertificateFiles, logged: Logged
) -> None:
    clock = Clock()
    trusting = client_context(made)
    async with serving(server_files(made), clock) as port:
        replace(made.server, others.server.read_bytes())
        for _look in range(2):
            clock.now += LOOK_SECONDS
            async with connected(port, trusting) as (wire, _):
                await is_served(wire)
        complaints = [line for line in logged if line["log_level"] == "error"]
        assert len(complaints) == 1
        assert "key values mismatch" in complaints[0]["error"]
        install(others, made)
        clock.now += LOOK_SECONDS
        async with connected(port, client_context(others)) as (wire, _):
            await is_served(wire)


def test_a_key_that_vanishes_while_it_is_read_is_named(
    made: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ssl.SSLContext.load_cert_chain

    def load_and_lose(self: ssl.SSLContext, certfile: Path, keyfile: Path, **more: Any) -> None:
        load(self, certfile, keyfile, **more)
        keyfile.unlink()

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_lose)
    with pytest.raises(FileUnusable, match=f"{key_of(made.server)} cannot be read"):
        ServerTls(server_files(made))


def encrypted(made: CertificateFiles, password: bytes) -> None:
    """Encrypt the server's key."""
    path = key_of(made.server)
    key = load_pem_private_key(path.read_bytes(), None)
    encryption = BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def test_a_key_may_have_a_password_in_a_file(made: CertificateFiles, tmp_path: Path) -> None:
    encrypted(made, b"open sesame")
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    ServerTls(server_files(made, key_password=password))


@pytest.mark.parametrize("password", [None, "wrong", "x" * 2000])
def test_an_encrypted_key_without_its_password_is_an_error(
    password: str | None, made: CertificateFiles, tmp_path: Path
) -> None:
    encrypted(made, b"open sesame")
    file = None
    if password is not None:
        file = tmp_path / "password"
        file.write_text(password)
    with pytest.raises(FileUnusable, match="CREDIT_TLS_KEY_PASSWORD_FILE") as refused:
        ServerTls(server_files(made, key_password=file))
    assert password is None or password not in str(refused.value)


@pytest.mark.parametrize("which", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff"])
def test_a_file_that_cannot_be_used_is_named(
    which: str, content: bytes | None, made: CertificateFiles
) -> None:
    files = server_files(made, client_ca=True)
    path: Path = getattr(files, which)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileUnusable, match=str(path)):
        ServerTls(files)


def test_a_clients_own_certificate_is_no_ca(made: CertificateFiles) -> None:
    shutil.copy(made.client, made.ca)
    with pytest.raises(FileUnusable, match="no CA certificate"):
        ServerTls(server_files(made, client_ca=True))


def test_a_key_that_everybody_can_read_is_warned_of(made: CertificateFiles, logged: Logged) -> None:
    ServerTls(server_files(made))
    assert not logged
    key_of(made.server).chmod(0o644)
    ServerTls(server_files(made))
    assert [line["log_level"] for line in logged] == ["warning"]


def test_the_settings_describe_it(made: CertificateFiles) -> None:
    assert open_tls(AccessSettings().tls_files) is None
    settings = {
        "tls_certificate": made.server,
        "tls_key": key_of(made.server),
        "tls_client_ca": made.ca,
    }
    required = open_tls(AccessSettings.model_validate(settings).tls_files)
    optional = open_tls(
        AccessSettings.model_validate({**settings, "tls_client_auth": "optional"}).tls_files
    )
    assert required is not None
    assert required.context.verify_mode is ssl.CERT_REQUIRED
    assert optional is not None
    assert optional.context.verify_mode is ssl.CERT_OPTIONAL


def test_the_validity_is_that_of_the_certificates_in_use(
    made: CertificateFiles, others: CertificateFiles
) -> None:
    clock = Clock()
    tls = ServerTls(server_files(made, client_ca=True), clock=clock)
    server, ca = tls.validities()
    assert (server.path, ca.path) == (made.server, made.ca)
    assert server.ends == end_of(made.server)
    assert ca.ends == end_of(made.ca)
    replace(made.server, b"broken")
    clock.now += LOOK_SECONDS
    assert tls.validities() == (server, ca), "the earlier certificate is still the one in use"
    for path, other in ((made.server, others.server), (key_of(made.server), key_of(others.server))):
        replace(path, other.read_bytes())
    clock.now += LOOK_SECONDS
    assert tls.validities()[0].ends == end_of(others.server)


def test_the_first_certificate_of_a_file_to_end_counts(
    made: CertificateFiles, tmp_path: Path
) -> None:
    short = make_certificates(tmp_path / "short", client="shop", days=0.5)
    made.ca.write_bytes(made.ca.read_bytes() + short.ca.read_bytes())
    (_, ca) = ServerTls(server_files(made, client_ca=True)).validities()
    assert ca.ends == end_of(short.ca)
