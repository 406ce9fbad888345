"""The server put together on the memory twin: its start, banner, watch and end."""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from credit_models import CreditRequest, UserId, WatchRequest
from credit_server import app
from credit_server.access import FileUnusable
from credit_server.banner import banner
from credit_server.development.certificate import key_of, make_certificates
from credit_server.embedded import EmbeddedError
from credit_server.embedded.restarting import RESTARTS_MAX
from credit_server.errors import StartError
from credit_server.grpc.handler import CallLimits
from credit_server.http2.unix_socket import SocketFile
from credit_server.settings import ServerSettings, StoreSettings
from credit_server.store.memory import MemoryStore
from credit_server.store.port import ClockReading, StoreUnavailable
from credit_server.telemetry import HealthWatch
from credit_testing.calls import call_headers, framed, message_bytes
from credit_testing.http2_client import Connection
from grpclib.const import Status
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pydantic import SecretStr
from structlog.testing import capture_logs

from tests.server.serving import is_served

HEALTH = "/grpc.health.v1.Health/Check"


TLS: dict[str, object] = {"tls_certificate": "c", "tls_key": "k"}
TOKENS: dict[str, object] = {"token_keys": "k", "token_issuer": "i", "token_audience": "a"}


class SchemaStore(MemoryStore):
    """The memory twin with what `serve` needs of MongoDB, and a primary that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.pinged = asyncio.Event()
        self.pings = 0

    async def verify_schema(self) -> None:
        """Finds nothing wrong."""

    async def ping(self) -> ClockReading:
        self.pinged.set()
        self.pings += 1
        if self.away:
            raise StoreUnavailable("no primary")
        return await super().ping()


class Mongod:
    """Stands for the embedded mongod: dies when a test makes it."""

    def __init__(self) -> None:
        self.restarts = 0
        self.deaths: asyncio.Queue[str] = asyncio.Queue()

    async def wait_exited(self) -> str:
        return await self.deaths.get()

    def lacks_space(self) -> bool:
        return False

    async def restart(self) -> None:
        self.restarts += 1


def _settings(**changes: object) -> ServerSettings:
    return ServerSettings.model_validate(
        {
            "port": 0,
            "metrics_port": 0,
            "drain_seconds": 0,
            "grace_seconds": 5,
            **changes,
        }
    )


@asynccontextmanager
async def _serving(
    monkeypatch: pytest.MonkeyPatch,
    store: SchemaStore,
    mongod: Mongod | None = None,
    settings: ServerSettings | None = None,
    health_interval_seconds: float = 0.01,
) -> AsyncIterator[tuple[int, "asyncio.Task[None]"]]:
    """Runs `app.serve` on a store; yields the port, and the task that ends with the server."""
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def open_store(settings: StoreSettings) -> AsyncIterator[object]:
        yield SimpleNamespace(store=store, mongod=mongod)

    def found_port(settings: ServerSettings, port: int, metrics_address: str | None) -> str:
        listening.set_result(port)
        return "it listens"

    monkeypatch.setattr(app, "open_store", open_store)
    monkeypatch.setattr(app, "banner", found_port)
    watch = partial(HealthWatch, interval_seconds=health_interval_seconds)
    monkeypatch.setattr(app, "HealthWatch", watch)
    async with AsyncExitStack() as stack:
        task = asyncio.create_task(app.serve(settings or _settings()))
        stack.push_async_callback(asyncio.wait, {task})
        stack.callback(task.cancel)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(loop.remove_signal_handler, number)
        yield await listening, task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        _serving(monkeypatch, SchemaStore()) as (port, task),
        Connection.connect(port) as wire,
    ):
        await is_served(wire)
        assert "it listens" in capsys.readouterr().out
        os.kill(os.getpid(), number)
        await task
        await wire.closed.wait()
        assert wire.goaway is not None


async def test_health_follows_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SchemaStore()
    with capture_logs() as logged:
        async with _serving(monkeypatch, store) as (port, _), Connection.connect(port) as wire:
            for away, expected in (
                (False, HealthCheckResponse.SERVING),
                (True, HealthCheckResponse.NOT_SERVING),
                (False, HealthCheckResponse.SERVING),
            ):
                store.away = away
                for _beat in range(2):  # the second begins after the first has been noted
                    store.pinged.clear()
                    await store.pinged.wait()
                answer = await wire.call(HEALTH, HealthCheckRequest())
                assert answer.message(HealthCheckResponse).status == expected
    events = [line["event"] for line in logged if "store" in line["event"]]
    assert events == ["the store is unavailable", "the store is available again"]


async def test_the_start_asks_the_store_once_and_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SchemaStore()
    serving = _serving(monkeypatch, store, health_interval_seconds=3600)
    async with serving as (port, _), Connection.connect(port) as wire:
        answer = await wire.call(HEALTH, HealthCheckRequest())
        assert answer.message(HealthCheckResponse).status == HealthCheckResponse.SERVING
        assert store.pings == 1


async def test_a_store_that_is_away_at_the_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SchemaStore()
    store.away = True
    with pytest.raises(StoreUnavailable, match="no primary"):
        await _serve_on(monkeypatch, store)


async def test_an_embedded_mongod_that_dies_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mongod = Mongod()
    async with _serving(monkeypatch, SchemaStore(), mongod) as (port, task):
        for _ in range(RESTARTS_MAX):
            mongod.deaths.put_nowait("killed")
        async with Connection.connect(port) as wire:
            await is_served(wire)
        mongod.deaths.put_nowait("killed once more")
        with pytest.raises(EmbeddedError, match="killed once more"):
            await task
    assert mongod.restarts == RESTARTS_MAX


async def test_the_error_of_a_taken_port_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=r"another program uses it.*--port"):
            await _serve_on(monkeypatch, port=port)


async def test_a_taken_port_is_noticed_before_a_store_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def open_store(settings: StoreSettings) -> None:
        pytest.fail("the store was started")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(app, "open_store", open_store)
        loop = asyncio.get_running_loop()
        try:
            with pytest.raises(StartError, match="another program uses it"):
                await app.serve(_settings(port=port))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def test_the_error_of_another_machines_address_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From the range that is reserved for documentation: RFC 5737.
    with pytest.raises(StartError, match=r"does not have that address.*--host"):
        await _serve_on(monkeypatch, host="192.0.2.1", insecure=True)


async def _serve_on(
    monkeypatch: pytest.MonkeyPatch, store: SchemaStore | None = None, **changes: object
) -> None:
    @asynccontextmanager
    async def open_store(settings: StoreSettings) -> AsyncIterator[object]:
        yield SimpleNamespace(store=store or SchemaStore(), mongod=None)

    monkeypatch.setattr(app, "open_store", open_store)
    loop = asyncio.get_running_loop()
    try:
        await app.serve(_settings(**changes))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def test_the_port_is_free_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    async with _serving(monkeypatch, SchemaStore()) as (port, task):
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        with socket.create_server(("127.0.0.1", port)):
            pass


async def test_the_limit_on_messages_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = _settings(call=CallLimits(message_bytes_max=1024))
    request = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
    serving = _serving(monkeypatch, SchemaStore(), settings=settings)
    async with serving as (port, _), Connection.connect(port) as wire:
        request.idempotency_key = "k" * 1000
        assert (await wire.call("AddCredits", request)).status is Status.INVALID_ARGUMENT
        request.idempotency_key += "k" * 24
        assert (await wire.call("AddCredits", request)).status is Status.RESOURCE_EXHAUSTED


async def test_as_many_streams_of_watch_may_run_as_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(call=CallLimits(calls_max=1, loop_lag_seconds_max=3600.0))
    serving = _serving(monkeypatch, SchemaStore(), settings=settings)
    path, request = "/credit.v1.HistoryService/Watch", WatchRequest(user_id=7)
    async with serving as (port, _), Connection.connect(port) as wire:
        _, first = wire.begin(call_headers(path), framed(message_bytes(request)))
        await first.begun()
        assert (await wire.call(path, request)).status is Status.UNAVAILABLE
        assert (await wire.call("GetUserCredits", UserId(user_id=7))).status is Status.OK


async def test_writes_are_in_the_audit_log_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = _settings(audit_log=tmp_path / "audit.json")
    request = CreditRequest(user_id=7, app_id=1, credits=5, created_by=9)
    serving = _serving(monkeypatch, SchemaStore(), settings=settings)
    async with serving as (port, _), Connection.connect(port) as wire:
        assert (await wire.call("AddCredits", request)).status is Status.OK
    assert '"credits": 5' in (tmp_path / "audit.json").read_text()


async def test_an_audit_log_that_cannot_be_opened_is_an_error_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match=r"audit\.json cannot be opened: .*--audit-log"):
        await _serve_on(monkeypatch, audit_log=tmp_path / "absent" / "audit.json")


def test_the_banner_shows_the_address_and_a_line_to_try() -> None:
    shown = banner(_settings(), 50052)
    assert shown.startswith("credit-server listens on 127.0.0.1:50052 ")
    assert "credit add --target 127.0.0.1:50052" in shown
    assert "Ctrl-C" in shown


def test_the_banner_shows_the_number_of_workers_if_there_are_several() -> None:
    assert "\n  work   4 workers\n" in banner(_settings(workers=4), 50052)
    assert "  work" not in banner(_settings(), 50052)


@pytest.mark.parametrize(
    ("changes", "protection"),
    [
        ({}, "no TLS, no identities, open to all of this machine"),
        (
            {"host": "0.0.0.0", "insecure": True},
            "no TLS, no identities, open to all of the network: INSECURE",
        ),
        (
            {"host": "unix:/run/credit.sock"},
            "no TLS, no identities, open to all who may write to the socket's file",
        ),
        (TOKENS, "no TLS, tokens"),
        (TLS | TOKENS, "TLS 1.3, tokens"),
        (
            TLS | {"tls_client_ca": "ca", "identities_file": "i"},
            "TLS 1.3, client certificates",
        ),
    ],
)
def test_the_banner_shows_how_callers_are_known(
    changes: dict[str, object], protection: str
) -> None:
    shown = banner(_settings(**changes), 50052)
    assert f"({protection})\n" in shown
    assert ("credit add" in shown) == ("no TLS, no identities" in protection)


async def test_a_certificate_that_is_missing_stops_the_start() -> None:
    settings = _settings(tls_certificate="/nowhere", tls_key="/nowhere")
    with pytest.raises(FileUnusable, match="/nowhere cannot be read"):
        await app.serve(settings)


async def test_it_serves_with_the_tls_of_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = make_certificates(tmp_path, client="shop", days=1)
    settings = _settings(tls_certificate=made.server, tls_key=key_of(made.server))
    async with _serving(monkeypatch, SchemaStore(), settings=settings) as (port, _):
        trusting = ssl.create_default_context(cafile=made.ca)
        trusting.set_alpn_protocols(["h2"])
        async with Connection.connect(port, tls=trusting, host="localhost") as wire:
            await is_served(wire)


def test_the_banner_names_a_unix_domain_socket_without_a_port() -> None:
    shown = banner(_settings(host="unix:///run/credit.sock"), 0)
    assert shown.startswith("credit-server listens on unix:/run/credit.sock (")
    assert "credit add --target unix:/run/credit.sock --user" in shown


async def test_a_socket_that_cannot_be_listened_on_is_an_error_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    busy = SocketFile(str(tmp_path / "busy"), backlog=8)
    for name, why in {
        "file": "a file that is not a socket is there: remove it",
        "busy": "another server listens there",
        "missing/credit.sock": "its folder does not exist: make it",
    }.items():
        with pytest.raises(StartError, match=why):
            await _serve_on(monkeypatch, host=f"unix:{tmp_path / name}")
    busy.remove()
    busy.socket.close()


def test_the_banner_writes_an_ipv6_address_in_brackets() -> None:
    assert "[::1]:50052" in banner(_settings(host="::1"), 50052)


def test_the_banner_shows_where_the_embedded_data_is(tmp_path: Path) -> None:
    shown = banner(_settings(data_dir=tmp_path / "data"), 50052)
    assert f"embedded mongod, data in {tmp_path / 'data'}" in shown


@pytest.mark.parametrize(
    ("uri", "hosts"),
    [
        ("mongodb://db:27017", "db:27017"),
        ("mongodb://db", "db"),
        ("mongodb://db:27017/?replicaSet=rs", "db:27017"),
        ("mongodb://db?authMechanismProperties=TOKEN:hidden", "db"),
        ("mongodb://user:hidden@db:27017/", "db:27017"),
        ("mongodb://user:hid%40den@a:1,b:2,c:3/admin?ssl=true", "a:1,b:2,c:3"),
        ("mongodb+srv://user:hidden@cluster.example.org/?appName=me@hidden", "cluster.example.org"),
        ("mongodb://user:hid@den@db/", "db"),
    ],
)
def test_the_banner_shows_the_hosts_of_a_connection_string_and_nothing_else(
    uri: str, hosts: str
) -> None:
    shown = banner(_settings(mongodb_uri=SecretStr(uri)), 50052)
    assert f"  store  MongoDB {hosts}, database credit\n" in shown
    assert "hid" not in shown
    assert "user:" not in shown
