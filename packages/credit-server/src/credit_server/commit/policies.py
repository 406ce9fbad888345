"""The policies of apps, which are part of every decision."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cachetools import TTLCache
from credit_models.ledger import NO_POLICY, Command, Policy, TransferCredits

from credit_server.store.port import Store

# A change of a policy takes effect within 5 s on every server. A second is left for the read.
_CACHED_SECONDS = 4.0

_CACHED_MAX = 10_000


class PolicyCache:
    """Reads the policies of apps, and keeps each for a few seconds.

    A policy is not read in the transaction of the store. It bounds what later commands may do, and
    has no effect on what is written already.
    """

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: Where the policies are.
            monotonic: A clock in seconds.
        """
        self._store = store
        self._cached: TTLCache[int, Policy] = TTLCache(
            _CACHED_MAX, ttl=_CACHED_SECONDS, timer=monotonic
        )

    async def apply(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Return the commands with the policies of their apps.

        Raises:
            StoreError: A policy cannot be read.
        """
        policies = {}
        missing = []
        for app_id in {app_id for command in commands for app_id in apps_of(command)}:
            policy = self._cached.get(app_id)
            if policy is None:
                missing.append(app_id)
            elif policy is not NO_POLICY:
                policies[app_id] = policy
        if missing:
            # The store reads them with one query.
            for stored in await asyncio.gather(*map(self._store.policy, missing)):
                policy = NO_POLICY if stored.policy == NO_POLICY else stored.policy
                self._cached[stored.app_id] = policy
                if policy is not NO_POLICY:
                    policies[stored.app_id] = policy
        if not policies:
            return commands
        return [_with(policies, command) for command in commands]


def apps_of(command: Command) -> tuple[int, ...]:
    """Return the apps whose policies apply to a command."""
    if isinstance(command, TransferCredits):
        return (command.app_id, command.to_app_id)
    return (command.app_id,)


def _with(policies: Mapping[int, Policy], command: Command) -> Command:
    if isinstance(command, TransferCredits) and command.to_app_id in policies:
        command = replace(command, to_policy=policies[command.to_app_id])
    if command.app_id in policies:
        return replace(command, policy=policies[command.app_id])
    return command
