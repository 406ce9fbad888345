"""The configuration is read, and errors in it are reported."""

from pathlib import Path

import pytest
from grpc_fuzz import config
from grpc_fuzz.adapters import BufValidate, CustomOptions
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.errors import ConfigError
from grpc_fuzz.model import Limits, TrailerRule
from grpc_fuzz.settings import Example, Link, Report
from grpc_fuzz.target import Target, Tls

FULL = """
image = "shop.binpb"
target = "[::1]:443"
tls = { ca = "/ca.pem", server_name = "shop" }
phases = ["coverage", "wire"]
mode = "negative"
exclude_checks = "max_response_time, always_replies"
include_methods = ["*/Get"]
max_examples = 7
coverage_values = 2
seed = 3
workers = 2
rate_limit = 100
max_failures = 1
idempotency_key = "key"
allowed_statuses = ["ABORTED"]
reports = { junit = "out.xml" }

[metadata]
Authorization = "Bearer x"

[limits]
request_timeout = 2.5

[trailers.receipt-bin]
message = "shop.v1.Receipt"
ignore = ["replayed"]

[[examples]]
method = "shop.v1.Orders/Get"
request = { order_id = "1" }

[[links]]
source = "/shop.v1.Orders/Put:id"
target = "/shop.v1.Orders/Get:order_id"

[[adapters.custom_options]]
fields = { extension = "shop.v1.rule", map = { minimum = "least" } }
errors = { extension = "shop.v1.errors", rule = "shop.v1.refusal" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "grpc-fuzz.toml"
    path.write_text(text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = config.settings_from(config.read(write(tmp_path, FULL)))

    assert settings.image == tmp_path / "shop.binpb"
    tls = Tls(ca=Path("/ca.pem"), server_name="shop")
    assert settings.target == Target(host="::1", port=443, tls=tls)
    assert settings.phases == ("coverage", "wire")
    assert (settings.positive, settings.negative) == (False, True)
    assert settings.exclude_checks == ("max_response_time", "always_replies")
    assert settings.include_methods == ("*/Get",)
    assert (settings.max_examples, settings.seed, settings.workers) == (7, 3, 2)
    assert settings.coverage_values == 2
    assert (settings.rate_limit, settings.max_failures) == (100.0, 1)
    assert settings.metadata == (("authorization", "Bearer x"),)
    assert settings.limits == Limits(request_timeout=2.5)
    assert settings.trailers == {
        "receipt-bin": TrailerRule(message="shop.v1.Receipt", ignore=("replayed",))
    }
    assert settings.examples == (
        Example(method="shop.v1.Orders/Get", requests=({"order_id": "1"},)),
    )
    assert settings.links == (
        Link(source="/shop.v1.Orders/Put:id", target="/shop.v1.Orders/Get:order_id"),
    )
    assert settings.reports == (Report(kind="junit", path=Path("out.xml")),)
    assert {"ABORTED", "UNAVAILABLE"} <= settings.allowed_statuses
    standard, custom = settings.adapters
    assert isinstance(standard, BufValidate)
    assert isinstance(custom, CustomOptions)
    assert custom.field_options is not None
    assert custom.field_options.map == {"minimum": "least"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1", "target"),
        ("target = 'nowhere'", "has no port"),
        ("target = 'here:99999'", "the port must be 1 to 65535"),
        ("target = 'here:1'\nstrict_wire = 'no'", "strict_wire: 'no' is not true or false"),
        ("target = 'here:1'\nmod = 'all'", "unknown: mod"),
        ("target = 'here:1'\nmode = 'some'", "mode: 'some' is not one of"),
        ("target = 'here:1'\nworkers = 0", "workers: must be at least 1"),
        ("target = 'here:1'\nrate_limit = 0", "rate_limit: must be more than 0"),
        ("target = 'here:1'\nlimits = { request_timeout = -1 }", "limits: must be more than 0"),
        ("target = 'here:1'\nlimits = { patience = 1 }", "limits: .*patience"),
        ("target = 'here:1'\nreports = 'pdf=x'", "reports: 'pdf' is not"),
        ("target = 'here:1'\n[[links]]\nsource = 'a'", "links: .*target"),
        (
            """
target = 'a:1'
[[adapters.custom_options]]
fields = {extension = 'a', map = {least = 'b'}}
""",
            "adapters: map: no such rule: least",
        ),
        ("target = ", "grpc-fuzz.toml"),
    ],
)
def test_an_invalid_configuration_is_reported(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.settings_from(config.read(write(tmp_path, text)))


def test_a_token_is_read_from_its_file_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setenv("OLD", "old")
    text = """
target = "here:1"
[credentials]
token_file = "token"
expired_token_variable = "OLD"
public = ["*/Get"]
"""
    settings = config.settings_from(config.read(write(tmp_path, text)))

    assert settings.credentials == Credentials(token="abc", expired="old", public=("*/Get",))
    assert settings.metadata_of("valid") == (("authorization", "Bearer abc"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("token_file = 'missing'", "No such file"),
        ("token_file = 'empty'", "holds no token"),
        ("token_variable = 'UNSET'", "UNSET holds no token"),
        ("token_variable = 'SPACES'", "SPACES holds no token"),
        ("token_file = 'a'\ntoken_variable = 'A'", "name only one of them"),
        ("expired_token_variable = 'GOOD'", "a valid one, too"),
        ("token = 'abc'", "unknown: token"),
        ("token_variable = 'GOOD'\nkey = 'A b'", "key may contain a-z"),
        ("token_variable = 'GOOD'\nscheme = '$x'", "scheme letters"),
        ("token_variable = 'GOOD'\n[metadata]\nAuthorization = 'x'", "metadata: authorization"),
    ],
)
def test_an_invalid_token_is_reported_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "empty").write_text("")
    for name, value in {"GOOD": "s3cret", "SPACES": "s3cret s3cret"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as error:
        config.settings_from(
            config.read(write(tmp_path, f"target = 'here:1'\n[credentials]\n{text}"))
        )
    assert "s3cret" not in str(error.value)


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path: Path) -> None:
    text = "target = 'here:1'\nimage = 'a.binpb'\ntls = { ca = 'ca.pem', key = '/key.pem' }\n"
    settings = config.settings_from(config.read(write(tmp_path, text)))

    assert settings.image == tmp_path / "a.binpb"
    assert settings.target.tls == Tls(ca=tmp_path / "ca.pem", key=Path("/key.pem"))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.read(tmp_path / "missing.toml")
