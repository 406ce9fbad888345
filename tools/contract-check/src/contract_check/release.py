"""Release a contract: its image becomes a baseline that no later contract may break."""

import datetime as dt
from pathlib import Path

from contract_check import buf, changelog, released
from contract_check.check import Verdict, compare
from contract_check.errors import CheckError
from contract_check.image import Image
from contract_check.report import report
from contract_check.rules import reuse_violations
from contract_check.version import Version


def release(contracts: Path, version: Version, *, reason: str, today: dt.date) -> str:
    """Add an image of the contract, and an entry to the changelog.

    Args:
        contracts: The folder that holds the contract's files.
        version: The version of the release: later than all earlier ones.
        reason: Why baselines are retired; empty if none is.
        today: The day of the release.

    Returns:
        A sentence that describes the release.

    Raises:
        CheckError: The contract breaks a baseline that this version may not break, or gives no
            reason; or the version is not a new one. Nothing was written.
    """
    contracts = contracts.resolve()
    earlier = released.baselines(contracts)
    data = buf.build_image(contracts, source_info=False)
    _check_new(contracts, version, data)
    current = Image(buf.build_image(contracts, source_info=True))
    broken = [found for found in earlier if compare(contracts, current, found.path)]
    _check_broken(contracts, current, version, broken, reason)
    path = contracts / changelog.FILE
    entry = changelog.with_release(
        path.read_text(encoding="utf-8"),
        version,
        today=today,
        replaces=[found.version for found in broken],
        reason=reason,
    )
    # All checks have passed: the release is certain from here on.
    folder = contracts / released.FOLDER
    for retiring in broken:
        (folder / released.RETIRED).mkdir(exist_ok=True)
        retiring.path.rename(folder / released.RETIRED / retiring.path.name)
    folder.mkdir(exist_ok=True)
    (folder / f"{version}{released.SUFFIX}").write_bytes(data)
    path.write_text(entry, encoding="utf-8")
    retired = f"; retired: {', '.join(str(found.version) for found in broken)}" if broken else ""
    return f"released {version}{retired}"


def _check_new(contracts: Path, version: Version, data: bytes) -> None:
    every = [*released.baselines(contracts), *released.retired(contracts)]
    latest = max(every, key=lambda one: one.version, default=None)
    if latest is None:
        return
    if version <= latest.version:
        raise CheckError(f"{version} does not come after {latest.version}, the latest release")
    # A new major version may have no other change than that the contract is stable now.
    if latest.path.read_bytes() == data and version.major == latest.version.major:
        raise CheckError(f"nothing has changed since {latest.version}")


def _check_broken(
    contracts: Path,
    current: Image,
    version: Version,
    broken: list[released.Release],
    reason: str,
) -> None:
    # Numbers and names stay taken, also those of retired releases.
    retiring = {found.version for found in broken}
    taken = [
        Verdict(
            baseline=f"release {found.version}",
            violations=list(reuse_violations(Image(found.path.read_bytes()), current)),
        )
        for found in (*broken, *released.retired(contracts))
    ]
    if any(verdict.violations for verdict in taken):
        raise CheckError(f"{version} reuses numbers or names:\n{report(taken)}")
    kept = [found for found in broken if not version.may_break(found.version)]
    if kept or (broken and not reason):
        verdicts = [
            Verdict(
                baseline=f"release {found.version}",
                violations=compare(contracts, current, found.path),
            )
            for found in (kept or broken)
        ]
        wanted = (
            "a breaking change needs a new major version, or before 1.0.0 a new minor version"
            if kept
            else 'a breaking release needs a written reason: REASON="…"'
        )
        raise CheckError(f"{version} cannot be released: {wanted}.\n{report(verdicts)}")
    if reason and not retiring:
        raise CheckError("a REASON is for releases that break a baseline, and this one breaks none")
