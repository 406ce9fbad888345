"""Fail unless this environment holds exactly the packages of requirements.lock.

`make audit` runs it, without network; `make audit ONLINE=1` then runs pip-audit, which looks up
known vulnerabilities of every package of the lock.
"""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"


def main() -> None:
    """Compare what is installed with the lock.

    Raises:
        SystemExit: They differ; the message lists the differences.
    """
    wanted = locked(LOCK.read_text())
    if found := differences(installed(), wanted, allowed()):
        sys.exit("\n".join(found))
    print(f"installed as locked: {len(wanted)} packages")  # noqa: T201 - a command prints


def installed() -> dict[str, str]:
    """Return the version of every distribution of this environment, by its normalized name."""
    return {canonicalize_name(one.metadata["Name"]): one.version for one in distributions()}


def locked(text: str) -> dict[str, str]:
    """Return the version of every distribution that a lock has for this machine."""
    wanted: dict[str, str] = {}
    for name, version, marker in re.findall(
        r"^([\w.-]+)==([^\s;]+)(?:\s*;\s*([^\\\n]+?))?\s*\\?$", text, re.MULTILINE
    ):
        if not marker or Marker(marker).evaluate():
            wanted[canonicalize_name(name)] = version
    return wanted


def allowed() -> frozenset[str]:
    """Return what may be installed besides: the workspace's members, and what installs them."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return frozenset({"pip", "uv", *workspace["tool"]["uv"]["sources"]})


def differences(
    found: Mapping[str, str], wanted: Mapping[str, str], besides: Iterable[str]
) -> list[str]:
    """Return one line for each difference, with the command that removes it."""
    lines = []
    for name, version in sorted(wanted.items()):
        if name not in found:
            lines.append(f"{name} {version} is locked and not installed: make install")
        elif found[name] != version:
            lines.append(f"{name} is {found[name]}, and {version} is locked: make install")
    lines.extend(
        f"{name} {found[name]} is installed and not locked: make clean install"
        for name in sorted(found.keys() - wanted.keys() - set(besides))
    )
    return lines


if __name__ == "__main__":
    main()
