"""Audits what is installed: is it what the lock says, and is none of it known to be vulnerable?

    audit.py            without network: the lock, and the advisories that are listed here
    audit.py --online   with it: pip-audit's look-up of every package of the lock

The listed advisories are those of what parses what strangers send, holds keys, or talks to the
database, as known on the day below. A green run says no more than that, and says so.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
UV = Path(sys.executable).with_name("uv")
PIP_AUDIT = "pip-audit==2.10.1"

KNOWN_ON = "2026-11-23"


@dataclass(frozen=True, kw_only=True, slots=True)
class Advisory:
    """A known vulnerability.

    Attributes:
        package: The distribution, by its normalized name.
        fixed_in: The first version without it.
        ids: CVE or GHSA numbers; nvd.nist.gov and github.com/advisories have their texts.
        what: What an attacker gets out of it.
    """

    package: str
    fixed_in: str
    ids: str
    what: str


ADVISORIES = (
    Advisory(
        package="cryptography",
        fixed_in="46.0.5",
        ids="CVE-2026-26007",
        what="a public key on a binary curve reveals parts of the private key",
    ),
    Advisory(
        package="cryptography",
        fixed_in="46.0.6",
        ids="CVE-2026-34073",
        what="name constraints are not applied to certificates with a wildcard name",
    ),
    Advisory(
        package="cryptography",
        fixed_in="46.0.7",
        ids="CVE-2026-39892",
        what="a buffer overflow with buffers that are not contiguous",
    ),
    Advisory(
        package="cryptography",
        fixed_in="50.0.0",
        ids="CVE-2026-69247 GHSA-g6cj-pr64-35w5",
        what="PKCS#7 decryption is a padding oracle",
    ),
    Advisory(
        package="dnspython",
        fixed_in="2.6.1",
        ids="CVE-2023-29483",
        what="a forged answer ends a name look-up",
    ),
    Advisory(
        package="h2",
        fixed_in="4.3.0",
        ids="CVE-2025-57804",
        what="line breaks in headers split requests behind a proxy",
    ),
    Advisory(
        package="hpack",
        fixed_in="2.3.0",
        ids="CVE-2016-6581",
        what="a small header block unfolds into gigabytes",
    ),
    Advisory(
        package="hpack",
        fixed_in="4.2.0",
        ids="CVE-2026-59980 GHSA-8v8h-hg4w-mvq2",
        what="a long integer takes quadratic time",
    ),
    Advisory(
        package="protobuf",
        fixed_in="6.31.1",
        ids="CVE-2025-4565",
        what="nested groups exhaust the stack of the pure Python parser",
    ),
    Advisory(
        package="protobuf",
        fixed_in="6.33.5",
        ids="CVE-2026-0994",
        what="nested Any messages pass the depth limit of the JSON parser",
    ),
    Advisory(
        package="pydantic",
        fixed_in="2.4.0",
        ids="CVE-2024-3772",
        what="an e-mail address takes quadratic time",
    ),
    Advisory(
        package="pydantic-settings",
        fixed_in="2.14.2",
        ids="GHSA-4xgf-cpjx-pc3j",
        what="a link in the directory of secrets is followed out of it",
    ),
    Advisory(
        package="pyjwt",
        fixed_in="2.12.0",
        ids="CVE-2026-32597 GHSA-752w-5fwx-jx9f",
        what="tokens with unknown critical headers are accepted",
    ),
    Advisory(
        package="pyjwt",
        fixed_in="2.13.0",
        ids="CVE-2026-48522 CVE-2026-48523 CVE-2026-48524 CVE-2026-48525 CVE-2026-48526",
        what="a public key as JWK is taken for a shared secret, so that tokens can be forged",
    ),
    Advisory(
        package="pyjwt",
        fixed_in="2.14.0",
        ids="CVE-2026-102268 CVE-2026-102271 CVE-2026-102273 CVE-2026-102274",
        what="a public key in another layout is taken for a shared secret",
    ),
    Advisory(
        package="pyjwt",
        fixed_in="2.15.0",
        ids="CVE-2026-101918 CVE-2026-102275 GHSA-42vr-xj54-vc7v",
        what="a deeply nested token raises what is not PyJWT's own exception",
    ),
    Advisory(
        package="pymongo",
        fixed_in="4.6.3",
        ids="CVE-2024-5629",
        what="a forged document reads memory beyond its end",
    ),
    Advisory(
        package="python-dotenv",
        fixed_in="1.2.2",
        ids="CVE-2026-28684",
        what="a link is followed when a file of variables is written",
    ),
)


def main(arguments: Sequence[str]) -> None:
    """Audit, and say what was looked at.

    Raises:
        SystemExit: Something is wrong; the message says what.
    """
    if list(arguments) == ["--online"]:
        _finish(online_complaints(_pip_audit()))
        print("pip-audit knows of nothing against any package of requirements.lock")  # noqa: T201
        return
    if arguments:
        sys.exit(__doc__)
    found = installed()
    wanted = locked(LOCK.read_text())
    _finish([*lock_complaints(found, wanted, allowed()), *advisory_complaints(found)])
    packages = len({advisory.package for advisory in ADVISORIES})
    print(  # noqa: T201
        f"installed as locked: {len(wanted)} packages; none below a fix of the"
        f" {len(ADVISORIES)} advisories on {packages} packages that this knows ({KNOWN_ON})."
        " It knows no others: make audit ONLINE=1"
    )


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
    """Return what is installed besides: the workspace's own members, and what installs them."""
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return frozenset({"pip", "uv", *workspace["tool"]["uv"]["sources"]})


def lock_complaints(
    found: Mapping[str, str], wanted: Mapping[str, str], besides: Iterable[str]
) -> list[str]:
    """Say where what is installed is not what is locked, and how to mend it."""
    complaints = []
    for name, version in sorted(wanted.items()):
        if name not in found:
            complaints.append(f"{name} {version} is locked and not installed: make install")
        elif found[name] != version:
            complaints.append(f"{name} is {found[name]}, and {version} is locked: make install")
    complaints.extend(
        f"{name} {found[name]} is installed and not locked: make clean install"
        for name in sorted(found.keys() - wanted.keys() - set(besides))
    )
    return complaints


def advisory_complaints(
    found: Mapping[str, str], advisories: Iterable[Advisory] = ADVISORIES
) -> list[str]:
    """Say what is installed in a version that is known to be vulnerable."""
    return [
        f"{one.package} {found[one.package]}: {one.what} ({one.ids}): take {one.fixed_in} or later"
        for one in advisories
        if one.package in found and Version(found[one.package]) < Version(one.fixed_in)
    ]


def online_complaints(report: str) -> list[str]:
    """Say what pip-audit found, and what it did not look at: it ends well with both skipped.

    Args:
        report: Its JSON report.
    """
    try:
        dependencies = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        return ["pip-audit made no report; is there a network?"]
    if not dependencies:
        return ["pip-audit looked at nothing"]
    complaints = [
        f"{one['name']} {one['version']}: {flaw['id']}, fixed in"
        f" {', '.join(flaw['fix_versions']) or 'no version yet'}"
        for one in dependencies
        for flaw in one.get("vulns", [])
    ]
    skipped = [one for one in dependencies if "skip_reason" in one]
    if skipped:
        names = ", ".join(one["name"] for one in skipped)
        complaints.append(
            f"{len(skipped)} of {len(dependencies)} packages were not looked at: {names}."
            f" The first, because: {skipped[0]['skip_reason']}"
        )
    return complaints


def _pip_audit() -> str:
    command = [
        *(str(UV), "tool", "run", "--quiet", PIP_AUDIT),
        *("--requirement", str(LOCK), "--require-hashes", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off"),
    ]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    return result.stdout


def _finish(complaints: Sequence[str]) -> None:
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main(sys.argv[1:])
