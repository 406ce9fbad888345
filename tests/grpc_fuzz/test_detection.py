"""Bugs that earlier versions missed or reported many times are found and reported once.

Each bug is planted in the job server. The first test proves that the server passes without a bug.
"""

from pathlib import Path
from typing import Any

import pytest
from grpc_fuzz import runner
from grpc_fuzz.model import Failure, Limits
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import jobs_schema
from tests.grpc_fuzz.job_server import running_job_server

PHASES = ("coverage", "fuzzing", "stateful")
LONG = Limits(request_timeout=60.0)
SHORT = Limits(request_timeout=1.0, slack=30.0)


def fuzz(
    folder: Path, bug: str | None, *, phases: tuple[str, ...] = PHASES, **more: Any
) -> Outcome:
    with running_job_server(bug) as port:
        settings = Settings(
            target=Target(host="127.0.0.1", port=port),
            phases=phases,
            state_directory=folder,
            **{"max_examples": 20, "coverage_values": 3, "limits": LONG, "seed": 1, **more},
        )
        return runner.run(settings, jobs_schema())


def found(outcome: Outcome) -> list[tuple[str, str]]:
    return [(failure.check, failure.case.method.name) for failure in outcome.failures]


@pytest.mark.parametrize(("workers", "max_examples"), [(1, 5), (3, 10)])
def test_the_server_without_a_bug_passes(tmp_path: Path, workers: int, max_examples: int) -> None:
    outcome = fuzz(tmp_path, None, workers=workers, max_examples=max_examples)

    assert [(failure.check, failure.cause) for failure in outcome.failures] == []
    assert outcome.cases > 200


def test_an_unknown_enum_value_in_a_nested_field_is_sent(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "fails_on_unknown_sizes", phases=("coverage",))

    assert found(outcome) == [("not_a_server_error", name) for name in ("Make", "Upload", "Chat")]
    assert all("an unknown number in" in entry.case.description for entry in outcome.failures)


def test_an_unknown_enum_value_in_a_nested_field_of_a_response_is_found(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "makes_up_a_size", phases=("coverage",))

    causes = {entry.cause for entry in outcome.failures if entry.check == "response_conforms"}
    assert causes == {"the response breaks a constraint: by_name[].size: known_enum"}


def test_a_server_that_fails_on_times_out_of_range_is_found(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "fails_on_times_out_of_range", phases=("coverage",))

    assert {*found(outcome)} == {
        ("not_a_server_error", name) for name in ("Make", "Upload", "Chat")
    }


def test_a_server_that_accepts_timestamps_out_of_range_is_found(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "takes_times_out_of_range", phases=("coverage",))

    assert {check for check, _ in found(outcome)} == {"times_in_range"}
    fields = {str(entry.case.broken) for entry in outcome.failures}
    assert fields == {f"{part}.at: range" for part in ("part", "maybe", "parts[0]", "by_name[]")}


def test_a_server_that_accepts_durations_out_of_range_is_found(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, "takes_durations_out_of_range", phases=("coverage",))

    assert {str(entry.case.broken) for entry in outcome.failures} == {"lasting: range"}


def test_a_sequence_finds_an_idempotent_call_with_another_reply_the_second_time(
    tmp_path: Path,
) -> None:
    bug, methods = "forgets_what_it_dropped", ("*/Make", "*/Drop")
    single_calls = ("coverage", "fuzzing")
    alone = fuzz(tmp_path / "alone", bug, phases=single_calls, include_methods=methods)
    # A single call has no job to drop.
    assert found(alone) == []

    outcome = fuzz(
        tmp_path / "sequence",
        bug,
        phases=("stateful",),
        include_methods=methods,
        max_examples=200,
        max_failures=1,
        seed=6,  # other seeds find it too, but most take three times the CPU
    )

    (failure,) = outcome.failures
    assert found(outcome) == [("idempotent_replay", "Drop")]
    assert [call.method.name for call in failure.case.before] == ["Make"]
    assert failure.cause == "the repeated call ended with NOT_FOUND instead of OK"


@pytest.mark.parametrize("phase", ["coverage", "stateful"])
def test_a_reply_that_differs_only_the_second_time_is_found(tmp_path: Path, phase: str) -> None:
    bug = "differs_the_second_time"
    outcome = fuzz(tmp_path, bug, phases=(phase,), max_failures=1)

    assert found(outcome) == [("idempotent_replay", "Make")]


def test_a_handler_that_hangs_is_a_failure_by_default(tmp_path: Path) -> None:
    outcome = fuzz(
        tmp_path,
        "hangs",
        phases=("coverage",),
        include_methods=("*/Make",),
        limits=SHORT,
        max_failures=1,
    )

    assert found(outcome) == [("answers_before_deadline", "Make")]
    assert outcome.failures[0].cause == "no reply before the deadline of 1 s"
    assert outcome.failures[0].reply.status == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("phase", PHASES)
def test_a_method_that_hangs_in_every_call_is_given_up(tmp_path: Path, phase: str) -> None:
    limits = Limits(request_timeout=0.3, slack=30.0)
    include = ("*/Make",) if phase == "fuzzing" else ()
    outcome = fuzz(
        tmp_path, "always_hangs", phases=(phase,), limits=limits, include_methods=include
    )

    assert outcome.given_up == ("/jobs.v1.Jobs/Make",)
    assert ("answers_before_deadline", "Make") in found(outcome)
    (times,) = (entry.times for entry in outcome.failures if entry.case.method.name == "Make")
    assert times < 40


def test_one_bug_with_varying_messages_is_reported_once(tmp_path: Path) -> None:
    outcome = fuzz(
        tmp_path, "words_each_failure_differently", max_examples=60, include_methods=("*/Make",)
    )

    (failure,) = outcome.failures
    assert found(outcome) == [("not_a_server_error", "Make")]
    assert failure.times > 20


@pytest.mark.parametrize("bug", ["fails_without_messages", "fails_at_the_second_message"])
def test_a_bug_of_a_client_stream_is_found(tmp_path: Path, bug: str) -> None:
    outcome = fuzz(tmp_path, bug, phases=("coverage",))

    assert found(outcome) == [("not_a_server_error", "Upload")]


def test_a_sequence_with_an_empty_stream_is_replayed(tmp_path: Path) -> None:
    outcome = fuzz(
        tmp_path,
        "fails_without_messages",
        phases=("stateful",),
        # Which calls a search makes depends on the constants of the code that is loaded.
        max_examples=200,
        max_failures=1,
    )
    (failure,) = outcome.failures
    with running_job_server("fails_without_messages") as port:
        settings = Settings(target=Target(host="127.0.0.1", port=port), state_directory=tmp_path)
        again = runner.replay(settings, jobs_schema())

    assert _keys(again.failures) == _keys(outcome.failures)
    assert failure.case.requests == ()


def _keys(failures: tuple[Failure, ...]) -> list[object]:
    return [failure.key for failure in failures]
