"""Leaving out calls of a sequence keeps the bindings of the calls that stay."""

from grpc_fuzz.model import Binding, Case
from grpc_fuzz.stateful.shorten import without

from tests.grpc_fuzz.broken_server import shop_schema

METHOD = shop_schema().methods[0]


def call(name: str, *takes_from: int, before: tuple[Case, ...] = ()) -> Case:
    bindings = tuple(
        Binding(field="key", call=position, response=0, source="id") for position in takes_from
    )
    return Case(
        method=METHOD,
        phase="stateful",
        positive=True,
        requests=(b"",),
        description=name,
        before=before,
        bindings=bindings,
    )


SEQUENCE = call("last", 1, before=(call("first"), call("second"), call("third", 1)))


def test_a_call_whose_answer_a_later_call_needs_is_not_left_out() -> None:
    assert without(SEQUENCE, 1) is None


def test_bindings_follow_the_calls_that_move_up() -> None:
    shorter = without(SEQUENCE, 0)

    assert shorter == call("last", 0, before=(call("second"), call("third", 0)))


def test_bindings_to_earlier_calls_stay() -> None:
    shorter = without(SEQUENCE, 2)

    assert shorter == call("last", 1, before=(call("first"), call("second")))
