"""Hypothesis strategies for every feature of a descriptor."""

from grpc_fuzz.strategies.messages import messages, requests
from grpc_fuzz.strategies.negative import Negative, negatives

__all__ = ["Negative", "messages", "negatives", "requests"]
