"""Check that a watch has returned each entry once, in order and without a gap."""

from collections.abc import Iterator, Mapping, Sequence

from credit_models import CreditTransaction
from credit_testing.accounts.replay import History

from credit_torture.record import Line, entry_of


def watch_findings(
    name: str, events: Sequence[Line], histories: Mapping[int, History]
) -> Iterator[str]:
    """Yield entries that arrived twice, in a wrong order, altered or not at all.

    Args:
        name: The name of the watch.
        events: Its recorded lines.
        histories: The histories of the users.
    """
    began = next((event for event in events if "began" in event), None)
    closed = next((event for event in events if "closed" in event), None)
    yield from (f"{name} has failed: {event['failed']}" for event in events if "failed" in event)
    if began is None or closed is None:
        yield f"{name} has no beginning or no end"
        return
    came = [entry_of(event["entry"]) for event in events if "entry" in event]
    required = dict(closed["required"])
    for user, history in histories.items():
        of_user = [entry for entry in came if entry.user_id == user]
        if began["scope"].get("user_id", user) == user and (of_user or user in required):
            yield from _gaps(name, began, of_user, history, required.get(user, 0))


def _gaps(
    name: str, began: Line, came: list[CreditTransaction], history: History, required: int
) -> Iterator[str]:
    """Yield what is wrong with the entries of one user.

    Args:
        name: The name of the watch.
        began: Its first line.
        came: The entries that arrived.
        history: The history of the user.
        required: The sequence of the last entry that must have arrived.
    """
    app = began["scope"].get("app_id")
    wanted = [entry for entry in history.shown if app in (None, entry.app_id)]
    if app is None:
        first = began["revision"]
    else:
        # Some entries may have been committed before the first event. All later ones must arrive.
        asked = zip(history.shown, history.asked, strict=True)
        later = [entry.sequence for entry, at in asked if at > began["began"]]
        first = min((entry.sequence for entry in came), default=required) - 1
        first = min([first, *(sequence - 1 for sequence in later)])
    last = max((entry.sequence for entry in came), default=0)
    expected = [entry for entry in wanted if first < entry.sequence <= max(last, required)]
    if came != expected:
        yield (
            f"{name} has returned {_places(came)} of user {history.shown[0].user_id}, and not"
            f" {_places(expected)}"
            + ("" if _places(came) != _places(expected) else ": an entry differs")
        )


def _places(entries: Sequence[CreditTransaction]) -> list[int]:
    return [entry.sequence for entry in entries]
