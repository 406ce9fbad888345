"""The options of the command line."""

import argparse
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from credit_bench.system import System


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        seconds: The length of one measurement, above 0.
        warm_up_seconds: The time before it in which calls are made.
        repetitions: The number of measurements of each cell on each server, at least 1.
        callers: The numbers of callers, each measured with random users and with one hot user.
        users: The number of random users.
        seed: The seed of the random requests, the same for both servers.
        systems: The systems to be measured.
        mongodb_uri: The replica set; None starts a private mongod.
        cells: Whether the cells are measured.
        overload: Whether the overload is measured.
        json: The file to which all samples are written; None writes no file.
    """

    seconds: float
    warm_up_seconds: float
    repetitions: int
    callers: tuple[int, ...]
    users: int
    seed: int
    systems: tuple[System, ...]
    mongodb_uri: str | None
    json: Path | None
    cells: bool = True
    overload: bool = True


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse the options; invalid ones end the process, as usual for argparse.

    Args:
        arguments: The arguments without the program's name; None uses those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="credit-bench",
        description="Measure credit-server side by side with a plain peer on the same mongod.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=_positive, default=4.0, help="the length of a measurement"
    )
    parser.add_argument(
        "--repetitions", type=_count, default=3, help="measurements of each cell on each server"
    )
    parser.add_argument(
        "--callers",
        type=_count,
        nargs="+",
        default=[1, 16, 128],
        help="numbers of concurrent callers",
    )
    parser.add_argument("--users", type=_count, default=10_000, help="the number of random users")
    parser.add_argument("--seed", type=int, help="the seed of the random requests")
    parser.add_argument("--only", type=System, choices=System, help="measure only one server")
    parser.add_argument("--mongodb-uri", help="a replica set to use instead of a private mongod")
    parser.add_argument("--overload", action="store_true", help="measure only the overload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to a file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="half a minute: 1 repetition of 1 second, 1,000 users; do not quote the figures",
    )
    parsed = parser.parse_args(arguments)
    return Options(
        seconds=1.0 if parsed.quick else parsed.seconds,
        warm_up_seconds=0.2 if parsed.quick else 0.5,
        repetitions=1 if parsed.quick else parsed.repetitions,
        callers=tuple(parsed.callers),
        users=1_000 if parsed.quick else parsed.users,
        seed=secrets.randbelow(2**32) if parsed.seed is None else parsed.seed,
        systems=tuple(System) if parsed.only is None else (parsed.only,),
        mongodb_uri=parsed.mongodb_uri,
        json=parsed.json,
        cells=not parsed.overload,
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
