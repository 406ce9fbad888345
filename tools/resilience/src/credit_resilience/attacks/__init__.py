"""List all attacks in the order of the table: light ones first, the server's stop last."""

from collections.abc import Sequence

from credit_resilience.attack import Attack
from credit_resilience.attacks import (
    compression,
    connections,
    floods,
    headers,
    lengths,
    messages,
    overload,
    readers,
    resets,
    stop,
)

ATTACKS: Sequence[Attack] = (
    *headers.ATTACKS,
    *messages.ATTACKS,
    *compression.ATTACKS,
    *lengths.ATTACKS,
    *resets.ATTACKS,
    *floods.ATTACKS,
    *readers.ATTACKS,
    *connections.ATTACKS,
    *overload.ATTACKS,
    *stop.ATTACKS,
)

__all__ = ["ATTACKS"]
