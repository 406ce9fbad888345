"""The checks of statuses and of declared errors."""

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_fuzz.checks.check import Context
from grpc_fuzz.checks.statuses import DOCUMENTED_STATUS, PROTOCOL_STATUS
from grpc_fuzz.model import Case, Detail, Reply

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
CONTEXT = Context(
    schema=SCHEMA,
    send=lambda case: Reply(status="OK"),
    allowed_statuses=frozenset({"UNAVAILABLE"}),
)
CASE = Case(
    method=SCHEMA.method("/shop.v1.Orders/Get"), phase="fuzzing", positive=True, requests=(b"",)
)


def reply(status: str, reason: str | None = None, *details: str, **metadata: str) -> Reply:
    entries = [Detail(type_url=f"x/google.rpc.{name}", value=b"", message=None) for name in details]
    if reason is not None:
        info = ErrorInfo(reason=reason, metadata=metadata)
        entries.append(Detail(type_url="x/google.rpc.ErrorInfo", value=b"", message=info))
    return Reply(status=status, details=tuple(entries))


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (reply("OK"), None),
        (reply("UNAVAILABLE"), None),
        (reply("NOT_FOUND", "NO_ORDER", order_id="1"), None),
        (reply("INVALID_ARGUMENT", "INVALID", "BadRequest"), None),
        (reply("ABORTED"), "ABORTED is not among the method's declared errors"),
        (
            reply("NOT_FOUND"),
            "NOT_FOUND came without a google.rpc.ErrorInfo, which names the reason",
        ),
        (
            reply("NOT_FOUND", "KEY_REUSED"),
            "the reason KEY_REUSED is not among the method's declared errors",
        ),
        (
            reply("INVALID_ARGUMENT", "NO_ORDER", order_id="1"),
            "the reason NO_ORDER came with INVALID_ARGUMENT instead of NOT_FOUND",
        ),
        (reply("NOT_FOUND", "NO_ORDER"), "the reason NO_ORDER came without the metadata order_id"),
        (
            reply("INVALID_ARGUMENT", "INVALID"),
            "the reason INVALID came without the detail BadRequest",
        ),
    ],
)
def test_an_error_must_match_every_part_of_its_declaration(
    answer: Reply, cause: str | None
) -> None:
    assert DOCUMENTED_STATUS.run(CASE, answer, CONTEXT) == cause


def test_an_allowed_outcome_needs_no_status() -> None:
    case = Case(
        method=CASE.method,
        phase="wire",
        positive=None,
        requests=(),
        description="a broken frame",
        expected=frozenset({"GOAWAY", "INTERNAL"}),
    )

    assert PROTOCOL_STATUS.run(case, Reply(status="INTERNAL"), CONTEXT) is None
    gone = Reply(status=None, transport_error="GOAWAY PROTOCOL_ERROR")
    assert PROTOCOL_STATUS.run(case, gone, CONTEXT) is None
    assert (
        PROTOCOL_STATUS.run(case, Reply(status="OK"), CONTEXT)
        == "a broken frame: OK instead of GOAWAY or INTERNAL"
    )
