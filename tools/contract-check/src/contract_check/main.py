"""The command `contract-check`."""

import argparse
import datetime as dt
import sys
from pathlib import Path

from contract_check import buf
from contract_check.check import Verdict, compare, verdicts
from contract_check.errors import CheckError
from contract_check.image import Image
from contract_check.release import release
from contract_check.report import report
from contract_check.version import Version

_BROKEN = 1
_MISUSE = 2


def main() -> None:
    """Run the command line.

    The exit status is 0 if nothing breaks, 1 if something does, and 2 if there is no verdict.
    """
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: The arguments after the command's name.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "release":
            today = dt.datetime.now(tz=dt.UTC).date()
            done = release(
                options.contracts,
                Version.parse(options.version),
                reason=options.reason.strip(),
                today=today,
            )
            sys.stdout.write(f"{done}\n")
            return 0
        return _check(options.contracts, options.against)
    except CheckError as error:
        sys.stderr.write(f"{error}\n")
        return _MISUSE


def _check(contracts: Path, against: list[Path]) -> int:
    found = _against(contracts.resolve(), against) if against else list(verdicts(contracts))
    text = report(found)
    if any(verdict.violations for verdict in found):
        sys.stderr.write(f"{text}\n")
        return _BROKEN
    if text:
        sys.stdout.write(f"{text}\n")
    return 0


def _against(contracts: Path, images: list[Path]) -> list[Verdict]:
    current = Image(buf.build_image(contracts, source_info=True))
    return [
        Verdict(baseline=image.name, violations=compare(contracts, current, image))
        for image in images
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contract-check", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--contracts", type=Path, default=Path("contracts"), help="the folder of the contract"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", parents=[common], help="fail when the contract breaks an installed SDK"
    )
    check.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="IMAGE",
        help="compare with this image only, instead of all releases and git's main branch",
    )
    releasing = commands.add_parser(
        "release",
        parents=[common],
        help="make the contract a baseline that no later contract may break",
    )
    releasing.add_argument("version", help="such as 1.20.3; later than all earlier releases")
    releasing.add_argument(
        "--reason",
        default="",
        help="why the release breaks a baseline; only before 1.0.0 or with a new major version",
    )
    return parser


if __name__ == "__main__":
    main()
