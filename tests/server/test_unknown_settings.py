"""Variables that set nothing are found, and the variables of others are left alone."""

import re
from collections.abc import Callable
from inspect import signature

import pytest
from credit_client.settings import ClientSettings
from credit_server.access.authorize import AccessLimits
from credit_server.access.identity import TokenRules
from credit_server.admission.list_slots import ListSlots
from credit_server.commit import CommitLimits
from credit_server.commit.clock import SKEW_SECONDS_MAX
from credit_server.grpc.handler import CallLimits
from credit_server.http2.limits import ConnectionLimits
from credit_server.settings import ServerSettings, settings_of, unknown_variables
from credit_server.settings.unknown import _REMOVED, removed_options
from credit_server.store.driver import Driver
from credit_server.store.mongo import MongoStore
from credit_server.store.port import PAGE_SIZE
from credit_server.telemetry import HealthWatch


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("CREDIT_PROT", "CREDIT_PROT (CREDIT_PORT?)"),
        ("CREDIT_TLS_CERTIFCATE", "CREDIT_TLS_CERTIFCATE (CREDIT_TLS_CERTIFICATE?)"),
        ("credit_prot", "credit_prot (CREDIT_PORT?)"),
        ("CREDIT_QQQQQQ", "CREDIT_QQQQQQ"),
        ("CREDIT_SERVER_PORT", "CREDIT_SERVER_PORT"),
    ],
)
def test_a_typing_error_is_found_with_what_may_be_meant(name: str, phrase: str) -> None:
    (found,) = unknown_variables({name: "50052", "PATH": "/bin"})
    assert found.startswith(phrase)


OF_THE_SERVER = [setting.variable for setting in settings_of(ServerSettings)]
OF_THE_SDK = [f"CREDIT_{name.upper()}" for name in ClientSettings.model_fields]
REMOVED = {name: instead for each in _REMOVED.values() for name, instead in each.items()}
RULES = TokenRules(issuer="i", audience="a")


def test_a_setting_that_was_removed_is_named_as_such() -> None:
    assert unknown_variables({"credit_rate_burst": "1", "CREDIT_MONGODB_DRIVER": "pymongo"}) == [
        "CREDIT_MONGODB_DRIVER (removed after 0.3.0: the driver is always motor)",
        "credit_rate_burst (removed after 0.2.0: it depends on CREDIT_RATE_PER_SECOND)",
    ]
    assert removed_options(["--port", "1", "--message-bytes-max=9"]) == [
        "--message-bytes-max was removed after 0.3.0: the value is always 2097152."
    ]
    assert REMOVED.keys().isdisjoint({*OF_THE_SERVER, *OF_THE_SDK})


def _default(owner: Callable[..., object], name: str) -> object:
    return signature(owner).parameters[name].default


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("CREDIT_CALL_DEADLINE_SECONDS", CallLimits().call_deadline_seconds),
        ("CREDIT_CLOCK_SKEW_SECONDS_MAX", SKEW_SECONDS_MAX),
        ("CREDIT_COMMIT_BATCH_MAX", CommitLimits().batch_max),
        ("CREDIT_COMMIT_CACHE_MAX", CommitLimits().cache_max),
        ("CREDIT_COMMIT_LANES", CommitLimits().shards),
        ("CREDIT_COMMIT_RETRY_SECONDS", CommitLimits().retry_seconds),
        ("CREDIT_COMMIT_WAITING_MAX", CommitLimits().waiting_max),
        ("CREDIT_CONNECTION_AGE_GRACE_SECONDS", ConnectionLimits().age_grace_seconds),
        ("CREDIT_CONNECTION_CLOSING_SECONDS", ConnectionLimits().closing_seconds),
        ("CREDIT_CONNECTION_CONTROL_FRAMES_BURST", ConnectionLimits().control_frames_burst),
        (
            "CREDIT_CONNECTION_CONTROL_FRAMES_PER_SECOND",
            ConnectionLimits().control_frames_per_second,
        ),
        ("CREDIT_CONNECTION_HANDSHAKE_SECONDS", ConnectionLimits().handshake_seconds),
        ("CREDIT_CONNECTION_HEADER_BYTES_MAX", ConnectionLimits().header_bytes_max),
        ("CREDIT_CONNECTION_KEEPALIVE_SECONDS", ConnectionLimits().keepalive_seconds),
        (
            "CREDIT_CONNECTION_KEEPALIVE_TIMEOUT_SECONDS",
            ConnectionLimits().keepalive_timeout_seconds,
        ),
        ("CREDIT_CONNECTION_LISTS_MAX", ConnectionLimits().lists_max),
        ("CREDIT_CONNECTION_REQUEST_BYTES_MAX", ConnectionLimits().request_bytes_max),
        ("CREDIT_CONNECTION_RESETS_BURST", ConnectionLimits().resets_burst),
        ("CREDIT_CONNECTION_RESETS_PER_SECOND", ConnectionLimits().resets_per_second),
        ("CREDIT_CONNECTION_STREAMS_MAX", ConnectionLimits().streams_max),
        ("CREDIT_CONNECTION_STREAM_WINDOW_BYTES", ConnectionLimits().stream_window_bytes),
        ("CREDIT_CONNECTION_WINDOW_BYTES", ConnectionLimits().connection_window_bytes),
        ("CREDIT_CONNECTION_WRITE_BUFFER_BYTES", ConnectionLimits().write_buffer_bytes),
        ("CREDIT_DEADLINE_SECONDS_MAX", CallLimits().deadline_seconds_max),
        ("CREDIT_HEALTH_INTERVAL_SECONDS", _default(HealthWatch, "interval_seconds")),
        ("CREDIT_HEALTH_TIMEOUT_SECONDS", _default(HealthWatch, "timeout_seconds")),
        ("CREDIT_LIST_PAGES_AT_ONCE", _default(ListSlots, "at_once")),
        ("CREDIT_LIST_PAGE_SIZE", PAGE_SIZE),
        ("CREDIT_LIST_WAIT_SECONDS_MAX", _default(ListSlots, "wait_seconds_max")),
        ("CREDIT_MESSAGE_BYTES_MAX", CallLimits().message_bytes_max),
        ("CREDIT_OVERLOAD_STREAMS_MAX", CallLimits().overload_streams_max),
        ("CREDIT_RATE_NAMES_MAX", AccessLimits().names_max),
        ("CREDIT_STREAM_DEADLINE_SECONDS", CallLimits().stream_deadline_seconds),
        ("CREDIT_TOKEN_CACHE_MAX", RULES.cache_max),
        ("CREDIT_TOKEN_LEEWAY_SECONDS", RULES.leeway_seconds),
        ("CREDIT_TOKEN_LENGTH_MAX", RULES.length_max),
    ],
)
def test_the_value_that_applies_instead_of_a_removed_setting_is_right(
    variable: str, default: object
) -> None:
    assert isinstance(default, int | float)
    instead = REMOVED[variable]
    assert re.findall(r"\d+", instead) == [str(int(default))]
    assert default == int(default)


def test_a_removed_setting_without_a_value_names_a_setting_that_exists() -> None:
    others = {name: text for name, text in REMOVED.items() if not re.search(r"\d", text)}
    assert others.pop("CREDIT_MONGODB_DRIVER") == f"the driver is always {Driver.MOTOR}"
    assert _default(MongoStore, "driver") is Driver.MOTOR
    assert len(others) == 5
    for instead in others.values():
        (name,) = re.findall(r"CREDIT_\w+", instead)
        assert name in OF_THE_SERVER


@pytest.mark.parametrize("names", [OF_THE_SERVER, OF_THE_SDK])
def test_every_setting_of_the_server_and_of_the_sdk_is_known(names: list[str]) -> None:
    assert not unknown_variables(dict.fromkeys([*names, *map(str.lower, names)], "1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CREDIT_SERVICE_HOST", "10.0.0.1"),
        ("CREDIT_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("CREDIT_SERVER_SERVICE_PORT", "50051"),
        ("CREDIT_SERVER_SERVICE_PORT_GRPC", "50051"),
        ("CREDIT_SERVER_PORT", "tcp://10.0.0.1:50051"),
        ("CREDIT_SERVER_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
        ("CREDIT_SERVER_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_left_alone(name: str, value: str) -> None:
    assert not unknown_variables({name: value})


def test_no_value_is_shown() -> None:
    assert "hidden" not in repr(unknown_variables({"CREDIT_MONGODB_URL": "mongodb://me:hidden@db"}))
