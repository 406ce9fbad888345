"""Runs buf: it builds images and compares them by its own rules."""

import json
import subprocess
import sys
from pathlib import Path

from contract_check.errors import GateError
from contract_check.violation import Violation

# buf ends with this status when it has found something, and with others when it could not look.
_FOUND = 100


def build_image(contracts: Path, *, source_info: bool) -> bytes:
    """Builds a contract with all that it imports.

    Args:
        contracts: The folder that holds the contract's files.
        source_info: Whether positions and comments are part of the image.

    Raises:
        GateError: The contract does not compile.
    """
    flags = [] if source_info else ["--exclude-source-info"]
    finished = _run(["build", contracts.name, *flags, "--output", "-#format=binpb"], contracts)
    if finished.returncode != 0:
        raise GateError(f"the contract does not compile:\n{finished.stderr.decode().strip()}")
    return finished.stdout


def breaking(contracts: Path, against: Path) -> list[Violation]:
    """Compares a contract with an image by buf's rules, as the `buf.yaml` beside it sets them.

    Args:
        contracts: The folder that holds the contract's files.
        against: The image.

    Raises:
        GateError: buf could not compare them.
    """
    finished = _run(
        [
            "breaking",
            contracts.name,
            "--exclude-imports",
            "--error-format",
            "json",
            "--against",
            str(against.resolve()),
        ],
        contracts,
    )
    if finished.returncode not in {0, _FOUND}:
        raise GateError(f"buf could not compare:\n{finished.stderr.decode().strip()}")
    return [_violation(json.loads(line)) for line in finished.stdout.decode().splitlines()]


def _violation(found: dict[str, str | int]) -> Violation:
    # A file that is gone has no place; buf's message names it.
    where = "contracts"
    if "path" in found:
        where = f"{found['path']}:{found['start_line']}:{found['start_column']}"
    return Violation(rule=str(found["type"]), where=where, message=str(found["message"]))


def _run(arguments: list[str], contracts: Path) -> subprocess.CompletedProcess[bytes]:
    # Not resolved: a virtual environment's python is a link to one outside it.
    executable = Path(sys.executable).with_name("buf")
    return subprocess.run(  # noqa: S603 - our own buf with our own arguments
        [str(executable), *arguments], cwd=contracts.parent, capture_output=True, check=False
    )
