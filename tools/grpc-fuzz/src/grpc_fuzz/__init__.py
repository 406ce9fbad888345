"""Property-based testing of gRPC services from their contract.

The public names are loaded when they are used: pytest loads this package in every run, because of
the plugin, and shall not pay for what it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc_fuzz.credentials import Credentials
    from grpc_fuzz.misuse import Misuse
    from grpc_fuzz.model import (
        Case,
        Check,
        Context,
        Failure,
        Finding,
        Limits,
        Method,
        Reply,
        Severity,
    )
    from grpc_fuzz.outcome import Outcome
    from grpc_fuzz.runner import Unreachable, fuzz, replay, run
    from grpc_fuzz.schema import Schema, SchemaError
    from grpc_fuzz.settings import Settings
    from grpc_fuzz.suite import CheckFailed, Suite, from_file, from_image
    from grpc_fuzz.target import Target, Tls

_MODULES = {
    "grpc_fuzz.credentials": "Credentials",
    "grpc_fuzz.misuse": "Misuse",
    "grpc_fuzz.model": "Case Check Context Failure Finding Limits Method Reply Severity",
    "grpc_fuzz.outcome": "Outcome",
    "grpc_fuzz.runner": "Unreachable fuzz replay run",
    "grpc_fuzz.schema": "Schema SchemaError",
    "grpc_fuzz.settings": "Settings",
    "grpc_fuzz.suite": "CheckFailed Suite from_file from_image",
    "grpc_fuzz.target": "Target Tls",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
