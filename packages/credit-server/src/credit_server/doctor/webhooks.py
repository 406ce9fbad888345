"""Check the webhooks: does each receive the events of its app?"""

from collections.abc import Iterator

from credit_server.doctor.report import Finding, counted, ok, warning
from credit_server.doctor.subject import DEAD_LETTERS_COUNTED_MAX, Subject

# The most apps that the message names: a few are enough to find the cause.
_APPS_MAX = 5


def check_webhooks(subject: Subject) -> Iterator[Finding]:
    """Check that there are no dead letters: events that a webhook did not acknowledge in a day."""
    check, dead = "webhooks", subject.store.dead_letters
    if dead is None:
        return
    if not dead:
        yield ok(check, "all events could be delivered")
        return
    total = sum(dead.values())
    least = total >= DEAD_LETTERS_COUNTED_MAX
    number = f"{total} or more events" if least else counted(total, "event")
    most = sorted(dead, key=lambda app_id: -dead[app_id])[:_APPS_MAX]
    apps = ", ".join(f"app {app_id}: {dead[app_id]}" for app_id in most)
    more = f" and {counted(len(dead) - _APPS_MAX, 'more app')}" if len(dead) > _APPS_MAX else ""
    yield warning(
        check,
        f"{number} could not be delivered to webhooks in about a day ({apps}{more})",
        "run: credit webhook dead --app APP, correct the receiver, then run: credit webhook resend"
        " --app APP; after 30 days the server removes them",
    )
