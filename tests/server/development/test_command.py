"""`credit-server token`: a server accepts what it makes, and nothing is overwritten."""

import shlex
import ssl
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from credit_server.access import Credentials, FileUnusable, Identity, open_authenticator, open_tls
from credit_server.development.certificate import find_certificates, make_certificates
from credit_server.development.command import AUDIENCE, ISSUER
from credit_server.main import run as run_command
from credit_server.settings import ServerSettings, settings_of

from tests.server.access.signing import ed_key, private_pem, public_pem

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in settings_of(ServerSettings):
        monkeypatch.delenv(setting.variable, raising=False)


def run(options: Sequence[str]) -> int:
    return run_command(["token", *options])


def exported(captured: Captured) -> dict[str, str]:
    """Reads what a shell would, from lines that are nothing but `export NAME=value`."""
    variables = {}
    for line in captured.readouterr().out.splitlines():
        word, assignment = shlex.split(line)
        assert word == "export"
        name, _, value = assignment.partition("=")
        variables[name] = value
    return variables


def as_settings(variables: dict[str, str]) -> ServerSettings:
    return ServerSettings.model_validate(
        {name.removeprefix("CREDIT_").lower(): value for name, value in variables.items()}
    )


def issue(captured: Captured, key: Path, *options: str) -> str:
    needed = ["--key", str(key), "--subject", "shop", "--scopes", "credits:spend,credits:read"]
    assert run(["issue", *needed, *options]) == 0
    printed = captured.readouterr()
    assert not printed.err
    token: str = printed.out
    assert token.count("\n") == 1, "the token and nothing else"
    return token.strip()


def authenticate(settings: ServerSettings, token: str) -> Identity:
    authenticator = open_authenticator(settings.identity_files)
    assert authenticator is not None
    return authenticator.authenticate(
        Credentials(authorization=f"Bearer {token}", certificate=None)
    )


def test_a_server_with_the_printed_variables_accepts_an_issued_token(
    tmp_path: Path, capsys: Captured
) -> None:
    directory = tmp_path / "of two words"
    assert run(["keys", "--directory", str(directory)]) == 0
    settings = as_settings(exported(capsys))
    assert (settings.token_issuer, settings.token_audience) == (ISSUER, AUDIENCE)
    token = issue(capsys, directory / "token-key.pem", "--apps", "1,2", "--actor", "7")
    assert authenticate(settings, token) == Identity(
        name="shop",
        scopes=frozenset({"credits:spend", "credits:read"}),
        apps=frozenset({1, 2}),
        actor=7,
        may_impersonate=False,
    )


def test_a_token_may_be_for_all_apps_and_actors(tmp_path: Path, capsys: Captured) -> None:
    run(["keys", "--directory", str(tmp_path)])
    settings = as_settings(exported(capsys))
    token = issue(capsys, tmp_path / "token-key.pem", "--apps", "*", "--impersonate")
    identity = authenticate(settings, token)
    assert identity.apps is None
    assert identity.may_impersonate
    assert identity.actor is None


@pytest.mark.parametrize(
    ("given", "limits"), [("500", (500, 500)), ("1=500,*=100", (500, 100)), ("1=500", (500, None))]
)
def test_a_token_may_limit_what_one_call_adds(
    given: str, limits: tuple[int, int | None], tmp_path: Path, capsys: Captured
) -> None:
    run(["keys", "--directory", str(tmp_path)])
    settings = as_settings(exported(capsys))
    token = issue(capsys, tmp_path / "token-key.pem", "--credits-max", given)
    add_limits = authenticate(settings, token).add_limits
    assert (add_limits.of(1), add_limits.of(2)) == limits


@pytest.mark.parametrize("given", ["", "0", "1=", "=5", "1=2,1=3", "a=5", "4294967296"])
def test_a_limit_that_is_not_valid_is_misuse(given: str, tmp_path: Path, capsys: Captured) -> None:
    needed = ["--key", str(tmp_path), "--subject", "shop", "--scopes", "credits:issue"]
    assert run(["issue", *needed, "--credits-max", given]) == 2
    assert "--credits-max" in capsys.readouterr().err


def test_issuer_and_audience_are_those_of_the_servers_variables(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDIT_TOKEN_ISSUER", "https://issuer.example")
    monkeypatch.setenv("CREDIT_TOKEN_AUDIENCE", "ledger")
    run(["keys", "--directory", str(tmp_path)])
    settings = as_settings(exported(capsys))
    assert (settings.token_issuer, settings.token_audience) == ("https://issuer.example", "ledger")
    assert authenticate(settings, issue(capsys, tmp_path / "token-key.pem")).name == "shop"


def test_a_key_of_another_kind_signs_too(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem(ed_key()))
    (tmp_path / "public.pem").write_bytes(public_pem(ed_key()))
    settings = ServerSettings(
        token_keys=tmp_path / "public.pem", token_issuer=ISSUER, token_audience=AUDIENCE
    )
    assert authenticate(settings, issue(capsys, tmp_path / "key.pem")).name == "shop"


def test_only_the_owner_can_read_what_is_secret(tmp_path: Path) -> None:
    run(["keys", "--directory", str(tmp_path)])
    run(["certificates", "--directory", str(tmp_path)])
    secret = {
        path.name for path in tmp_path.iterdir() if stat.S_IMODE(path.stat().st_mode) == 0o600
    }
    assert secret == {"token-key.pem", "server-key.pem", "client-key.pem"}


FILES = {
    "keys": ["token-key.pem", "token-keys.json"],
    "certificates": ["ca.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem"],
}
BOTH = pytest.mark.parametrize("action", list(FILES))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@BOTH
def test_what_was_made_earlier_is_used_as_it_is(
    action: str, tmp_path: Path, capsys: Captured
) -> None:
    assert run([action, "--directory", str(tmp_path)]) == 0
    before, first = contents(tmp_path), exported(capsys)
    assert sorted(before) == sorted(FILES[action])
    assert run([action, "--directory", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "used as they are" in printed.err
    assert all(f"export {name}={value}" in printed.out for name, value in first.items())
    assert contents(tmp_path) == before


def test_keys_and_certificates_share_a_directory(tmp_path: Path, capsys: Captured) -> None:
    for _ in range(2):
        assert run(["keys", "--directory", str(tmp_path)]) == 0
        assert run(["certificates", "--directory", str(tmp_path)]) == 0
        assert as_settings(exported(capsys)).has_identities


@pytest.mark.parametrize(
    ("action", "missing"), [(action, name) for action, names in FILES.items() for name in names]
)
def test_an_incomplete_set_is_left_alone_and_the_error_names_the_remedy(
    action: str, missing: str, tmp_path: Path, capsys: Captured
) -> None:
    run([action, "--directory", str(tmp_path)])
    (tmp_path / missing).unlink()
    before = contents(tmp_path)
    capsys.readouterr()
    assert run([action, "--directory", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert f"{tmp_path / missing} is missing: put it back" in printed.err
    assert "exists and is not overwritten" in printed.err
    assert "remove" in printed.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["nonsense", "another set's"])
@pytest.mark.parametrize(
    ("action", "name"), [(action, name) for action, names in FILES.items() for name in names]
)
def test_a_set_that_is_not_valid_is_left_alone_and_reported(
    action: str, name: str, how: str, tmp_path: Path, capsys: Captured
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        run([action, "--directory", str(directory)])
    (here / name).write_bytes(b"nonsense" if how == "nonsense" else (there / name).read_bytes())
    before = contents(here)
    capsys.readouterr()
    assert run([action, "--directory", str(here)]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert str(here) in printed.err
    assert contents(here) == before


def test_certificates_that_have_ended_are_reported(tmp_path: Path) -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    make_certificates(tmp_path, client="shop", days=2, now=made)
    assert find_certificates(tmp_path, client="shop", now=made + timedelta(days=1))
    with pytest.raises(FileUnusable, match=r"server\.pem ended 2026-01-03: name another"):
        find_certificates(tmp_path, client="shop", now=made + timedelta(days=2))


@pytest.mark.parametrize("client", ["shop", "spiffe://localhost/shop"])
def test_certificates_of_another_client_are_reported(
    client: str, tmp_path: Path, capsys: Captured
) -> None:
    options = ["certificates", "--directory", str(tmp_path)]
    assert run([*options, "--client", client]) == 0
    assert run([*options, "--client", client]) == 0
    assert run(options) == 0, "without --client any client will do"
    capsys.readouterr()
    assert run([*options, "--client", "another"]) == 1
    assert f"client.pem is made out to {client}" in capsys.readouterr().err


def test_the_printed_variables_start_tls(tmp_path: Path, capsys: Captured) -> None:
    assert run(["certificates", "--directory", str(tmp_path), "--client", "shop"]) == 0
    tls = open_tls(as_settings(exported(capsys)).tls_files)
    assert tls is not None
    assert tls.context.verify_mode is ssl.CERT_OPTIONAL


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["sell"],
        ["issue"],
        ["issue", "--key", "k", "--subject", "s", "--scopes", "credits:everything"],
        ["issue", "--key", "k", "--subject", "", "--scopes", "credits:read"],
        ["issue", "--key", "k", "--subject", "s", "--scopes", "credits:read", "--apps", ""],
        ["issue", "--key", "k", "--subject", "s", "--scopes", "credits:read", "--apps", "0"],
        ["issue", "--key", "k", "--subject", "s", "--scopes", "credits:read", "--apps", "1,"],
        [
            "issue",
            "--key",
            "k",
            "--subject",
            "s",
            "--scopes",
            "credits:read",
            "--actor",
            "4294967296",
        ],
        ["issue", "--key", "k", "--subject", "s", "--scopes", "credits:read", "--minutes", "0"],
        ["certificates", "--days", "nan"],
    ],
)
def test_misuse_is_reported(options: list[str], capsys: Captured) -> None:
    assert run(options) == 2
    printed = capsys.readouterr()
    if options:
        assert printed.err.startswith("credit-server: ")
        assert "See credit-server token" in printed.err
    else:
        assert "Usage: credit-server token" in printed.out


@pytest.mark.parametrize("content", [None, b"nonsense", public_pem(ed_key())])
def test_a_key_that_signs_nothing_is_reported(
    content: bytes | None, tmp_path: Path, capsys: Captured
) -> None:
    key = tmp_path / "key.pem"
    if content is not None:
        key.write_bytes(content)
    options = ["--key", str(key), "--subject", "shop", "--scopes", "credits:read"]
    assert run(["issue", *options]) == 1
    printed = capsys.readouterr()
    assert not printed.out
    assert str(key) in printed.err


@pytest.mark.parametrize("command", ["keys", "certificates"])
def test_a_directory_that_cannot_be_made_is_reported(
    command: str, tmp_path: Path, capsys: Captured
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for directory, why in ((tmp_path / ("x" * 300), "too long"), (file, "cannot be")):
        assert run([command, "--directory", str(directory)]) != 0
        printed = capsys.readouterr()
        assert why in printed.err
        assert "Traceback" not in printed.err
        assert not printed.out
