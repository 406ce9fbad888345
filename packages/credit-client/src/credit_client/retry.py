"""Which failures are retried, after which wait, and how often in all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from credit_models.reasons import RULES
from grpclib.const import Status

from credit_client.refusal import reason_of
from credit_client.transport import AttemptFailed, HandshakeFailed


def is_retryable(failure: AttemptFailed) -> bool:
    """Return whether the same call, sent again unchanged, may succeed by itself.

    The contract defines it for each of its reasons; without a reason, the status decides.
    """
    if isinstance(failure, HandshakeFailed):
        return False
    reason = reason_of(failure)
    return _passes(failure.status) if reason is None else RULES[reason].retryable


def _passes(status: Status) -> bool:
    """Return whether the failure behind a status may pass by itself.

    UNAVAILABLE alone, as the gRPC status documents advise; lost connections have that status too.
    A retry is safe because every write carries an idempotency key. An attempt has all the time
    that the call has left, so that DEADLINE_EXCEEDED means that the caller's time is used up, or
    that the server allows the call less time than the caller does; a retry improves neither.
    """
    match status:
        case Status.UNAVAILABLE:
            return True
        case (
            Status.OK
            | Status.CANCELLED
            | Status.UNKNOWN
            | Status.INVALID_ARGUMENT
            | Status.DEADLINE_EXCEEDED
            | Status.NOT_FOUND
            | Status.ALREADY_EXISTS
            | Status.PERMISSION_DENIED
            | Status.RESOURCE_EXHAUSTED
            | Status.FAILED_PRECONDITION
            | Status.ABORTED
            | Status.OUT_OF_RANGE
            | Status.UNIMPLEMENTED
            | Status.INTERNAL
            | Status.DATA_LOSS
            | Status.UNAUTHENTICATED
        ):
            return False
        case _:
            assert_never(status)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Exponential waits with full jitter: callers that failed together do not retry together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ compares the kinds of
    jitter; full jitter costs the server least.
    """

    initial_seconds: float
    max_seconds: float

    def wait_seconds(
        self, *, attempts: int, minimum_seconds: float, draw: Callable[[], float]
    ) -> float:
        """Return the wait after so many failed attempts.

        Args:
            attempts: The attempts so far, 1 or more.
            minimum_seconds: The wait of the server's `RetryInfo`. The jitter is added to it, or
                all callers that were rejected together would retry together.
            draw: Draws from 0 to 1.
        """
        return minimum_seconds + draw() * self._ceiling_seconds(attempts)

    def reconnect_seconds(self, *, failures: int, draw: Callable[[], float]) -> float:
        """Return the wait after so many connections in a row that could not be opened.

        It is at least half of the longest wait: a client opens one connection at a time, so that
        the lower bound limits the load on a server that is down.

        Args:
            failures: The failures so far, 1 or more.
            draw: Draws from 0 to 1.
        """
        return (1.0 + draw()) / 2.0 * self._ceiling_seconds(failures)

    def _ceiling_seconds(self, failures: int) -> float:
        return min(self.max_seconds, self.initial_seconds * 2.0 ** min(failures - 1, 1000))


class RetryBudget:
    """Allows retries only while most calls succeed, for all calls of a client together.

    The token bucket of gRPC's retry throttling:
    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs
    """

    def __init__(self, *, tokens_max: float, ratio: float) -> None:
        self._tokens_max = tokens_max
        self._ratio = ratio
        self._tokens = tokens_max

    def succeeded(self) -> None:
        """Return a part of a token to the budget."""
        self._tokens = min(self._tokens_max, self._tokens + self._ratio)

    def failed(self, tokens: float = 1.0) -> bool:
        """Take tokens for a failure that could be retried.

        Args:
            tokens: How many; 0 where another failure with the same cause has taken one already.

        Returns:
            Whether it may be retried: more than half of the tokens are left.
        """
        self._tokens = max(0.0, self._tokens - tokens)
        return self._tokens > self._tokens_max / 2.0
