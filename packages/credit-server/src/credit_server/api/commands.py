"""Make writes: check the caller's permissions, validate the request, and commit its command."""

from collections.abc import Callable
from typing import Any

import betterproto2
from credit_models.constraints import Violation
from credit_models.ledger import UINT32_MAX, Command, Receipt
from credit_models.operations import AnyWrite
from credit_models.translation.commands import broken_fields, command_of

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.access.identity import Identity
from credit_server.api import errors
from credit_server.commit import Committer, WriteResult
from credit_server.grpc.call import Call
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
        credits_max = self._credits_max
        if identity is not None:
            authorize.check_write(identity, request)
            credits_max = authorize.add_limit(identity, request.app_id, credits_max=credits_max)
        validate(request)
        if request.user_id is None:
            raise errors.invalid([Violation(field="user_id", description="must be set")])
        return command_of(request, new_id=self._new_id, credits_max=credits_max)


class Writes:
    """Makes single writes for the services of the contract."""

    def __init__(self, committer: Committer, commands: Commands, audit: AuditLog) -> None:
        """Prepare to make writes.

        Args:
            committer: Commits the writes.
            commands: Makes the commands of the writes.
            audit: Writes a line for each write.
        """
        self._committer = committer
        self._commands = commands
        self._audit = audit

    # Any: the answers of the calls have many types.
    async def make(self, call: Call[Any, Any], request: AnyWrite) -> Receipt:
        """Make the write of a call.

        Args:
            call: The call.
            request: Its message.

        Raises:
            AccessDenied: The caller may not make the write.
            GRPCError: The request is not valid, or the ledger has rejected it.
            CommitError: The write was not admitted or not committed.
        """
        identity = authorize.identity_of(call)
        if not self._audit.enabled:
            return await self._submit(call, request, identity, after=None)
        with self._audit.write(call, identity, request) as audited:
            receipt = audited.receipt = await self._submit(
                call, request, identity, after=lambda ending: audited.outlived(as_raised(ending))
            )
        return receipt

    async def _submit(
        self,
        call: Call[Any, Any],
        request: AnyWrite,
        identity: Identity | None,
        *,
        after: Callable[[WriteResult], None] | None,
    ) -> Receipt:
        result = await self._committer.submit(
            self._commands.of(request, identity),
            call.batch_context,
            request_id=call.request.request_id,
            seconds_left=None if call.deadline is None else call.deadline.time_remaining(),
            after=after,
        )
        if not isinstance(result, Receipt):
            raise errors.refused(result)
        # The write has taken effect, whether or not the caller gets the answer.
        return result


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
