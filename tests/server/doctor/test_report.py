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
    webhooks,
)
from credit_server.doctor.examination import CHECKS
from credit_server.doctor.report import counted, fails, ok, warning

WELL = ok("clock", "agrees")
RISKY = warning("members", "one of three is away", "bring it back")
BROKEN = fails("schema", "two\n differences", "run: credit-server migrate")


def test_each_finding_is_a_line_and_the_last_line_counts_them() -> None:
    assert as_text([WELL, RISKY, BROKEN]).splitlines() == [
        "ok       clock    agrees",
        "warning  members  one of three is away -> bring it back",
        "fails    schema   two differences -> run: credit-server migrate",
        "1 ok, 1 warning, 1 failure",
    ]
    assert as_text([WELL, WELL]).endswith("\n2 ok, 0 warnings, 0 failures")


@pytest.mark.parametrize("width", [30, 60, 80])
def test_an_entry_is_wrapped_at_the_width_with_an_indent(width: int) -> None:
    found = "the audit log /var/log/credit-server/audit.log cannot be opened"
    finding = fails("audit log", found, "create the folder, or choose another file")
    first, *rest, count = as_text([WELL, finding], width=width).splitlines()[1:]
    assert first.startswith("fails    audit log  " if width > 50 else "fails    audit log")
    assert all(len(line) <= width or len(line.split()) == 1 for line in (first, *rest))
    assert rest
    indent = " " * (20 if width > 50 else 4)
    assert all(line.startswith(indent) and line[len(indent)] != " " for line in rest)
    words = " ".join([first, *rest]).split()
    assert " ".join(words) == f"fails audit log {found} -> {finding.remedy}"
    assert count == "1 ok, 0 warnings, 1 failure"


def test_a_number_has_its_noun_in_the_right_form() -> None:
    numbers = [counted(number, "certificate") for number in range(3)]
    assert numbers == ["0 certificates", "1 certificate", "2 certificates"]


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
        for module in (machine, credentials, store, ledger, webhooks)
        for name, check in vars(module).items()
        if name.startswith("check_") and check.__module__ == module.__name__
    ]
    assert len(CHECKS) == len(defined)
    assert set(CHECKS) == set(defined)
