"""Hypothesis strategies for every feature of a descriptor."""

from grpc_fuzz.strategies.messages import messages, requests
from grpc_fuzz.strategies.negative import RANGE, Negative, negatives, unknown_enums

__all__ = ["RANGE", "Negative", "messages", "negatives", "requests", "unknown_enums"]
