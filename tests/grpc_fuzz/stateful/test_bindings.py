"""Requests take values from the new responses to earlier calls."""

from typing import Any

import pytest
from grpc_fuzz.model import Binding, Case, Reply
from grpc_fuzz.stateful.bindings import read, resolve_bindings, without_call, write

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
PUT, GET = SCHEMA.method("/shop.v1.Orders/Put"), SCHEMA.method("/shop.v1.Orders/Get")
FIRST = Case(method=PUT, phase="stateful", positive=True, requests=(b"",))


def order(order_id: str) -> bytes:
    message: Any = SCHEMA.message_class(PUT.output)(id=order_id)
    return bytes(message.SerializeToString())


def get(order_id: str) -> bytes:
    message: Any = SCHEMA.message_class(GET.input)(order_id=order_id)
    return bytes(message.SerializeToString())


CASE = Case(
    method=GET,
    phase="stateful",
    positive=True,
    requests=(get("of the first time"),),
    before=(FIRST,),
    bindings=(Binding(field="order_id", call=0, response=0, source="id"),),
)


def test_a_bound_field_takes_the_value_of_the_new_response() -> None:
    reply = Reply(status="OK", responses=(order("of this time"),))

    assert resolve_bindings(CASE, [reply], CASE.before, SCHEMA).requests == (get("of this time"),)


@pytest.mark.parametrize(
    "reply", [Reply(status="NOT_FOUND"), Reply(status="OK", responses=(b"\xff",))]
)
def test_a_missing_value_stays_as_it_was(reply: Reply) -> None:
    assert resolve_bindings(CASE, [reply], CASE.before, SCHEMA) == CASE


def test_a_path_goes_through_messages_and_lists() -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")
    message: Any = SCHEMA.message_class(method)()
    message.nested_type.add().field.add().name = "inner"

    assert read(message, "nested_type[0].field[0].name") == "inner"


@pytest.mark.parametrize("path", ["nothing", "nested_type[0].name", "name[x]"])
def test_a_path_without_a_value_is_a_lookup_error(path: str) -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")

    with pytest.raises(LookupError):
        read(SCHEMA.message_class(method)(), path)


def test_writing_creates_the_messages_on_the_path() -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")
    message: Any = SCHEMA.message_class(method)()

    write(message, "options.deprecated", True)

    assert message.options.deprecated


def call(name: str, *takes_from: int, before: tuple[Case, ...] = ()) -> Case:
    bindings = tuple(
        Binding(field="key", call=position, response=0, source="id") for position in takes_from
    )
    return Case(
        method=PUT,
        phase="stateful",
        positive=True,
        requests=(b"",),
        description=name,
        before=before,
        bindings=bindings,
    )


SEQUENCE = call("last", 1, before=(call("first"), call("second"), call("third", 1)))


def test_a_call_that_a_later_call_takes_a_value_from_is_not_left_out() -> None:
    assert without_call(SEQUENCE, 1) is None


def test_bindings_follow_calls_that_change_their_position() -> None:
    shorter = without_call(SEQUENCE, 0)

    assert shorter == call("last", 0, before=(call("second"), call("third", 0)))


def test_bindings_to_calls_before_the_position_stay() -> None:
    shorter = without_call(SEQUENCE, 2)

    assert shorter == call("last", 1, before=(call("first"), call("second")))
