"""Run buf, which builds images and compares them by its rules."""

import json
import os
import subprocess
import sys
from pathlib import Path

from contract_check.errors import CheckError
from contract_check.violation import Violation

# The exit status of buf for violations. Others mean that it could not compare.
_FOUND = 100


def build_image(contracts: Path, *, source_info: bool) -> bytes:
    """Build the image of a contract, with its imports.

    Args:
        contracts: The folder that holds the contract's files.
        source_info: Whether positions and comments are part of the image.

    Raises:
        CheckError: The contract does not compile.
    """
    flags = [] if source_info else ["--exclude-source-info"]
    finished = _run(["build", contracts.name, *flags, "--output", "-#format=binpb"], contracts)
    if finished.returncode != 0:
        raise CheckError(f"the contract does not compile:\n{finished.stderr.decode().strip()}")
    return finished.stdout


def breaking(contracts: Path, current: bytes, against: Path) -> list[Violation]:
    """Compare a contract with an image by buf's rules, as `buf.yaml` sets them.

    Args:
        contracts: The folder that holds the contract's files.
        current: The image of these files, with source info: a second build takes longer than the
            comparison.
        against: The other image.

    Raises:
        CheckError: buf could not compare them.
    """
    finished = _run(
        [
            "breaking",
            "-#format=binpb",
            "--exclude-imports",
            "--error-format",
            "json",
            "--against",
            str(against.resolve()),
        ],
        contracts,
        current,
    )
    if finished.returncode not in {0, _FOUND}:
        raise CheckError(f"buf could not compare:\n{finished.stderr.decode().strip()}")
    return [_violation(json.loads(line)) for line in finished.stdout.decode().splitlines()]


def _violation(found: dict[str, str | int]) -> Violation:
    # A removed file has no place; buf's message names it.
    where = "contracts"
    if "path" in found:
        where = f"contracts/{found['path']}:{found['start_line']}:{found['start_column']}"
    return Violation(rule=str(found["type"]), where=where, message=str(found["message"]))


def _run(
    arguments: list[str], contracts: Path, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    # Not resolved: a virtual environment's python is a link to one outside it.
    executable = Path(sys.executable).with_name("buf")
    return subprocess.run(  # noqa: S603 - our own buf with our own arguments
        [str(executable), *arguments],
        cwd=contracts.parent,
        # The garbage collector takes a third of the CPU time of a run this short.
        env=os.environ | {"GOGC": "off"},
        input=given,
        capture_output=True,
        check=False,
    )
