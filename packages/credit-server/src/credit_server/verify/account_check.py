"""Compare the stored account of a user with the one that follows from the history."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from credit_models.ledger import Account, AppAccount, Caps, Grant, Hold

from credit_server.verify.entry_checks import Fault
from credit_server.verify.findings import Code
from credit_server.verify.user_book import UserBook

_NO_APP = AppAccount()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAccount:
    """An account as it is stored.

    Attributes:
        account: The account.
        due_at: When something is due in the account, as stored for the sweeper.
        app_due_at: The same for each app.
    """

    account: Account
    due_at: datetime | None = None
    app_due_at: Mapping[int, datetime | None]


def recomputed(book: UserBook, stored: Account | None) -> Account:
    """Return the account that follows from a whole history.

    Args:
        book: The history, of at least one entry.
        stored: The stored account, whose id is kept; None: there is none.
    """
    first, last = book.first, book.last
    assert first is not None and last is not None  # noqa: S101, PT018 - for the type checker
    apps = {app_id: app.account() for app_id, app in book.apps.items()}
    return Account(
        user_id=book.user_id,
        id="" if stored is None else stored.id,
        balances={app_id: app.balance for app_id, app in book.apps.items()},
        apps={app_id: app for app_id, app in apps.items() if app != _NO_APP},
        heads=book.heads,
        revision=last.sequence,
        created_at=first.created_at,
        updated_at=last.created_at,
        created_by=first.created_by,
        updated_by=last.created_by,
    )


def check_account(book: UserBook, stored: StoredAccount | None) -> None:
    """Add the findings of a user's account to the book."""
    if stored is None:
        if book.entries:
            book.add(Code.ACCOUNT_MISSING, f"{book.entries} entries have no account")
        return
    account = stored.account
    if book.last is None:
        if book.is_whole:
            found = f"the account has the revision {account.revision} and no entries"
            book.add(Code.HISTORY_MISSING, found)
        return
    last = book.last.sequence
    if account.revision > last:
        book.missing_end(account.revision)
    elif account.revision < last:
        book.add(Code.REVISION, f"the revision is {account.revision}; the last entry is {last}")
    if not book.is_whole:
        return
    expected = recomputed(book, account)
    for code, found in _dates(account, expected):
        book.add(code, found)
    for app_id in sorted({*account.balances, *account.apps, *expected.balances}):
        for code, found in _app_faults(app_id, account, expected):
            book.add(code, found, app_id=app_id)
    for app_id, code, found in _due(stored, expected):
        book.add(code, found, app_id=app_id)


def _dates(account: Account, expected: Account) -> Iterator[Fault]:
    for name in ("created_at", "updated_at", "created_by", "updated_by"):
        found, wanted = getattr(account, name), getattr(expected, name)
        if found != wanted:
            yield Code.ACCOUNT_DATES, f"{name} is {found} instead of {wanted}"


def _app_faults(app_id: int, account: Account, expected: Account) -> Iterator[Fault]:
    found, wanted = account.balances.get(app_id), expected.balances.get(app_id)
    if found != wanted:
        yield (
            Code.BALANCE,
            f"the balance is {_or_none(found)}; the history adds up to {wanted or 0}",
        )
    if account.heads.get(app_id) != expected.heads.get(app_id):
        yield Code.CHAIN_HEAD, "the account's hash is not that of the latest entry in the app"
    app, wanted_app = account.apps.get(app_id, _NO_APP), expected.apps.get(app_id, _NO_APP)
    for name in ("grants", "scheduled"):
        yield from _grants(getattr(app, name), getattr(wanted_app, name))
    yield from _holds(app.holds, wanted_app.holds)
    if app.caps != wanted_app.caps:
        yield Code.CAP, f"the caps are {_shown(app.caps)} instead of {_shown(wanted_app.caps)}"
    if app.alerts != wanted_app.alerts:
        yield Code.ALERT, f"{len(app.alerts)} alerts differ from those of the history"
    yield from _counters(app, wanted_app)


def _grants(found: Sequence[Grant], wanted: Sequence[Grant]) -> Iterator[Fault]:
    of_found, of_wanted = ({grant.id: grant for grant in each} for each in (found, wanted))
    for grant_id in {**of_wanted, **of_found}:
        grant, expected = of_found.get(grant_id), of_wanted.get(grant_id)
        left = 0 if grant is None else grant.left
        expected_left = 0 if expected is None else expected.left
        if left != expected_left or grant is None or expected is None:
            yield Code.GRANT_LEFT, f"grant {grant_id} has {left} left instead of {expected_left}"
        elif names := _differing(grant, expected, "left"):
            yield Code.GRANT_TERMS, f"grant {grant_id} has another {names}"
    order = [grant.id for grant in found]
    if order != [grant.id for grant in wanted] and set(of_found) == set(of_wanted):
        yield Code.GRANT_TERMS, "the grants are not in the order in which they are used"


def _holds(found: Sequence[Hold], wanted: Sequence[Hold]) -> Iterator[Fault]:
    of_found, of_wanted = ({hold.id: hold for hold in each} for each in (found, wanted))
    for hold_id in {**of_wanted, **of_found}:
        hold, expected = of_found.get(hold_id), of_wanted.get(hold_id)
        held = 0 if hold is None else hold.credits
        expected_held = 0 if expected is None else expected.credits
        if held != expected_held:
            yield Code.HOLD, f"hold {hold_id} holds {held} instead of {expected_held}"
        elif hold and expected and (names := _differing(hold, expected, "credits")):
            yield Code.HOLD_TERMS, f"hold {hold_id} has another {names}"
    if [*of_found] != [*of_wanted] and set(of_found) == set(of_wanted):
        yield Code.HOLD_TERMS, "the holds are not in the order in which they were placed"


def _counters(app: AppAccount, wanted: AppAccount) -> Iterator[Fault]:
    of_wanted = {each.period: each for each in wanted.spent}
    for each in app.spent:
        expected = of_wanted.get(each.period)
        if expected is None or (each.starts_at, each.credits) != (
            expected.starts_at,
            expected.credits,
        ):
            counted = "none" if expected is None else f"{expected.credits}"
            yield (
                Code.CAP_COUNTER,
                f"the counter of the {each.period.value} has {each.credits} instead of {counted}",
            )
    if not app.spent and app.caps != _NO_APP.caps:
        yield Code.CAP_COUNTER, "the account has caps but no counters"


def _due(stored: StoredAccount, expected: Account) -> Iterator[tuple[int, Code, str]]:
    apps = {app_id: app.due_at for app_id, app in expected.apps.items()}
    for app_id in sorted({*apps, *stored.app_due_at}):
        found, wanted = stored.app_due_at.get(app_id), apps.get(app_id)
        if found != wanted:
            yield app_id, Code.DUE_TIME, f"due_at is {_or_none(found)} instead of {wanted}"
    due_at = min((time for time in apps.values() if time is not None), default=None)
    if stored.due_at != due_at:
        yield 0, Code.DUE_TIME, f"due_at is {_or_none(stored.due_at)} instead of {due_at}"


def _differing(found: Grant | Hold, wanted: Grant | Hold, compared: str) -> str:
    """Return the names of the attributes that differ, except one that is compared elsewhere."""
    names = [each.name for each in fields(found) if each.name != compared]
    return ", ".join(n for n in names if getattr(found, n) != getattr(wanted, n))


def _or_none(value: object) -> str:
    return "absent" if value is None else str(value)


def _shown(caps: Caps) -> str:
    each = [f"{f.name} {v}" for f in fields(caps) if (v := getattr(caps, f.name)) is not None]
    return ", ".join(each) or "absent"
