"""The phases of a run, by name."""

from collections.abc import Callable, Mapping

from grpc_fuzz.phases import coverage, examples, fuzzing, stateful, wire
from grpc_fuzz.session import Session

RUN: Mapping[str, Callable[[Session], None]] = {
    "examples": examples.run,
    "coverage": coverage.run,
    "fuzzing": fuzzing.run,
    "wire": wire.run,
    "stateful": stateful.run,
}

__all__ = ["RUN"]
