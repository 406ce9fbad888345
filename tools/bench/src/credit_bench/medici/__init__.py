"""The peer medici: a ledger for Node.js on MongoDB, installed from npm when it is measured."""

import shutil
from importlib import resources
from pathlib import Path

from credit_testing.child import ChildFailed, complete

from credit_bench.systems import Unavailable

_FILES = ("package.json", "package-lock.json", "driver.js")


async def install(folder: Path) -> list[str]:
    """Install medici with npm into a new folder, and return the command that runs its driver.

    Raises:
        Unavailable: node or npm is missing, or npm failed.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unavailable("node and npm are not installed")
    place = folder / "medici"
    if not place.exists():
        place.mkdir()
        for name in _FILES:
            content = (resources.files(__name__) / name).read_text()
            (place / name).write_text(content)
        try:
            await complete([npm, "ci", "--no-audit", "--no-fund"], place / "npm.log")
        except ChildFailed as error:
            shutil.rmtree(place)
            raise Unavailable(f"npm cannot install medici: {error}") from error
    return [node, str(place / "driver.js")]
