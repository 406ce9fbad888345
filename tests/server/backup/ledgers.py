"""Fill databases with a ledger of every kind of document, and write to it while it is exported."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from credit_models.ledger import (
    Add,
    Alert,
    Caps,
    Command,
    Direction,
    GrantCredits,
    PlaceHold,
    Policy,
    Receipt,
    ReverseTransaction,
    TransferCredits,
    Use,
)
from credit_server.commit import Committer
from credit_server.store.exporting import LedgerReader, open_reader
from credit_server.store.importing import LedgerWriter, open_writer
from credit_server.store.mongo import MongoStore
from credit_server.store.port import AppPolicy, DirectoryUser
from credit_server.store.webhooks import Webhook
from pymongo import MongoClient

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
USERS = (7, 8, 9, 4294967295)
_NOT_EXPORTED = ("schema_version", "leases", "app_totals", "checkpoints", "checkpoint_tiles")
SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgd2ViaG9vaw=="


@dataclass
class Ledger:
    """A ledger in a database.

    Attributes:
        uri: The connection string.
        database: The name of the database.
        used: The ids of USE entries of user 7; a part of the first one was refunded.
    """

    uri: str
    database: str
    used: list[str] = field(default_factory=list)

    def reader(self) -> AbstractContextManager[LedgerReader]:
        return open_reader(self.uri, database=self.database, timeout_seconds=5)

    def writer(self) -> AbstractContextManager[LedgerWriter]:
        return open_writer(self.uri, database=self.database, timeout_seconds=5)

    @asynccontextmanager
    async def committing(self) -> AsyncIterator[tuple[MongoStore, Committer]]:
        store = MongoStore(self.uri, database=self.database)
        try:
            async with Committer(store) as committer:
                yield store, committer
        finally:
            await store.close()

    async def fill(self) -> None:
        """Write documents into every collection of a migrated database."""
        async with self.committing() as (store, committer):
            await store.set_policy(
                AppPolicy(
                    app_id=1,
                    policy=Policy(
                        caps=Caps(day=1000),
                        alerts=(Alert(credits=80, direction=Direction.FALLS_BELOW),),
                    ),
                    revision=1,
                    updated_at=NOW,
                    updated_by=9,
                )
            )
            await store.webhooks.set(
                Webhook(
                    id="8" * 24,
                    app_id=1,
                    url="https://example.org/hook",
                    secret=SECRET,
                    created_at=NOW,
                    created_by=9,
                )
            )
            number = await store.next_user_id(100)
            assert number is not None
            await store.add_user(
                DirectoryUser(user_id=number, app_id=1, external_id="Zoë", created_at=NOW)
            )
            policy = (await store.policy(1)).policy
            for user in USERS:
                await _done(committer, Add(**_write(store, user, key="first"), credits=100))
            for report in ("r-1", "r-2"):
                use = Use(
                    **_write(store, 7, key=report),
                    report_id=report,
                    report_name="Bericht\u2028„Größe“",
                    credits=30,
                    purchase_id=store.new_id(),
                    policy=policy,
                )
                self.used.append(await _done(committer, use))
            grant = GrantCredits(
                **_write(store, 8), credits=50, expires_at=NOW + timedelta(days=90000),
                metadata=(("a.b$c", "{}"),), note="a note",
            )  # fmt: skip
            await _done(committer, grant)
            await _done(committer, PlaceHold(**_write(store, 8), credits=20))
            await self._more(store, committer, self.used[0])
            while await store.alert_events.order(100):
                pass

    async def grow(self) -> None:
        """Write what a running server may write: it refunds, transfers, and has a new user."""
        async with self.committing() as (store, committer):
            for used in self.used:
                await self._more(store, committer, used)
            await _done(committer, Add(**_write(store, 10), credits=5))
            await store.add_user(
                DirectoryUser(user_id=500, app_id=1, external_id="later", created_at=NOW)
            )

    async def _more(self, store: MongoStore, committer: Committer, used: str) -> None:
        await _done(committer, ReverseTransaction(**_write(store, 7), reversed_id=used, credits=5))
        transfer = TransferCredits(**_write(store, 9), credits=1, to_user_id=7, to_app_id=2)
        await _done(committer, transfer)

    def documents(self) -> dict[str, list[dict[str, Any]]]:
        """Return all documents of the collections that are exported, in the order of their ids."""
        with MongoClient[dict[str, Any]](self.uri) as client:
            database = client[self.database]
            return {
                name: list(database[name].find().sort("_id", 1))
                for name in sorted(database.list_collection_names())
                if name not in _NOT_EXPORTED
            }


def _write(store: MongoStore, user: int, *, key: str = "") -> dict[str, Any]:
    return {
        "user_id": user,
        "app_id": 1,
        "created_by": 9,
        "key": key,
        "transaction_id": store.new_id(),
    }


async def _done(committer: Committer, command: Command) -> str:
    result = await committer.submit(command)
    assert isinstance(result, Receipt), result
    return result.transaction.id


async def make_ledger(uri: str, database: str) -> Ledger:
    """Migrate a database and fill it."""
    store = MongoStore(uri, database=database)
    await store.migrate()
    await store.close()
    ledger = Ledger(uri, database)
    await ledger.fill()
    return ledger
