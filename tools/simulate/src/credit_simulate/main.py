"""The command `credit-simulate`."""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from credit_simulate.mutations import MUTATIONS
from credit_simulate.run import STEPS, Run, quiet, run
from credit_simulate.shrink import Shrinker

# ruff: noqa: T201 - a command prints

_SEEDS = 1000
_CHUNK = 10
_CONTEXT = 60
"""How many lines of the trace are printed."""


def main() -> None:
    """Run simulations; the exit status is 1 if one of them has a finding."""
    with quiet():
        sys.exit(_main(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="credit-simulate",
        description="Simulate servers, their store, their network and their callers, and audit"
        " every answer. The same seed always gives the same run.",
    )
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of a seed ({STEPS})")
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"how many seeds ({_SEEDS})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print every event of the run")
    parser.add_argument(
        "--mutations", action="store_true", help="plant each known bug until a seed finds it"
    )
    return parser


def _main(options: argparse.Namespace) -> int:
    if options.mutations:
        return _try_mutations(options.seeds, options.steps)
    if options.seed is not None:
        return _run_one(options.seed, options.steps, traced=options.trace)
    return _run_many(options)


def _run_one(seed: int, steps: int, *, traced: bool) -> int:
    played = run(seed, steps)
    if traced:
        print(*played.trace.lines, sep="\n")
    if played.findings:
        return _report(played, steps)
    print(f"seed {seed}: {played.calls} calls are explained; trace {played.trace.digest}")
    return 0


def _run_many(options: argparse.Namespace) -> int:
    first = secrets.randbelow(2**31)
    print(f"{options.seeds} seeds from {first} on, {options.steps} steps each")
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        chunks = [
            (list(seeds), options.steps)
            for seeds in _chunks(iter(range(first, first + options.seeds)))
        ]
        for failed in pool.map(_first_failing, chunks):
            if failed is not None:
                pool.shutdown(cancel_futures=True)
                return _report(run(failed, options.steps), options.steps)
    rate = options.seeds / (time.monotonic() - began) * 60
    print(f"nothing is wrong; {rate:,.0f} seeds a minute")
    return 0


def _chunks(seeds: Iterator[int]) -> Iterator[Sequence[int]]:
    while chunk := list(islice(seeds, _CHUNK)):
        yield chunk


def _first_failing(work: tuple[Sequence[int], int]) -> int | None:
    seeds, steps = work
    with quiet():
        return next((seed for seed in seeds if run(seed, steps).findings), None)


def _report(failed: Run, steps: int) -> int:
    """Print a failure, after looking for a smaller one of the same seed."""
    print(f"seed {failed.seed} is wrong: credit-simulate --seed {failed.seed} --steps {steps}")
    shrinker = Shrinker(failed)
    smallest = shrinker.shrink()
    print(
        f"{len(smallest.steps)} of {len(failed.steps)} steps and {len(smallest.struck)} of"
        f" {len(failed.struck)} faults are enough (after {shrinker.tries} tries):"
    )
    for step in smallest.steps:
        print(f"  step {step.number} at {step.at:.3f} s: {step.act.value}")
    for place, fault in smallest.struck:
        print(f"  fault {place}: {fault}")
    lines = smallest.trace.lines
    print(f"the last {min(_CONTEXT, len(lines))} of {len(lines)} lines of the trace:")
    print(*lines[-_CONTEXT:], sep="\n")
    for finding in smallest.findings:
        print(f"nothing explains this: {finding}", file=sys.stderr)
    return 1


def _try_mutations(seeds: int, steps: int) -> int:
    missed = 0
    for mutation in MUTATIONS:
        with mutation.planted():
            found = next((seed for seed in range(seeds) if run(seed, steps).findings), None)
        missed += found is None
        print(f"{'not found' if found is None else f'seed {found}':>10}  {mutation.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    main()
