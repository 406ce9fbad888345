"""Provides a copy of the contract that tests may change, and runs `contract-check` on it."""

import re
import shutil
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contract_check.main import run
from contract_check.released import baselines, retired
from structlog.testing import capture_logs

ROOT = Path(__file__).parents[2]
CREDIT = "credit/v1/credit.proto"
REASONS = "credit/v1/error_reason.proto"
LEDGER = "credit/v1/ledger.proto"
OPTIONS = "credit/options/v1/options.proto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The exit status of `contract-check`, and its output."""

    status: int
    said: str

    @property
    def rules(self) -> set[str]:
        """Return the names of the broken rules in the output."""
        return set(re.findall(r"^\S+: ([A-Z_]+) \(against ", self.said, re.MULTILINE))


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """A copy of `contracts/`, with buf's settings beside it."""

    contracts: Path
    captured: pytest.CaptureFixture[str]

    def edit(self, old: str, new: str, *, file: str = CREDIT) -> None:
        """Replace a text that occurs in the file exactly once."""
        path = self.contracts / file
        text = path.read_text()
        assert text.count(old) == 1, f"{text.count(old)} times in {file}: {old!r}"
        path.write_text(text.replace(old, new))

    def unreleased(self) -> list[Path]:
        """Return the files that import the others and are not part of a release yet."""
        kept = {self.contracts / CREDIT, self.contracts / REASONS}
        return sorted(set((self.contracts / CREDIT).parent.glob("*.proto")) - kept)

    def check(self, command: str, *arguments: str) -> Outcome:
        """Run `contract-check COMMAND` on the copy."""
        status = run([command, "--contracts", str(self.contracts), *arguments])
        captured = self.captured.readouterr()
        return Outcome(status=status, said=captured.out + captured.err)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:  # Any: structlog's own type
    """Capture the log of a server in this process instead of printing it."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Copy:
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return Copy(contracts=tmp_path / "contracts", captured=capsys)


@pytest.fixture
def fresh(copy: Copy, released: Path) -> Copy:
    """Return a copy whose only release is 0.5.0."""
    shutil.rmtree(copy.contracts)
    shutil.copytree(released, copy.contracts)
    return copy


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a contract whose only release is 0.5.0: copies of it take less time than releases."""
    folder = tmp_path_factory.mktemp("released")
    contracts = folder / "contracts"
    shutil.copytree(ROOT / "contracts", contracts)
    shutil.copy(ROOT / "buf.yaml", folder)
    for release in (*baselines(contracts), *retired(contracts)):
        release.path.unlink()
    (contracts / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n- Began.\n")
    assert run(["release", "--contracts", str(contracts), "0.5.0"]) == 0
    return contracts
