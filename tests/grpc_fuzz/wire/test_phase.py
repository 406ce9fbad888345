"""The catalogue of wire cases: whole, repeatable, and each case with what may come back."""

from random import Random

import pytest
from grpc_fuzz.crashes import case_from_json, case_to_json
from grpc_fuzz.model import Case
from grpc_fuzz.wire import catalogue

from tests.grpc_fuzz.broken_server import shop_schema

SCHEMA = shop_schema()
PUT = SCHEMA.method("/shop.v1.Orders/Put")
REQUEST = b"\x0a\x03pen\x10\x05"


def cases(seed: int = 1) -> list[Case]:
    return list(catalogue(PUT, REQUEST, Random(seed)))


def test_every_case_says_which_outcomes_are_allowed_and_does_not_allow_silence() -> None:
    for case in cases():
        assert case.expected is not None, case.description
        assert "NO_REPLY" not in case.expected, case.description
        assert not {"UNKNOWN", "DATA_LOSS"} & case.expected, case.description


def test_no_two_cases_have_the_same_name() -> None:
    names = [case.description for case in cases()]

    assert len(names) == len(set(names))


def test_the_same_seed_makes_the_same_cases_and_another_one_others() -> None:
    assert [case.id for case in cases(1)] == [case.id for case in cases(1)]
    assert [case.id for case in cases(1)] != [case.id for case in cases(2)]


def test_every_case_survives_being_kept() -> None:
    for case in cases():
        assert case_from_json(case_to_json(case), SCHEMA) == case


def test_an_empty_request_has_cases_too() -> None:
    assert list(catalogue(PUT, b"", Random(1)))


@pytest.mark.parametrize(
    "part",
    [
        *("prefix cut", "message cut", "prefix one byte too long", "compressed flag", "gzip"),
        *("no message", "two messages", "an unknown field", "wire type", "'item' holds"),
        *("grpc-timeout", "-bin metadata", "without :path", "an unknown method"),
        *("cancelled within", "resets", "CONTINUATION", "padded DATA", "a frame cut"),
    ],
)
def test_the_catalogue_has_cases_of_each_kind(part: str) -> None:
    assert any(part in case.description for case in cases())
