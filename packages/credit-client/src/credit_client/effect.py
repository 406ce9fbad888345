"""What the attempts of a call have done to the ledger, as far as the SDK can know."""

from dataclasses import dataclass
from typing import Protocol

from credit_client.errors import CreditError, IdempotencyKeyReused, Outcome
from credit_client.outcome import outcome_of
from credit_client.transport import AttemptFailed

# The clause with which a server reports that nothing changed, and that of servers up to 0.3.0.
_PROMISES = ("; no change was made", "; nothing happened")


class Effect(Protocol):
    """Follows the attempts of a call."""

    def begin_attempt(self) -> None:
        """Record that another attempt begins after a failed one. Nothing of it is sent yet."""

    def sending(self) -> None:
        """Record that from now on the server may execute the latest attempt."""

    def failed(self, failure: AttemptFailed) -> None:
        """Record why the latest attempt has failed."""

    def complete(self, error: CreditError) -> None:
        """Add the outcome to the error that ends the call."""


class ReadEffect:
    """The effect of a call that changes nothing.

    Attributes are those of `WriteEffect`.
    """

    outcome = Outcome.NO_CHANGE
    earlier_unknown = False

    def begin_attempt(self) -> None:
        """See `Effect`."""

    def sending(self) -> None:
        """See `Effect`."""

    def failed(self, failure: AttemptFailed) -> None:
        """See `Effect`."""

    def complete(self, error: CreditError) -> None:
        """See `Effect`."""
        error.outcome = Outcome.NO_CHANGE


@dataclass(eq=False, slots=True)
class WriteEffect:
    """The effect of one write.

    Attributes:
        outcome: What the latest attempt did to the ledger; unknown once it is sent.
        earlier_unknown: Whether the outcome of an attempt before the latest is unknown.
    """

    outcome: Outcome = Outcome.NO_CHANGE
    earlier_unknown: bool = False

    def begin_attempt(self) -> None:
        """See `Effect`."""
        self.earlier_unknown |= self.outcome is Outcome.UNKNOWN
        self.outcome = Outcome.NO_CHANGE

    def sending(self) -> None:
        """See `Effect`."""
        self.outcome = Outcome.UNKNOWN

    def failed(self, failure: AttemptFailed) -> None:
        """See `Effect`."""
        if self.outcome is Outcome.UNKNOWN:
            self.outcome = outcome_of(failure)

    def complete(self, error: CreditError) -> None:
        """See `Effect`."""
        error.outcome, clause = Outcome.NO_CHANGE, "no change was made"
        if self.outcome is Outcome.UNKNOWN:
            error.outcome, clause = Outcome.UNKNOWN, "the write may have taken effect"
        elif self.earlier_unknown and not isinstance(error, IdempotencyKeyReused):
            # A refusal proves that the earlier attempt had not taken effect by then. It may still
            # be on its way to another server, and take effect once there are credits, for example.
            # Only a key that belongs to another request makes the server reject it forever.
            error.outcome, clause = Outcome.UNKNOWN, "an earlier attempt may have taken effect"
            error.message = _without_promise(error.message)
        elif "nothing happened" in error.message or clause in error.message:
            return
        error.message = f"{error.message.removesuffix('.')}; {clause}"
        error.args = (error.message,)


def _without_promise(message: str) -> str:
    """Return a server's message without its clause that the attempt made no change.

    The clause is about one attempt. Beside an earlier attempt whose outcome is unknown it would
    read as a promise for the whole write.
    """
    for clause in _PROMISES:
        message = message.replace(clause, "")
    return message
