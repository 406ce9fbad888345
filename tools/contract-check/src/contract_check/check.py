"""Compare the contract with each baseline and return what it would break."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract_check import buf, changelog, released
from contract_check.image import Image
from contract_check.main_branch import changed_images, copy_of_main, retired_since
from contract_check.rules import own_violations, reuse_violations
from contract_check.violation import Violation


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of a comparison with one baseline.

    Attributes:
        baseline: What was compared with, such as `release 0.1.0` or `git's main`.
        violations: What would break; empty if nothing would.
        note: Why only a part was compared; empty if all was.
    """

    baseline: str
    violations: Sequence[Violation]
    note: str = ""


def verdicts(contracts: Path) -> Iterator[Verdict]:
    """Compare a contract with all releases and with git's main branch.

    Args:
        contracts: The folder that holds the contract's files.

    Raises:
        CheckError: The contract does not compile, or a baseline cannot be read.
    """
    contracts = contracts.resolve()
    current = Image(buf.build_image(contracts, source_info=True))
    yield _records(contracts)
    for release in released.baselines(contracts):
        found = compare(contracts, current, release.path)
        yield Verdict(baseline=f"release {release.version}", violations=found)
    for release in released.retired(contracts):
        reused = list(reuse_violations(Image(release.path.read_bytes()), current))
        yield Verdict(
            baseline=f"release {release.version}",
            violations=reused,
            note="retired: only the reuse of numbers and names is checked",
        )
    yield from _main(contracts, current)


def compare(contracts: Path, current: Image, against: Path) -> list[Violation]:
    """Compare a contract with one image, by the rules of buf and of this tool.

    Args:
        contracts: The folder that holds the contract's files.
        current: The image of these files, with source info.
        against: The file of the other image.

    Raises:
        CheckError: The image cannot be read.
    """
    before = Image(against.read_bytes())
    return [*buf.breaking(contracts, current.data, against), *own_violations(before, current)]


def _records(contracts: Path) -> Verdict:
    path = contracts / changelog.FILE
    written = changelog.recorded(path.read_text(encoding="utf-8")) if path.exists() else set()
    kept = {
        release.version
        for release in (*released.baselines(contracts), *released.retired(contracts))
    }
    found = [
        Violation(
            rule="RELEASE_NOT_RECORDED",
            where=f"contracts/{changelog.FILE}",
            message=f"Version {version} has only one of an image and an entry here.",
        )
        for version in sorted(written ^ kept)
    ]
    return Verdict(baseline=f"contracts/{changelog.FILE}", violations=found)


def _main(contracts: Path, current: Image) -> Iterator[Verdict]:
    with tempfile.TemporaryDirectory(prefix="contract-check-") as folder:
        main = copy_of_main(contracts, Path(folder))
        if main is None:
            yield Verdict(baseline="git's main", violations=(), note="there is none")
            return
        changed = [
            Violation(
                rule="RELEASED_IMAGE_CHANGED",
                where=f"contracts/{released.FOLDER}/{name}",
                message=f"{main.reference} has this image, and here it is missing or another.",
            )
            for name in changed_images(contracts, main)
        ]
        image = Path(folder) / "main.binpb"
        image.write_bytes(buf.build_image(main.contracts, source_info=False))
        retiring = retired_since(contracts, main)
        if retiring:
            reused = reuse_violations(Image(image.read_bytes()), current)
            note = f"{', '.join(retiring)} retired: only reuse is checked"
            yield Verdict(baseline=main.reference, violations=[*changed, *reused], note=note)
        else:
            found = compare(contracts, current, image)
            yield Verdict(baseline=main.reference, violations=[*changed, *found])
