"""The contract on git's main branch, for users who build from main."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract_check.errors import CheckError
from contract_check.released import FOLDER, RETIRED

# A clone in continuous integration often has no local branch of that name.
_REFERENCES = ("main", "origin/main")

# The variables that describe one repository: `git rev-parse --local-env-vars` lists them all.
_OF_A_HOOK = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MainBranch:
    """A copy of the contract of git's main.

    Attributes:
        reference: The name of the branch in git.
        contracts: The folder of the copy.
    """

    reference: str
    contracts: Path


def copy_of_main(contracts: Path, into: Path) -> MainBranch | None:
    """Copy the contract of git's main branch.

    Args:
        contracts: The folder of the contract as it is now.
        into: An empty folder for the copy.

    Returns:
        The copy; None if there is no git, no main branch, or no contract in it.

    Raises:
        CheckError: git could not copy it.
    """
    places = _git(contracts, "rev-parse", "--show-toplevel", "--show-prefix")
    if places.returncode != 0:
        return None
    root, prefix = places.stdout.decode().splitlines()
    for reference in _REFERENCES:
        # Use a tree instead of a commit, so that the copy contains only what is in the folder.
        tree = f"{reference}:{prefix.removesuffix('/')}"
        if _git(Path(root), "cat-file", "-e", tree).returncode == 0:
            # The copy has the same path as in the repository, because git's attributes depend on
            # it. Use a separate index, so that the user's staged changes stay.
            copy, index = into / "copy", into / "index"
            place = [f"--prefix={prefix}"] if prefix else []
            for command in (
                ["read-tree", *place, tree],
                ["checkout-index", "--all", f"--prefix={copy}/"],
            ):
                done = _git(Path(root), *command, index=index)
                if done.returncode != 0:
                    raise CheckError(f"git cannot copy {reference}: {done.stderr.decode().strip()}")
            return MainBranch(reference=reference, contracts=copy / prefix)
    return None


def changed_images(contracts: Path, main: MainBranch) -> list[str]:
    """Return the names of the released images of main that have changed.

    An image may move to `retired`, which a release with a reason does.
    """
    now = _images(contracts)
    return [
        name
        for name, data in sorted(_images(main.contracts).items())
        if data not in (now.get(name), now.get(f"{RETIRED}/{name}"))
    ]


def retired_since(contracts: Path, main: MainBranch) -> list[str]:
    """Return the names of the baselines of main that are retired now."""
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


def _git(
    folder: Path, *arguments: str, index: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    # In a hook, git's variables name another folder or index than those of the contract.
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    try:
        return subprocess.run(  # noqa: S603 - git with our own arguments
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=folder,
            env=environment,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, returncode=127, stdout=b"", stderr=b"")
