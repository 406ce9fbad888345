"""Write what `credit-server repair` corrects, in one transaction for each user."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from bson.int64 import Int64
from bson.objectid import ObjectId
from credit_models.ledger import (
    NO_POLICY,
    Account,
    AlertEvent,
    Policy,
    Purchase,
    Transaction,
)
from pymongo.client_session import ClientSession
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from credit_server.store import schema
from credit_server.store.alert_documents import event_bson
from credit_server.store.app_documents import AppPolicyDocument
from credit_server.store.errors import all_translated
from credit_server.store.port import Conflict, StoreMisconfigured
from credit_server.store.verification import Verification, open_client
from credit_server.store.writing import account_bson, purchase_bson, transaction_bson

# The counter shard that corrections of totals are added to.
_SLOT = 0

_Result = TypeVar("_Result")


@contextmanager
def open_repairing(uri: str, database: str, timeout_seconds: float) -> "Iterator[Repairing]":
    """Connect to a database, to correct it.

    Raises:
        StoreError: The store cannot be reached, or rejects a command.
    """
    name = "credit-server repair"
    with open_client(uri, name=name, timeout_seconds=timeout_seconds) as client:
        yield Repairing(client, database)


class Repairing(Verification):
    """Reads a ledger, and writes corrections in transactions of the store.

    A transaction reads one snapshot. If another writer changes a document that the transaction
    writes, MongoDB aborts the transaction, and it runs again on the new state.
    """

    def require_schema(self) -> None:
        """Raise an error if the ledger is not one that this release writes.

        Documents of a later release cannot be read here, and a repair would rebuild their accounts
        without what is new in them.

        Raises:
            StoreMisconfigured: An import is incomplete, or the schema is that of another release.
        """
        with all_translated():
            version = schema.ledger_version(self._database)
        if version < schema.SCHEMA_VERSION:
            raise StoreMisconfigured(
                f"The database '{self._database.name}' has schema version {version}, and this"
                f" release needs {schema.SCHEMA_VERSION}: run credit-server migrate."
            )

    def transaction(self, body: Callable[[], _Result], *, commit: bool) -> _Result:
        """Run a function whose reads and writes are one transaction.

        Args:
            body: The function. It may run several times.
            commit: Whether to commit; otherwise nothing is written.

        Raises:
            StoreError: The store cannot be reached, or rejects a command.
        """
        with all_translated(), self._client.start_session() as session:
            if commit:
                return session.with_transaction(
                    lambda each: self._run(each, body),
                    read_concern=ReadConcern("snapshot"),
                    write_concern=WriteConcern("majority"),
                    read_preference=ReadPreference.PRIMARY,
                )
            session.start_transaction(
                read_concern=ReadConcern("snapshot"), read_preference=ReadPreference.PRIMARY
            )
            try:
                return self._run(session, body)
            finally:
                session.abort_transaction()

    def _run(self, session: ClientSession, body: Callable[[], _Result]) -> _Result:
        self._session = session
        try:
            return body()
        finally:
            self._session = None

    def new_id(self) -> str:
        """Return a new id."""
        return str(ObjectId())

    def replace_account(self, account: Account) -> None:
        """Replace the stored account of a user, even if it cannot be read.

        Raises:
            Conflict: It has changed since the transaction has read it.
        """
        accounts = self._database[schema.USER_CREDITS]
        user_id = Int64(account.user_id)
        stored = accounts.find_one({"user_id": user_id}, {"revision": True}, session=self._session)
        if stored is None:
            accounts.insert_one(account_bson(account), session=self._session)
            return
        # A compare-and-set, like each write of the server.
        condition = {"_id": stored["_id"], "revision": stored.get("revision")}
        result = accounts.replace_one(condition, account_bson(account), session=self._session)
        if not result.matched_count:
            raise Conflict(f"the account of user {account.user_id} has changed")

    def add_entries(self, entries: list[Transaction]) -> None:
        """Append entries to histories, and their effects to the totals of their apps."""
        self._database[schema.CREDIT_TRANSACTIONS].insert_many(
            [transaction_bson(entry) for entry in entries], session=self._session
        )
        for entry in entries:
            if entry.effect:
                self.add_to_total(entry.app_id, entry.effect)

    def add_events(self, events: list[AlertEvent]) -> None:
        """Write the events of alerts that new entries have crossed."""
        if events:
            self._database[schema.ALERT_EVENTS].insert_many(
                [event_bson(event) for event in events], session=self._session
            )

    def put_purchase(self, purchase: Purchase) -> None:
        """Write a missing purchase, or replace one that cannot be read."""
        place = {"_id": ObjectId(purchase.id), "user_id": Int64(purchase.user_id)}
        self._database[schema.PURCHASES].replace_one(
            place, purchase_bson(purchase), upsert=True, session=self._session
        )

    def set_refunded(self, user_id: int, sequence: int, credits_: int) -> None:
        """Set the refunded credits of the purchase that an entry has paid for."""
        change = (
            {"$set": {"refunded_credits": Int64(credits_)}}
            if credits_
            else {"$unset": {"refunded_credits": ""}}
        )
        self._database[schema.PURCHASES].update_one(
            {"user_id": Int64(user_id), "sequence": Int64(sequence)}, change, session=self._session
        )

    def add_to_total(self, app_id: int, credits_: int) -> None:
        """Add credits to the total of an app."""
        # Any: PyMongo's types do not name a document of int64.
        place: dict[str, Any] = {"app_id": Int64(app_id), "slot": Int64(_SLOT)}
        self._database[schema.APP_TOTALS].update_one(
            place, {"$inc": {"total": Int64(credits_)}}, upsert=True, session=self._session
        )

    def set_directory_counter(self, last: int) -> None:
        """Raise the last user id that the directory has given."""
        self._database[schema.COUNTERS].update_one(
            {"_id": "user_ids"}, {"$max": {"last": Int64(last)}}, upsert=True, session=self._session
        )

    def policy(self, app_id: int) -> Policy:
        """Return the policy of an app; the one without rules if none is stored."""
        found = self._database[schema.APP_POLICIES].find_one(
            {"app_id": Int64(app_id)}, session=self._session
        )
        if found is None:
            return NO_POLICY
        return AppPolicyDocument.model_validate(found).to_policy().policy

    def apps_of(self, user_id: int) -> set[int]:
        """Return the apps of a user's accounts, whatever form they have, and of the entries.

        They are read outside of a transaction.
        """
        user = {"user_id": Int64(user_id)}
        found = [
            *self._database[schema.USER_CREDITS].distinct("balances.app_id", user),
            *self._database[schema.CREDIT_TRANSACTIONS].distinct("app_id", user),
        ]
        return {int(app_id) for app_id in found if isinstance(app_id, int)}

    def entry_at(self, user_id: int, sequence: int) -> Transaction | None:
        """Return the entry of a user with a sequence."""
        found = self._database[schema.CREDIT_TRANSACTIONS].find_one(
            {"user_id": Int64(user_id), "sequence": Int64(sequence)},
            {"_id": True},
            session=self._session,
        )
        return None if found is None else self.entry(str(found["_id"]))
