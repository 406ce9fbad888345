"""Test the documents against those of release 0.2.0, in both directions."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from credit_models.ledger import (
    Account,
    Add,
    AppAccount,
    Caps,
    Details,
    Grant,
    GrantCredits,
    Kind,
    PlaceHold,
    Purchase,
    Receipt,
    Transaction,
    VoidGrant,
)
from credit_server.commit import Committer
from credit_server.store import reading
from credit_server.store.documents import AccountDocument, PurchaseDocument, TransactionDocument
from credit_server.store.fields import Document
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Unreadable
from pydantic import ValidationError

from tests.server.store.documents_0_2_0 import (
    ACCOUNT,
    ADDED,
    BOUGHT,
    USED,
    OldAccountDocument,
    OldTransactionDocument,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
ID, PURCHASE = f"{1:024x}", f"{2:024x}"

account = Account(
    user_id=7,
    balances={2: 5, 1: 2**32 - 1},
    revision=9,
    created_at=NOW,
    updated_at=NOW + timedelta(seconds=1),
    created_by=3,
    updated_by=4,
)
added = Transaction(
    id=ID,
    user_id=7,
    app_id=1,
    kind=Kind.ADD,
    credits=10,
    balance_after=10,
    sequence=1,
    created_at=NOW,
    created_by=3,
    key="",
)
used = replace(
    added,
    kind=Kind.USE,
    balance_after=0,
    sequence=2,
    key="k-1",
    purchase_id=PURCHASE,
    report_id="r-1",
    report_name="Jahresbericht \N{SNOWMAN}",
)
bought = Purchase(
    id=PURCHASE,
    user_id=7,
    app_id=1,
    report_id="r-1",
    report_name="Jahresbericht \N{SNOWMAN}",
    credits=10,
    created_at=NOW,
    created_by=3,
    transaction_id=ID,
    sequence=2,
)
grant = Grant(id=ID, sequence=1, credits=5, left=5, created_by=3)


@pytest.mark.parametrize(
    ("document", "encoded"),
    [
        (AccountDocument.from_account(account), ACCOUNT),
        (TransactionDocument.from_transaction(added), ADDED),
        (TransactionDocument.from_transaction(used), USED),
        (PurchaseDocument.from_purchase(bought), BOUGHT),
    ],
    ids=["account", "add", "use", "purchase"],
)
def test_what_0_2_0_knows_has_the_bytes_of_0_2_0(document: Document, encoded: str) -> None:
    assert bson.encode(document.to_bson()).hex() == encoded


@pytest.mark.parametrize(
    "changed",
    [
        replace(account, apps={1: AppAccount.of(grants=(grant,))}),
        replace(account, apps={1: AppAccount.of(caps=Caps(hour=1))}),
        replace(account, balances={1: -1}),
    ],
    ids=["a grant", "a cap", "debt"],
)
def test_0_2_0_cannot_read_an_account_that_uses_more(changed: Account) -> None:
    stored = AccountDocument.from_account(changed).to_bson()
    with pytest.raises(ValidationError):
        OldAccountDocument.model_validate(stored)
    OldAccountDocument.model_validate(AccountDocument.from_account(account).to_bson())


@pytest.mark.parametrize(
    "entry",
    [
        *(replace(added, kind=kind) for kind in Kind if kind not in (Kind.ADD, Kind.USE)),
        replace(added, balance_after=-1),
        replace(added, details=Details(note="n")),
        replace(used, details=Details(related_id=PURCHASE)),
    ],
    ids=lambda entry: f"{entry.kind.value} {entry.balance_after} {entry.details.note}",
)
def test_0_2_0_cannot_read_an_entry_that_is_more_than_an_add_or_a_use(entry: Transaction) -> None:
    stored = TransactionDocument.from_transaction(entry).to_bson()
    with pytest.raises(ValidationError):
        OldTransactionDocument.model_validate(stored)
    OldTransactionDocument.model_validate(TransactionDocument.from_transaction(used).to_bson())


async def test_a_running_server_of_0_2_0_fails_for_such_an_account_and_writes_nothing(
    mongod_uri: str, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MongoStore(mongod_uri, database=migrated_database)
    common: dict[str, Any] = {"app_id": 1, "created_by": 3, "key": ""}

    def add(user: int) -> Add:
        return Add(user_id=user, credits=1, transaction_id=store.new_id(), **common)

    given = GrantCredits(user_id=7, credits=5, priority=1, transaction_id=store.new_id(), **common)
    # The account of a user with hashes is not one of 0.2.0.
    async with Committer(store, genesis=None) as new, Committer(store, genesis=None) as old:
        for user in (7, 8):
            assert isinstance(await old.submit(add(user)), Receipt)  # it caches both accounts
        assert isinstance(await new.submit(given), Receipt)
        before = await store.account(7)
        with monkeypatch.context() as patched:
            patched.setattr(reading, "AccountDocument", _OnlyReads)
            with pytest.raises(Unreadable) as failed:
                await old.submit(add(7))
            assert isinstance(failed.value.__cause__, ValidationError)
        assert await store.account(7) == before
        assert isinstance(await old.submit(add(8)), Receipt)
        # Without the grant the account is one of 0.2.0 again.
        voided = VoidGrant(
            user_id=7,
            grant_id=given.transaction_id,
            transaction_id=store.new_id(),
            **common,
        )
        assert isinstance(await new.submit(voided), Receipt)
        held = PlaceHold(user_id=8, credits=1, transaction_id=store.new_id(), **common)
        assert isinstance(await new.submit(held), Receipt)
        with monkeypatch.context() as patched:
            patched.setattr(reading, "AccountDocument", _OnlyReads)
            assert isinstance(await old.submit(add(7)), Receipt)
            with pytest.raises(Unreadable) as failed:
                await old.submit(add(8))
            assert isinstance(failed.value.__cause__, ValidationError)
    await store.close()


class _OnlyReads:
    """Reads accounts like 0.2.0, and writes accounts that 0.2.0 knows as it does."""

    model_validate = OldAccountDocument.model_validate
    from_account = AccountDocument.from_account
