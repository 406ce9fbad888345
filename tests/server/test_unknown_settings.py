"""Variables that set nothing are found, and the variables of others are left alone."""

import pytest
from credit_client.settings import ClientSettings
from credit_server.settings import ServerSettings, settings_of, unknown_variables
from credit_server.settings.unknown import _REMOVED


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


def test_a_setting_that_was_removed_is_named_as_such() -> None:
    assert unknown_variables({"credit_rate_burst": "1"}) == [
        "credit_rate_burst (removed after 0.2.0)"
    ]
    assert _REMOVED.isdisjoint({*OF_THE_SERVER, *OF_THE_SDK})


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
