"""Each check fails on a server with its bug, and none fails on a correct server."""

import json
from pathlib import Path
from typing import Any

import pytest
from grpc_fuzz import checks, runner
from grpc_fuzz.model import PHASES, Limits

from tests.grpc_fuzz.shop_server import fuzz_shop

ALL_CHECKS = [check.name for check in checks.ALL]


# Any: JSON.
def coverage(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / runner.COVERAGE_FILE).read_text())
    return document


def test_no_check_fails_on_a_server_that_keeps_its_contract(tmp_path: Path) -> None:
    limits = Limits(request_timeout=30.0, max_response_time=60.0)
    phases = tuple(phase for phase in PHASES if phase != "wire")
    outcome = fuzz_shop(tmp_path, phases=phases, limits=limits)
    # One unary method and one with a stream, because the server treats the wire alike for all.
    wire = fuzz_shop(
        tmp_path / "wire", phases=("wire",), include_methods=("Put", "List"), limits=limits
    )

    assert [(failure.check, failure.cause) for failure in outcome.failures] == []
    assert [(failure.check, failure.cause) for failure in wire.failures] == []
    # The run covered everything that the contract declares, so each check judged a reply.
    for method, covered in coverage(tmp_path).items():
        assert covered["statuses"].get("OK", 0) > 0, method
        assert {*covered["declared_statuses"]} <= {*covered["statuses"]}, method


# The contract of the shop has no times. test_detection tests this check with the job server.
@pytest.mark.parametrize("check", [name for name in ALL_CHECKS if name != "times_in_range"])
def test_each_check_fails_on_a_server_with_its_bug(check: str, tmp_path: Path) -> None:
    quick = check in {
        *("always_replies", "answers_before_deadline"),
        *("server_still_healthy", "max_response_time"),
    }
    limits = Limits(request_timeout=0.5 if quick else 5.0, slack=0.2, max_response_time=0.05)

    outcome = fuzz_shop(tmp_path, check, check=check, limits=limits)

    assert [failure.check for failure in outcome.failures] == [check]
