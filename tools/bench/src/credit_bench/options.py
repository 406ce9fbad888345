"""The options of the command line."""

import argparse
import secrets
from dataclasses import dataclass
from pathlib import Path

from credit_bench.systems import Variants
from credit_bench.workloads import GROUPS, OVERLOAD, System


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        groups: The groups of workloads to be measured.
        systems: The systems to be measured, where a workload has them.
        seconds: The length of one measurement, above 0.
        warm_up_seconds: The time before it in which calls are made.
        repetitions: The number of measurements of each workload on each system, at least 1.
        callers_max: Workloads with more callers are left out.
        transactions_max: Workloads with a larger ledger are left out.
        seed: The seed of the random requests, the same for all systems.
        variants: The number of worker processes, and the earlier release.
        mongodb_uri: The replica set; None starts a private mongod.
        cache_gigabytes: The cache of a private mongod.
        json: The folder for one file with all samples of each group; None writes no files.
    """

    groups: tuple[str, ...]
    systems: tuple[System, ...]
    seconds: float
    warm_up_seconds: float
    repetitions: int
    callers_max: int
    transactions_max: int
    seed: int
    variants: Variants
    mongodb_uri: str | None
    cache_gigabytes: float
    json: Path | None


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(
        prog="credit-bench",
        description="Measure credit-server side by side with others on the same mongod.",
    )
    commands = main.add_subparsers(dest="command", required=True)
    page = commands.add_parser(
        "page", help="write the figures of the JSON files into a page of the documentation"
    )
    page.add_argument("results", type=Path, help="the folder with the JSON files")
    page.add_argument("page", type=Path, help="the page; its charts are written beside the files")
    _add_measure(
        commands.add_parser(
            "measure",
            help="measure",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
    )
    return main


def _add_measure(command: argparse.ArgumentParser) -> None:
    groups = [*GROUPS, OVERLOAD]
    command.add_argument(
        "--group", nargs="+", choices=groups, default=groups, help="the groups to measure"
    )
    command.add_argument(
        "--system", nargs="+", type=System, default=list(System), help="the systems to measure"
    )
    command.add_argument(
        "--seconds", type=_positive, default=3.0, help="the length of a measurement"
    )
    command.add_argument(
        "--repetitions", type=_count, default=5, help="measurements of each workload and system"
    )
    command.add_argument(
        "--transactions-max",
        type=_count,
        default=10_000_000,
        help="leave out workloads with a larger ledger",
    )
    command.add_argument("--seed", type=int, help="the seed of the random requests")
    command.add_argument(
        "--workers", type=_count, help="also measure ours and the peer with this many processes"
    )
    command.add_argument(
        "--earlier", type=Path, help="also measure the credit-server of an earlier release"
    )
    command.add_argument("--mongodb-uri", help="a replica set to use instead of a private mongod")
    command.add_argument(
        "--cache-gigabytes", type=_positive, default=2.0, help="the cache of a private mongod"
    )
    command.add_argument(
        "--json", type=Path, metavar="FOLDER", help="write all samples to a file for each group"
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="two minutes: 1 repetition of 1 second, small ledgers; do not quote the figures",
    )


def options(parsed: argparse.Namespace) -> Options:
    """Return the options of a run from the parsed command line."""
    quick = parsed.quick
    return Options(
        groups=tuple(parsed.group),
        systems=tuple(parsed.system),
        seconds=1.0 if quick else parsed.seconds,
        warm_up_seconds=0.2 if quick else 0.5,
        repetitions=1 if quick else parsed.repetitions,
        callers_max=128 if quick else 1024,
        transactions_max=20_000 if quick else parsed.transactions_max,
        seed=secrets.randbelow(2**32) if parsed.seed is None else parsed.seed,
        variants=Variants(workers=parsed.workers, earlier=parsed.earlier),
        mongodb_uri=parsed.mongodb_uri,
        cache_gigabytes=parsed.cache_gigabytes,
        json=parsed.json,
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
