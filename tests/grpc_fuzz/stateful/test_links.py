"""Links between calls: found by names and types, or declared."""

from typing import Any

from grpc_fuzz.settings import Link
from grpc_fuzz.stateful.links import Key, slots, values

from tests.grpc_fuzz.broken_server import shop_schema
from tests.grpc_fuzz.workshop import workshop_schema

SCHEMA = shop_schema()
PUT, GET = SCHEMA.method("/shop.v1.Orders/Put"), SCHEMA.method("/shop.v1.Orders/Get")
DECLARED = (Link(source="/shop.v1.Orders/Put:item", target="/shop.v1.Orders/Get:order_id"),)


def order(**fields: object) -> Any:
    return SCHEMA.message_class(PUT.output)(**fields)


def test_an_id_of_a_response_feeds_the_field_that_is_named_after_its_message() -> None:
    (slot,) = slots(GET)
    found = {entry.path: entry.key for entry in values(PUT, order(id="a"), response=True)}

    assert found == {"id": Key(name="order_id", kind="text")}
    assert found["id"] in slot.keys


def test_a_field_feeds_the_field_of_the_same_name_only_when_the_kind_is_the_same() -> None:
    by_path = {slot.path: slot.keys for slot in slots(PUT)}
    found = {
        entry.path: entry.key for entry in values(PUT, order(item="a", count=3), response=True)
    }

    assert found["item"] in by_path["item"]
    assert found["count"] not in by_path["item"]


def test_enums_and_zero_values_feed_nothing() -> None:
    assert values(PUT, order(size=1, count=0), response=True) == ()


def test_a_declared_link_joins_fields_whose_names_differ() -> None:
    (slot,) = slots(GET, DECLARED)
    found = values(PUT, order(item="pen"), DECLARED, response=True)

    assert [entry.value for entry in found if entry.key in slot.keys] == ["pen"]


def test_the_parts_of_a_time_feed_no_other_time() -> None:
    schema = workshop_schema()
    make = schema.method("/workshop.v1.Workshop/Make")
    job: Any = schema.message_class(make.output)(title="a")
    job.lasting.seconds, job.lasting.nanos = -5, -7
    found = {entry.path for entry in values(make, job, response=True)}

    assert found == {"title"}
    assert {slot.path for slot in slots(make)} == {"title", "text", "id"}


def test_a_declared_link_takes_no_values_of_requests() -> None:
    request: Any = SCHEMA.message_class(PUT.input)(item="pen")

    found = values(PUT, request, DECLARED, response=False)

    assert [entry.key.kind for entry in found] == ["text"]
