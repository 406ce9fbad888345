"""The policies of apps, which are part of every decision."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cachetools import TLRUCache
from credit_models.ledger import NO_POLICY, Command, Policy, TransferCredits

from credit_server.store.port import StoreTransaction

# By the contract, a change applies to each write that begins 5 s or more after it. A policy that
# was read before the change is no longer kept then. How long a decision takes does not matter.
_KEPT_SECONDS = 4.0

_KEPT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class _Stored:
    """The policy of an app, and the time on the monotonic clock just before it was read."""

    policy: Policy
    read_at: float


@dataclass(frozen=True, slots=True)
class BatchPolicies:
    """The policies that apply to a batch.

    Attributes:
        by_app: The policies, by app. An app without a policy is left out.
        read: The policies that were read in the batch's own transaction, by app.
    """

    by_app: Mapping[int, Policy]
    read: Mapping[int, _Stored]

    def apply(self, commands: Sequence[Command]) -> Sequence[Command]:
        """Return the commands with the policies of their apps."""
        return [_with(self.by_app, command) for command in commands]


class PolicyCache:
    """Keeps the policies of apps for a few seconds.

    A batch reads the missing policies in its own transaction, and they are kept after its commit.
    Only the commit proves that a majority of the nodes has them: an old primary that is cut off
    still returns policies, but cannot commit.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Create an empty cache.

        Args:
            monotonic: A clock in seconds.
        """
        self._monotonic = monotonic
        self._kept: TLRUCache[int, _Stored] = TLRUCache(
            _KEPT_MAX, ttu=lambda _, stored, __: stored.read_at + _KEPT_SECONDS, timer=monotonic
        )

    async def read(
        self, transaction: StoreTransaction, commands: Sequence[Command]
    ) -> BatchPolicies:
        """Return the policies for some commands, and read those that are not kept.

        Args:
            transaction: The transaction in which the commands are decided.
            commands: The commands.

        Raises:
            StoreError: A policy cannot be read.
        """
        stored: dict[int, _Stored] = {}
        missing: list[int] = []
        for app_id in apps_of(commands):
            kept = self._kept.get(app_id)
            if kept is None:
                missing.append(app_id)
            else:
                stored[app_id] = kept
        read: dict[int, _Stored] = {}
        if missing:
            now = self._monotonic()
            found = await transaction.policies(missing)
            # Any policy without rules becomes the object NO_POLICY: identity is fast to compare.
            policies = {app_id: policy for app_id, policy in found.items() if policy != NO_POLICY}
            read = {app_id: _Stored(policies.get(app_id, NO_POLICY), now) for app_id in missing}
            stored |= read
        by_app = {
            app_id: each.policy for app_id, each in stored.items() if each.policy is not NO_POLICY
        }
        return BatchPolicies(by_app, read)

    def keep(self, committed: BatchPolicies) -> None:
        """Keep the policies that a batch has read, after its commit, but replace no newer read."""
        for app_id, stored in committed.read.items():
            kept = self._kept.get(app_id)
            if kept is None or kept.read_at < stored.read_at:
                self._kept[app_id] = stored


def apps_of(commands: Sequence[Command]) -> set[int]:
    """Return the apps whose policies apply to some commands."""
    apps = {command.app_id for command in commands}
    apps.update(each.to_app_id for each in commands if isinstance(each, TransferCredits))
    return apps


def _with(policies: Mapping[int, Policy], command: Command) -> Command:
    if isinstance(command, TransferCredits) and command.to_app_id in policies:
        command = replace(command, to_policy=policies[command.to_app_id])
    if command.app_id in policies:
        return replace(command, policy=policies[command.app_id])
    return command
