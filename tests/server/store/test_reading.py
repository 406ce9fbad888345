"""Test that an account is read from BSON as its model reads it."""

from dataclasses import replace
from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from credit_models.ledger import Account, AppAccount
from credit_server.store import reading
from credit_server.store.documents import AccountDocument
from credit_server.store.reading import RAW, read_account
from credit_server.store.writing import account_bson
from hypothesis import given
from pydantic import ValidationError

from tests.server.store.test_kinds import APP
from tests.server.store.test_writing import account, accounts, grant

ID = ObjectId()


def encoded(document: dict[str, Any]) -> bytes:
    return bson.encode({"_id": ID, **document})


def by_model(raw: bytes) -> Account:
    document: dict[str, Any] = bson.decode(raw, CodecOptions(tz_aware=True))
    return AccountDocument.model_validate(document).to_account()


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read small accounts like large ones."""
    monkeypatch.setattr(reading, "_LARGE", 0)


def check_one(raw: bytes) -> None:
    assert read_account(RawBSONDocument(raw, RAW)) == by_model(raw)


@given(accounts)
def test_an_account_is_read_as_by_its_model(given_account: Account) -> None:
    check_one(encoded(account_bson(given_account)))


@pytest.mark.usefixtures("in_parts")
def test_an_account_that_is_read_in_parts_is_read_as_by_its_model() -> None:
    @given(accounts)
    def check(given_account: Account) -> None:
        check_one(encoded(account_bson(given_account)))

    check()


def test_an_account_with_many_grants_is_read_as_by_its_model() -> None:
    many = account(AppAccount.of(grants=tuple(grant(number) for number in range(256))))
    raw = encoded(account_bson(many))
    assert read_account(RawBSONDocument(raw, RAW)) == replace(many, id=str(ID))
    check_one(raw)


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(
    "bad",
    [
        {"apps": 1},
        {"apps": {"0": {}}},
        {"apps": [1]},
        {"apps": [{}]},
        {"apps": [{"app_id": "1"}]},
        {"apps": [{"app_id": Int64(1), "grants": 1}]},
        {"apps": [{"app_id": Int64(1), "grants": [1]}]},
        {"apps": [{"app_id": Int64(1), "grants": [{}]}]},
        {"apps": [{"app_id": Int64(1), "holds": {}}]},
        {"apps": [{"app_id": Int64(1), "caps": [{}]}]},
        {"apps": [{"app_id": Int64(1), "surprise": 1}]},
        {"revision": 1.5},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_bad_account_is_rejected_as_by_its_model(bad: dict[str, Any]) -> None:
    raw = encoded({**account_bson(account(APP)), **bad})
    with pytest.raises(ValidationError):
        by_model(raw)
    with pytest.raises(ValidationError):
        read_account(RawBSONDocument(raw, RAW))
