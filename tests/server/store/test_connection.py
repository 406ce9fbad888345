"""Test the options of clients: those of the connection string take precedence."""

import pytest
from credit_server.store.connection import open_clients
from credit_server.store.driver import Driver

_DRIVERS_OWN = (10.0, 20.0)


@pytest.mark.parametrize("driver", Driver)
@pytest.mark.parametrize(
    ("options", "timed", "expected"),
    [
        pytest.param("", True, (1.0, 2.0), id="defaults"),
        pytest.param("", False, _DRIVERS_OWN, id="answers that are not timed"),
        pytest.param("?connectTimeoutMS=700", True, (1.0, 0.7), id="one in the string"),
        pytest.param(
            "?w=1&HEARTBEATFREQUENCYMS=5000&connecttimeoutms=9000", True, (5.0, 9.0), id="both"
        ),
        pytest.param("?heartbeatFrequencyMS=5000", False, (5.0, 20.0), id="one, not timed"),
    ],
)
async def test_a_host_that_hangs_is_found_as_soon_as_the_connection_string_or_the_server_wants(
    driver: Driver, options: str, *, timed: bool, expected: tuple[float, float]
) -> None:
    uri = f"mongodb://127.0.0.1:1/{options}"
    clients = open_clients(
        uri, name="test", timeout_seconds=5, driver=driver, answers_are_timed=timed
    )
    for client in (clients.reading, clients.writing):
        found = client.options
        checks = found.pool_options
        settings = client._topology_settings if driver is Driver.PYMONGO else None
        assert checks.connect_timeout == expected[1]
        assert checks.socket_timeout == (5.0 if timed else None)
        if settings is not None:
            assert settings.heartbeat_frequency == expected[0]
    await clients.close()
