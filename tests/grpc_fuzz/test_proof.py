"""Each check fires on a server with its bug, and none on a server that keeps its contract."""

import json
from pathlib import Path
from typing import Any

import pytest
from grpc_fuzz import checks, runner
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import PHASES, Limits
from grpc_fuzz.runner import Outcome
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

from tests.grpc_fuzz.broken_server import running_shop, shop_schema

# A JWT in its form: header, claims and signature.
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
ALL_CHECKS = [check.name for check in checks.ALL]


def fuzz_shop(
    folder: Path,
    bug: str | None = None,
    *,
    check: str | None = None,
    phases: tuple[str, ...] = PHASES,
    limits: Limits | None = None,
    include_methods: tuple[str, ...] = (),
) -> Outcome:
    with running_shop(bug, TOKEN) as port:
        settings = Settings(
            target=Target(host="127.0.0.1", port=port),
            phases=phases,
            checks=None if check is None else (check,),
            max_examples=25,
            max_failures=1 if check else None,
            idempotency_key="key",
            credentials=Credentials(token=TOKEN, expired="old"),
            state_directory=folder,
            include_methods=include_methods,
            limits=limits or Limits(request_timeout=5.0),
            extra_checks=() if check else tuple(ALL_CHECKS),
            strict_wire=True,
        )
        return runner.run(settings, shop_schema())


# Any: JSON.
def reaches(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / runner.REACH_FILE).read_text())
    return document


def test_no_check_fires_on_a_server_that_keeps_its_contract(tmp_path: Path) -> None:
    outcome = fuzz_shop(tmp_path, limits=Limits(request_timeout=30.0, max_response_time=60.0))

    assert [(failure.check, failure.cause) for failure in outcome.failures] == []
    # It was asked for everything that the contract declares, so that each check had its say.
    for method, reached in reaches(tmp_path).items():
        assert reached["statuses"].get("OK", 0) > 0, method
        assert {*reached["declared_statuses"]} <= {*reached["statuses"]}, method


# The shop's contract has no time; that of tests.grpc_fuzz.workshop has.
@pytest.mark.parametrize("check", [name for name in ALL_CHECKS if name != "times_in_range"])
def test_the_check_fires_on_a_server_with_its_bug(check: str, tmp_path: Path) -> None:
    quick = check in {
        *("always_replies", "answers_before_deadline"),
        *("server_still_healthy", "max_response_time"),
    }
    limits = Limits(request_timeout=0.5 if quick else 5.0, slack=0.2, max_response_time=0.05)

    outcome = fuzz_shop(tmp_path, check, check=check, limits=limits)

    assert [failure.check for failure in outcome.failures] == [check]
