"""The options of the command line."""

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
        attacks: Which attacks, in the table's order.
        seconds: How long an attacker waits for what the server must do by itself, above 0.
    """

    attacks: Sequence[Attack]
    seconds: float


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the options; ends the process when they are wrong, as argparse does.

    Args:
        arguments: Without the program's name; None takes the process's own.
    """
    names = "\n".join(f"  {attack.name:32}{attack.required}" for attack in ATTACKS)
    parser = argparse.ArgumentParser(
        prog="credit-resilience",
        description="Attack a credit-server of its own and print how it and its callers fared.",
        epilog=f"rows:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rows",
        type=_attacks,
        default=ATTACKS,
        help="names, or what stands before their colon, with commas between; default: all",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=SECONDS,
        help=f"wait so long for what the server must do by itself; default: {SECONDS:g}",
    )
    parsed = parser.parse_args(arguments)
    return Options(attacks=parsed.rows, seconds=parsed.seconds)


def _attacks(text: str) -> Sequence[Attack]:
    wanted = {name.strip() for name in text.split(",")}
    known = {attack.name for attack in ATTACKS} | {_family(attack) for attack in ATTACKS}
    if unknown := sorted(wanted - known):
        names = ", ".join(attack.name for attack in ATTACKS)
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(unknown)}; there are {names}")
    return [attack for attack in ATTACKS if {attack.name, _family(attack)} & wanted]


def _family(attack: Attack) -> str:
    return attack.name.partition(":")[0]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value
