"""`make audit` reports every difference between the lock and what is installed."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from credit_testing.scripts import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "audit.py"
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
    return load_script(SCRIPT)


def test_this_environment_is_as_locked() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("installed as locked: ")


def test_a_difference_fails(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "installed", dict)
    with pytest.raises(SystemExit, match="is locked and not installed: make install"):
        audit.main()


def test_the_lock_is_read_for_this_machine(audit: ModuleType) -> None:
    assert audit.locked(LOCK) == {"h2": "4.3.0", "typing-extensions": "4.16.0"}


def test_a_package_of_another_version_is_named(audit: ModuleType) -> None:
    assert audit.differences({"h2": "4.2.0"}, {"h2": "4.3.0"}, []) == [
        "h2 is 4.2.0, and 4.3.0 is locked: make install"
    ]


def test_a_package_that_is_missing_is_named(audit: ModuleType) -> None:
    assert audit.differences({}, {"h2": "4.3.0"}, []) == [
        "h2 4.3.0 is locked and not installed: make install"
    ]


def test_a_package_that_is_not_locked_is_named_and_our_own_are_not(audit: ModuleType) -> None:
    found = {"requests": "2.0", "credit-server": "0.1.0", "pip": "25"}
    assert audit.differences(found, {}, audit.allowed()) == [
        "requests 2.0 is installed and not locked: make clean install"
    ]


def test_the_audit_online_fails_where_a_package_cannot_be_looked_up() -> None:
    """pip-audit passes over such a package unless it is strict, and hashes pin what it looks up."""
    commands = [
        line for line in (ROOT / "Makefile").read_text().splitlines() if "pip-audit" in line
    ]
    (command,) = [line for line in commands if line.startswith("\t")]
    assert "--strict" in command
    assert "--require-hashes" in command
