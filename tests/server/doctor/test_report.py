"""The report lists every finding, and the worst one determines the exit code."""

import json

import pytest
from credit_server.doctor import (
    Finding,
    as_json,
    as_text,
    credentials,
    exit_code,
    ledger,
    machine,
    store,
)
from credit_server.doctor.examination import CHECKS
from credit_server.doctor.report import fails, ok, warning

WELL = ok("clock", "agrees")
RISKY = warning("members", "one of three is away", "bring it back")
BROKEN = fails("schema", "two\n differences", "run: credit-server migrate")


def test_each_finding_is_a_line_and_the_last_line_counts_them() -> None:
    assert as_text([WELL, RISKY, BROKEN]).splitlines() == [
        "ok       clock    agrees",
        "warning  members  one of three is away -> bring it back",
        "fails    schema   two differences -> run: credit-server migrate",
        "1 ok, 1 warning, 1 fails",
    ]


def test_json_has_the_same_findings() -> None:
    document = json.loads(as_json([WELL, RISKY]))
    assert document["verdict"] == "warning"
    assert document["findings"][1] == {
        "check": "members",
        "verdict": "warning",
        "found": "one of three is away",
        "remedy": "bring it back",
    }


@pytest.mark.parametrize(
    ("findings", "code"),
    [([], 0), ([WELL], 0), ([WELL, RISKY], 0), ([BROKEN, RISKY], 1)],
)
def test_only_a_check_that_fails_changes_the_exit_code(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_every_check_is_in_the_table_once() -> None:
    defined = [
        check
        for module in (machine, credentials, store, ledger)
        for name, check in vars(module).items()
        if name.startswith("check_") and check.__module__ == module.__name__
    ]
    assert len(CHECKS) == len(defined)
    assert set(CHECKS) == set(defined)
