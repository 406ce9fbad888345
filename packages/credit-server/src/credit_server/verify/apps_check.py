"""Check the documents of apps, not of users: totals, events of alerts, the directory."""

from collections.abc import Iterator

from credit_models.ledger import AlertEvent
from credit_models.ledger.alerts import event_id

from credit_server.store.verification import BadDocument, Verification
from credit_server.verify.findings import Code, Finding
from credit_server.verify.span_check import Found, unreadable


def check_apps(reader: Verification) -> Found:
    """Check all apps.

    A total is compared with the sum of the balances in the accounts at the same snapshot.
    `span_check` checks that each of these balances is the sum of its history.

    Raises:
        StoreError: The store cannot be read.
    """
    found = Found()
    for check in (_totals, _documents, _events, _duplicates):
        with reader.snapshot():
            for finding in check(reader):
                found.add(finding)
    return found


def _documents(reader: Verification) -> Iterator[Finding]:
    yield from (unreadable(document) for document in reader.unreadable())


def _totals(reader: Verification) -> Iterator[Finding]:
    totals, held = reader.totals()
    for app_id in sorted({*totals, *held}):
        total, sum_ = totals.get(app_id, 0), held.get(app_id, 0)
        if total != sum_:
            yield Finding(
                code=Code.APP_TOTAL,
                found=f"the total is {total}, and the users hold {sum_}",
                app_id=app_id,
            )


def _events(reader: Verification) -> Iterator[Finding]:
    for batch in reader.events():
        events = [event for event in batch if isinstance(event, AlertEvent)]
        # Not of the user: what is unreadable of a user is corrected with the user's account.
        yield from (
            unreadable(bad._replace(user_id=0)) for bad in batch if isinstance(bad, BadDocument)
        )
        entries = reader.entries({event.transaction_id for event in events})
        for event in events:
            entry = entries.get(event.transaction_id)
            sound = (
                entry is not None
                and (entry.user_id, entry.app_id, entry.sequence, entry.created_at)
                == (event.user_id, event.app_id, event.sequence, event.created_at)
                and event.balance == max(0, entry.balance_after)
                and event.id == event_id(entry.id, event.alert)
            )
            if not sound:
                yield Finding(
                    code=Code.ALERT_EVENT,
                    found=f"the event {event.id} does not fit its entry {event.transaction_id}",
                    user_id=event.user_id,
                    app_id=event.app_id,
                    sequence=event.sequence,
                )


def _duplicates(reader: Verification) -> Iterator[Finding]:
    for user_id, app_id, key, count in reader.duplicate_keys():
        yield Finding(
            code=Code.KEY_DUPLICATE,
            found=f"the key {key!r} has {count} entries",
            user_id=user_id,
            app_id=app_id,
        )
    for app_id, external_id, count in reader.duplicate_external_ids():
        yield Finding(
            code=Code.DIRECTORY_DUPLICATE,
            found=f"the external id {external_id!r} has {count} users",
            app_id=app_id,
        )
    greatest, last = reader.directory_end()
    if greatest > last:
        yield Finding(
            code=Code.DIRECTORY_COUNTER,
            found=f"the last given user id is {last}, and the directory has {greatest}",
        )
