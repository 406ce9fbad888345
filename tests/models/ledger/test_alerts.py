"""Test alerts: one event for each crossing of a limit; `test_tokens` tests all interleavings."""

from datetime import timedelta
from typing import Any

import pytest
from credit_models.ledger import (
    ALERTS_MAX,
    NO_POLICY,
    Accepted,
    Add,
    AdjustBalance,
    Alert,
    AlertEvent,
    AlertUnchanged,
    AppAccount,
    BatchSize,
    CaptureHold,
    Direction,
    GrantCredits,
    Kind,
    Policy,
    SetAlert,
    Settle,
    TooManyAlerts,
    TransferCredits,
    Use,
    changed_alerts,
)

from tests.models.ledger.history import Ledger

BELOW, RISES = Direction.FALLS_BELOW, Direction.RISES_TO
BELOW_20, RISES_20 = Alert(credits=20, direction=BELOW), Alert(credits=20, direction=RISES)
EVERYONE: dict[str, Any] = {"policy": Policy(alerts=(BELOW_20, RISES_20))}


class Alerted(Ledger):
    """A ledger that keeps the events."""

    def __init__(self, *alerts: Alert) -> None:
        super().__init__()
        self.events: list[AlertEvent] = []
        for alert in alerts:
            self.do(SetAlert, credits=alert.credits, direction=alert.direction)

    def write(self, outcome: Accepted) -> None:
        super().write(outcome)
        self.events += outcome.events

    @property
    def crossed(self) -> list[tuple[Alert, int]]:
        """The alert and the balance of each event."""
        return [(event.alert, event.balance) for event in self.events]


def test_an_alert_has_one_event_for_each_crossing_and_is_armed_again_by_the_way_back() -> None:
    ledger = Alerted(BELOW_20)
    ledger.add(50)
    ledger.use(30)  # exactly the limit
    assert ledger.crossed == []
    ledger.use(1)
    ledger.use(5)
    assert ledger.crossed == [(BELOW_20, 19)]
    ledger.add(6)
    ledger.use(20)
    assert ledger.crossed == [(BELOW_20, 19), (BELOW_20, 0)]


def test_a_balance_that_rises_to_the_limit_has_an_event() -> None:
    ledger = Alerted(RISES_20)
    ledger.add(19)
    assert ledger.crossed == []
    ledger.add(1)
    ledger.add(30)
    assert ledger.crossed == [(RISES_20, 20)]


def test_an_event_names_its_entry_and_its_id_follows_from_it() -> None:
    events = []
    for _ in range(2):
        ledger = Alerted(BELOW_20, RISES_20)
        ledger.add(20)
        used = ledger.use(20, "f" * 24)
        (event,) = ledger.events[1:]
        assert (event.user_id, event.app_id, event.transaction_id, event.sequence) == (
            used.user_id,
            used.app_id,
            used.id,
            used.sequence,
        )
        assert event.created_at == used.created_at
        assert len(event.id) == 24
        events += ledger.events
    assert events[:2] == events[2:]
    assert len({event.id for event in events}) == 2


def test_an_alert_of_the_app_is_for_every_user_and_one_event_is_enough() -> None:
    ledger = Alerted(BELOW_20)
    ledger.add(20, **EVERYONE)
    ledger.add(20, user_id=8, **EVERYONE)
    assert ledger.crossed == [(RISES_20, 20), (RISES_20, 20)]
    ledger.use(1, **EVERYONE)
    ledger.use(1, user_id=8, **EVERYONE)
    assert ledger.crossed[2:] == [(BELOW_20, 19), (BELOW_20, 19)]
    assert [event.user_id for event in ledger.events[2:]] == [7, 8]


def test_an_alert_is_of_one_app() -> None:
    ledger = Alerted(RISES_20)
    ledger.add(20, app_id=2)
    assert ledger.crossed == []


def test_a_debt_is_a_balance_of_0() -> None:
    ledger = Alerted(Alert(credits=1, direction=BELOW), Alert(credits=1, direction=RISES))
    in_debt: dict[str, Any] = {"policy": Policy(allow_negative=True), "note": "why"}
    ledger.do(AdjustBalance, delta=-5, **in_debt)
    ledger.add(5)
    assert ledger.crossed == []
    ledger.add(1)
    ledger.do(AdjustBalance, delta=-5, **in_debt)
    assert [balance for _, balance in ledger.crossed] == [1, 0]


def test_a_capture_is_one_change_although_it_releases_the_credits_first() -> None:
    ledger = Alerted(BELOW_20, RISES_20)
    ledger.add(30)
    ledger.hold(20, "h")
    assert ledger.crossed == [(RISES_20, 30), (BELOW_20, 10)]
    ledger.do(CaptureHold, hold_id="h", credits=20, **ledger.report())
    assert ledger.kinds[-2:] == ["release", "use"]
    assert len(ledger.events) == 2


def test_what_happens_by_time_crosses_a_limit_when_its_entry_is_written() -> None:
    ledger = Alerted(BELOW_20, RISES_20)
    ledger.grant(20, expires_after=timedelta(minutes=1))
    ledger.do(GrantCredits, credits=25, effective_at=ledger.now + timedelta(minutes=2))
    ledger.wait(minutes=3)
    assert ledger.crossed == [(RISES_20, 20)]
    settled = ledger.do(Settle)
    assert ledger.crossed[1:] == [(BELOW_20, 0), (RISES_20, 25)]
    assert ledger.events[-1].transaction_id == settled.id
    assert ledger.events[-1].created_at == ledger.now


def test_what_is_due_and_the_write_itself_are_changes_of_their_own() -> None:
    ledger = Alerted(BELOW_20, RISES_20)
    ledger.grant(30, expires_after=timedelta(minutes=1))
    ledger.wait(minutes=2)
    ledger.add(30)
    assert ledger.crossed == [(RISES_20, 30), (BELOW_20, 0), (RISES_20, 30)]


def test_both_sides_of_a_transfer_cross_their_own_limits() -> None:
    ledger = Alerted(BELOW_20)
    ledger.add(25)
    ledger.do(
        TransferCredits,
        credits=10,
        to_user_id=8,
        to_app_id=2,
        to_policy=Policy(alerts=(Alert(credits=10, direction=RISES),)),
    )
    assert [(event.user_id, event.app_id, event.balance) for event in ledger.events] == [
        (7, 1, 15),
        (8, 2, 10),
    ]


def test_setting_an_alert_is_an_entry_of_no_effect() -> None:
    ledger = Alerted(RISES_20, BELOW_20)
    assert ledger.app.alerts == (BELOW_20, RISES_20)
    entry = ledger.entries[7][0]
    assert (entry.kind, entry.credits, entry.effect) == (Kind.ALERT, 20, 0)
    assert dict(entry.details.request) == {"direction": "rises_to"}
    for alert in (BELOW_20, RISES_20):
        ledger.do(SetAlert, credits=20, direction=alert.direction, remove=True)
    assert ledger.app == AppAccount()
    assert dict(ledger.entries[7][-1].details.request)["remove"] == "true"


@pytest.mark.parametrize("remove", [False, True])
def test_an_alert_that_is_set_or_removed_already_is_unchanged(remove: bool) -> None:
    ledger = Alerted(*([] if remove else [BELOW_20]))
    outcome = ledger.outcome(SetAlert, credits=20, direction=BELOW, remove=remove)
    assert outcome == AlertUnchanged(revision=ledger.account.revision)


def test_the_number_of_alerts_is_limited() -> None:
    alerts = [Alert(credits=1 + number, direction=BELOW) for number in range(ALERTS_MAX)]
    ledger = Alerted(*alerts)
    full = TooManyAlerts(limit=ALERTS_MAX)
    assert ledger.outcome(SetAlert, credits=20, direction=BELOW) == full
    assert changed_alerts(tuple(alerts), BELOW_20, remove=False) == full
    assert ledger.outcome(SetAlert, credits=1, direction=BELOW) == AlertUnchanged(
        revision=ledger.account.revision
    )
    ledger.do(SetAlert, credits=1, direction=BELOW, remove=True)
    ledger.do(SetAlert, credits=20, direction=BELOW)
    assert len(ledger.app.alerts) == ALERTS_MAX


def test_alerts_have_an_order_of_their_own() -> None:
    alerts = changed_alerts((RISES_20,), BELOW_20, remove=False)
    assert alerts == (BELOW_20, RISES_20)
    one = Alert(credits=1, direction=RISES)
    assert isinstance(alerts, tuple)
    assert changed_alerts(alerts, one, remove=False) == (one, BELOW_20, RISES_20)


@pytest.mark.parametrize("policy", [NO_POLICY, Policy(allow_negative=True)])
def test_a_user_without_alerts_has_no_events(policy: Policy) -> None:
    ledger = Alerted()
    ledger.add(50, policy=policy)
    ledger.use(50, policy=policy)
    assert ledger.events == []
    assert ledger.accounts[7].apps == {}


def test_a_rejected_or_repeated_command_has_no_events() -> None:
    ledger = Alerted(BELOW_20)
    ledger.add(20)
    assert not isinstance(ledger.outcome(Use, credits=21, **ledger.report()), Accepted)
    ledger.use(20, key="k")
    assert not isinstance(ledger.outcome(Use, credits=20, key="k", **ledger.report()), Accepted)
    assert len(ledger.events) == 1


def test_events_are_part_of_the_size_of_a_batch() -> None:
    added = Alerted(BELOW_20, RISES_20).outcome(Add, credits=20)
    assert isinstance(added, Accepted)
    size = BatchSize()
    assert size.add(added) is None
    assert size.total == len(added.transactions) + len(added.events) == 2
