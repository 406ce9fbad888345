"""TLS to a server: what is agreed on, whom it trusts, and what is said when it fails."""

import shutil
import socket
import ssl
import threading
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from credit_client import ClientSettings, CreditClient, TlsFailed, Unavailable
from credit_client.testing import FakeCreditService
from credit_client.tls import Tls
from credit_testing.certificates import Authority, Issued, private_pem, self_signed
from cryptography.hazmat.primitives.asymmetric import rsa

FakeServer = Callable[..., AbstractAsyncContextManager[int]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(folder=tmp_path / "ca")


@pytest.fixture
def server_certificate(authority: Authority) -> Issued:
    return authority.issue("localhost", "127.0.0.1")


def server_context(issued: Issued, *, clients: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    context.set_alpn_protocols(["h2"])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.file)
    return context


@asynccontextmanager
async def calling(
    fake_server: FakeServer, context: ssl.SSLContext | None, **options: Any
) -> AsyncIterator[CreditClient]:
    settings = ClientSettings(retry_attempts_max=2, retry_backoff_initial_seconds=0.001)
    async with (
        fake_server(FakeCreditService(), ssl=context) as port,
        CreditClient(f"127.0.0.1:{port}", settings=settings, **options) as client,
    ):
        yield client


async def _refused(client: CreditClient, words: str) -> None:
    with pytest.raises(TlsFailed, match=words) as caught:
        await client.add(user_id=7, app_id=1, credits=1, created_by=1)
    assert caught.value.request_id is not None
    assert caught.value.idempotency_key is not None


async def test_a_ca_file_makes_calls_over_tls_1_3(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    context = server_context(server_certificate)
    async with calling(fake_server, context, tls=authority.file, token="t") as client:
        receipt = await client.add(user_id=7, app_id=1, credits=1, created_by=1)
        assert receipt.balance == 1
        assert [one.balance_after async for one in client.transactions(user_id=7)] == [1]


async def test_a_context_of_the_app_s_own_is_used(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    own = ssl.create_default_context(cafile=authority.file)
    async with calling(fake_server, server_context(server_certificate), tls=own) as client:
        assert await client.balance(app_id=1) == 0


async def test_a_client_certificate_is_shown(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    context = server_context(server_certificate, clients=authority)
    own = authority.issue("app-7")
    async with calling(
        fake_server,
        context,
        tls=authority.file,
        client_certificate=own.certificate,
        client_key=own.key,
    ) as client:
        assert await client.balance(app_id=1) == 0


async def test_a_server_that_requires_a_client_certificate_has_an_error_of_its_own(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    context = server_context(server_certificate, clients=authority)
    async with calling(fake_server, context, tls=authority.file, wait_for_ready=False) as client:
        with pytest.raises(Unavailable, match="as by a server that requires a client certificate"):
            await client.balance(app_id=1)


async def test_a_client_certificate_of_an_unknown_ca_has_an_error_of_its_own(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued, tmp_path: Path
) -> None:
    strange = Authority(folder=tmp_path / "strange", name="strange CA").issue("app-7")
    async with calling(
        fake_server,
        server_context(server_certificate, clients=authority),
        tls=authority.file,
        client_certificate=strange.certificate,
        client_key=strange.key,
        wait_for_ready=False,
    ) as client:
        with pytest.raises(Unavailable, match="requires a client certificate, or another one"):
            await client.balance(app_id=1)


async def test_a_failed_handshake_has_its_own_error_with_python_3_11_1_to_3_11_3(
    fake_server: FakeServer,
    authority: Authority,
    server_certificate: Issued,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def abort(transport: Any) -> None:  # Any: its attributes are private
        transport._ssl_protocol._abort()  # as there; it is None in a closed transport

    monkeypatch.setattr(sslproto._SSLProtocolTransport, "abort", abort)
    serving = server_context(server_certificate, clients=authority)
    async with calling(fake_server, serving, tls=authority.file, wait_for_ready=False) as client:
        with pytest.raises(Unavailable, match="as by a server that requires a client certificate"):
            await client.balance(app_id=1)


@contextmanager
def speaking_server(context: ssl.SSLContext) -> Iterator[int]:
    """Fails one handshake and sends the alert, as OpenSSL does; asyncio's own server does not."""

    def serve() -> None:
        plain, _ = listener.accept()
        with (
            plain,
            context.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            ) as encrypted,
        ):
            try:
                encrypted.do_handshake()
            except ssl.SSLError:
                # Closing with unread bytes would reset the connection and with it the alert.
                with socket.socket(fileno=encrypted.detach()) as rest:
                    while rest.recv(65536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


async def test_an_alert_for_a_missing_client_certificate_has_an_error_of_its_own(
    authority: Authority, server_certificate: Issued
) -> None:
    context = server_context(server_certificate, clients=authority)
    with speaking_server(context) as port:
        async with CreditClient(f"127.0.0.1:{port}", tls=authority.file) as client:
            await _refused(client, "requires a client certificate: give `client_certificate`")


async def test_an_alert_for_an_unknown_ca_has_an_error_of_its_own(
    authority: Authority, server_certificate: Issued, tmp_path: Path
) -> None:
    strange = Authority(folder=tmp_path / "strange", name="strange CA").issue("app-7")
    context = server_context(server_certificate, clients=authority)
    with speaking_server(context) as port:
        async with CreditClient(
            f"127.0.0.1:{port}",
            tls=authority.file,
            client_certificate=strange.certificate,
            client_key=strange.key,
        ) as client:
            await _refused(client, "does not trust the CA of the client certificate")


async def test_a_server_of_a_strange_ca_is_not_trusted(
    fake_server: FakeServer, server_certificate: Issued, tmp_path: Path
) -> None:
    other = Authority(folder=tmp_path / "other", name="other CA")
    async with calling(fake_server, server_context(server_certificate), tls=other.file) as client:
        await _refused(client, "signed by no CA that is trusted here: give the file")
    async with calling(fake_server, server_context(server_certificate), tls=True) as client:
        await _refused(client, "signed by no CA that is trusted here")


async def test_an_expired_certificate_is_not_trusted(
    fake_server: FakeServer, authority: Authority
) -> None:
    expired = server_context(authority.issue("127.0.0.1", days=-1))
    async with calling(fake_server, expired, tls=authority.file) as client:
        await _refused(client, "has expired")


async def test_a_certificate_for_another_name_is_not_trusted(
    fake_server: FakeServer, authority: Authority
) -> None:
    other = server_context(authority.issue("credit.example"))
    async with calling(fake_server, other, tls=authority.file) as client:
        await _refused(client, "made out to another name than '127.0.0.1'")


async def test_tls_1_2_is_refused_whoever_makes_the_context(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    old = server_context(server_certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with speaking_server(old) as port:
        async with CreditClient(f"127.0.0.1:{port}", tls=authority.file) as client:
            await _refused(client, r"TLS 1\.3, which is required")
    async with calling(fake_server, old, tls=authority.file, wait_for_ready=False) as client:
        with pytest.raises(Unavailable, match="closed it during the TLS handshake"):
            await client.balance(app_id=1)
    own = ssl.create_default_context(cafile=authority.file)
    async with calling(fake_server, old, tls=own) as client:
        await _refused(client, r"agreed on TLSv1\.2; TLS 1\.3 is required")


async def test_a_server_without_http_2_is_refused(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued
) -> None:
    plain = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    plain.load_cert_chain(server_certificate.certificate, server_certificate.key)
    async with calling(fake_server, plain, tls=authority.file) as client:
        await _refused(client, "does not speak HTTP/2")


async def test_a_server_without_tls_has_an_error_of_its_own(
    fake_server: FakeServer, authority: Authority
) -> None:
    async with calling(fake_server, None, tls=authority.file) as client:
        await _refused(client, "does not speak TLS at this port: connect without `tls`")


async def test_a_failed_handshake_is_not_retried(
    raw_server: Callable[..., AbstractAsyncContextManager[Any]], authority: Authority
) -> None:
    async with (
        raw_server(first_bytes=b"\0\0\0\4\0\0\0\0\0") as raw,
        CreditClient(f"127.0.0.1:{raw.port}", tls=authority.file) as client,
    ):
        await _refused(client, "does not speak TLS")
        assert len(raw.connections) == 1


async def test_the_error_of_a_client_without_tls_names_tls(
    fake_server: FakeServer, server_certificate: Issued
) -> None:
    service = FakeCreditService()
    settings = ClientSettings(retry_attempts_max=1)
    async with (
        fake_server(service, ssl=server_context(server_certificate)) as port,
        CreditClient(f"127.0.0.1:{port}", settings=settings) as client,
    ):
        with pytest.raises(Unavailable, match=r"expects TLS: connect with `tls`"):
            await client.balance(app_id=1)


async def test_an_alert_in_plain_text_is_known_as_tls(
    raw_server: Callable[..., AbstractAsyncContextManager[Any]],
) -> None:
    settings = ClientSettings(retry_attempts_max=1)
    async with (
        raw_server(first_bytes=b"\x15\x03\x03\0\x02\x02\x46") as raw,
        CreditClient(f"127.0.0.1:{raw.port}", settings=settings) as client,
    ):
        with pytest.raises(Unavailable, match="speaks TLS: connect with `tls`"):
            await client.balance(app_id=1)


async def test_a_renewed_client_certificate_is_used_by_the_next_connection(
    fake_server: FakeServer, authority: Authority, server_certificate: Issued, tmp_path: Path
) -> None:
    own = Issued(certificate=tmp_path / "own.pem", key=tmp_path / "own.key")
    strange = Authority(folder=tmp_path / "strange", name="strange CA").issue("app-7")
    _put(strange, own)
    async with calling(
        fake_server,
        server_context(server_certificate, clients=authority),
        tls=authority.file,
        client_certificate=own.certificate,
        client_key=own.key,
        wait_for_ready=False,
    ) as client:
        with pytest.raises(Unavailable, match="client certificate"):
            await client.balance(app_id=1)
        _put(authority.issue("app-7"), own)
        assert await client.balance(app_id=1) == 0


def _put(source: Issued, place: Issued) -> None:
    # Another file under the same name, as a renewal is put in place.
    for path, target in ((source.certificate, place.certificate), (source.key, place.key)):
        new = target.with_suffix(".new")
        shutil.copy(path, new)
        new.rename(target)


def test_files_that_are_being_renewed_leave_the_former_in_use(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = Issued(certificate=tmp_path / "own.pem", key=tmp_path / "own.key")
    _put(authority.issue("app-7"), own)
    tls = Tls(ca=authority.file, certificate=own.certificate, key=own.key)
    before = tls.context()
    renewed = authority.issue("app-7")
    _put(Issued(certificate=renewed.certificate, key=own.key), own)
    assert tls.context() is before
    assert "another certificate" in caplog.text
    _put(renewed, own)
    after = tls.context()
    assert after is not before
    assert tls.context() is after


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"tls": "missing.pem"}, "the CA file missing.pem: No such file"),
        ({"tls": "junk"}, "the CA file .*junk: a certificate in PEM format is needed"),
        ({"client_certificate": "missing.pem"}, "the client certificate in missing.pem: No such"),
        (
            {"client_certificate": "junk"},
            "junk: a certificate and its key in PEM",
        ),
        ({"client_certificate": "der"}, "der: a certificate and its key in PEM"),
        ({"client_certificate": "good", "client_key": "other"}, "the key belongs to another"),
        ({"client_certificate": "weak"}, "it cannot be used .EE_KEY_TOO_SMALL"),
        ({"client_certificate": "good", "client_key": "locked"}, "encrypted"),
        ({"client_key": "good"}, "without tls_client_certificate"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_once(
    authority: Authority, tmp_path: Path, what: dict[str, str], words: str
) -> None:
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "der").write_bytes(b"0\x82\x01\x00")
    good, other = authority.issue("a"), authority.issue("b")
    locked = authority.issue("c", passphrase=b"secret")
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (tmp_path / "weak").write_bytes(private_pem(small) + self_signed(small))
    files = {
        "junk": tmp_path / "junk",
        "weak": tmp_path / "weak",
        "der": tmp_path / "der",
        "good": good.certificate,
        "other": other.key,
        "locked": locked.key,
    }
    options: Any = {name: files.get(file, Path(file)) for name, file in what.items()}
    with pytest.raises(ValueError, match=words):
        CreditClient("credit.example", **options)
