"""Make the command of a write: check the caller's permissions, validate and convert the request."""

import betterproto2
from credit_models import (
    RemoveAlertRequest,
    RemoveWebhookRequest,
    ResendDeadLettersRequest,
    SetAlertRequest,
    SetAppPolicyRequest,
    SetWebhookRequest,
)
from credit_models.constraints import Violation
from credit_models.ledger import UINT32_MAX, Command, Receipt
from credit_models.operations import AnyWrite
from credit_models.translation.commands import broken_fields, command_of

from credit_server.access import authorize
from credit_server.access.identity import Identity
from credit_server.api import errors
from credit_server.commit import WriteResult
from credit_server.store.port import Store


class Commands:
    """Makes commands. All services of the contract share one instance."""

    def __init__(self, store: Store, *, credits_max: int = UINT32_MAX) -> None:
        """Prepare to make commands.

        Args:
            store: Makes the ids.
            credits_max: The most credits that one call may add, 1 to 2**32 - 1; an identity may
                have a lower limit.
        """
        self._new_id = store.new_id
        self._credits_max = credits_max

    def of(self, request: AnyWrite, identity: Identity | None) -> Command:
        """Return the command of a write.

        Args:
            request: The write.
            identity: The identity of its caller; None: there is none.

        Raises:
            AccessDenied: The caller may not make the write.
            GRPCError: The write breaks constraints of the contract.
        """
        check(request, identity)
        if request.user_id is None:
            raise errors.invalid([Violation(field="user_id", description="must be set")])
        credits_max = authorize.add_limit(identity, request.app_id, credits_max=self._credits_max)
        return command_of(request, new_id=self._new_id, credits_max=credits_max)


# The writes that are no operations.
_OtherWrite = (
    SetAppPolicyRequest
    | SetAlertRequest
    | RemoveAlertRequest
    | SetWebhookRequest
    | RemoveWebhookRequest
    | ResendDeadLettersRequest
)


def check(request: AnyWrite | _OtherWrite, identity: Identity | None) -> None:
    """Check that a caller may make a write, and that the request is valid.

    Raises:
        AccessDenied: The caller may not make the write.
        GRPCError: The write breaks constraints of the contract.
    """
    authorize.check_app(identity, request)
    authorize.check_actor(identity, request)
    validate(request)


def validate(request: betterproto2.Message) -> None:
    """Check a request against the contract's constraints.

    Raises:
        GRPCError: The request breaks them.
    """
    broken = broken_fields(request)
    if broken:
        raise errors.invalid(broken)


def as_raised(ending: WriteResult) -> Receipt | BaseException | None:
    """Return the receipt or the exception that the caller of a single write gets."""
    if ending is None or isinstance(ending, Receipt | BaseException):
        return ending
    return errors.refused(ending)
