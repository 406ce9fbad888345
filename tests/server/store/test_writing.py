"""What is written has the bytes of the documents' models, which check it and define the schema."""

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, TypeVar

import bson
import pytest
from bson.codec_options import CodecOptions
from credit_models.ledger import (
    NO_CAPS,
    NO_DETAILS,
    UINT32_MAX,
    Account,
    Alert,
    Allocation,
    AppAccount,
    Caps,
    Category,
    Details,
    Direction,
    Grant,
    Hold,
    Kind,
    Period,
    PeriodSpending,
    Purchase,
    Transaction,
)
from credit_server.store import schema
from credit_server.store.documents import AccountDocument, PurchaseDocument, TransactionDocument
from credit_server.store.writing import (
    account_bson,
    account_update,
    purchase_bson,
    transaction_bson,
)
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.server.store.test_kinds import APP

numbers = st.integers(1, UINT32_MAX)
balances = st.integers(-UINT32_MAX, UINT32_MAX)
sequences = st.integers(1, 2**63 - 1)
ids = st.binary(min_size=12, max_size=12).map(bytes.hex)
id_of = attrgetter("id")
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=128)
# With the precision of MongoDB.
times = st.integers(0, 2**40).map(
    lambda milliseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)
AT = datetime(2026, 1, 2, tzinfo=UTC)
maybe_times = st.none() | times
amounts = st.integers(0, UINT32_MAX)
words = st.sampled_from(["a", "an answer \N{SNOWMAN}", "x" * 64])
pairs = st.lists(st.tuples(words, words), max_size=2).map(tuple)
# Few values, because Hypothesis takes long to build large accounts.
PARTS = [
    Allocation(credits=UINT32_MAX),
    Allocation(credits=1, grant_id=f"{1:024x}", sequence=2**63 - 1, priority=0),
    Allocation(
        credits=2,
        grant_id=f"{2:024x}",
        sequence=1,
        priority=1000,
        category=Category.OWN,
        ends_at=AT,
    ),
]
allocations = st.lists(st.sampled_from(PARTS), max_size=3).map(tuple)
GRANTS = [
    Grant(
        id=f"{number:024x}",
        sequence=number,
        credits=UINT32_MAX,
        left=left,
        priority=left % 1001,
        category=category,
        starts_at=starts_at,
        ends_at=ends_at,
        created_by=number,
    )
    for number in range(1, 6)
    for left, category, starts_at, ends_at in (
        (0, Category.UNSPECIFIED, None, None),
        (1, Category.PAID, None, AT),
        (UINT32_MAX, Category.PROMOTIONAL, AT, AT + timedelta(days=number)),
    )
]
HOLDS = [
    Hold(
        id=f"{number:024x}",
        sequence=number,
        credits=number,
        allocations=parts,
        placed_at=AT,
        ends_at=AT + timedelta(days=number),
        captured=captured,
        purpose=purpose,
        created_by=UINT32_MAX,
    )
    for number in range(1, 5)
    for parts, captured, purpose in (((), 0, ""), (tuple(PARTS), 1, "an answer \N{SNOWMAN}"))
]
grants, holds = st.sampled_from(GRANTS), st.sampled_from(HOLDS)
# Every field of `Details`, so that a new one is compared too. Any: the strategies have many types.
DETAILS: dict[str, st.SearchStrategy[Any]] = {
    "related_id": st.just("") | ids,
    "related_total": amounts,
    "allocations": allocations,
    "delta": st.none() | balances,
    "effective_at": maybe_times,
    "ends_at": maybe_times,
    "released": amounts,
    "held_after": amounts,
    "metadata": pairs,
    "note": st.just("") | words,
    "request": pairs,
    "final_revision": st.sampled_from([0, 7]),
    "final_balance": st.sampled_from([0, 9, -9]),
}
details = st.builds(Details, **DETAILS)
caps = st.sampled_from([NO_CAPS, Caps(hour=1), Caps(day=2, month=UINT32_MAX)])
spent = st.lists(
    st.sampled_from(
        [PeriodSpending(period=each, starts_at=AT, credits=0, since=1) for each in Period]
    ),
    max_size=2,
).map(tuple)
alerts = st.sampled_from(
    [
        (),
        (Alert(credits=1, direction=Direction.FALLS_BELOW),),
        tuple(Alert(credits=UINT32_MAX, direction=each) for each in Direction),
    ]
)
apps = st.builds(
    AppAccount.of,
    grants=st.lists(grants, max_size=4, unique_by=id_of).map(tuple),
    scheduled=st.lists(grants, max_size=2, unique_by=id_of).map(tuple),
    holds=st.lists(holds, max_size=2, unique_by=id_of).map(tuple),
    caps=caps,
    spent=spent,
    alerts=alerts,
)
accounts = st.builds(
    Account,
    user_id=numbers,
    balances=st.dictionaries(numbers, balances, max_size=4),
    apps=st.dictionaries(numbers, st.just(APP) | apps, max_size=2),
    revision=sequences,
    created_at=times,
    updated_at=times,
    created_by=numbers,
    updated_by=numbers,
)
Element = TypeVar("Element", Grant, Hold)


def changed_elements(
    draw: st.DrawFn, before: tuple[Element, ...], new: st.SearchStrategy[Element]
) -> tuple[Element, ...]:
    """Keep, change and drop elements, add some at the end, and sometimes reorder all."""
    after = []
    for element in before:
        match draw(st.sampled_from(["keep", "keep", "keep", "change", "drop"])):
            case "keep":
                after.append(element)
            case "change":
                after.append(replace(draw(new), id=element.id))
            case _:
                pass
    ids_before = {element.id for element in before}
    added = draw(st.lists(new, max_size=1)) if draw(st.booleans()) else []
    after += [element for element in added if element.id not in ids_before]
    if draw(st.integers(0, 9)) == 0:
        after = draw(st.permutations(after))
    return tuple(after)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Account, Account]:
    """An account, and what a batch may have made of it."""
    before = draw(accounts)
    changed = {}
    for app_id, app in before.apps.items():
        match draw(st.sampled_from(["keep", "change", "change", "change", "replace", "drop"])):
            case "keep":
                changed[app_id] = app
            case "change":
                changed[app_id] = AppAccount.of(
                    grants=changed_elements(draw, app.grants, grants),
                    scheduled=changed_elements(draw, app.scheduled, grants),
                    holds=changed_elements(draw, app.holds, holds),
                    caps=draw(st.just(app.caps) | caps),
                    spent=draw(st.just(app.spent) | spent),
                    alerts=draw(st.just(app.alerts) | alerts),
                )
            case "replace":
                changed[app_id] = draw(apps)
            case _:
                pass
    if draw(st.integers(0, 4)) == 0:
        changed[draw(numbers)] = draw(apps)
    after = replace(
        draw(accounts),
        user_id=before.user_id,
        apps=changed,
        created_at=before.created_at,
        created_by=before.created_by,
    )
    return before, after


purchases = st.builds(
    Purchase,
    id=ids,
    user_id=numbers,
    app_id=numbers,
    report_id=texts,
    report_name=texts,
    credits=numbers,
    created_at=times,
    created_by=numbers,
    transaction_id=ids,
    sequence=sequences,
    refunded_credits=st.integers(0, UINT32_MAX),
)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    kind = draw(st.sampled_from(Kind))
    used = kind is Kind.USE
    return Transaction(
        id=draw(ids),
        user_id=draw(numbers),
        app_id=draw(numbers),
        kind=kind,
        credits=draw(numbers),
        balance_after=draw(balances),
        sequence=draw(sequences),
        created_at=draw(times),
        created_by=draw(numbers),
        key=draw(st.just("") | texts),
        purchase_id=draw(ids) if used else "",
        report_id=draw(texts) if used else "",
        report_name=draw(texts) if used else "",
        details=draw(st.just(NO_DETAILS) | st.builds(Details) | details),
    )


@given(accounts)
def test_an_account_has_the_bytes_of_its_model(account: Account) -> None:
    model = AccountDocument.from_account(account)
    assert bson.encode(account_bson(account)) == bson.encode(model.to_bson())


def test_every_field_of_the_details_is_varied_here() -> None:
    assert DETAILS.keys() == {field.name for field in fields(Details)}


@given(transactions())
def test_an_entry_has_the_bytes_of_its_model(entry: Transaction) -> None:
    model = TransactionDocument.from_transaction(entry)
    assert bson.encode(transaction_bson(entry)) == bson.encode(model.to_bson())


@given(purchases)
def test_a_purchase_has_the_bytes_of_its_model(purchase: Purchase) -> None:
    model = PurchaseDocument.from_purchase(purchase)
    assert bson.encode(purchase_bson(purchase)) == bson.encode(model.to_bson())


@pytest.fixture
def stored(mongod_uri: str, database: str) -> Iterator[Collection[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](mongod_uri, tz_aware=True) as client:
        yield client[database].create_collection(
            schema.USER_CREDITS, validator=schema.validator_of(AccountDocument)
        )


def apply(stored: Collection[dict[str, Any]], before: Account, after: Account) -> int:
    """Apply the update to the stored accounts; return how many it matched."""
    statement = account_update(before, after)
    reply = stored.database.command({"update": stored.name, "updates": [statement]})
    assert "writeErrors" not in reply
    matched: int = reply["n"]
    return matched


def test_an_update_makes_the_document_of_the_changed_account(
    stored: Collection[dict[str, Any]],
) -> None:
    @given(changes())
    def check(change: tuple[Account, Account]) -> None:
        before, after = change
        stored.delete_many({})
        stored.insert_one(account_bson(before))
        assert apply(stored, before, after) == 1
        found = stored.find_one({}, {"_id": False})
        assert found == bson.decode(bson.encode(account_bson(after)), CodecOptions(tz_aware=True))

    check()


def test_an_update_of_a_new_account_inserts_it(stored: Collection[dict[str, Any]]) -> None:
    after = account(APP)
    assert apply(stored, Account.empty(7), after) == 1
    document = stored.find_one({})
    assert document is not None
    assert replace(AccountDocument.model_validate(document).to_account(), id="") == after


@pytest.mark.parametrize("end", [0, 1, 255])
def test_an_update_has_only_the_grant_that_a_use_takes_from(end: int) -> None:
    many = tuple(grant(number) for number in range(256))
    used = replace(many[end], left=1)
    app = AppAccount.of(grants=many)
    after = account(replace(app, grants=(*many[:end], used, *many[end + 1 :])), revision=2)
    statement = account_update(account(app), after)
    assert [name for name in statement["u"]["$set"] if "grants" in name] == [f"apps.0.grants.{end}"]
    assert len(bson.encode(statement)) < 700


def test_an_update_of_a_plain_account_sets_its_fields_and_nothing_else() -> None:
    before = Account(user_id=7, balances={1: 5}, revision=1, created_at=AT, updated_at=AT)
    after = replace(before, revision=2, created_by=1, updated_by=1)
    assert account_update(before, after) == {
        "q": {"user_id": 7, "revision": 1},
        "u": {"$set": account_bson(after)},
        "upsert": False,
    }


def test_an_update_never_changes_another_element_than_it_should(
    stored: Collection[dict[str, Any]],
) -> None:
    """A document that is not what its revision had: some other program has changed it."""
    one, other = grant(1), grant(2)
    before = account(AppAccount.of(grants=(one,)))
    after = account(AppAccount.of(grants=(replace(one, left=1),)), revision=2)
    appended = account(AppAccount.of(grants=(one, other)), revision=2)
    for changed in (after, appended):
        for foreign in (
            account(AppAccount.of(grants=(other, one))),
            replace(before, apps={2: before.apps[1]}),
            replace(before, revision=2),
        ):
            stored.delete_many({})
            stored.insert_one(account_bson(foreign))
            unchanged = stored.find_one({})
            assert apply(stored, before, changed) == 0
            assert stored.find_one({}) == unchanged


def account(app: AppAccount, *, revision: int = 1) -> Account:
    return Account(
        user_id=7,
        balances={1: 2**20},
        apps={1: app},
        revision=revision,
        created_at=AT,
        updated_at=AT,
        created_by=1,
        updated_by=1,
    )


def grant(number: int) -> Grant:
    return Grant(
        id=f"{number:024x}",
        sequence=number + 1,
        credits=9,
        left=9,
        ends_at=AT + timedelta(days=1 + number),
        created_by=1,
    )
