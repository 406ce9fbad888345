"""Links between calls are found by names and types, or declared."""

from typing import Any

from grpc_fuzz.settings import Link
from grpc_fuzz.stateful.links import Key, sources, targets

from tests.grpc_fuzz.contracts import jobs_schema, shop_schema

SCHEMA = shop_schema()
PUT, GET = SCHEMA.method("/shop.v1.Orders/Put"), SCHEMA.method("/shop.v1.Orders/Get")
DECLARED = (Link(source="/shop.v1.Orders/Put:item", target="/shop.v1.Orders/Get:order_id"),)


def order(**fields: object) -> Any:
    return SCHEMA.message_class(PUT.output)(**fields)


def test_an_id_of_a_response_is_linked_to_the_field_named_after_its_message() -> None:
    (target,) = targets(GET)
    found = {entry.path: entry.key for entry in sources(PUT, order(id="a"), response=True)}

    assert found == {"id": Key(name="order_id", kind="text")}
    assert found["id"] in target.keys


def test_fields_of_the_same_name_are_linked_only_if_their_kind_is_the_same() -> None:
    by_path = {target.path: target.keys for target in targets(PUT)}
    found = {
        entry.path: entry.key for entry in sources(PUT, order(item="a", count=3), response=True)
    }

    assert found["item"] in by_path["item"]
    assert found["count"] not in by_path["item"]


def test_enums_and_zero_values_are_not_linked() -> None:
    assert sources(PUT, order(size=1, count=0), response=True) == ()


def test_a_declared_link_links_fields_with_different_names() -> None:
    (target,) = targets(GET, DECLARED)
    found = sources(PUT, order(item="pen"), DECLARED, response=True)

    assert [entry.value for entry in found if entry.key in target.keys] == ["pen"]


def test_the_parts_of_a_time_are_not_linked() -> None:
    schema = jobs_schema()
    make = schema.method("/jobs.v1.Jobs/Make")
    job: Any = schema.message_class(make.output)(title="a")
    job.lasting.seconds, job.lasting.nanos = -5, -7
    found = {entry.path for entry in sources(make, job, response=True)}

    assert found == {"title"}
    assert {target.path for target in targets(make)} == {"title", "text", "id"}


def test_a_declared_link_takes_values_only_from_responses() -> None:
    request: Any = SCHEMA.message_class(PUT.input)(item="pen")

    found = sources(PUT, request, DECLARED, response=False)

    assert [entry.key.kind for entry in found] == ["text"]
