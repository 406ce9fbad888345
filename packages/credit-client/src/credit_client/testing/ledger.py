"""The accounts of the fake: the ledger's own rules, on dictionaries instead of a database."""

import datetime as dt
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from credit_models import (
    Alert,
    AlertEvent,
    AppPolicy,
    Balance,
    CreditRequest,
    CreditTransaction,
    ErrorReason,
    GetForecastResponse,
    GetSpendingCapResponse,
    ListAlertEventsRequest,
    ListAlertEventsResponse,
    ListAlertsResponse,
    ListGrantsResponse,
    Purchase,
    PurchaseRequest,
    Receipt,
    RemoveAlertRequest,
    SetAppPolicyRequest,
    SetSpendingCapRequest,
    UserCredits,
    ledger,
)
from credit_models import Hold as HoldMessage
from credit_models.constraints import Violation
from credit_models.ledger import (
    UINT32_MAX,
    Accepted,
    Account,
    AlertUnchanged,
    AppAccount,
    BatchSize,
    Command,
    Decided,
    Lookup,
    Policy,
    Replayed,
    SetAlert,
    Settle,
    TooManyAlerts,
    Transaction,
    TransferCredits,
    aborting,
    decide,
    refusal_of_aborted,
)
from credit_models.operations import AnyWrite
from credit_models.translation import messages
from credit_models.translation.alerts import AlertChange, alert_of, alerts_to_messages
from credit_models.translation.commands import caps_from_message, command_of
from credit_models.translation.refusals import (
    alert_position_unknown,
    answer_of,
    revision_not_reached,
    total_overflow,
)

from credit_client.operation import users_of, validates_only
from credit_client.testing.alerts import FakeAlerts
from credit_client.testing.clock import FakeClock

_NO_APP = AppAccount()
_NO_METADATA: Mapping[str, object] = MappingProxyType({})


class Refused(Exception):
    """The contract's answer to a request that is rejected.

    Attributes:
        reason: The contract's reason.
        metadata: The metadata that the contract defines for the reason.
        violations: The broken fields, for INVALID_FIELD.
    """

    def __init__(
        self,
        reason: ErrorReason,
        message: str,
        metadata: Mapping[str, object] = _NO_METADATA,
        *,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.violations = tuple(violations)


def refused(refusal: ledger.Refusal) -> Refused:
    """Return the contract's error for a refusal of the ledger."""
    return Refused(*answer_of(refusal))


def _of_aborted(answer: Refused, own: Container[str]) -> Refused:
    """Return the answer to a rejected write of an aborted batch: see `refusal_of_aborted`."""
    if answer.reason is not ErrorReason.ALREADY_PURCHASED:
        return answer
    owned = ledger.AlreadyPurchased(purchase_id=answer.metadata["purchase_id"])
    return refused(refusal_of_aborted(owned, own))


@dataclass(kw_only=True, slots=True)
class _User:
    """A user's account and history. Entries and purchases are in the order of their sequence."""

    account: Account
    entries: dict[str, Transaction] = field(default_factory=dict)
    by_key: dict[tuple[int, str], Transaction] = field(default_factory=dict)
    purchases: dict[str, ledger.Purchase] = field(default_factory=dict)

    def copy(self) -> "_User":
        return _User(
            account=self.account,
            entries=dict(self.entries),
            by_key=dict(self.by_key),
            purchases=dict(self.purchases),
        )

    def latest_related(self, reference: str) -> Transaction | None:
        """Return the latest entry that refers to another one."""
        related = (
            entry
            for entry in reversed(self.entries.values())
            if entry.details.related_id == reference
        )
        return next(related, None)

    def _voided_after(self, entry: Transaction) -> dict[str, dt.datetime]:
        """Return the grants of an entry that were voided after it, and when."""
        paid = {part.grant_id for part in entry.details.allocations}
        return {
            each.details.related_id: each.created_at
            for each in self.entries.values()
            if each.kind is ledger.Kind.VOID
            and each.sequence > entry.sequence
            and each.details.related_id in paid
        }

    def lookup(self, command: Command) -> Lookup:
        """Return what a command must know of the history."""
        reference, report = command.reference, command.once_key
        owned = (
            purchase
            for purchase in reversed(self.purchases.values())
            if (purchase.user_id, purchase.app_id, purchase.report_id) == report
            and purchase.refunded_credits < purchase.credits
        )
        referenced = self.entries.get(reference)
        return Lookup(
            earlier=self.by_key.get((command.app_id, command.key)) if command.key else None,
            referenced=referenced,
            latest_related=self.latest_related(reference) if reference else None,
            voided={} if referenced is None else self._voided_after(referenced),
            owned_purchase=None if report is None else next(owned, None),
        )


class FakeLedger:
    """All accounts. Requests must be valid; nothing is awaited, so that no two ever overlap.

    What is due by time takes effect at the beginning of the next call, as if the server's sweeper
    had no delay.

    Attributes:
        clock: The time of the ledger, which tests can move forward.
    """

    def __init__(
        self,
        clock: FakeClock | Callable[[], dt.datetime] | None = None,
        *,
        credits_max: int = UINT32_MAX,
    ) -> None:
        """Make an empty ledger.

        Args:
            clock: The clock, or what returns its time, with a time zone; None: the present time.
            credits_max: The most credits that one call may add.
        """
        if isinstance(clock, FakeClock):
            self.clock = clock
        else:
            self.clock = FakeClock() if clock is None else FakeClock(clock)
        self._credits_max = credits_max
        self._ids = itertools.count(1)
        self._users: dict[int, _User] = {}
        self._policies: dict[int, AppPolicy] = {}
        self._alerts = FakeAlerts()
        # The users with grants, holds, caps or alerts: only for these can something be due.
        self._timed: set[int] = set()
        # The size of the atomic batch that is being made.
        self._batch: BatchSize | None = None
        # All entries, in the order in which they were written.
        self._log: list[Transaction] = []
        self._log_readers: list[Callable[[], object]] = []

    def add(self, request: CreditRequest) -> Receipt:
        """Add credits.

        Raises:
            Refused: The ledger rejects the request.
        """
        return self._decide(request)

    def use(self, request: PurchaseRequest) -> Receipt:
        """Take credits and record the purchase.

        Raises:
            Refused: The ledger rejects the request.
        """
        return self._decide(request)

    def write(self, request: AnyWrite) -> Receipt:
        """Do what any write requests, by its type.

        Raises:
            Refused: The ledger rejects the request.
        """
        match request:
            case CreditRequest():
                return self.add(request)
            case PurchaseRequest():
                return self.use(request)
            case _:
                return self._decide(request)

    def write_all(self, requests: Sequence[AnyWrite]) -> Sequence[Receipt | Refused]:
        """Make all writes, or none: then each has its refusal, if only `BATCH_ABORTED`."""
        self._sweep()
        logged = len(self._log)
        concerned = set[int]().union(*map(users_of, requests))
        before = {user_id: self._user(user_id).copy() for user_id in concerned}
        events = len(self._alerts)
        with self.clock.stopped():
            results = self._results(requests)
        first = aborting(
            [
                Decided(
                    refused=isinstance(result, Refused),
                    replayed=isinstance(result, Receipt) and result.replayed,
                    dry_run=validates_only(request),
                )
                for request, result in zip(requests, results, strict=False)
            ]
        )
        if first is None:
            return results
        own = {
            purchase_id
            for user_id, user in before.items()
            for purchase_id in self._user(user_id).purchases.keys() - user.purchases.keys()
        }
        self._users |= before
        del self._log[logged:]
        self._alerts.drop(concerned, events)
        aborted = refused(ledger.BatchAborted(index=first))
        not_decided = [aborted] * (len(requests) - len(results))
        decided = [
            _of_aborted(each, own) if isinstance(each, Refused) else aborted for each in results
        ]
        return decided + not_decided

    def user_credits(self, *, user_id: int) -> UserCredits:
        """Return a user's balances in all apps."""
        return messages.account_to_message(self._account(user_id))

    def balance(self, *, app_id: int, user_id: int | None = None) -> int:
        """Return a user's balance in an app, or the sum over all users.

        Raises:
            Refused: The sum is too large for the answer.
        """
        if user_id is not None:
            return max(0, self._account(user_id).balance(app_id))
        self._sweep()
        total = sum(user.account.balance(app_id) for user in self._users.values())
        if total > UINT32_MAX:
            raise Refused(*total_overflow(total))
        return max(0, total)

    def app_balance(self, *, app_id: int, user_id: int | None = None) -> Balance:
        """Return the same with what is held and owed, and what expires next.

        Raises:
            Refused: The sum is too large for the answer.
        """
        if user_id is None:
            return Balance(app_id=app_id, balance=self.balance(app_id=app_id))
        # Both are read from one account: if a grant or hold ended between two reads, they would mix
        # two states.
        account = self._account(user_id)
        message = messages.balance_to_message(account, app_id)
        return replace(message, revision=account.revision)

    def check_revision(self, *, user_id: int, required: int) -> None:
        """Check that a user has reached a revision. Nothing here lags behind: it does not wait.

        Raises:
            Refused: The user has a lower one.
        """
        revision = self._account(user_id).revision
        if revision < required:
            raise Refused(*revision_not_reached(revision, required=required))

    def has_history(self, *, user_id: int) -> bool:
        """Return whether anything was ever written for a user."""
        return user_id in self._users

    def purchases(self, *, user_id: int, after_sequence: int = 0) -> tuple[Purchase, ...]:
        """Return a user's purchases after a sequence, oldest first."""
        purchases = self._user(user_id).purchases.values()
        return tuple(
            messages.purchase_to_message(purchase)
            for purchase in purchases
            if purchase.sequence > after_sequence
        )

    def transactions(
        self, *, user_id: int, after_sequence: int = 0
    ) -> tuple[CreditTransaction, ...]:
        """Return a user's transactions after a sequence, oldest first."""
        entries = self._user(user_id).entries.values()
        return tuple(
            messages.transaction_to_message(entry)
            for entry in entries
            if entry.sequence > after_sequence
        )

    def all_transactions(self) -> tuple[CreditTransaction, ...]:
        """Return the transactions of all users, those of each user oldest first."""
        users = sorted(self._users)
        return tuple(each for user in users for each in self.transactions(user_id=user))

    def all_purchases(self) -> tuple[Purchase, ...]:
        """Return the purchases of all users, those of each user oldest first."""
        users = sorted(self._users)
        return tuple(each for user in users for each in self.purchases(user_id=user))

    def written(self, *, after: int) -> tuple[CreditTransaction, ...]:
        """Return the transactions of all users without the first `after`, as they were written."""
        self._sweep()
        return tuple(map(messages.transaction_to_message, self._log[after:]))

    @contextmanager
    def on_write(self, *, notify: Callable[[], object]) -> Iterator[None]:
        """Call a function after each write while the context lasts."""
        self._log_readers.append(notify)
        try:
            yield
        finally:
            self._log_readers.remove(notify)

    def grants(self, *, user_id: int, app_id: int) -> ListGrantsResponse:
        """Return the live grants of a user in an app."""
        return messages.grants_to_message(self._account(user_id), app_id)

    def holds(
        self, *, user_id: int, app_id: int, include_settled: bool = False
    ) -> tuple[HoldMessage, ...]:
        """Return the holds of a user in an app, oldest first."""
        user = self._user(user_id)
        still_open = user.account.apps.get(app_id, _NO_APP).holds
        if not include_settled:
            return tuple(map(messages.hold_to_message, still_open))
        by_id = {hold.id: hold for hold in still_open}
        return tuple(
            messages.hold_to_message(by_id[entry.id])
            if entry.id in by_id
            else messages.settled_hold_to_message(entry, user.latest_related(entry.id) or entry)
            for entry in user.entries.values()
            if (entry.app_id, entry.kind) == (app_id, ledger.Kind.HOLD)
        )

    def forecast(
        self, *, user_id: int, app_id: int, until: dt.datetime | None = None
    ) -> GetForecastResponse:
        """Return how a balance changes by time alone."""
        return messages.forecast_to_message(self._account(user_id), app_id, until=until)

    def spending_cap(self, *, user_id: int, app_id: int) -> GetSpendingCapResponse:
        """Return the spending caps of a user in an app, and what counts."""
        policy = Policy(caps=caps_from_message(self.policy(app_id=app_id).caps))
        return messages.spending_cap_to_message(
            self._account(user_id), app_id, policy, self.clock.now()
        )

    def policy(self, *, app_id: int) -> AppPolicy:
        """Return an app's policy."""
        return self._policies.get(app_id, AppPolicy(app_id=app_id))

    def set_policy(self, request: SetAppPolicyRequest | SetSpendingCapRequest) -> AppPolicy:
        """Change an app's policy: its caps, or the rest.

        Raises:
            Refused: The policy has another revision.
        """
        stored = self.policy(app_id=request.app_id)
        changed = replace(stored)
        if isinstance(request, SetSpendingCapRequest):
            changed.caps = messages.caps_to_message(caps_from_message(request.caps))
        elif request.allow_negative is not None:
            changed.allow_negative = request.allow_negative
        expected = request.expected_revision
        # A retry of a change whose answer was lost expects the revision before its own change.
        own = changed == stored and stored.updated_by == request.created_by
        if expected is not None and expected not in {stored.revision, stored.revision - own}:
            raise refused(ledger.RevisionChanged(revision=stored.revision))
        if changed == stored:
            return stored
        changed.revision += 1
        changed.updated_at, changed.updated_by = self.clock.now(), request.created_by
        if not request.validate_only:
            self._policies[request.app_id] = changed
        return changed

    def change_alert(self, request: AlertChange) -> list[Alert]:
        """Set or remove an alert of a user or an app, and return all alerts of the user or app.

        Raises:
            Refused: There are too many alerts or apps.
        """
        if request.user_id is None:
            changed = self._alerts.change(request)
            if isinstance(changed, TooManyAlerts):
                raise refused(changed)
            return alerts_to_messages(changed)
        alert = alert_of(request)
        command = SetAlert(
            user_id=request.user_id,
            app_id=request.app_id,
            created_by=request.created_by,
            key="",
            transaction_id=self._new_id(),
            credits=alert.credits,
            direction=alert.direction,
            remove=isinstance(request, RemoveAlertRequest),
        )
        outcome = decide(
            self._account(request.user_id), command, ledger.NOTHING_FOUND, self.clock.now()
        )
        if isinstance(outcome, Accepted):
            self._apply(outcome)
        elif not isinstance(outcome, AlertUnchanged | Replayed):
            raise refused(outcome)
        return self.alerts(user_id=request.user_id, app_id=request.app_id).user_alerts

    def alerts(self, *, app_id: int, user_id: int | None = None) -> ListAlertsResponse:
        """Return the alerts of an app and, with a user, those of the user."""
        own = _NO_APP if user_id is None else self._account(user_id).apps.get(app_id, _NO_APP)
        return ListAlertsResponse(
            user_alerts=alerts_to_messages(own.alerts),
            app_alerts=alerts_to_messages(self._alerts.of_app(app_id)),
        )

    def alert_events(self, request: ListAlertEventsRequest) -> ListAlertEventsResponse:
        """Return a page of the events of an app."""
        self._sweep()
        if request.after_position > (newest := len(self._alerts)):
            raise Refused(*alert_position_unknown(newest))
        return self._alerts.page(request)

    def events(self) -> Sequence[AlertEvent]:
        """Return all events of alerts, oldest first."""
        self._sweep()
        return self._alerts.all()

    def _rules(self, app_id: int) -> Policy:
        """Return the policy of an app with its alerts, as the ledger takes it."""
        policy = self.policy(app_id=app_id)
        return Policy(
            caps=caps_from_message(policy.caps),
            allow_negative=policy.allow_negative,
            alerts=self._alerts.of_app(app_id),
        )

    def _user(self, user_id: int) -> _User:
        """Return a user with what is due; one without history is not kept."""
        self._sweep()
        return self._users.get(user_id) or _User(account=Account.empty(user_id))

    def _account(self, user_id: int) -> Account:
        return self._user(user_id).account

    def _results(self, requests: Sequence[AnyWrite]) -> list[Receipt | Refused]:
        """Make the writes of an atomic batch, up to one that makes it too large."""
        results: list[Receipt | Refused] = []
        self._batch = BatchSize()
        try:
            for request in requests:
                try:
                    results.append(self.write(request))
                except Refused as refusal:
                    results.append(refusal)
                    if refusal.reason is ErrorReason.BATCH_TOO_LARGE:
                        break
        finally:
            self._batch = None
        return results

    def _decide(self, request: AnyWrite) -> Receipt:
        user_id = request.user_id or 0  # It is set: `set_policy` handles requests without it.
        user = self._user(user_id)
        command = command_of(
            request,
            new_id=self._new_id,
            credits_max=self._credits_max,
            policy=self._rules(request.app_id),
        )
        if isinstance(command, TransferCredits):
            command = replace(command, to_policy=self._rules(command.to_app_id))
        target = None if len(command.users) == 1 else self._account(command.users[1])
        outcome = decide(
            user.account, command, user.lookup(command), self.clock.now(), target=target
        )
        match outcome:
            case Accepted():
                if not command.validate_only:
                    if self._batch is not None and (too_large := self._batch.add(outcome)):
                        raise refused(too_large)
                    self._apply(outcome)
                receipt = ledger.Receipt(
                    transaction=outcome.main, replayed=False, validated=command.validate_only
                )
            case Replayed(transaction=entry):
                receipt = ledger.Receipt(transaction=entry, replayed=True)
            case _:
                raise refused(outcome)
        return messages.receipt_to_message(receipt)

    def _apply(self, accepted: Accepted) -> None:
        # From here on the write is certain: it is allowed, and nothing below can fail.
        self._alerts.add(accepted.events)
        for account in accepted.accounts:
            user = self._users.setdefault(account.user_id, _User(account=account))
            user.account = replace(account, id=account.id or self._new_id())
            if account.apps:
                self._timed.add(account.user_id)
        for entry in accepted.transactions:
            user = self._users[entry.user_id]
            user.entries[entry.id] = entry
            if entry.key:
                user.by_key[entry.app_id, entry.key] = entry
            self._log.append(entry)
        purchases = self._users[accepted.main.user_id].purchases
        if accepted.purchase is not None:
            purchases[accepted.purchase.id] = accepted.purchase
        if accepted.refunded is not None:
            id_, credits_ = accepted.refunded.purchase_id, accepted.refunded.refunded_credits
            purchases[id_] = replace(purchases[id_], refunded_credits=credits_)
        for notify in self._log_readers:
            notify()

    def _sweep(self) -> None:
        """Write what is due by time."""
        now = self.clock.now()
        for user_id in sorted(self._timed & self._users.keys()):
            for app_id in sorted(self._users[user_id].account.apps):
                command = Settle(
                    user_id=user_id,
                    app_id=app_id,
                    created_by=1,
                    key="",
                    transaction_id="",
                    policy=self._rules(app_id),
                )
                outcome = decide(self._users[user_id].account, command, ledger.NOTHING_FOUND, now)
                if isinstance(outcome, Accepted):
                    self._apply(outcome)

    def _new_id(self) -> str:
        # The ids of entries that the ledger itself adds begin with the time, not with 0.
        return f"{next(self._ids):024x}"
