"""Test that broken constraints must be rejected and others accepted, with the named exceptions."""

from dataclasses import replace

import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_fuzz.checks.check import Context
from grpc_fuzz.checks.data import NEGATIVE_DATA_REJECTED, POSITIVE_DATA_ACCEPTED, TIMES_IN_RANGE
from grpc_fuzz.model import BrokenRule, Case, Detail, Reply
from grpc_fuzz.strategies import RANGE

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
CONTEXT = Context(schema=SCHEMA, send=lambda case: Reply(status="OK"))


@pytest.mark.parametrize(
    ("field", "judged"), [("items[0].size", False), ("items", True), ("size", True)]
)
def test_a_field_that_is_answered_inside_may_be_accepted(field: str, judged: bool) -> None:
    case = Case(
        method=SCHEMA.method("/shop.v1.Orders/Put"),
        phase="fuzzing",
        positive=False,
        requests=(b"",),
        broken=BrokenRule(field=field, rule="minimum"),
    )
    assert NEGATIVE_DATA_REJECTED.applies(case, CONTEXT)
    inside = replace(CONTEXT, answered_inside=("items[[]*].*",))
    assert NEGATIVE_DATA_REJECTED.applies(case, inside) is judged
    time = replace(case, broken=BrokenRule(field=field, rule=RANGE))
    assert TIMES_IN_RANGE.applies(time, CONTEXT)
    assert TIMES_IN_RANGE.applies(time, inside) is judged


@pytest.mark.parametrize(
    ("fields", "judged"), [(["size"], False), (["size", "name"], True), ([], True)]
)
def test_a_request_may_be_rejected_for_fields_that_a_rule_relates_to_others(
    fields: list[str], judged: bool
) -> None:
    case = Case(
        method=SCHEMA.method("/shop.v1.Orders/Put"),
        phase="fuzzing",
        positive=True,
        requests=(b"",),
    )
    violations = [BadRequest.FieldViolation(field=name) for name in fields]
    broken = BadRequest(field_violations=violations)
    found = Detail(type_url="types/google.rpc.BadRequest", value=b"", message=broken)
    reply = Reply(status="INVALID_ARGUMENT", details=(found,))
    assert POSITIVE_DATA_ACCEPTED.run(case, reply, CONTEXT) is not None
    related = replace(CONTEXT, related_fields=frozenset({"shop.v1.Orders/Put size"}))
    assert (POSITIVE_DATA_ACCEPTED.run(case, reply, related) is not None) is judged
