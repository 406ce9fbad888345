"""What admission decides: one vocabulary for every reason not to serve a call now."""

from enum import StrEnum


class Decision(StrEnum):
    """Whether a call is admitted, and the cause if it is not.

    The values are the causes that the metric `credit_shed_total` exports. `RATE`, `RUNNING_CALLS`,
    `LIST_SLOTS` and `WATCHERS` concern a single caller, or a list or stream that was begun, and are
    not exported.
    """

    ADMIT = "admit"
    # The server runs as many calls as it may.
    CALLS = "calls"
    # The event loop is late.
    LOOP_LAG = "loop_lag"
    # A shard has as many unanswered writes as it may have.
    QUEUE = "queue_full"
    # A write would wait too long.
    LATENCY = "expected_wait"
    # A write would not be answered before its deadline.
    DEADLINE = "deadline"
    # The caller has used up its rate limit.
    RATE = "rate"
    # The caller has as many running calls as it may have.
    RUNNING_CALLS = "running_calls"
    # A list got no slot in time.
    LIST_SLOTS = "list_slots"
    # The server has the maximum number of streams of Watch.
    WATCHERS = "watchers"


class NotAdmitted(Exception):
    """A call is not served now, and nothing was changed.

    Its text is sent to the caller: it is what happened, without a full stop.

    Attributes:
        decision: The cause.
        retry_seconds: After how many seconds the caller should retry.
    """

    def __init__(self, decision: Decision, sentence: str, *, retry_seconds: float) -> None:
        super().__init__(sentence)
        self.decision = decision
        self.retry_seconds = retry_seconds
