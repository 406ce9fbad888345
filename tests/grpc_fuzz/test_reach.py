"""A run knows what it has reached, and what it has not."""

import json
from pathlib import Path

from google.rpc.error_details_pb2 import ErrorInfo
from grpc_fuzz.model import Case, Detail, Reply
from grpc_fuzz.reach import Reach

from tests.grpc_fuzz.broken_server import shop_schema

SCHEMA = shop_schema()
PUT = SCHEMA.method("/shop.v1.Orders/Put")


def sent(**fields: object) -> Case:
    request = SCHEMA.message_class(PUT.input)(**fields)
    return Case(method=PUT, phase="fuzzing", positive=True, requests=(request.SerializeToString(),))


def refused(reason: str) -> Reply:
    info = ErrorInfo(reason=reason)
    detail = Detail(type_url="x/google.rpc.ErrorInfo", value=b"", message=info)
    return Reply(status="INVALID_ARGUMENT", details=(detail,))


def test_fields_values_statuses_and_reasons_are_counted() -> None:
    reach = Reach(SCHEMA, SCHEMA.methods)
    reach.count(sent(item="a", size=2), Reply(status="OK"))
    reach.count(sent(item="b"), refused("INVALID"))
    reach.count(sent(), Reply(status=None))

    told = reach.to_json()[PUT.path]
    assert told["statuses"] == {"OK": 1, "INVALID_ARGUMENT": 1, "no reply": 1}
    assert told["reasons"] == {"INVALID": 1}
    assert told["declared_reasons"] == ["INVALID", "KEY_REUSED"]
    assert told["fields"] == {
        "item": True,
        "count": False,
        "discount": False,
        "size": True,
        "size=SIZE_SMALL": False,
        "size=SIZE_LARGE": True,
        "key": False,
    }


def test_methods_that_were_not_called_are_told_too(tmp_path: Path) -> None:
    reach = Reach(SCHEMA, SCHEMA.methods)
    reach.save(tmp_path / "new" / "reach.json")

    told = json.loads((tmp_path / "new" / "reach.json").read_text())
    assert told.keys() == {method.path for method in SCHEMA.methods}
    assert not any(told[PUT.path]["fields"].values())


def test_bytes_that_cannot_be_read_reach_no_field() -> None:
    reach = Reach(SCHEMA, SCHEMA.methods)
    case = Case(method=PUT, phase="wire", positive=None, requests=(b"\xff",))
    reach.count(case, Reply(status="INTERNAL"))

    assert not any(reach.to_json()[PUT.path]["fields"].values())
