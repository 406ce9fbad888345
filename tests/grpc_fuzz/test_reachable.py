"""Why a server cannot be called is said with what to do about it."""

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
from grpc_fuzz.reachable import obstacle
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target, Tls

from tests.grpc_fuzz.broken_server import running_shop, shop_schema
from tests.grpc_fuzz.http2_server import Http2Server

SECONDS = 30.0
BRIEF = 0.3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificates(folder / "made", client="fuzzer", days=1)


@pytest.fixture
def nothing() -> Target:
    """An address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return at(listener.getsockname()[1])


def at(port: int, tls: Tls | None = None) -> Target:
    return Target(host="127.0.0.1", port=port, tls=tls)


@contextmanager
def saying(reply: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that says one thing to whoever comes, and hangs up; None: it says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # Whoever gives up on the handshake is told by the other side.
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


def server_context(made: CertificateFiles, *, ask: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.server, key_of(made.server))
    context.set_alpn_protocols(["h2"])
    if ask:
        context.load_verify_locations(made.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_server_that_speaks_http2_has_no_obstacle() -> None:
    with running_shop() as port:
        assert obstacle(at(port), SECONDS) is None


def test_a_port_that_nothing_listens_on(nothing: Target) -> None:
    assert f"{nothing} does not answer: nothing listens there" in str(obstacle(nothing, SECONDS))


def test_a_name_that_does_not_resolve() -> None:
    target = Target(host="no-such-host.invalid", port=1)

    assert "the name 'no-such-host.invalid' cannot be resolved" in str(obstacle(target, SECONDS))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP/1 and not HTTP/2"),
        (b"\x15\x03\x01\x00\x02\x02\x16", "speaks TLS; add --tls"),
        (b"220 mail.example ESMTP\r\n", "does not speak HTTP/2"),
        (b"", "closes the connection at once, without an answer of HTTP/2. It may speak TLS"),
    ],
)
def test_a_server_of_another_protocol(reply: bytes, message: str) -> None:
    with saying(reply) as port:
        assert message in str(obstacle(at(port), SECONDS))


def test_a_server_that_says_nothing() -> None:
    with saying(None) as port:
        assert "accepts the connection, and sends nothing in 0.3 s" in str(
            obstacle(at(port), BRIEF)
        )


def test_a_server_with_tls_that_is_called_without(made: CertificateFiles) -> None:
    with saying(b"x", server_context(made)) as port:
        assert "--tls" in str(obstacle(at(port), SECONDS))


def test_a_server_without_tls_that_is_called_with(made: CertificateFiles) -> None:
    with running_shop() as port:
        assert "does not speak TLS" in str(obstacle(at(port, Tls(ca=made.ca)), SECONDS))


def test_a_certificate_that_is_not_trusted(made: CertificateFiles) -> None:
    with saying(b"x", server_context(made)) as port:
        assert "its certificate is not trusted" in str(obstacle(at(port, Tls()), SECONDS))


def test_a_certificate_of_another_name(made: CertificateFiles) -> None:
    tls = Tls(ca=made.ca, server_name="elsewhere.example")
    with saying(b"x", server_context(made)) as port:
        why = str(obstacle(at(port, tls), SECONDS))

    assert "its certificate is not trusted" in why
    assert "--tls-server-name" in why


def test_a_server_that_wants_the_clients_certificate(made: CertificateFiles) -> None:
    with saying(b"x", server_context(made, ask=True)) as port:
        assert "--tls-certificate and --tls-key" in str(
            obstacle(at(port, Tls(ca=made.ca)), SECONDS)
        )


def test_a_real_server_with_tls_is_called_with_it_and_without(
    made: CertificateFiles, tmp_path: Path
) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    pair = (key_of(made.server).read_bytes(), made.server.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        assert obstacle(at(port, Tls(ca=made.ca)), SECONDS) is None
        assert "--tls" in str(obstacle(at(port), SECONDS))
    finally:
        server.stop(None).wait()


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    target = Target.parse(f"unix:{tmp_path}/none")

    assert "there is no such socket" in str(obstacle(target, SECONDS))


def test_a_run_over_a_unix_socket(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    try:
        settings = settings_for(Target.parse(f"unix:{tmp_path}/s"), tmp_path)
        outcome = runner.run(replace(settings, phases=("coverage",)), shop_schema())
    finally:
        server.stop(None).wait()

    # It has no method at all, and says so.
    assert {failure.reply.status for failure in outcome.failures} == {"UNIMPLEMENTED"}


def test_a_server_that_reports_not_serving(tmp_path: Path) -> None:
    with (
        Http2Server(lambda path, data: [b"\x08\x02"]).running() as port,
        pytest.raises(runner.Unreachable, match="it reports NOT_SERVING"),
    ):
        runner.run(settings_for(at(port), tmp_path), shop_schema())


def test_reflection_of_a_server_that_cannot_be_reached(tmp_path: Path, nothing: Target) -> None:
    with pytest.raises(runner.Unreachable, match="nothing listens there"):
        runner.run(settings_for(nothing, tmp_path))


def settings_for(target: Target, folder: Path) -> Settings:
    return Settings(target=target, state_directory=folder)
