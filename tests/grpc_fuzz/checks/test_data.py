"""Test that a broken constraint must be rejected, unless its field is in `answered_inside`."""

from dataclasses import replace

import pytest
from grpc_fuzz.checks.check import Context
from grpc_fuzz.checks.data import NEGATIVE_DATA_REJECTED
from grpc_fuzz.model import BrokenRule, Case, Reply

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
