"""Parse the command-line options."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from credit_resilience.attack import Attack
from credit_resilience.attacks import ATTACKS

SECONDS = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        attacks: The attacks to run, in the order of the table.
        seconds: How long an attacker waits for the server to act without a request; above 0.
    """

    attacks: Sequence[Attack]
    seconds: float


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Parse the options; an invalid option ends the process, as argparse does.

    Args:
        arguments: The arguments without the program's name; None means those of this process.
    """
    names = "\n".join(f"  {attack.name:32}{attack.required}" for attack in ATTACKS)
    parser = argparse.ArgumentParser(
        prog="credit-resilience",
        description="Attack a credit-server that this command starts, and report the results.",
        epilog=f"rows:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rows",
        type=_attacks,
        default=ATTACKS,
        help="names or groups (the part before the colon), separated by commas; default: all",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=SECONDS,
        help=f"how long to wait for the server to act without a request; default: {SECONDS:g}",
    )
    parsed = parser.parse_args(arguments)
    return Options(attacks=parsed.rows, seconds=parsed.seconds)


def _attacks(text: str) -> Sequence[Attack]:
    wanted = {name.strip() for name in text.split(",")}
    known = {attack.name for attack in ATTACKS} | {_group(attack) for attack in ATTACKS}
    if unknown := sorted(wanted - known):
        names = ", ".join(attack.name for attack in ATTACKS)
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(unknown)}; there are {names}")
    return [attack for attack in ATTACKS if {attack.name, _group(attack)} & wanted]


def _group(attack: Attack) -> str:
    return attack.name.partition(":")[0]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value
