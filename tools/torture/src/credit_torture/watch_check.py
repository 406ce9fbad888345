"""Check that a watch has returned each entry once, in order and without a gap."""

from collections.abc import Iterator, Mapping, Sequence

from credit_testing.accounts import watches as audits
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
            app_id = began["scope"].get("app_id")
            yield from audits.watch_findings(
                name,
                of_user,
                history,
                app_id=app_id,
                revision=began["revision"] if app_id is None else None,
                began=began["began"],
                until=required.get(user, 0),
            )
