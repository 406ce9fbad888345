"""Sequences of calls that take up each other's values."""

from grpc_fuzz.stateful.phase import run

__all__ = ["run"]
