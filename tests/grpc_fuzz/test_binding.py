"""Requests take values from what earlier calls have answered this time."""

from typing import Any

import pytest
from grpc_fuzz.binding import bound, read, write
from grpc_fuzz.model import Binding, Case, Reply

from tests.grpc_fuzz.broken_server import shop_schema

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


def test_a_bound_field_takes_the_value_of_this_time() -> None:
    reply = Reply(status="OK", responses=(order("of this time"),))

    assert bound(CASE, [reply], CASE.before, SCHEMA).requests == (get("of this time"),)


@pytest.mark.parametrize(
    "reply", [Reply(status="NOT_FOUND"), Reply(status="OK", responses=(b"\xff",))]
)
def test_a_value_that_is_missing_stays_what_it_was(reply: Reply) -> None:
    assert bound(CASE, [reply], CASE.before, SCHEMA) == CASE


def test_a_path_reaches_into_messages_and_lists() -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")
    message: Any = SCHEMA.message_class(method)()
    message.nested_type.add().field.add().name = "inner"

    assert read(message, "nested_type[0].field[0].name") == "inner"


@pytest.mark.parametrize("path", ["nothing", "nested_type[0].name", "name[x]"])
def test_a_path_to_nothing_is_a_lookup_error(path: str) -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")

    with pytest.raises(LookupError):
        read(SCHEMA.message_class(method)(), path)


def test_writing_makes_the_messages_on_the_way() -> None:
    method = SCHEMA.pool.FindMessageTypeByName("google.protobuf.DescriptorProto")
    message: Any = SCHEMA.message_class(method)()

    write(message, "options.deprecated", True)

    assert message.options.deprecated
