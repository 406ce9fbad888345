"""Check that a watch has returned each entry once, in order, without a gap and unchanged."""

from collections.abc import Iterator, Sequence

from credit_models import CreditTransaction

from credit_testing.accounts.replay import History


def watch_findings(
    name: str,
    came: Sequence[CreditTransaction],
    history: History,
    *,
    app_id: int | None = None,
    revision: int | None = None,
    began: int = 0,
    until: int | None = None,
) -> Iterator[str]:
    """Yield what is wrong with the entries of one user that a watch has returned.

    Args:
        name: The name of the watch, for the findings.
        came: The returned entries, in the order of their events.
        history: The history of the user.
        app_id: The app whose entries the watch returns; None: all apps.
        revision: The user's revision before the first entry; None: it is not known.
        began: When the first event had arrived. Without a revision, the watch may omit entries that
            were committed earlier, but not entries that were requested later.
        until: The sequence of the last entry that the watch must have returned; 0: it need not
            return any; None: it must have returned all entries that follow.
    """
    shown = history.shown
    if revision is None:
        asked = zip(shown, history.asked, strict=True)
        later = [entry for entry, at in asked if at > began]
        certain = [entry.sequence for entry in (*came, *later)] + ([until] if until else [])
        revision = min(certain, default=len(shown) + 1) - 1
    if until is None:
        until = len(shown)
    last = max((entry.sequence for entry in came), default=0)
    expected = [
        entry
        for entry in shown
        if app_id in (None, entry.app_id) and revision < entry.sequence <= max(last, until)
    ]
    if list(came) != expected:
        places, others = _places(came), _places(expected)
        altered = ": an entry differs" if places == others else ""
        yield f"{name} returned {places} of user {shown[0].user_id}, not {others}{altered}"


def _places(entries: Sequence[CreditTransaction]) -> list[int]:
    return [entry.sequence for entry in entries]
