"""Variables that set nothing are found, and those of others are left alone."""

import pytest
from credit_client.settings import ClientSettings
from credit_server.settings import ServerSettings, unknown_variables


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CREDIT_PROT", "CREDIT_PROT (CREDIT_PORT?)"),
        ("CREDIT_TLS_CERTIFCATE", "CREDIT_TLS_CERTIFCATE (CREDIT_TLS_CERTIFICATE?)"),
        ("credit_prot", "credit_prot (CREDIT_PORT?)"),
        ("CREDIT_QQQQQQ", "CREDIT_QQQQQQ"),
        ("CREDIT_SERVER_PORT", "CREDIT_SERVER_PORT"),
    ],
)
def test_a_typing_error_is_found_with_what_may_be_meant(name: str, told: str) -> None:
    (found,) = unknown_variables({name: "50052", "PATH": "/bin"})
    assert found.startswith(told)


@pytest.mark.parametrize("settings", [ServerSettings, ClientSettings])
def test_every_setting_of_the_server_and_of_the_sdk_is_known(
    settings: type[ServerSettings] | type[ClientSettings],
) -> None:
    names = [f"CREDIT_{name.upper()}" for name in settings.model_fields]
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


def test_no_value_is_told() -> None:
    assert "hidden" not in repr(unknown_variables({"CREDIT_MONGODB_URL": "mongodb://me:hidden@db"}))
