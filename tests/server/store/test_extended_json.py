"""Test the lines of backups: each value of a document comes back, with its type."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import BSON
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.regex import Regex
from credit_server.store.extended_json import NotRepresentable, from_line, to_line
from credit_server.store.fields import DECODED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1).map(Int64),
        st.text(),
        st.booleans(),
        st.binary(),
        st.binary(min_size=12, max_size=12).map(ObjectId),
        st.datetimes(timezones=st.just(UTC)).map(
            lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4)
    ),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(st.sampled_from(["_id", "user_id", "app_id", "note"]), _VALUES)


# A busy machine makes a document in seconds.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_DOCUMENTS)
def test_a_document_comes_back_from_its_line(document: dict[str, Any]) -> None:
    stored = BSON.encode(document).decode(DECODED)  # as the driver returns it
    line = to_line(stored)
    assert line.count(b"\n") == 1
    read = from_line(line)
    assert BSON.encode(read) == BSON.encode(document)  # types and the order of fields too
    assert to_line(read) == line


def test_a_line_is_relaxed_extended_json() -> None:
    document = {
        "_id": ObjectId("65a0000000000000000000ff"),
        "credits": Int64(2**53 + 1),
        "at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "hash": b"\x00\xff",
        "note": "Größe",
    }
    assert json.loads(to_line(document)) == {
        "_id": {"$oid": "65a0000000000000000000ff"},
        "credits": 2**53 + 1,
        "at": {"$date": "2026-01-02T03:04:05.678Z"},
        "hash": {"$binary": {"base64": "AP8=", "subType": "00"}},
        "note": "Größe",
    }
    assert "Größe".encode() in to_line(document)


@pytest.mark.parametrize("value", [Decimal128("1.5"), Regex("a"), float("nan"), {1, 2}])
def test_a_value_that_no_ledger_has_is_rejected(value: object) -> None:
    with pytest.raises(NotRepresentable):
        to_line({"credits": value})


@pytest.mark.parametrize("line", [b"[]\n", b"7\n", b"{\n", b'{"_id":{"$oid":"7"}}\n'])
def test_a_line_that_is_no_document_is_rejected(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|valid"):
        from_line(line)
