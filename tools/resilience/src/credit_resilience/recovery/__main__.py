"""Measure all faults and print a table: `python -m credit_resilience.recovery [NAME …]`."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from credit_client import ClientSettings

from credit_resilience.recovery.callers import Experience
from credit_resilience.recovery.faults import FAULTS, ROLLING_UPGRADE, Fault, rolling_upgrade


def main() -> int:
    """Run the faults; return 1 if a write failed or waited for longer than the limit."""
    parser = argparse.ArgumentParser(prog="credit_resilience.recovery", description=__doc__)
    names = [*(fault.name for fault in FAULTS), ROLLING_UPGRADE]
    parser.add_argument("faults", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="PATH",
        help=f"the credit-server to upgrade from, for {ROLLING_UPGRADE}: in the environment of a"
        " checkout of its release, which has the SDK too",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run; default 5")
    parsed = parser.parse_args()
    if unknown := set(parsed.faults) - set(names):
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; see --help")
    if ROLLING_UPGRADE in parsed.faults and parsed.earlier is None:
        parser.error(f"{ROLLING_UPGRADE} needs --earlier")
    faults = [*FAULTS, *([] if parsed.earlier is None else [rolling_upgrade(parsed.earlier)])]
    chosen = [fault for fault in faults if not parsed.faults or fault.name in parsed.faults]
    return asyncio.run(_measure(chosen, max(1, parsed.rounds)))


async def _measure(faults: Sequence[Fault], rounds: int) -> int:
    print("| what breaks | limit | longest wait of a write | writes | failed |")  # noqa: T201
    print("|---|---|---|---|---|")  # noqa: T201
    passed = True
    for fault in faults:
        experiences = [await _run(fault) for _ in range(rounds)]
        print(_row(fault, experiences), flush=True)  # noqa: T201
        for error in {error for each in experiences for error in each.failed}:
            print(f"{fault.name}: {error}", file=sys.stderr)  # noqa: T201
        passed = passed and all(_passes(fault, each) for each in experiences)
    return 0 if passed else 1


async def _run(fault: Fault) -> Experience:
    with tempfile.TemporaryDirectory(prefix="credit-recovery-") as folder:
        # All settings are the defaults of the SDK and of the server.
        return await fault.run(Path(folder), ClientSettings(), ())


def _passes(fault: Fault, experience: Experience) -> bool:
    limit = float("inf") if fault.limit_seconds is None else fault.limit_seconds
    return not experience.failed and experience.longest_seconds <= limit


def _row(fault: Fault, experiences: Sequence[Experience]) -> str:
    waits = [each.longest_seconds for each in experiences]
    limit = "0 failed" if fault.limit_seconds is None else f"{fault.limit_seconds:g} s"
    return (
        f"| {fault.text} | {limit} | {min(waits):.1f} to {max(waits):.1f} s"
        f" | {sum(each.acknowledged for each in experiences)}"
        f" | {sum(len(each.failed) for each in experiences)} |"
    )


if __name__ == "__main__":
    sys.exit(main())
