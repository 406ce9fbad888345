"""Make a single write: the call of one request that the ledger decides."""

from typing import Any

from credit_models.ledger import Receipt
from credit_models.operations import AnyWrite

from credit_server.access import authorize
from credit_server.access.audit import AuditLog
from credit_server.api import errors
from credit_server.api.commands import Commands, as_raised
from credit_server.commit import Committer
from credit_server.grpc.call import Call


class Writes:
    """Makes single writes for the services of the contract."""

    def __init__(self, committer: Committer, commands: Commands, audit: AuditLog) -> None:
        """Prepare to make writes.

        Args:
            committer: Settles them.
            commands: Makes their commands.
            audit: Writes a line for each.
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
        with self._audit.write(call, identity, request) as audited:
            result = await self._committer.submit(
                self._commands.of(request, identity),
                call.observation.context,
                request_id=call.request.request_id,
                seconds_left=None if call.deadline is None else call.deadline.time_remaining(),
                after=lambda ending: audited.outlived(as_raised(ending)),
            )
            if not isinstance(result, Receipt):
                raise errors.refused(result)
            audited.receipt = result
        # The write has happened, whether or not the caller gets the answer.
        return result
