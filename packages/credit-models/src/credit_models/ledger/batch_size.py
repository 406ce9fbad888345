"""The size of what one transaction of the store writes, and its limit.

The server's batches and the SDK's fake share this limit.
"""

from dataclasses import dataclass, field

from credit_models.ledger.outcomes import Accepted, BatchTooLarge

# The most that one transaction may write, in entries. mongod 6.0 with the smallest cache, 0.25 GB,
# wrote 10,000 entries of transfers in 2.3 s, and rejected 20,000 as "too large and will not fit in
# the storage engine cache" after 18 s (2-core machine). Shards write at the same time, and their
# other writes wait.
BATCH_SIZE_MAX = 5000

# An allocation of an entry is about 125 bytes. An entry with its eight indexes costs mongod as much
# as 16 allocations.
_ALLOCATIONS_PER_ENTRY = 16

# A grant or a hold of an account is as large as an allocation. A hold with the longest purpose has
# 1.1 kB. The same mongod wrote 23 MB of such holds in one transaction, and rejected 45 MB.
_ITEMS_PER_ENTRY = 4


@dataclass(slots=True)
class BatchSize:
    """Measures the effects of accepted commands.

    An entry counts as 1, and so does an event of an alert. Each 16 allocations of an entry count as
    1 more. The account of each user counts as 1 for each 4 of its items, once.

    Attributes:
        total: The size of what was added.
    """

    total: int = field(default=0, init=False)
    _users: set[int] = field(default_factory=set, init=False)

    def add(self, accepted: Accepted) -> BatchTooLarge | None:
        """Add the effects of a command, unless the result exceeds `BATCH_SIZE_MAX`.

        The first command with effects always fits: what one command does is bounded.

        Returns:
            The refusal of a command that does not fit; None if the effects were added.
        """
        total = self.total + len(accepted.events)
        for entry in accepted.transactions:
            total += 1 + len(entry.details.allocations) // _ALLOCATIONS_PER_ENTRY
        new = [account for account in accepted.accounts if account.user_id not in self._users]
        for account in new:
            if account.apps:
                total += account.items // _ITEMS_PER_ENTRY
        if self.total and total > BATCH_SIZE_MAX:
            return BatchTooLarge(size=total, limit=BATCH_SIZE_MAX)
        self.total = total
        self._users.update(account.user_id for account in new)
        return None
