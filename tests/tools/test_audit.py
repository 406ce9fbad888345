"""What `make audit` finds, and that it does not take a look that failed for a clean bill."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.version import Version

SCRIPT = Path(__file__).parents[2] / "tools" / "audit.py"

LOCK = """\
h2==4.3.0 \\
    --hash=sha256:00
Typing_Extensions==4.16.0 ; python_full_version >= '3.11' \\
    --hash=sha256:00
colorama==0.4.6 ; sys_platform == 'no such system' \\
    --hash=sha256:00
"""


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["audit"]
    return module


def test_this_environment_is_as_locked_and_knows_what_it_does_not_know() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "It knows no others" in done.stdout


def test_an_unknown_argument_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--offline"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--online" in done.stderr


def test_the_lock_is_read_for_this_machine(audit: ModuleType) -> None:
    assert audit.locked(LOCK) == {"h2": "4.3.0", "typing-extensions": "4.16.0"}


def test_a_package_of_another_version_is_named(audit: ModuleType) -> None:
    assert audit.lock_complaints({"h2": "4.2.0"}, {"h2": "4.3.0"}, []) == [
        "h2 is 4.2.0, and 4.3.0 is locked: make install"
    ]


def test_a_package_that_is_missing_is_named(audit: ModuleType) -> None:
    assert audit.lock_complaints({}, {"h2": "4.3.0"}, []) == [
        "h2 4.3.0 is locked and not installed: make install"
    ]


def test_a_package_that_is_not_locked_is_named_and_our_own_are_not(audit: ModuleType) -> None:
    found = {"requests": "2.0", "credit-server": "0.1.0", "pip": "25"}
    assert audit.lock_complaints(found, {}, audit.allowed()) == [
        "requests 2.0 is installed and not locked: make clean install"
    ]


def test_a_version_below_a_fix_is_named_with_its_advisory(audit: ModuleType) -> None:
    (complaint,) = audit.advisory_complaints({"h2": "4.2.0"})
    assert complaint.startswith("h2 4.2.0: ")
    assert "CVE-2025-57804" in complaint
    assert complaint.endswith("take 4.3.0 or later")


def test_the_fixed_version_and_later_ones_are_not(audit: ModuleType) -> None:
    assert audit.advisory_complaints({"h2": "4.3.0"}) == []
    assert audit.advisory_complaints({"h2": "4.10.0"}) == []  # not compared as text


def test_every_advisory_can_be_looked_up(audit: ModuleType) -> None:
    for one in audit.ADVISORIES:
        assert Version(one.fixed_in)
        assert all(word.startswith(("CVE-", "GHSA-")) for word in one.ids.split()), one
        assert one.package in audit.locked(audit.LOCK.read_text()), one


def _report(*dependencies: object) -> str:
    return json.dumps({"dependencies": list(dependencies), "fixes": []})


def test_a_package_that_was_skipped_online_is_a_failure(audit: ModuleType) -> None:
    (complaint,) = audit.online_complaints(
        _report(
            {"name": "h2", "version": "4.4.1", "vulns": []},
            {"name": "hpack", "skip_reason": "could not be audited"},
        )
    )
    assert complaint.startswith("1 of 2 packages were not looked at: hpack.")


def test_a_vulnerability_that_was_found_online_is_a_failure(audit: ModuleType) -> None:
    flaw = {"id": "PYSEC-1", "fix_versions": ["4.3.0"]}
    assert audit.online_complaints(
        _report({"name": "h2", "version": "4.2.0", "vulns": [flaw]})
    ) == ["h2 4.2.0: PYSEC-1, fixed in 4.3.0"]


@pytest.mark.parametrize("report", ["", "not JSON", "{}", _report()])
def test_no_report_is_a_failure(audit: ModuleType, report: str) -> None:
    assert len(audit.online_complaints(report)) == 1


def test_an_online_report_without_findings_is_well(audit: ModuleType) -> None:
    assert not audit.online_complaints(_report({"name": "h2", "version": "4.4.1", "vulns": []}))
