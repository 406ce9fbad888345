"""The images of what has been released: `contracts/released/1.20.3.binpb`.

Those in the folder itself are baselines: no later contract may break them. Those in `retired` were
retired by a release that broke them; their numbers and names stay taken forever.
"""

from dataclasses import dataclass
from pathlib import Path

from contract_check.version import Version

FOLDER = "released"
RETIRED = "retired"
SUFFIX = ".binpb"


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One released image.

    Attributes:
        version: Its version.
        path: Its file.
    """

    version: Version
    path: Path


def baselines(contracts: Path) -> list[Release]:
    """List the baselines, the oldest first.

    Raises:
        CheckError: The name of a file is not a version.
    """
    return _releases(contracts / FOLDER)


def retired(contracts: Path) -> list[Release]:
    """List the retired releases, the oldest first.

    Raises:
        CheckError: The name of a file is not a version.
    """
    return _releases(contracts / FOLDER / RETIRED)


def _releases(folder: Path) -> list[Release]:
    found = [
        Release(version=Version.parse(path.name.removesuffix(SUFFIX)), path=path)
        for path in folder.glob(f"*{SUFFIX}")
    ]
    return sorted(found, key=lambda release: release.version)
