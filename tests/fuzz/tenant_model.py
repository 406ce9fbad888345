"""Predict what each tenant may do and see in one ledger, from the contract alone.

Written unlike the server, so that the two do not share a mistake.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from credit_models import AppPolicy, SetAppPolicyRequest, SetSpendingCapRequest, SpendingCaps


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A request that changes a balance.

    Attributes:
        report: Id and name of the report that is bought; None if credits are added.
    """

    user_id: int
    app_id: int
    credits: int
    created_by: int
    key: str
    report: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """An identity that belongs to certain apps.

    Attributes:
        name: Its subject.
        apps: Where it may act and see.
        actor: The only `created_by` that it may give.
    """

    name: str
    apps: frozenset[int]
    actor: int

    def forbidden(self, app_id: int, created_by: int) -> "Refused | None":
        """Return the answer to a change that it may not make, or None if it may."""
        if app_id not in self.apps:
            return Refused(reason="APP_NOT_ALLOWED", metadata={"app_id": str(app_id)})
        if created_by != self.actor:
            metadata = {"created_by": str(created_by)}
            return Refused(reason="ACTOR_NOT_ALLOWED", metadata=metadata)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A write that has happened, with the data of its receipt."""

    write: Write
    sequence: int
    balance: int
    transaction_id: str
    purchase_id: str

    def strings(self) -> Iterator[str]:
        """Return texts that occur in this entry alone."""
        yield from (self.write.key, self.transaction_id)
        if self.write.report is not None:
            yield from (self.purchase_id, *self.write.report)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A rejected write: its reason, and the metadata in the contract's order."""

    reason: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """An acknowledged write; `earlier` is the entry that it repeats."""

    sequence: int
    balance: int
    earlier: Entry | None


class Ledger:
    """All that has happened."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def predict(self, tenant: Tenant, write: Write) -> Accepted | Refused:
        """Return the required answer; without permission it shows nothing of the ledger."""
        forbidden = tenant.forbidden(write.app_id, write.created_by)
        if forbidden is not None:
            return forbidden
        if write.credits < 1:
            return Refused(reason="INVALID_FIELD")
        earlier = self._with_key(write)
        if earlier is not None:
            return _repeated(earlier, write)
        balance = self.balance(write.app_id, write.user_id)
        if write.report is not None and balance < write.credits:
            numbers = (balance, write.credits, write.credits - balance)
            names = ("available", "required", "shortfall")
            metadata = {name: str(value) for name, value in zip(names, numbers, strict=True)}
            return Refused(reason="INSUFFICIENT_CREDITS", metadata=metadata)
        change = write.credits if write.report is None else -write.credits
        return Accepted(
            sequence=len(self._of(write.user_id)) + 1, balance=balance + change, earlier=None
        )

    def balance(self, app_id: int, user_id: int | None) -> int:
        """Return the credits of a user in an app, or of all users."""
        latest = {
            entry.write.user_id: entry.balance
            for entry in self.entries
            if entry.write.app_id == app_id
        }
        return sum(latest.values()) if user_id is None else latest.get(user_id, 0)

    def seen(self, tenant: Tenant, user_id: int, after_sequence: int = 0) -> list[Entry]:
        """Return what a tenant sees of a user's history."""
        return [
            entry
            for entry in self._of(user_id)
            if entry.write.app_id in tenant.apps and entry.sequence > after_sequence
        ]

    def hidden(self, tenant: Tenant) -> set[str]:
        """Return texts that no answer to a tenant may contain."""
        shown: set[str] = set()
        hidden: set[str] = set()
        for entry in self.entries:
            (shown if entry.write.app_id in tenant.apps else hidden).update(entry.strings())
        return hidden - shown

    def _of(self, user_id: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.write.user_id == user_id]

    def _with_key(self, write: Write) -> Entry | None:
        found = (
            entry
            for entry in self._of(write.user_id)
            if (entry.write.app_id, entry.write.key) == (write.app_id, write.key)
        )
        return next(found, None)


def _repeated(earlier: Entry, write: Write) -> Accepted | Refused:
    first = earlier.write
    if first == write:
        return Accepted(sequence=earlier.sequence, balance=earlier.balance, earlier=earlier)
    if (first.report is None) != (write.report is None):
        fields = ["call"]
    else:
        pairs = {
            "report_id": ((first.report or ("",))[0], (write.report or ("",))[0]),
            "report_name": ((first.report or ("",))[-1], (write.report or ("",))[-1]),
            "credits": (first.credits, write.credits),
            "created_by": (first.created_by, write.created_by),
        }
        fields = [name for name, (one, other) in pairs.items() if one != other]
    return Refused(reason="IDEMPOTENCY_KEY_REUSED", metadata={"fields": ",".join(fields)})


PolicyChange = SetSpendingCapRequest | SetAppPolicyRequest


class Policies:
    """The policies of all apps; `SetSpendingCap` without a user changes one, too."""

    def __init__(self) -> None:
        self._kept: dict[int, AppPolicy] = {}

    def of(self, app_id: int) -> AppPolicy:
        """Return the policy of an app."""
        return self._kept.get(app_id) or AppPolicy(app_id=app_id)

    def keep(self, policy: AppPolicy) -> None:
        """Replace the policy of an app."""
        self._kept[policy.app_id] = policy

    def seen(self, tenant: Tenant, app_id: int) -> AppPolicy | Refused:
        """Return what a tenant sees of a policy."""
        return tenant.forbidden(app_id, tenant.actor) or self.of(app_id)

    def predict(self, tenant: Tenant, change: PolicyChange) -> AppPolicy | Refused:
        """Return the policy that the answer to a change shows, or the rejection.

        The time of a change is left as it was.
        """
        forbidden = tenant.forbidden(change.app_id, change.created_by)
        if forbidden is not None:
            return forbidden
        if isinstance(change, SetSpendingCapRequest) and change.note:
            return Refused(reason="INVALID_FIELD")
        stored = self.of(change.app_id)
        changed = _changed(stored, change)
        expected = change.expected_revision
        # A retry expects the revision before its own change.
        is_retry = changed == stored and stored.updated_by == change.created_by
        if expected not in (None, stored.revision, stored.revision - 1 if is_retry else None):
            metadata = {"revision": str(stored.revision)}
            return Refused(reason="REVISION_CHANGED", metadata=metadata)
        if changed == stored:
            return stored
        return replace(changed, revision=stored.revision + 1, updated_by=change.created_by)


def _changed(stored: AppPolicy, change: PolicyChange) -> AppPolicy:
    if isinstance(change, SetSpendingCapRequest):
        return replace(stored, caps=None if change.caps == SpendingCaps() else change.caps)
    if change.allow_negative is None:
        return stored
    return replace(stored, allow_negative=change.allow_negative)
