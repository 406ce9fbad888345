"""The calls about an app's policy: an operator's rules for all its users."""

from abc import ABC, abstractmethod

from credit_models import AppPolicy
from grpclib.const import Status

from credit_client.call import Caller
from credit_client.errors import Outcome, ProtocolMismatch
from credit_client.methods import APP_POLICY, SET_APP_POLICY, SET_SPENDING_CAP
from credit_client.request import Values


class Policies(ABC):
    """Returns and changes the policies of apps. Needs a server of 0.3.0 or later.

    A change applies to each write that begins 5 seconds or more after the change. Setting the same
    policy again changes nothing, so these writes need no idempotency key.
    """

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def app_policy(self, *, app_id: int, timeout_seconds: float | None = None) -> AppPolicy:
        """Return an app's policy: its caps, and whether balances may be negative."""
        answer, request_id = await self._open_caller.unary(
            APP_POLICY, {"app_id": app_id}, timeout_seconds=timeout_seconds
        )
        return _policy(answer.reply.policy, request_id, Outcome.NO_CHANGE)

    async def set_app_policy(
        self,
        *,
        app_id: int,
        created_by: int,
        allow_negative: bool | None = None,
        validate_only: bool = False,
        expected_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AppPolicy:
        """Change an app's policy, and return it.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            allow_negative: Whether `adjust` can take a balance below 0; None: unchanged.
            validate_only: Whether to return the changed policy without writing it.
            expected_revision: The change is rejected with `RevisionChanged` unless this is the
                `AppPolicy.revision`.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        values: Values = {
            "app_id": app_id,
            "created_by": created_by,
            "allow_negative": allow_negative,
            "validate_only": validate_only,
            "expected_revision": expected_revision,
        }
        answer, request_id = await self._open_caller.unary(
            SET_APP_POLICY, values, timeout_seconds=timeout_seconds
        )
        return _policy(answer.reply.policy, request_id, Outcome.APPLIED)

    async def set_app_spending_cap(
        self,
        *,
        app_id: int,
        created_by: int,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_month: int | None = None,
        validate_only: bool = False,
        expected_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AppPolicy:
        """Set the spending caps of each user of an app who has no caps of their own.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            per_hour: The credits that a user can spend in an hour of UTC; None for no cap.
            per_day: The credits that a user can spend in a day; None for no cap.
            per_month: The credits that a user can spend in a calendar month; None for no cap.
            validate_only: As for `set_app_policy`.
            expected_revision: As for `set_app_policy`.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        values: Values = {
            "app_id": app_id,
            "created_by": created_by,
            "caps": {"per_hour": per_hour, "per_day": per_day, "per_month": per_month},
            "validate_only": validate_only,
            "expected_revision": expected_revision,
        }
        answer, request_id = await self._open_caller.unary(
            SET_SPENDING_CAP, values, timeout_seconds=timeout_seconds
        )
        return _policy(answer.reply.policy, request_id, Outcome.APPLIED)


def _policy(policy: AppPolicy | None, request_id: str, outcome: Outcome) -> AppPolicy:
    """Return the policy of an answer.

    Raises:
        ProtocolMismatch: The answer has none.
    """
    if policy is not None:
        return policy
    mismatch = ProtocolMismatch("the answer has no policy", status=Status.OK, request_id=request_id)
    mismatch.outcome = outcome
    raise mismatch
