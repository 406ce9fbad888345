"""What is written has the bytes of the documents' models, which check it and define the schema."""

from datetime import UTC, datetime, timedelta

import bson
from credit_models.ledger import (
    NO_DETAILS,
    UINT32_MAX,
    Account,
    AppAccount,
    Caps,
    Details,
    Kind,
    Purchase,
    Transaction,
)
from credit_server.store.documents import AccountDocument, PurchaseDocument, TransactionDocument
from credit_server.store.writing import account_bson, purchase_bson, transaction_bson
from hypothesis import given
from hypothesis import strategies as st

from tests.server.store.test_kinds import APP

numbers = st.integers(1, UINT32_MAX)
balances = st.integers(-UINT32_MAX, UINT32_MAX)
sequences = st.integers(1, 2**63 - 1)
ids = st.binary(min_size=12, max_size=12).map(bytes.hex)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=128)
# With the precision of MongoDB.
times = st.integers(0, 2**40).map(
    lambda milliseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)
accounts = st.builds(
    Account,
    user_id=numbers,
    balances=st.dictionaries(numbers, balances, max_size=4),
    apps=st.dictionaries(
        numbers, st.sampled_from([AppAccount.of(caps=Caps(hour=1)), APP]), max_size=2
    ),
    revision=sequences,
    created_at=times,
    updated_at=times,
    created_by=numbers,
    updated_by=numbers,
)
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
        details=draw(
            st.just(NO_DETAILS)
            | st.builds(Details)
            | st.builds(Details, related_id=ids, related_total=st.integers(0, 9), note=texts)
        ),
    )


@given(accounts)
def test_an_account_has_the_bytes_of_its_model(account: Account) -> None:
    model = AccountDocument.from_account(account)
    assert bson.encode(account_bson(account)) == bson.encode(model.to_bson())


@given(transactions())
def test_an_entry_has_the_bytes_of_its_model(entry: Transaction) -> None:
    model = TransactionDocument.from_transaction(entry)
    assert bson.encode(transaction_bson(entry)) == bson.encode(model.to_bson())


@given(purchases)
def test_a_purchase_has_the_bytes_of_its_model(purchase: Purchase) -> None:
    model = PurchaseDocument.from_purchase(purchase)
    assert bson.encode(purchase_bson(purchase)) == bson.encode(model.to_bson())
