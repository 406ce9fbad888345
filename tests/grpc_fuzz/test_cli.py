"""The command does as it is told, and its exit code says how it went."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from grpc_fuzz import checks
from grpc_fuzz.cli import main

from tests.grpc_fuzz.broken_server import running_shop, shop_image

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
CONFIG = """
idempotency_key = "key"
[[adapters.house]]
[adapters.house.fields]
extension = "shop.v1.rule"
[adapters.house.fields.map]
minimum = "minimum"
maximum = "maximum"
length_min = "length_min"
length_max = "length_max"
required = "required"
[adapters.house.errors]
extension = "shop.v1.errors"
rule = "shop.v1.refusal"
reason_prefix = "REASON_"
metadata = "metadata"
details = "details"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a contract and its configuration."""
    (tmp_path / "shop.binpb").write_bytes(shop_image())
    (tmp_path / "grpc-fuzz.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuzz(*arguments: str, port: int | None = None, command: str = "run") -> Result:
    target = [] if port is None else ["--target", f"127.0.0.1:{port}"]
    return CliRunner().invoke(main, [command, *arguments, *target], catch_exceptions=False)


def test_a_correct_server_passes_with_zero(folder: Path) -> None:
    with running_shop() as port:
        result = fuzz("shop.binpb", "--max-examples", "5", "--workers", "2", port=port)

    assert result.exit_code == 0, result.output
    assert "passed" in result.output


def test_a_failure_is_shown_reported_kept_and_replayed(folder: Path) -> None:
    options = ("--max-examples", "5", "--phases", "coverage", "--seed", "1")
    with running_shop("no_internal_leak") as port:
        result = fuzz("shop.binpb", *options, "--report", "junit=a.xml,ndjson=a.ndjson", port=port)
        names = [path.stem for path in (folder / ".grpc-fuzz" / "crashes").glob("*.json")]
        again = fuzz(names[0], "--image", "shop.binpb", command="replay", port=port)
    with running_shop() as port:
        mended = fuzz("--image", "shop.binpb", command="replay", port=port)

    assert result.exit_code == 1
    assert "no_internal_leak" in result.output
    assert "buf curl" in result.output
    assert f"grpc-fuzz replay {names[0]}" in result.output
    assert ET.parse(folder / "a.xml").getroot().findall(".//failure[@type='no_internal_leak']")
    events = [json.loads(line) for line in (folder / "a.ndjson").read_text().splitlines()]
    assert {"start", "phase", "case", "failure", "end"} == {event["event"] for event in events}
    assert names[0] in {event["id"] for event in events if event["event"] == "failure"}
    assert again.exit_code == 1
    assert "1 cases" in again.output
    assert mended.exit_code == 0


def test_crashes_are_replayed_before_anything_else(folder: Path) -> None:
    with running_shop("no_internal_leak") as port:
        fuzz("shop.binpb", "--phases", "coverage", "--max-failures", "1", port=port)
        result = fuzz("shop.binpb", "--phases", "coverage", "--max-failures", "1", port=port)

    assert result.exit_code == 1
    assert "replay " in result.output
    assert "coverage " not in result.output.partition("FAILURES")[0]


def test_a_server_that_asks_nobody_is_shown_kept_and_replayed_without_the_token(
    folder: Path,
) -> None:
    (folder / "token").write_text(TOKEN)
    options = ("--token-file", "token", "--max-examples", "2", "--phases", "coverage")
    with running_shop("ignored_auth", TOKEN) as port:
        result = fuzz("shop.binpb", *options, "--report", "ndjson=a.ndjson", port=port)
        again = fuzz("--image", "shop.binpb", *options[:2], command="replay", port=port)
    with running_shop(token=TOKEN) as port:
        mended = fuzz("--image", "shop.binpb", *options[:2], command="replay", port=port)
    with running_shop("ignored_auth", TOKEN) as port:
        public = fuzz("shop.binpb", *options, "--public-method", "*/Get", port=port)

    assert (result.exit_code, again.exit_code) == (1, 1)
    assert (mended.exit_code, public.exit_code) == (0, 0)
    assert "instead of UNAUTHENTICATED without credentials" in " ".join(result.output.split())
    written = [path.read_text() for path in (folder / ".grpc-fuzz").rglob("*.json")]
    for text in (result.output, (folder / "a.ndjson").read_text(), *written):
        assert TOKEN.rpartition(".")[2] not in text


def test_a_token_that_the_server_does_not_take_fails_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "wrong")
    with running_shop(token=TOKEN) as port:
        result = fuzz("shop.binpb", "--token-variable", "WRONG", "--phases", "coverage", port=port)

    assert result.exit_code == 1
    assert "credentials_accepted" in result.output


def test_the_same_seed_sends_the_same_cases(folder: Path) -> None:
    sent = []
    options = ("--phases", "fuzzing", "--max-examples", "5", "--include-method", "*/List")
    with running_shop() as port:
        for seed in ("0", "0", "2"):
            fuzz("shop.binpb", "--seed", seed, *options, "--report", "ndjson=a.ndjson", port=port)
            events = map(json.loads, (folder / "a.ndjson").read_text().splitlines())
            sent.append([event["id"] for event in events if event["event"] == "case"])

    assert sent[0] == sent[1] != sent[2]


def test_fuzz_ends_with_the_first_failure(folder: Path) -> None:
    with running_shop("no_internal_leak") as port:
        result = fuzz("shop.binpb", "--max-time", "60", command="fuzz", port=port)

    assert result.exit_code == 1
    assert "1 failed" in result.output


def test_fuzz_ends_when_its_time_is_up(folder: Path) -> None:
    with running_shop() as port:
        result = fuzz("shop.binpb", "--max-time", "0.5", command="fuzz", port=port)

    assert result.exit_code == 0


def test_coverage_shows_what_the_last_run_reached(folder: Path) -> None:
    with running_shop() as port:
        fuzz("shop.binpb", "--phases", "coverage", port=port)
    result = CliRunner().invoke(main, ["coverage"])

    assert result.exit_code == 0
    for word in ("/shop.v1.Orders/Put", "INVALID_ARGUMENT", "NO_ORDER", "7 of 7"):
        assert word in result.output


def test_only_selected_methods_are_called(folder: Path) -> None:
    options = ("--include-method", "shop.v1.Orders/*", "--exclude-method", "*/Remove")
    with running_shop() as port:
        fuzz(
            "shop.binpb", "--phases", "coverage", *options, "--report", "ndjson=a.ndjson", port=port
        )

    events = map(json.loads, (folder / "a.ndjson").read_text().splitlines())
    called = {event["method"] for event in events if event["event"] == "case"}
    assert called == {f"/shop.v1.Orders/{name}" for name in ("Put", "Get", "List")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shop.binpb",), "--target"),
        (("--target", "127.0.0.1:1"), "which contract"),
        (("missing.binpb", "--target", "127.0.0.1:1"), "No such file"),
        (("shop.binpb", "--target", "nowhere"), "host:port"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--checks", "nope"), "no such check: nope"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--phases", "nope"), "no such phase: nope"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--include-method", "nope"), "no method"),
        (("shop.binpb", "--target", "127.0.0.1:1", "-m", "nope"), "key:value"),
        (("shop.binpb", "--target", "127.0.0.1:1", "-m", "Authorization: x"), "--token-file"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--token-file", "nope"), "No such file"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--config", "nope.toml"), "nope.toml"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--workers", "0"), "workers: must be"),
        (("shop.binpb", "--target", "127.0.0.1:1", "--max-time", "0"), "max_time: must be"),
        (("shop.binpb", "--nope"), "No such option"),
        # Nothing listens on the port of TCP multiplexing.
        (("shop.binpb", "--target", "127.0.0.1:1"), "does not answer"),
    ],
)
def test_misuse_is_said_and_ends_with_two(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main, ["run", *arguments])

    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('[trailers.x-bin]\nmessage = "shop.v1.Nothing"', "the contract has no shop.v1.Nothing"),
        ('[[examples]]\nmethod = "shop.v1.Orders/Sell"', "shop.v1.Orders/Sell, which there is not"),
        ('[[examples]]\nmethod = "shop.v1.Orders/Get"\nrequest = { size = 1 }', "an example of"),
        ('[[adapters.house]]\nfields = { extension = "shop.v1.rule", map = { minimum = "least" } }',
         "shop.v1.rule has no field least"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_the_contract_is_misuse(
    folder: Path, wrong: str, message: str
) -> None:
    (folder / "grpc-fuzz.toml").write_text(wrong)
    with running_shop() as port:
        result = fuzz("shop.binpb", "--phases", "examples,coverage", port=port)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_coverage_without_a_run_is_misuse(folder: Path) -> None:
    result = CliRunner().invoke(main, ["coverage"])

    assert result.exit_code == 2


def test_replay_of_an_unknown_crash_is_misuse(folder: Path) -> None:
    with running_shop() as port:
        result = fuzz("nope", "--image", "shop.binpb", command="replay", port=port)

    assert result.exit_code == 2
    assert "no such crash: nope" in result.output


def test_checks_are_listed_with_their_meaning() -> None:
    result = CliRunner().invoke(main, ["checks"])

    for check in checks.ALL:
        assert check.name in result.output
        assert check.sentence in result.output
