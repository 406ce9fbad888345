"""The reasons why the ledger gave a write no answer.

    CommitError
    ├── Overloaded      the write would wait too long, or the queue is full; it had no effect
    ├── Stopping        the server is shutting down; the write had no effect
    ├── ClockSkewed     the clocks of server and store differ; the write had no effect
    ├── NotCommitted    the store is unavailable or contended; the write had and will have no effect
    └── ResultUnknown   the store did not report whether it has committed; the write may have taken
                        effect, or may still do so

None of them is the caller's fault, and the caller may retry with the same key.
"""

from credit_server.admission.decision import Decision


class CommitError(Exception):
    """The ledger gave a write no answer."""


class Overloaded(CommitError):
    """The write would wait too long. It had no effect.

    Attributes:
        decision: The cause.
        retry_seconds: After how many seconds the caller should retry.
    """

    def __init__(
        self,
        message: str = "",
        *,
        decision: Decision = Decision.QUEUE,
        retry_seconds: float = 0.1,
    ) -> None:
        super().__init__(message)
        self.decision = decision
        self.retry_seconds = retry_seconds


class Stopping(CommitError):
    """The server is shutting down. The write had no effect."""


class ClockSkewed(CommitError):
    """The clocks of the server and its store differ by too much. The write had no effect.

    Attributes:
        skew_seconds: The least difference that the measurement proves.
        limit_seconds: The largest difference that is allowed.
    """

    def __init__(self, *, skew_seconds: float, limit_seconds: float) -> None:
        super().__init__(
            f"the clocks of the server and its store differ by at least {skew_seconds:.3f} s, and"
            f" {limit_seconds:g} s are allowed"
        )
        self.skew_seconds = skew_seconds
        self.limit_seconds = limit_seconds


class NotCommitted(CommitError):
    """The store was unavailable, had conflicts for too long, or failed.

    The write had no effect, and no attempt at it can still take effect.
    """


class ResultUnknown(CommitError):
    """The store did not report in time whether it has committed.

    The write may have taken effect, or may still do so.
    """
