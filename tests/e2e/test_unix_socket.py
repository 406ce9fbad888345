"""Test the real server on a Unix domain socket with our SDK and a foreign client."""

from pathlib import Path
from signal import SIGKILL

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from credit_client import CreditClient
from credit_models import CreditRequest, Empty
from credit_models.codec import decode, encode
from credit_server.development.certificate import CertificateFiles, key_of, make_certificates

from tests.conftest import StartServer

WRITE = "/credit.v1.CreditService/AddCredits"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "credit.sock"


@pytest.fixture
def certificates(tmp_path: Path) -> CertificateFiles:
    return make_certificates(tmp_path / "certificates", client="shop", days=1)


def _add(channel: grpc.Channel) -> Empty:
    add = channel.unary_unary(WRITE)
    request = CreditRequest(user_id=7, app_id=1, credits=5, created_by=1)
    return decode(Empty, add(encode(request), timeout=60))


async def test_the_sdk_and_grpcio_use_one_socket(
    credit_server_process: StartServer, store_options: list[str], path: Path
) -> None:
    server = await credit_server_process("--host", f"unix:{path}", *store_options)
    assert server.address == f"unix:{path}"
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert _add(channel) == Empty()
    with grpc.insecure_channel(f"unix://{path}") as channel:
        assert _add(channel) == Empty()
    async with CreditClient(server.address) as client:
        assert await client.balance(app_id=1, user_id=7) == 10
    line = await server.logged(lambda line: line.get("method", "").endswith("GetAppBalance"))
    assert line["peer"].startswith("unix:uid=")
    assert await server.stop() == 0
    assert not path.exists()  # noqa: ASYNC240 - a test may wait for a file


async def test_the_server_name_for_tls_is_localhost(
    credit_server_process: StartServer,
    store_options: list[str],
    path: Path,
    certificates: CertificateFiles,
) -> None:
    tls = (
        "--tls-certificate",
        str(certificates.server),
        "--tls-key",
        str(key_of(certificates.server)),
    )
    server = await credit_server_process("--host", f"unix:{path}", *tls, *store_options)
    async with CreditClient(f"unix:{path}", tls=certificates.ca) as client:
        await client.add(user_id=7, app_id=1, credits=5, created_by=1)
        assert await client.balance(app_id=1, user_id=7) == 5
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    # gRPC's C core uses the path as the name.
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{path}", credentials, options) as channel:
        assert _add(channel) == Empty()
    assert await server.stop() == 0


async def test_a_server_replaces_the_socket_of_a_killed_server(
    credit_server_process: StartServer, store_options: list[str], path: Path
) -> None:
    first = await credit_server_process("--host", f"unix:{path}", *store_options)
    async with CreditClient(first.address, timeout_seconds=120) as client:
        await client.add(user_id=7, app_id=1, credits=5, created_by=1)
        await first.stop(SIGKILL)
        assert path.is_socket()  # noqa: ASYNC240
        await credit_server_process("--host", f"unix:{path}", *store_options)
        assert (await client.add(user_id=7, app_id=1, credits=5, created_by=1)).balance == 10
