"""Test what is due by time: the order, the entries, reads, forecasts and the sweeper."""

from datetime import UTC, datetime, timedelta

from credit_models.ledger import (
    NOTHING_FOUND,
    Account,
    AppAccount,
    GrantCredits,
    Kind,
    NothingDue,
    Settle,
    Settled,
    decide,
    settle,
)

from tests.models.ledger.history import NOON, Ledger

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def busy() -> Ledger:
    """Return a ledger in which four things are due within a day, in the apps 1 and 2."""
    ledger = Ledger()
    ledger.grant(5, "soon", expires_after=HOUR)
    ledger.grant(4, "later", effective_at=NOON + 2 * HOUR, expires_after=2 * HOUR)
    ledger.hold(3, "h", expires_after=3 * HOUR)
    ledger.grant(2, "other", app_id=2, expires_after=HOUR)
    return ledger


def test_what_is_due_is_decided_in_the_order_of_the_instants() -> None:
    ledger = busy()
    entries = settle(ledger.accounts[7], NOON + DAY, apps=[1]).entries
    assert [(e.kind.value, e.credits, e.details.related_id, e.balance_after) for e in entries] == [
        ("expire", 2, "soon", 0),
        ("activate", 4, "later", 4),
        ("release", 3, "h", 7),
        ("expire", 3, "soon", 4),  # the hold returns it to a grant that has ended
        ("expire", 4, "later", 0),
    ]
    hours = [1, 2, 3, 3, 4]
    assert [e.details.effective_at for e in entries] == [NOON + hour * HOUR for hour in hours]
    assert {e.created_at for e in entries} == {NOON + DAY}
    assert [e.sequence for e in entries] == [5, 6, 7, 8, 9]


def test_at_one_instant_grants_start_then_holds_end_then_grants_end() -> None:
    ledger = Ledger()
    ledger.grant(5, "a", expires_after=HOUR)
    ledger.hold(2, "h", expires_after=HOUR)
    ledger.grant(4, "b", effective_at=NOON + HOUR)
    entries = settle(ledger.accounts[7], NOON + HOUR).entries
    assert [(entry.kind.value, entry.credits) for entry in entries] == [
        ("activate", 4),
        ("release", 2),
        ("expire", 5),
    ]


def test_a_read_keeps_the_stored_revision_and_dates() -> None:
    ledger = busy()
    account = ledger.accounts[7]
    settled = settle(account, NOON + DAY)
    assert settled.account.balances == {1: 0, 2: 0}
    assert (settled.account.revision, settled.account.updated_at) == (4, NOON)
    assert settled.account.apps == {}
    assert len(settled.entries) == 6


def test_nothing_is_due_before_the_first_instant() -> None:
    ledger = busy()
    account = ledger.accounts[7]
    almost = NOON + HOUR - timedelta(milliseconds=1)
    assert settle(account, almost) == Settled(account=account, entries=())
    assert settle(Account.empty(7), NOON) == Settled(account=Account.empty(7), entries=())
    assert account.apps[1].due_at == NOON + HOUR


def test_a_write_settles_its_own_app_first() -> None:
    ledger = busy()
    ledger.wait(hours=2)
    ledger.add(1)
    assert ledger.kinds[4:] == ["expire", "activate", "add"]
    assert ledger.accounts[7].apps[2].due_at == NOON + HOUR


def test_a_refused_write_leaves_what_is_due() -> None:
    ledger = busy()
    ledger.wait(hours=2)
    refused = ledger.outcome(GrantCredits, credits=1, expires_at=NOON)
    assert not hasattr(refused, "accounts")
    assert ledger.kinds == ["grant", "schedule", "hold", "grant"]


def test_the_sweeper_writes_what_is_due_and_nothing_else() -> None:
    ledger = busy()
    assert ledger.outcome(Settle) == NothingDue()
    ledger.wait(hours=1)
    entry = ledger.do(Settle, created_by=99)
    assert (entry.kind, entry.key, entry.created_by) == (Kind.EXPIRE, "", 3)
    assert ledger.outcome(Settle) == NothingDue()
    assert ledger.accounts[7].updated_by == 3


def test_ids_of_due_entries_are_the_same_in_every_attempt_and_differ_from_each_other() -> None:
    ledger = busy()
    account = ledger.accounts[7]
    first, again = settle(account, NOON + DAY), settle(account, NOON + DAY)
    assert first == again
    ids = {entry.id for entry in first.entries}
    assert len(ids) == 6
    assert all(len(id_) == 24 and int(id_, 16) >= 0 for id_ in ids)
    # The time in seconds, then sha256("credit entry", the user and the sequence as 8 bytes each).
    seconds = int((NOON + DAY).timestamp())
    assert first.entries[0].id == f"{seconds:08x}2c2b2092a88d43ed"


def test_a_clock_that_is_behind_does_not_undo_what_was_settled() -> None:
    ledger = busy()
    ledger.wait(hours=2)
    ledger.add(1)
    ledger.wait(hours=-2)
    entry = ledger.add(1)
    assert (entry.created_at, ledger.balance) == (NOON + 2 * HOUR, 6)


def test_time_never_runs_past_the_latest_time_of_a_correct_clock() -> None:
    ledger = busy()
    ahead = Ledger()
    ahead.accounts[7] = Account(
        user_id=7,
        balances=ledger.accounts[7].balances,
        apps=ledger.accounts[7].apps,
        revision=4,
        created_at=NOON,
        updated_at=datetime(2099, 1, 1, tzinfo=UTC),
        created_by=3,
        updated_by=3,
    )
    command = Settle(**ledger.common())
    latest = NOON + timedelta(seconds=4)
    assert decide(ahead.accounts[7], command, NOTHING_FOUND, NOON, latest) == NothingDue()


def test_the_record_of_an_app_follows_from_its_grants_and_holds() -> None:
    app = busy().accounts[7].apps[1]
    assert (app.granted, app.held, app.due_at) == (2, 3, NOON + HOUR)
    assert app == AppAccount.of(grants=app.grants, scheduled=app.scheduled, holds=app.holds)
