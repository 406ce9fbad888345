"""The command `credit-server`: what it prints, and its exit code."""

import gc
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from credit_server import app, doctor, main
from credit_server.access import FileUnusable
from credit_server.backup import command
from credit_server.backup.errors import BackupUnusable
from credit_server.doctor import Finding, Verdict
from credit_server.embedded import EmbeddedError
from credit_server.errors import StartError
from credit_server.settings import ServerSettings, StoreSettings, settings_of
from credit_server.store.port import StoreError, StoreUnavailable

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of the help is broken over two lines."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    """Undoes what `serve` sets up for its whole process.

    Objects that `serve` has frozen stay frozen. If the modules and tests of the whole run were not
    frozen, each later garbage collection would take 0.1 to 0.4 s of CPU.
    """
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


def _serve_with(monkeypatch: Patch, error: Exception | None = None) -> list[ServerSettings]:
    """Replaces the server, which then ends at once; returns the settings that it got."""
    served: list[ServerSettings] = []

    async def serve(settings: ServerSettings) -> None:
        served.append(settings)
        if error is not None:
            raise error

    monkeypatch.setattr(app, "serve", serve)
    return served


def test_without_a_command_it_shows_its_usage_and_ends_as_misused(capsys: Captured) -> None:
    assert main.run([]) == 2
    assert "Usage: credit-server [OPTIONS] COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_all_commands(option: str, capsys: Captured) -> None:
    assert main.run([option]) == 0
    shown = capsys.readouterr().out
    assert "serve" in shown
    assert "migrate" in shown
    assert "export" in shown
    assert "import" in shown
    assert "doctor" in shown
    assert "token" in shown


@pytest.mark.parametrize(
    "words",
    [
        "import --check --folder {}",
        "token keys --directory {}",
        "token certificates --directory {}",
        "token issue --subject s --scopes credits:spend --key {}",
        "serve --audit-log {}",
        "serve --mongodb-uri-file {}",
        "serve --tls-certificate {0} --tls-key {0}",
        "serve --token-issuer i --token-audience a --token-keys {}",
    ],
)
@pytest.mark.parametrize("place", ["absent", "file/below"])
def test_a_file_that_cannot_be_used_is_named_without_an_errno(
    words: str, place: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "file").write_text("neither PEM nor JSON\n")
    path = tmp_path / place
    if place == "absent" and words.startswith(("token keys", "token cert", "serve --audit")):
        path.symlink_to(tmp_path / "file")  # these make missing folders, but not below a file
        path /= "below"
    assert main.run([*words.format(path).split(), *_elsewhere(words, tmp_path)]) > 0
    lines = capsys.readouterr().err
    assert str(path) in lines
    assert "[Errno" not in lines
    assert "Traceback" not in lines


def _elsewhere(words: str, folder: Path) -> list[str]:
    """Return options that let the servers of two tests start at the same time."""
    if not words.startswith("serve"):
        return []
    return ["--port", "0", "--data-dir", str(folder / "data")]


def test_version_is_the_distributions_own(capsys: Captured) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == version("credit-server") + "\n"


def test_an_unknown_command_is_named(capsys: Captured) -> None:
    assert main.run(["sevre"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("credit-server: No such command 'sevre'")
    assert "See credit-server --help." in complaint


@pytest.mark.parametrize("command", ["serve", "migrate", "export", "import"])
def test_a_commands_help_shows_its_options_with_defaults(command: str, capsys: Captured) -> None:
    assert main.run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: credit-server {command}" in shown
    model = ServerSettings if command == "serve" else StoreSettings
    for setting in settings_of(model):
        assert re.search(rf"{setting.option} ", shown)
        assert f"[{setting.variable}]" in shown
    assert "[default: credit]" in shown


def test_the_help_shows_common_settings_first_and_the_others_in_groups(capsys: Captured) -> None:
    assert main.run(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    titles = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert (titles[0], titles[-1]) == ("Common settings", "Options")
    assert {setting.title for setting in settings_of(ServerSettings)} == set(titles[1:-1])
    assert shown.index("--port") < shown.index("--log-level") < shown.index("--calls-max")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_help_cuts_no_option_and_no_variable(
    columns: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.run(["serve", "--help"]) == 0
    words = set(capsys.readouterr().out.replace("[", " ").replace("]", " ").split())
    for setting in settings_of(ServerSettings):
        assert {setting.option, setting.variable} <= words


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--nope", "No such option: --nope"),
        ("positional", "Got unexpected extra argument(s) (positional)"),
        ("--port", "Option '--port' requires an argument."),
    ],
)
def test_an_unknown_option_is_misuse(argument: str, complaint: str, capsys: Captured) -> None:
    assert main.run(["serve", argument]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"credit-server: {complaint}")
    assert shown.endswith("See credit-server serve --help.\n")


@pytest.mark.parametrize("arguments", [["--rate-burst", "5"], ["--rate-burst=5"]])
def test_an_option_that_was_removed_is_named_as_such(
    arguments: list[str], capsys: Captured
) -> None:
    assert main.run(["serve", "--port", "0", *arguments]) == 2
    assert (
        "--rate-burst was removed after 0.2.0: it depends on CREDIT_RATE_PER_SECOND.\n"
        in capsys.readouterr().err
    )


def test_every_bad_value_is_named_by_option_and_variable(
    capsys: Captured, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("CREDIT_COMMIT_WAIT_SECONDS_MAX", "0")
    assert main.run(["serve", "--port", "http"]) == 2
    complaint = capsys.readouterr().err
    assert "--port (CREDIT_PORT): " in complaint
    assert "--commit-wait-seconds-max (CREDIT_COMMIT_WAIT_SECONDS_MAX): " in complaint
    assert "Traceback" not in complaint
    assert "pydantic" not in complaint


def test_an_address_that_others_can_reach_is_misuse(capsys: Captured) -> None:
    assert main.run(["serve", "--host", "0.0.0.0"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("credit-server: CREDIT_HOST 0.0.0.0 can be reached")
    assert "--insecure" in complaint


def test_a_server_that_stopped_in_order_ends_well(monkeypatch: Patch) -> None:
    served = _serve_with(monkeypatch)
    assert main.run(["serve", "--port", "0"]) == 0
    assert [settings.port for settings in served] == [0]


def test_a_server_seldom_runs_the_collector_and_skips_what_was_imported(
    monkeypatch: Patch,
) -> None:
    frozen = gc.get_freeze_count()
    _serve_with(monkeypatch)
    main.run(["serve"])
    assert gc.isenabled()
    assert gc.get_threshold() == (50_000, 10, 10)
    assert gc.get_freeze_count() > frozen


def test_a_server_warns_of_variables_that_set_nothing_in_one_line(
    capsys: Captured, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("CREDIT_PROT", "50052")
    monkeypatch.setenv("CREDIT_RATE_BURST", "1")
    monkeypatch.setenv("CREDIT_TARGET", "localhost:50052")
    _serve_with(monkeypatch)
    assert main.run(["serve", "--log-format", "json"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["names"] == [
        "CREDIT_PROT (CREDIT_PORT?)",
        "CREDIT_RATE_BURST (removed after 0.2.0: it depends on CREDIT_RATE_PER_SECOND)",
    ]


def test_the_error_of_a_missing_setting_names_a_variable_with_a_typing_error(
    capsys: Captured, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("CREDIT_TLS_CERTIFCATE", "server.pem")
    assert main.run(["serve", "--tls-key", "server-key.pem"]) == 2
    complaint = capsys.readouterr().err
    assert "set both, or neither" in complaint
    assert "no setting has the name CREDIT_TLS_CERTIFCATE (CREDIT_TLS_CERTIFICATE?)" in complaint


@pytest.mark.parametrize(
    "error",
    [
        StartError("say why"),
        StoreUnavailable("say why"),
        EmbeddedError("say why"),
        FileUnusable("say why"),
    ],
)
def test_a_server_that_cannot_start_prints_why_and_no_more(
    error: Exception, capsys: Captured, monkeypatch: Patch
) -> None:
    _serve_with(monkeypatch, error)
    assert main.run(["serve"]) == 1
    assert capsys.readouterr().err == "credit-server: say why\n"


def test_a_fault_of_its_own_is_not_hidden(monkeypatch: Patch) -> None:
    _serve_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main.run(["serve"])


def test_migrate_prints_the_schemas_version(capsys: Captured, monkeypatch: Patch) -> None:
    sharding: list[bool] = []

    async def migrate(settings: StoreSettings, *, shards: bool, on_wait: Callable[[], None]) -> int:
        on_wait()
        assert settings.mongodb_database == "ledger"
        sharding.append(shards)
        return 12

    monkeypatch.setattr(app, "migrate", migrate)
    for options in ([], ["--no-shard"]):
        assert main.run(["migrate", "--mongodb-database", "ledger", *options]) == 0
        shown = capsys.readouterr()
        assert shown.out == "the database 'ledger' has schema version 12\n"
        assert shown.err == "waiting for another migration of the database\n"
    assert sharding == [True, False]


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        (["create the collection a", "build indexes of a: b"], None),
        ([], "the database 'credit' is up to date"),
    ],
)
def test_a_dry_run_of_a_migration_prints_its_steps(
    steps: list[str], shown: str | None, capsys: Captured, monkeypatch: Patch
) -> None:
    async def planned_migration(_: StoreSettings, *, shards: bool) -> list[str]:
        return [*steps, "shard a"] if shards else steps

    monkeypatch.setattr(app, "planned_migration", planned_migration)
    assert main.run(["migrate", "--dry-run", "--no-shard"]) == 0
    assert capsys.readouterr().out == (shown or "\n".join(steps)) + "\n"
    assert main.run(["migrate", "--dry-run"]) == 0
    assert capsys.readouterr().out == "\n".join([*steps, "shard a"]) + "\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt(), "interrupted; repeat the command to continue"),
        (BackupUnusable("say why"), "say why"),
        (StoreError("say why"), "say why"),
    ],
)
@pytest.mark.parametrize("name", ["export", "import"])
def test_a_backup_that_fails_prints_why(
    name: str, error: BaseException, message: str, capsys: Captured, monkeypatch: Patch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(command, f"run_{name}", fail)
    assert main.run([name, "--folder", "backup"]) == 1
    assert capsys.readouterr().err == f"credit-server: {message}\n"


def test_a_migration_that_fails_prints_why(capsys: Captured, monkeypatch: Patch) -> None:
    async def migrate(settings: StoreSettings, *, shards: bool, on_wait: Callable[[], None]) -> int:
        raise StoreError("say why")

    monkeypatch.setattr(app, "migrate", migrate)
    assert main.run(["migrate"]) == 1
    assert capsys.readouterr().err == "credit-server: say why\n"


def _found(monkeypatch: Patch, verdict: Verdict) -> list[ServerSettings]:
    """Replaces the examination by one finding; returns the settings that it got."""
    examined: list[ServerSettings] = []

    async def examine(settings: ServerSettings) -> list[Finding]:
        examined.append(settings)
        return [Finding(check="clock", verdict=verdict, found="was looked at", remedy="say why")]

    monkeypatch.setattr(doctor, "examine", examine)
    return examined


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.OK, 0), (Verdict.WARNING, 0), (Verdict.FAILS, 1)]
)
def test_the_doctor_shows_its_findings_and_ends_with_1_when_a_check_fails(
    verdict: Verdict, code: int, capsys: Captured, monkeypatch: Patch
) -> None:
    examined = _found(monkeypatch, verdict)
    assert main.run(["doctor", "--port", "7"]) == code
    assert "clock  was looked at -> say why" in capsys.readouterr().out
    assert [settings.port for settings in examined] == [7]


@pytest.mark.parametrize("arguments", [["--json", "--port", "7"], ["--port", "7", "--json"]])
def test_the_doctor_prints_json(arguments: list[str], capsys: Captured, monkeypatch: Patch) -> None:
    _found(monkeypatch, Verdict.WARNING)
    assert main.run(["doctor", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "warning"


def test_settings_that_are_not_valid_are_a_finding(capsys: Captured) -> None:
    assert main.run(["doctor", "--json", "--port", "http"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["verdict"] == "fails"
    assert "--port (CREDIT_PORT)" in finding["found"]


def test_an_unknown_option_of_the_doctor_is_misuse(capsys: Captured) -> None:
    assert main.run(["doctor", "--nope"]) == 2
    assert "See credit-server doctor --help." in capsys.readouterr().err


def test_help_names_the_variables_and_no_types_of_python(capsys: Captured) -> None:
    assert main.run(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"--port +NUMBER ", shown)
    assert re.search(r"--grace-seconds +SECONDS ", shown)
    assert re.search(r"--calls-max +COUNT ", shown)
    assert re.search(r"--data-dir +PATH ", shown)
    assert re.search(r"--log-format +auto\|console\|json ", shown)
    assert "CREDIT_STORE_TIMEOUT_SECONDS" in shown
    for name in ("SecretStr", " str", " int", " float", " Path"):
        assert f"{name} " not in shown
        assert f"{name}]" not in shown


def test_a_password_on_the_command_line_is_misuse(capsys: Captured) -> None:
    assert main.run(["migrate", "--mongodb-uri", "mongodb://me:hidden@db"]) == 2
    complaint = capsys.readouterr().err
    assert "CREDIT_MONGODB_URI_FILE" in complaint
    assert "hidden" not in complaint


def test_the_token_command_makes_keys(tmp_path: Path, capsys: Captured) -> None:
    assert main.run(["token", "keys", "--directory", str(tmp_path / "keys")]) == 0
    assert "CREDIT_TOKEN_KEYS" in capsys.readouterr().out


def test_the_command_ends_the_process_with_its_code(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "argv", ["credit-server", "sevre"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
