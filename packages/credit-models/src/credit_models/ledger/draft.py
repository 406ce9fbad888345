"""The working copy of an account while one command is decided.

A rule changes the draft and adds entries to it. If the command is rejected, the draft is dropped:
the account itself never changes.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256

from credit_models.entry_hash import GENESIS
from credit_models.ledger.app_draft import NO_APP, AppDraft
from credit_models.ledger.chain import chained
from credit_models.ledger.commands import Command
from credit_models.ledger.outcomes import Refunded, Refusal, RevisionChanged, TooManyApps
from credit_models.ledger.records import (
    APPS_MAX,
    Account,
    AppAccount,
    Details,
    Kind,
    Purchase,
    Transaction,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """The effects of a command besides the accounts; see `Accepted`."""

    main: Transaction
    purchase: Purchase | None = None
    refunded: Refunded | None = None


def entry_id(user_id: int, sequence: int, at: datetime) -> str:
    """Return the id of an entry that a command does not make for itself.

    It is derived from the entry's place in the history, so that the ledger needs no random numbers.
    Like other ids it begins with the seconds since 1970: new entries are at the end of the index of
    ids, and the ids of an index's end are those of new entries.

    Args:
        user_id: The user.
        sequence: The `sequence` of the entry.
        at: Its `created_at`.
    """
    place = user_id.to_bytes(8, "big") + sequence.to_bytes(8, "big")
    seconds = (at - _EPOCH) // timedelta(seconds=1) % 2**32
    return f"{seconds:08x}{sha256(b'credit entry' + place).hexdigest()[:16]}"


class Draft:
    """The working copy of an account.

    Attributes:
        source: The account.
        at: The time of the decision, which all new entries have.
        entries: The new entries.
        sequence: The `sequence` of the latest entry.
    """

    __slots__ = ("_apps", "_genesis", "_heads", "at", "entries", "sequence", "source")

    def __init__(self, source: Account, at: datetime, genesis: bytes | None = GENESIS) -> None:
        self._genesis = genesis
        self._heads = dict(source.heads)
        self.source = source
        self.at = at
        self.entries: list[Transaction] = []
        self.sequence = source.revision
        self._apps: dict[int, AppDraft] = {}

    def app(self, app_id: int) -> AppDraft:
        """Return the working copy of one app of the account."""
        draft = self._apps.get(app_id)
        if draft is None:
            source = self.source
            app = source.apps.get(app_id, NO_APP)
            draft = self._apps[app_id] = AppDraft(
                app_id,
                source.balance(app_id),
                app,
                self.at,
                items_elsewhere=partial(self._items_elsewhere, app_id),
            )
        return draft

    def _items_elsewhere(self, app_id: int) -> int:
        """Return the number of items in all apps but one; see `ACCOUNT_ITEMS_MAX`."""
        apps: dict[int, AppAccount | AppDraft] = {**self.source.apps, **self._apps}
        return sum(app.items for other, app in apps.items() if other != app_id)

    def account(self) -> Account:
        """Return the changed account."""
        source, last = self.source, self.entries[-1]
        first = self.entries[0] if source.created_at is None else None
        balances, apps = self._contents()
        return Account(
            user_id=source.user_id,
            id=source.id,
            balances=balances,
            apps=apps,
            heads=self._heads,
            revision=self.sequence,
            created_at=source.created_at if first is None else first.created_at,
            updated_at=last.created_at,
            created_by=source.created_by if first is None else first.created_by,
            updated_by=last.created_by,
        )

    def unwritten_account(self) -> Account:
        """Return the account with the changes, but with the revision and dates of the source."""
        balances, apps = self._contents()
        return replace(self.source, balances=balances, apps=apps)

    def _contents(self) -> tuple[dict[int, int], dict[int, AppAccount]]:
        balances, apps = dict(self.source.balances), dict(self.source.apps)
        for app_id, draft in self._apps.items():
            balances[app_id] = draft.balance
            app = draft.app_account()
            if app == NO_APP:
                apps.pop(app_id, None)
            else:
                apps[app_id] = app
        return balances, apps

    def record(
        self,
        app: AppDraft,
        kind: Kind,
        credits_: int,
        details: Details,
        *,
        created_by: int,
        own_id: str = "",
        key: str = "",
        purchase: tuple[str, str, str] = ("", "", ""),
    ) -> Transaction:
        """Add an entry, and change the balance by its effect.

        Args:
            app: The app.
            kind: The entry's kind.
            credits_: The number of credits.
            details: The entry's details.
            created_by: The number of the requester.
            own_id: The entry's id; empty: it is derived.
            key: The client's idempotency key.
            purchase: The id of the purchase, and the report's id and name.
        """
        self.sequence += 1
        user_id = self.source.user_id
        delta = kind.sign * credits_ if details.delta is None else details.delta
        app.balance += delta
        entry = Transaction(
            id=own_id or entry_id(user_id, self.sequence, self.at),
            user_id=user_id,
            app_id=app.app_id,
            kind=kind,
            credits=credits_,
            balance_after=app.balance,
            sequence=self.sequence,
            created_at=self.at,
            created_by=created_by,
            key=key,
            purchase_id=purchase[0],
            report_id=purchase[1],
            report_name=purchase[2],
            details=details,
        )
        entry = chained(entry, self._heads.get(app.app_id, self._genesis))
        if entry.hash:
            self._heads[app.app_id] = entry.hash
        self.entries.append(entry)
        return entry

    def record_main(
        self,
        app: AppDraft,
        command: Command,
        kind: Kind,
        credits_: int,
        details: Details,
        purchase: tuple[str, str, str] = ("", "", ""),
    ) -> Transaction:
        """Add the entry that has the command's id and key; see `record`."""
        return self.record(
            app,
            kind,
            credits_,
            details,
            created_by=command.created_by,
            own_id=command.transaction_id,
            key=command.key,
            purchase=purchase,
        )

    def finish(self, main: Transaction) -> Transaction:
        """Return the command's own entry with the state that the command leaves.

        The entry records it, so that a retry returns the receipt of the first call. The contract
        does not have this field, so the hash does not cover it.
        """
        if self.entries[-1] is main:
            return main
        details = replace(
            main.details,
            final_revision=self.sequence,
            final_balance=self.app(main.app_id).balance,
        )
        finished = replace(main, details=details)
        self.entries[main.sequence - self.source.revision - 1] = finished
        return finished

    def revision_changed(self, command: Command) -> Refusal | None:
        """Return the refusal if the account has another revision than the command requires.

        The stored revision counts: what is due but not written does not change it.
        """
        revision = self.source.revision
        if command.expected_revision in (None, revision):
            return None
        return RevisionChanged(revision=revision)

    def too_many_apps(self, app: AppDraft) -> Refusal | None:
        """Return the refusal if the account has no room for an app that is new to it."""
        balances = self.source.balances
        if app.app_id in balances or len(balances) < APPS_MAX:
            return None
        return TooManyApps(limit=APPS_MAX)
