"""The stateful phase finds, shrinks and replays a bug that needs a sequence of linked calls."""

from pathlib import Path

from grpc_fuzz import runner
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import shop_schema
from tests.grpc_fuzz.shop_server import running_shop

BUG = "forgets_to_look"


def settings(port: int, folder: Path, **changed: object) -> Settings:
    return Settings(
        target=Target(host="127.0.0.1", port=port),
        state_directory=folder,
        idempotency_key="key",
        **changed,  # type: ignore[arg-type]  # names and types are those of Settings
    )


def test_a_failing_sequence_is_shrunk_and_replayed_with_ids_of_another_server(
    tmp_path: Path,
) -> None:
    with running_shop(BUG) as port:
        found = runner.run(
            settings(
                port,
                tmp_path,
                phases=("stateful",),
                checks=("not_a_server_error",),
                max_examples=200,
                max_failures=1,
                # The search is random: of six seeds, one ends with a sequence that needs the state
                # of an earlier one, and two sequences begin with List.
                seed=1,
            ),
            shop_schema(),
        )
    (failure,) = found.failures
    calls = [call.method.name for call in (*failure.case.before, failure.case)]
    assert calls == ["Put", "Remove", "Get"]

    # The second server has no state: the sequence creates its order again, and links to that.
    with running_shop(BUG) as port:
        again = runner.replay(settings(port, tmp_path), shop_schema())

    assert failure.key in [entry.key for entry in again.failures]


def test_phases_of_single_calls_do_not_find_the_bug(tmp_path: Path) -> None:
    with running_shop(BUG) as port:
        outcome = runner.run(
            settings(port, tmp_path, phases=("coverage", "fuzzing"), max_examples=20),
            shop_schema(),
        )

    assert outcome.failures == ()


def test_the_same_seed_makes_the_same_calls(tmp_path: Path) -> None:
    def calls(folder: Path) -> int:
        with running_shop() as port:
            chosen = settings(port, folder, phases=("stateful",), max_examples=20, seed=5)
            return runner.run(chosen, shop_schema()).cases

    assert calls(tmp_path / "one") == calls(tmp_path / "two") > 0
