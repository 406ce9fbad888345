"""The workflow that consumers copy from the documentation works as documented."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from contract_check.released import baselines

from tests.contract.conftest import ROOT, Copy

DOCUMENT = (ROOT / "docs" / "contract-check.md").read_text()
INSTALL, COMPARE = re.findall(r"^ +run: (.+)$", DOCUMENT, re.MULTILINE)
(BUF_ALONE,) = re.findall(r"```sh\n(.+)\n```", DOCUMENT)
FIELD = "  uint32 balance = 2;\n"


@pytest.fixture
def consumer(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a consumer's folder after the checkouts of the workflow."""
    folder = tmp_path_factory.mktemp("consumer")
    (folder / "contract").mkdir()
    shutil.copy(baselines(ROOT / "contracts")[-1].path, folder / "contract" / "credit.binpb")
    (folder / "credit").symlink_to(copy.contracts.parent)
    return folder


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", [COMPARE, BUF_ALONE])
def test_a_compatible_contract_passes(consumer: Path, copy: Copy, command: str) -> None:
    copy.edit(FIELD, "  uint32 balance = 2;\n\n  // In words.\n  string words = 60;\n")
    finished = _run(command, consumer)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("command", [COMPARE, BUF_ALONE])
def test_a_contract_that_breaks_the_consumer_fails(
    consumer: Path, copy: Copy, command: str
) -> None:
    copy.edit(FIELD, "")
    assert _run(command, consumer).returncode not in {0, 2}


def test_only_contract_check_compares_the_options(consumer: Path, copy: Copy) -> None:
    copy.edit("    option (errors) = ERROR_REASON_BALANCE_OVERFLOW;\n", "")
    assert _run(BUF_ALONE, consumer).returncode == 0
    finished = _run(COMPARE, consumer)
    assert finished.returncode == 1
    assert "ERROR_NO_DELETE (against credit.binpb)" in finished.stderr


def test_the_workflow_installs_a_package_of_this_repository() -> None:
    source = INSTALL.split()[-1].removeprefix("./credit/")
    assert 'name = "credit-contract-check"' in (ROOT / source / "pyproject.toml").read_text()
