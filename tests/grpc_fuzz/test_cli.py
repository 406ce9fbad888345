"""The command line: options, output, exit codes and replay."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from grpc_fuzz import checks
from grpc_fuzz.cli import main
from grpc_fuzz.phases import RUN

from tests.grpc_fuzz.contracts import image_of
from tests.grpc_fuzz.shop_server import TOKEN, running_shop

CONFIG = """
idempotency_key = "key"
[[adapters.custom_options]]
[adapters.custom_options.fields]
extension = "shop.v1.rule"
[adapters.custom_options.fields.map]
minimum = "minimum"
maximum = "maximum"
length_min = "length_min"
length_max = "length_max"
required = "required"
[adapters.custom_options.errors]
extension = "shop.v1.errors"
rule = "shop.v1.refusal"
reason_prefix = "REASON_"
metadata = "metadata"
details = "details"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a contract and its configuration."""
    (tmp_path / "shop.binpb").write_bytes(image_of("shop.proto"))
    (tmp_path / "grpc-fuzz.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fuzz(*arguments: str, port: int | None = None, command: str = "run") -> Result:
    target = [] if port is None else ["--target", f"127.0.0.1:{port}"]
    return CliRunner().invoke(main, [command, *arguments, *target], catch_exceptions=False)


def test_a_correct_server_passes_with_exit_code_0(folder: Path) -> None:
    with running_shop() as port:
        result = fuzz("shop.binpb", "--max-examples", "5", "--workers", "2", port=port)

    assert result.exit_code == 0, result.output
    assert "passed" in result.output


def test_a_failure_is_printed_reported_stored_and_replayed(folder: Path) -> None:
    options = ("--max-examples", "5", "--phases", "coverage", "--seed", "1")
    with running_shop("no_internal_leak") as port:
        result = fuzz("shop.binpb", *options, "--report", "junit=a.xml,ndjson=a.ndjson", port=port)
        names = [path.stem for path in (folder / ".grpc-fuzz" / "crashes").glob("*.json")]
        again = fuzz(names[0], "--image", "shop.binpb", command="replay", port=port)
    with running_shop() as port:
        fixed = fuzz("--image", "shop.binpb", command="replay", port=port)

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
    assert fixed.exit_code == 0


def test_stored_crashes_are_sent_before_all_phases(folder: Path) -> None:
    with running_shop("no_internal_leak") as port:
        fuzz("shop.binpb", "--phases", "coverage", "--max-failures", "1", port=port)
        result = fuzz("shop.binpb", "--phases", "coverage", "--max-failures", "1", port=port)

    assert result.exit_code == 1
    assert "replay " in result.output
    assert "coverage " not in result.output.partition("FAILURES")[0]


def test_a_missing_authentication_is_printed_stored_and_replayed_without_showing_the_token(
    folder: Path,
) -> None:
    (folder / "token").write_text(TOKEN)
    methods = ("--include-method", "*/Get", "--include-method", "*/List")
    options = ("--token-file", "token", "--phases", "coverage", *methods)
    with running_shop("ignored_auth", TOKEN) as port:
        result = fuzz("shop.binpb", *options, "--report", "ndjson=a.ndjson", port=port)
        again = fuzz("--image", "shop.binpb", *options[:2], command="replay", port=port)
    with running_shop(token=TOKEN) as port:
        fixed = fuzz("--image", "shop.binpb", *options[:2], command="replay", port=port)
    with running_shop("ignored_auth", TOKEN) as port:
        public = fuzz("shop.binpb", *options, "--public-method", "*/Get", port=port)

    assert (result.exit_code, again.exit_code) == (1, 1)
    assert (fixed.exit_code, public.exit_code) == (0, 0)
    assert "instead of UNAUTHENTICATED without credentials" in " ".join(result.output.split())
    written = [path.read_text() for path in (folder / ".grpc-fuzz").rglob("*.json")]
    for text in (result.output, (folder / "a.ndjson").read_text(), *written):
        assert TOKEN.rpartition(".")[2] not in text


def test_a_token_that_the_server_rejects_fails_the_run(
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


def test_fuzz_ends_at_the_first_failure(folder: Path) -> None:
    with running_shop("no_internal_leak") as port:
        result = fuzz("shop.binpb", "--max-time", "60", command="fuzz", port=port)

    assert result.exit_code == 1
    assert "1 failed" in result.output


def test_fuzz_ends_at_its_time_limit(folder: Path) -> None:
    with running_shop() as port:
        result = fuzz("shop.binpb", "--max-time", "0.5", command="fuzz", port=port)

    assert result.exit_code == 0


def test_coverage_shows_what_the_last_run_covered(folder: Path) -> None:
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


def run_in(folder: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, with the commands of this environment on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def printed_replay(output: str) -> str:
    """Return the first replay command in the output."""
    return next(line for line in output.splitlines() if line.startswith("grpc-fuzz replay "))


@pytest.mark.parametrize("with_config", [True, False])
def test_the_printed_command_replays_a_failure_unchanged_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_config: bool
) -> None:
    home, elsewhere = tmp_path / "at home; $x", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "shop.binpb").write_bytes(image_of("shop.proto"))
    (home / "token").write_text(TOKEN)
    if with_config:
        (home / "grpc-fuzz.toml").write_text(f'{CONFIG}\n[credentials]\ntoken_file = "token"\n')
    # The configuration of another service, which must not be read.
    (elsewhere / "grpc-fuzz.toml").write_text('target = "127.0.0.1:1"\nimage = "no.binpb"\n')
    # Without the rules of the shop, only this check can judge.
    more = "" if with_config else "--token-file token --checks no_internal_leak "
    with running_shop("no_internal_leak", TOKEN) as port:
        options = f"--target 127.0.0.1:{port} {more}--phases coverage --max-failures 1"
        first = run_in(home, f"grpc-fuzz run shop.binpb {options}")
        line = printed_replay(first.stdout)
        again = run_in(elsewhere, line)
        monkeypatch.chdir(home)
        at_home = fuzz(line.split()[2], command="replay")
    monkeypatch.chdir(elsewhere)
    with running_shop(token=TOKEN) as fixed_port:
        fixed = fuzz(*shlex.split(line)[2:], command="replay", port=fixed_port)

    assert first.returncode == 1, first.stdout + first.stderr
    assert again.returncode == 1, again.stdout + again.stderr
    assert "no_internal_leak" in again.stdout
    assert "1 cases" in again.stdout
    assert at_home.exit_code == 1
    assert fixed.exit_code == 0, fixed.output


def test_the_replay_of_a_named_runtime_deviation_decides_the_exit_code(folder: Path) -> None:
    with running_shop("protocol_status") as port:
        result = fuzz("shop.binpb", "--phases", "wire", "--include-method", "*/List", port=port)
        section = result.output.partition("two messages: OK instead of UNIMPLEMENTED")[2]
        again = run_in(folder, section.splitlines()[1])

    assert result.exit_code == 0, result.output
    assert again.returncode == 1, again.stdout + again.stderr


def test_crashes_of_runs_with_different_options_are_not_replayed_together(folder: Path) -> None:
    with running_shop("no_internal_leak") as one, running_shop("documented_status") as other:
        for port in (one, other):
            fuzz("shop.binpb", "--phases", "coverage", "--max-failures", "1", port=port)
        # The second run has replayed the crash of the first one, and found its own failure.
        result = fuzz(command="replay")
        both = fuzz(command="replay", port=one)

    assert result.exit_code == 2
    assert "name those of one run, or give --target" in result.output
    assert both.exit_code == 1


def test_an_error_of_grpc_fuzz_has_its_own_exit_code_and_writes_the_reports(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(session: object) -> None:
        raise IndexError("not the server's fault")

    monkeypatch.setitem(RUN, "fuzzing", broken)
    reports = ("--report", "junit=a.xml,ndjson=a.ndjson")
    with running_shop("no_internal_leak") as port:
        result = fuzz("shop.binpb", "--phases", "coverage,fuzzing", *reports, port=port)

    assert result.exit_code == 3
    assert "grpc-fuzz itself failed" in result.output
    assert "IndexError: not the server's fault" in result.output
    root = ET.parse(folder / "a.xml").getroot()
    assert root.findall(".//failure[@type='no_internal_leak']")
    assert root.find("testsuite/testcase/error") is not None
    events = [json.loads(line) for line in (folder / "a.ndjson").read_text().splitlines()]
    assert {"failure", "error", "end"} <= {event["event"] for event in events}


@pytest.mark.parametrize("phase", ["coverage", "fuzzing", "stateful"])
def test_an_error_of_a_check_ends_the_run_and_names_the_case(
    folder: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    calls: list[object] = []

    def once(*arguments: object) -> None:
        # Hypothesis would ignore an error that does not occur again as flaky.
        calls.append(arguments)
        if len(calls) == 5:
            raise IndexError("not the server's fault")

    broken = dataclasses.replace(checks.ALL[0], run=once)
    monkeypatch.setattr(checks, "ALL", (broken,))
    with running_shop() as port:
        result = fuzz("shop.binpb", "--phases", phase, port=port)

    assert result.exit_code == 3
    assert "while case " in result.output
    assert len(calls) == 5


def test_an_interrupted_run_ends_with_130_and_writes_the_reports(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(session: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(RUN, "coverage", interrupted)
    with running_shop() as port:
        result = fuzz("shop.binpb", "--phases", "coverage", "--report", "junit=a.xml", port=port)

    assert result.exit_code == 130
    assert ET.parse(folder / "a.xml").getroot().find("testsuite/testcase/error") is not None


def test_a_report_that_cannot_be_written_is_misuse_before_the_run_starts(folder: Path) -> None:
    (folder / "file").write_text("")
    for kind in ("junit", "ndjson"):
        result = fuzz("shop.binpb", "--report", f"{kind}=file/report", port=1)

        assert result.exit_code == 2
        assert "the report file/report cannot be written" in result.output


@pytest.mark.parametrize("check", ["response_known_fields", "response_canonical"])
def test_checks_that_are_off_by_default_run_when_they_are_named(folder: Path, check: str) -> None:
    options = ("--phases", "coverage", "--include-method", "*/Put", "--state-directory")
    with running_shop(check) as port:
        off = fuzz("shop.binpb", *options, "off", port=port)
        on = fuzz("shop.binpb", *options, "on", "--extra-checks", check, port=port)

    assert off.exit_code == 0, off.output
    assert on.exit_code == 1
    assert check in on.output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shop.proto", b'syntax = "proto3";', "is a source file"),
        ("shop.txt", b'syntax = "proto3"; message A {}', "is a source file"),
        ("shop.json", b'{"file": []}', "is JSON"),
        ("shop.binpb.gz", b"\x1f\x8b\x08", "is compressed with gzip"),
        ("shop.bin", b"\xff\xff", "is not a FileDescriptorSet"),
        ("shop.empty", b"", "contains no contract"),
    ],
)
def test_a_file_that_is_no_image_is_described_with_the_way_to_build_one(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    result = fuzz(name, port=1)

    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert f"{name}" in output
    assert message in output
    assert "buf build -o image.binpb" in output
    assert "protoc --include_imports" in output


@pytest.mark.parametrize("form", ["dns:///localhost:{}", "dns:localhost:{}", "ipv4:127.0.0.1:{}"])
def test_the_target_forms_of_grpc_are_accepted(folder: Path, form: str) -> None:
    with running_shop() as port:
        options = ("--phases", "coverage", "--include-method", "*/List")
        result = fuzz("shop.binpb", *options, "--target", form.format(port))

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shop.binpb",), "--target"),
        (("--target", "127.0.0.1:1"), "no contract is given"),
        (("missing.binpb", "--target", "127.0.0.1:1"), "No such file"),
        (("shop.binpb", "--target", "nowhere"), "has no port: give HOST:PORT"),
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
        # Nothing listens on port 1, which is that of TCP multiplexing.
        (("shop.binpb", "--target", "127.0.0.1:1"), "does not answer"),
    ],
)
def test_misuse_is_reported_and_ends_with_exit_code_2(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main, ["run", *arguments])

    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('[trailers.x-bin]\nmessage = "shop.v1.Nothing"', "the contract has no shop.v1.Nothing"),
        ('[[examples]]\nmethod = "shop.v1.Orders/Sell"', "Orders/Sell, which does not exist"),
        ('[[examples]]\nmethod = "shop.v1.Orders/Get"\nrequest = { size = 1 }', "an example of"),
        (
            """
[[adapters.custom_options]]
fields = { extension = "shop.v1.rule", map = { minimum = "least" } }
""",
            "shop.v1.rule has no field least",
        ),
        ("[[adapters.house]]", "adapters: unknown: house"),
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
    assert "no such crash in .grpc-fuzz/crashes: nope; it has none" in result.output


def test_checks_are_listed_with_their_meaning() -> None:
    result = CliRunner().invoke(main, ["checks"])

    for check in checks.ALL:
        assert check.name in result.output
        assert check.sentence in result.output
