"""The budgets of a client are as strict as buckets that are refilled at every event."""

from credit_server.admission.token_bucket import TokenBucket
from credit_server.http2.incoming import FloodBudgets, FloodError
from credit_server.http2.limits import ConnectionLimits
from hypothesis import given
from hypothesis import strategies as st

LIMITS = ConnectionLimits(
    control_frames_per_second=2,
    control_frames_burst=9,
    resets_per_second=1,
    resets_burst=3,
)
# Of quarters of a second, so that the sums of floats are exact.
QUARTER = 0.25

steps = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 20)),
    st.tuples(st.just("sent"), st.integers(0, 3)),
    st.tuples(st.just("control"), st.just(1)),
    st.tuples(st.just("resets"), st.integers(1, 3)),
)


@given(st.lists(steps, max_size=60))
def test_budgets_allow_the_same_as_buckets_that_are_refilled_at_every_event(
    taken: list[tuple[str, int]],
) -> None:
    budgets, now = FloodBudgets(LIMITS, 0.0), 0.0
    control = TokenBucket(per_second=2, burst=9, now=0.0)
    resets = TokenBucket(per_second=1, burst=3, now=0.0)
    for step, count in taken:
        match step:
            case "read":
                now += count * QUARTER
                budgets.now = now
                control.refill(now)
                resets.refill(now)
            case "sent":
                budgets.frames_earning += count
                control.earn(4 * count)
            case "control":
                assert _is_free(budgets) == control.spend()
            case "resets":
                assert _is_free(budgets, resets=count) == resets.spend(count)


def _is_free(budgets: FloodBudgets, *, resets: int = 0) -> bool:
    try:
        if resets:
            budgets.charge_resets("resets", resets)
        else:
            budgets.charge_control("frames")
    except FloodError:
        return False
    return True
