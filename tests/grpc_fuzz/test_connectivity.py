"""The reason why a server is unreachable is reported, with what to do."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from credit_server.development.certificate import CertificateFiles, key_of, make_certificates
from grpc_fuzz import runner
from grpc_fuzz.connectivity import why_unreachable
from grpc_fuzz.errors import Unreachable
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target, Tls

from tests.grpc_fuzz.contracts import shop_schema
from tests.grpc_fuzz.http2_server import Http2Server
from tests.grpc_fuzz.shop_server import running_shop

SECONDS = 30.0
BRIEF = 0.3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificates(folder / "made", client="fuzzer", days=1)


@pytest.fixture
def nothing() -> Target:
    """Return an address without a server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return at(listener.getsockname()[1])


def at(port: int, tls: Tls | None = None) -> Target:
    return Target(host="127.0.0.1", port=port, tls=tls)


@contextmanager
def replying(reply: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve one fixed reply per connection, and close it; None keeps it open without a reply."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # The client may end the handshake.
            with contextlib.suppress(OSError), connection:
                stream = connection
                if context is not None:
                    stream = context.wrap_socket(connection, server_side=True)
                with stream:
                    stream.recv(65536)
                    if reply is None:
                        done.wait()
                    else:
                        stream.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def server_context(certificates: CertificateFiles, *, ask: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, key_of(certificates.server))
    context.set_alpn_protocols(["h2"])
    if ask:
        context.load_verify_locations(certificates.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_server_that_speaks_http2_is_reachable() -> None:
    with running_shop() as port:
        assert why_unreachable(at(port), SECONDS) is None


def test_a_port_without_a_server(nothing: Target) -> None:
    assert f"{nothing} does not answer: nothing listens there" in str(
        why_unreachable(nothing, SECONDS)
    )


def test_a_name_that_does_not_resolve() -> None:
    target = Target(host="no-such-host.invalid", port=1)

    assert "the name 'no-such-host.invalid' cannot be resolved" in str(
        why_unreachable(target, SECONDS)
    )


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP/1 and not HTTP/2"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "speaks TLS; add --tls"),
        (b"220 mail.example ESMTP\r\n", "does not speak HTTP/2"),
        (b"", "closes the connection at once, without an HTTP/2 response. It may speak TLS"),
    ],
)
def test_a_server_with_another_protocol(reply: bytes, message: str) -> None:
    with replying(reply) as port:
        assert message in str(why_unreachable(at(port), SECONDS))


def test_a_server_that_sends_nothing() -> None:
    with replying(None) as port:
        assert "accepts the connection but sends nothing within 0.3 s" in str(
            why_unreachable(at(port), BRIEF)
        )


def test_a_server_with_tls_and_a_client_without(certificates: CertificateFiles) -> None:
    with replying(b"x", server_context(certificates)) as port:
        assert "--tls" in str(why_unreachable(at(port), SECONDS))


def test_a_server_without_tls_and_a_client_with_tls(certificates: CertificateFiles) -> None:
    with running_shop() as port:
        assert "does not speak TLS" in str(
            why_unreachable(at(port, Tls(ca=certificates.ca)), SECONDS)
        )


def test_a_certificate_that_is_not_trusted(certificates: CertificateFiles) -> None:
    with replying(b"x", server_context(certificates)) as port:
        assert "its certificate is not trusted" in str(why_unreachable(at(port, Tls()), SECONDS))


def test_a_certificate_with_another_name(certificates: CertificateFiles) -> None:
    tls = Tls(ca=certificates.ca, server_name="elsewhere.example")
    with replying(b"x", server_context(certificates)) as port:
        why = str(why_unreachable(at(port, tls), SECONDS))

    assert "its certificate is not trusted" in why
    assert "--tls-server-name" in why


def test_a_server_that_requires_a_client_certificate(certificates: CertificateFiles) -> None:
    with replying(b"x", server_context(certificates, ask=True)) as port:
        assert "--tls-certificate and --tls-key" in str(
            why_unreachable(at(port, Tls(ca=certificates.ca)), SECONDS)
        )


def test_a_grpcio_server_with_tls(certificates: CertificateFiles, tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    pair = (key_of(certificates.server).read_bytes(), certificates.server.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        assert why_unreachable(at(port, Tls(ca=certificates.ca)), SECONDS) is None
        assert "--tls" in str(why_unreachable(at(port), SECONDS))
    finally:
        server.stop(None).wait()


def test_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    target = Target.parse(f"unix:{tmp_path}/none")

    assert "there is no such socket" in str(why_unreachable(target, SECONDS))


def test_a_run_over_a_unix_socket(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    try:
        settings = settings_for(Target.parse(f"unix:{tmp_path}/s"), tmp_path)
        outcome = runner.run(replace(settings, phases=("coverage",)), shop_schema())
    finally:
        server.stop(None).wait()

    # The server has no methods.
    assert {failure.reply.status for failure in outcome.failures} == {"UNIMPLEMENTED"}


def test_a_server_that_reports_not_serving(tmp_path: Path) -> None:
    with (
        Http2Server(lambda path, data: [b"\x08\x02"]).running() as port,
        pytest.raises(Unreachable, match="it reports NOT_SERVING"),
    ):
        runner.run(settings_for(at(port), tmp_path), shop_schema())


def test_reflection_of_a_server_that_cannot_be_reached(tmp_path: Path, nothing: Target) -> None:
    with pytest.raises(Unreachable, match="nothing listens there"):
        runner.run(settings_for(nothing, tmp_path))


def settings_for(target: Target, folder: Path) -> Settings:
    return Settings(target=target, state_directory=folder)
