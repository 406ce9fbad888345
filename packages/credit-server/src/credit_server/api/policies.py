"""The writes of an app's policy, which concern no user and therefore are no transactions.

The policy contains the app's spending caps and alerts.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from credit_models import RemoveAlertRequest, SetAppPolicyRequest, SetSpendingCapRequest
from credit_models.ledger import Policy, RevisionChanged, TooManyAlerts, changed_alerts
from credit_models.translation.alerts import AlertChange, alert_of
from credit_models.translation.commands import caps_from_message

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.api import errors
from credit_server.api.commands import validate
from credit_server.commit import Clock
from credit_server.grpc.call import Call
from credit_server.store.port import AppPolicy, Conflict, Store

# How often a change is decided at most. It is decided again if another change was stored meanwhile.
_ATTEMPTS_MAX = 5

_Change = SetSpendingCapRequest | SetAppPolicyRequest | AlertChange


class PolicyChanges:
    """Changes the policies of apps."""

    def __init__(self, store: Store, clock: Clock, audit: AuditLog) -> None:
        """Prepare to change policies.

        Args:
            store: Where they are stored.
            clock: The time of a change.
            audit: Writes a line for each change.
        """
        self._store = store
        self._clock = clock
        self._audit = audit

    # Any, here and below: the answers of the calls have two types.
    async def set_caps(self, call: Call[Any, Any], request: SetSpendingCapRequest) -> AppPolicy:
        """Set the caps of all users of an app who have none of their own."""
        caps = caps_from_message(request.caps)
        return await self._change(call, request, lambda policy: replace(policy, caps=caps))

    async def set_policy(self, call: Call[Any, Any], request: SetAppPolicyRequest) -> AppPolicy:
        """Set the fields of an app's policy, except the caps, that the request sets."""
        allow_negative = request.allow_negative
        if allow_negative is None:
            return await self._change(call, request, lambda policy: policy)
        return await self._change(
            call, request, lambda policy: replace(policy, allow_negative=allow_negative)
        )

    async def change_alert(self, call: Call[Any, Any], request: AlertChange) -> AppPolicy:
        """Set or remove an alert for all users of an app."""

        def changed(policy: Policy) -> Policy:
            remove = isinstance(request, RemoveAlertRequest)
            alerts = changed_alerts(policy.alerts, alert_of(request), remove=remove)
            if isinstance(alerts, TooManyAlerts):
                raise errors.refused(alerts)
            return replace(policy, alerts=alerts)

        return await self._change(call, request, changed)

    async def _change(
        self,
        call: Call[Any, Any],
        request: _Change,
        change: Callable[[Policy], Policy],
    ) -> AppPolicy:
        """Change a policy, and write the line of the audit log.

        Raises:
            AccessDenied: The caller may not change it.
            GRPCError: The request is not valid, or requires another revision.
            ClockSkewed: The clocks of this machine and the store differ by too much.
            StoreError: The store cannot be reached, or other changes were stored in between.
        """
        identity = authorize.identity_of(call)
        with self._audit.write(call, identity, request) as audited:
            authorize.check_write(identity, request)
            validate(request)
            return await audited.complete(self._decide(request, change), lambda policy: policy)

    async def _decide(
        self,
        request: _Change,
        change: Callable[[Policy], Policy],
    ) -> AppPolicy:
        for _ in range(_ATTEMPTS_MAX - 1):
            try:
                return await self._attempt(request, change)
            except Conflict:
                continue
        return await self._attempt(request, change)

    async def _attempt(
        self,
        request: _Change,
        change: Callable[[Policy], Policy],
    ) -> AppPolicy:
        now = self._clock.now().now
        # A change without an effect writes nothing, so only this read confirms the policy.
        stored = await self._store.latest_policy(request.app_id)
        policy = change(stored.policy)
        if not _is_expected(request, stored, unchanged=policy == stored.policy):
            raise errors.refused(RevisionChanged(revision=stored.revision))
        if policy == stored.policy:
            return stored
        changed = AppPolicy(
            app_id=request.app_id,
            policy=policy,
            revision=stored.revision + 1,
            updated_at=now,
            updated_by=request.created_by,
        )
        if not getattr(request, "validate_only", False):
            await self._store.set_policy(changed)
        return changed


def _is_expected(request: _Change, stored: AppPolicy, *, unchanged: bool) -> bool:
    """Return whether the stored revision is the one that a request expects.

    A retry of a change whose answer was lost expects the revision before its own change.
    """
    # Requests for alerts expect none.
    expected: int | None = getattr(request, "expected_revision", None)
    if expected is None or expected == stored.revision:
        return True
    own = unchanged and stored.updated_by == request.created_by
    return own and expected + 1 == stored.revision
