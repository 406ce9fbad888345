"""A bug that only a sequence of linked calls reaches is found, made small, and seen again."""

from pathlib import Path

from grpc_fuzz import runner
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.broken_server import running_shop, shop_schema

BUG = "forgets_to_look"


def settings(port: int, folder: Path, **changed: object) -> Settings:
    return Settings(
        target=Target(host="127.0.0.1", port=port),
        state_directory=folder,
        idempotency_key="key",
        **changed,  # type: ignore[arg-type]  # names and types are those of Settings
    )


def test_a_failing_sequence_is_shrunk_and_replays_with_ids_of_another_server(
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
                # A search at random: of six seeds, one ends at a sequence that needs what an
                # earlier one left in the server, and two begin with List.
                seed=1,
            ),
            shop_schema(),
        )
    (failure,) = found.failures
    calls = [call.method.name for call in (*failure.case.before, failure.case)]
    assert calls == ["Put", "Remove", "Get"]

    # Nothing is left of the first server: the sequence makes its order anew, and links to that.
    with running_shop(BUG) as port:
        again = runner.replay(settings(port, tmp_path), shop_schema())

    assert failure.key in [entry.key for entry in again.failures]


def test_phases_of_single_calls_do_not_reach_the_bug(tmp_path: Path) -> None:
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
