"""Property-based testing of gRPC services from their contract.

The public names are loaded on first use, because the plugin makes pytest load this package in every
run, even if the run does not use grpc-fuzz.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc_fuzz.checks.check import Check, Context, Finding
    from grpc_fuzz.credentials import Credentials
    from grpc_fuzz.errors import Misuse, SchemaError, Unreachable
    from grpc_fuzz.model import Case, Failure, Limits, Method, Reply, Severity
    from grpc_fuzz.outcome import Outcome
    from grpc_fuzz.runner import fuzz, replay, run
    from grpc_fuzz.schema import Schema
    from grpc_fuzz.settings import Settings
    from grpc_fuzz.suite import CheckFailed, Suite, from_file, from_image
    from grpc_fuzz.target import Target, Tls

_NAMES_BY_MODULE = {
    "grpc_fuzz.checks.check": "Check Context Finding",
    "grpc_fuzz.credentials": "Credentials",
    "grpc_fuzz.errors": "Misuse SchemaError Unreachable",
    "grpc_fuzz.model": "Case Failure Limits Method Reply Severity",
    "grpc_fuzz.outcome": "Outcome",
    "grpc_fuzz.runner": "fuzz replay run",
    "grpc_fuzz.schema": "Schema",
    "grpc_fuzz.settings": "Settings",
    "grpc_fuzz.suite": "CheckFailed Suite from_file from_image",
    "grpc_fuzz.target": "Target Tls",
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

__all__ = [
    "Case",
    "Check",
    "CheckFailed",
    "Context",
    "Credentials",
    "Failure",
    "Finding",
    "Limits",
    "Method",
    "Misuse",
    "Outcome",
    "Reply",
    "Schema",
    "SchemaError",
    "Settings",
    "Severity",
    "Suite",
    "Target",
    "Tls",
    "Unreachable",
    "from_file",
    "from_image",
    "fuzz",
    "replay",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
