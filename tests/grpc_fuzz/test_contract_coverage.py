"""A run records what it covers of the contract."""

import json
from pathlib import Path

from google.rpc.error_details_pb2 import ErrorInfo
from grpc_fuzz.contract_coverage import ContractCoverage
from grpc_fuzz.model import Case, Detail, Reply

from tests.grpc_fuzz.contracts import shop_schema

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
    coverage = ContractCoverage(SCHEMA, SCHEMA.methods)
    coverage.count(sent(item="a", size=2), Reply(status="OK"))
    coverage.count(sent(item="b"), refused("INVALID"))
    coverage.count(sent(), Reply(status=None))

    covered = coverage.to_json()[PUT.path]
    assert covered["statuses"] == {"OK": 1, "INVALID_ARGUMENT": 1, "no reply": 1}
    assert covered["reasons"] == {"INVALID": 1}
    assert covered["declared_reasons"] == ["INVALID", "KEY_REUSED"]
    assert covered["fields"] == {
        "item": True,
        "count": False,
        "discount": False,
        "size": True,
        "size=SIZE_SMALL": False,
        "size=SIZE_LARGE": True,
        "key": False,
    }


def test_methods_that_were_not_called_are_included(tmp_path: Path) -> None:
    coverage = ContractCoverage(SCHEMA, SCHEMA.methods)
    coverage.save(tmp_path / "new" / "coverage.json")

    covered = json.loads((tmp_path / "new" / "coverage.json").read_text())
    assert covered.keys() == {method.path for method in SCHEMA.methods}
    assert not any(covered[PUT.path]["fields"].values())


def test_bytes_that_cannot_be_parsed_cover_no_field() -> None:
    coverage = ContractCoverage(SCHEMA, SCHEMA.methods)
    case = Case(method=PUT, phase="wire", positive=None, requests=(b"\xff",))
    coverage.count(case, Reply(status="INTERNAL"))

    assert not any(coverage.to_json()[PUT.path]["fields"].values())
