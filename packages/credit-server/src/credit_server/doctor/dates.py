"""The dates of the history: is an entry dated after the store's time?"""

from credit_server.doctor.finding import Finding, ok, warning
from credit_server.store.sample import FutureEntries, FutureEntry

_CHECK = "dates"

_SHOWN_MAX = 3


def check_dates(future: FutureEntries) -> Finding:
    """Judge the entries that are dated in the future.

    The balances and the order of the history do not rest on dates, and no entry is ever changed: so
    it is a warning, and ends when the store's time has passed the dates.
    """
    part = "" if future.whole else "; older entries were not searched, that takes too long"
    if not future.entries:
        return ok(_CHECK, f"no entry is dated after MongoDB's time{part}")
    entries = sorted(future.entries, key=lambda entry: entry.ahead_seconds, reverse=True)
    more = len(entries) - _SHOWN_MAX
    return warning(
        _CHECK,
        "; ".join(map(_named, entries[:_SHOWN_MAX]))
        + (f"; and {more} more" if more > 0 else "")
        + part,
        "find the server whose clock is or was ahead and keep its time with NTP; balances and the"
        " order of the history are right, and new entries get the right time",
    )


def _named(entry: FutureEntry) -> str:
    return (
        f"user {entry.user_id}, sequence {entry.sequence}: dated {entry.ahead_seconds:.1f} s after"
        " MongoDB's time"
    )
