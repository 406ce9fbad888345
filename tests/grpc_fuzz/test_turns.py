"""Many workers at the server together, or one alone."""

import threading

from grpc_fuzz.turns import Turns

ROUNDS = 200


def test_nothing_happens_beside_the_one_that_is_alone() -> None:
    turns = Turns()
    inside: list[str] = []
    seen: list[list[str]] = []

    def together() -> None:
        for _ in range(ROUNDS):
            with turns.together():
                inside.append("together")
                inside.remove("together")

    def alone() -> None:
        for _ in range(ROUNDS):
            with turns.alone():
                inside.append("alone")
                seen.append([*inside])
                # The one that is alone makes calls as all others do.
                with turns.together():
                    seen.append([*inside])
                inside.remove("alone")

    threads = [threading.Thread(target=work) for work in (together, together, alone, alone)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [["alone"]] * ROUNDS * 4


def test_those_that_share_do_so_at_the_same_time() -> None:
    turns = Turns()
    met = threading.Barrier(2)

    def share() -> None:
        with turns.together():
            met.wait()

    thread = threading.Thread(target=share)
    thread.start()
    share()
    thread.join()
