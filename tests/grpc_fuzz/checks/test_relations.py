"""Test that the fields that tell a replay from the first answer are ignored where they are."""

from dataclasses import replace

from grpc_fuzz.checks.check import Context
from grpc_fuzz.checks.relations import IDEMPOTENT_REPLAY
from grpc_fuzz.model import Case, Reply, TrailerRule

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
METHOD = SCHEMA.method("/shop.v1.Orders/Put")


def test_an_ignored_field_is_ignored_in_responses_too() -> None:
    answer = METHOD.output
    field = next(each for each in answer.fields if each.message_type is None)
    first = SCHEMA.parse(answer, b"")
    again = SCHEMA.parse(answer, b"")
    setattr(again, field.name, "x" if isinstance(field.default_value, str) else 1)
    method = replace(METHOD, idempotency="IDEMPOTENT")
    case = Case(method=method, phase="fuzzing", positive=True, requests=(b"",))
    reply = Reply(status="OK", responses=(first.SerializeToString(),))
    repeated = Reply(status="OK", responses=(again.SerializeToString(),))
    context = Context(schema=SCHEMA, send=lambda case: repeated)
    assert IDEMPOTENT_REPLAY.run(case, reply, context) is not None
    assert IDEMPOTENT_REPLAY.applies(case, context)
    rule = TrailerRule(message=answer.full_name, ignore=(field.name,))
    assert IDEMPOTENT_REPLAY.run(case, reply, replace(context, trailers={"t-bin": rule})) is None
