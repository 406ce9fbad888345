"""The contract as git's main has it: what a change would do to those who follow main."""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from contract_check.errors import GateError
from contract_check.released import FOLDER, RETIRED

# A clone for continuous integration often has no branch of its own of that name.
_REFERENCES = ("main", "origin/main")


@dataclass(frozen=True, kw_only=True, slots=True)
class MainBranch:
    """A copy of the contract of git's main.

    Attributes:
        reference: The name by which git knows it.
        contracts: The folder of the copy.
    """

    reference: str
    contracts: Path


def copy_of_main(contracts: Path, into: Path) -> MainBranch | None:
    """Copies the contract of git's main.

    Args:
        contracts: The folder of the contract as it is now.
        into: An empty folder for the copy.

    Returns:
        The copy, or None where there is no git, no main, or no contract in it.

    Raises:
        GateError: git could not copy it.
    """
    places = _git(contracts, "rev-parse", "--show-toplevel", "--show-prefix")
    if places.returncode != 0:
        return None
    root, prefix = places.stdout.decode().splitlines()
    for reference in _REFERENCES:
        # A tree instead of a commit: the archive then begins below the folder.
        tree = f"{reference}:{prefix.removesuffix('/')}"
        if _git(Path(root), "cat-file", "-e", tree).returncode == 0:
            archive = _git(Path(root), "archive", "--format=tar", tree)
            if archive.returncode != 0:
                raise GateError(f"git cannot copy {reference}: {archive.stderr.decode().strip()}")
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                files.extractall(into / contracts.name, filter="data")
            return MainBranch(reference=reference, contracts=into / contracts.name)
    return None


def changed_images(contracts: Path, main: MainBranch) -> list[str]:
    """Names the released images of main that are no longer as they were.

    An image may move to the retired ones, which is what a release with a reason does.
    """
    now = _images(contracts)
    return [
        name
        for name, data in sorted(_images(main.contracts).items())
        if data not in (now.get(name), now.get(f"{RETIRED}/{name}"))
    ]


def gave_up(contracts: Path, main: MainBranch) -> list[str]:
    """Names the baselines of main that are retired now: what they promised is promised no more."""
    now = _images(contracts)
    return [
        name
        for name in sorted(_images(main.contracts))
        if not name.startswith(f"{RETIRED}/") and name not in now and f"{RETIRED}/{name}" in now
    ]


def _images(contracts: Path) -> dict[str, bytes]:
    folder = contracts / FOLDER
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.binpb")
    }


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - git with our own arguments
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=folder,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, returncode=127, stdout=b"", stderr=b"")
