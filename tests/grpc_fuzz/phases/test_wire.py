"""The wire cases are complete and repeatable, and each names its allowed outcomes."""

from random import Random

import pytest
from grpc_fuzz.crashes import case_from_json, case_to_json
from grpc_fuzz.model import Case
from grpc_fuzz.phases.wire import all_cases

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
PUT = SCHEMA.method("/shop.v1.Orders/Put")
REQUEST = b"\x0a\x03pen\x10\x05"


def cases(seed: int = 1) -> list[Case]:
    return list(all_cases(PUT, REQUEST, Random(seed)))


def test_every_case_names_its_allowed_outcomes_and_requires_a_reply() -> None:
    for case in cases():
        assert case.expected is not None, case.description
        assert "NO_REPLY" not in case.expected, case.description
        assert not {"UNKNOWN", "DATA_LOSS"} & case.expected, case.description


def test_no_two_cases_have_the_same_description() -> None:
    names = [case.description for case in cases()]

    assert len(names) == len(set(names))


def test_the_seed_decides_the_cases() -> None:
    assert [case.id for case in cases(1)] == [case.id for case in cases(1)]
    assert [case.id for case in cases(1)] != [case.id for case in cases(2)]


def test_every_case_is_the_same_after_json() -> None:
    for case in cases():
        assert case_from_json(case_to_json(case), SCHEMA) == case


def test_an_empty_request_has_cases() -> None:
    assert list(all_cases(PUT, b"", Random(1)))


@pytest.mark.parametrize(
    "part",
    [
        *("prefix cut", "message cut", "prefix one byte too long", "compressed flag", "gzip"),
        *("no message", "two messages", "an unknown field", "wire type", "'item' holds"),
        *("grpc-timeout", "-bin metadata", "without :path", "an unknown method"),
        *("cancelled within", "resets", "CONTINUATION", "padded DATA", "a frame cut"),
    ],
)
def test_there_are_cases_of_each_kind(part: str) -> None:
    assert any(part in case.description for case in cases())
