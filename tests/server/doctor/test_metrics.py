"""The address of the metrics is judged as the server would find it."""

import socket
from collections.abc import Iterator

import pytest
from credit_server.doctor.finding import Verdict
from credit_server.doctor.metrics import check_metrics
from credit_server.settings import ServerSettings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of another program's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


async def test_a_free_port_is_ok(free: int) -> None:
    finding = await check_metrics(ServerSettings(port=0, metrics_port=free))
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("is free")


async def test_a_named_port_in_use_fails(taken: int) -> None:
    finding = await check_metrics(ServerSettings(port=0, metrics_port=taken))
    assert finding.verdict is Verdict.FAILS
    assert "--metrics-port" in finding.remedy


async def test_the_default_in_use_is_a_warning_since_another_is_taken(taken: int) -> None:
    settings = ServerSettings(port=0)
    settings.metrics_port = taken  # in the default's place
    settings.model_fields_set.discard("metrics_port")
    assert (await check_metrics(settings)).verdict is Verdict.WARNING


async def test_a_port_in_use_beside_an_address_in_use_is_the_running_servers(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = ServerSettings(port=server.getsockname()[1], metrics_port=taken)
        assert (await check_metrics(settings)).verdict is Verdict.OK


async def test_the_servers_own_port_fails(free: int) -> None:
    finding = await check_metrics(ServerSettings(port=free, metrics_port=free))
    assert finding.verdict is Verdict.FAILS


async def test_an_address_of_another_machine_fails() -> None:
    # From the range that is kept for documents: RFC 5737.
    settings = ServerSettings(port=0, metrics_host="192.0.2.1")
    assert (await check_metrics(settings)).verdict is Verdict.FAILS


@pytest.mark.parametrize("settings", [{"metrics": False}, {"metrics_port": 0}])
async def test_no_metrics_and_any_port_are_ok(settings: dict[str, int], taken: int) -> None:
    everything = ServerSettings.model_validate({"metrics_port": taken, **settings})
    assert (await check_metrics(everything)).verdict is Verdict.OK
