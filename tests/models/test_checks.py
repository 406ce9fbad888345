"""The check of one field describes what the field accepts and does not quote its value."""

import pytest
from credit_models.checks import Constraint, field_check
from credit_models.text import Text

BETWEEN = Constraint(minimum=1, maximum=10)


@pytest.mark.parametrize(
    ("constraint", "value", "description"),
    [
        (BETWEEN, 0, "must be 1 to 10, got 0"),
        (BETWEEN, 1, None),
        (BETWEEN, 10, None),
        (BETWEEN, 11, "must be 1 to 10, got 11"),
        (BETWEEN, -(2**63), f"must be 1 to 10, got {-(2**63)}"),
        (Constraint(minimum=5), 4, "must be at least 5, got 4"),
        (Constraint(minimum=5), 2**64 - 1, None),
        (Constraint(maximum=5), 6, "must be at most 5, got 6"),
        (Constraint(maximum=5), -(2**63), None),
        (Constraint(maximum=0), 1, "must be at most 0, got 1"),
    ],
)
def test_integers_outside_their_bounds_are_rejected(
    constraint: Constraint, value: int, description: str | None
) -> None:
    assert field_check(constraint, zero=0, explicit=False)(value) == description


@pytest.mark.parametrize(
    ("constraint", "value", "description"),
    [
        (Constraint(length_min=2, length_max=3), "a", "must be 2 to 3 characters, got 1"),
        (Constraint(length_min=2, length_max=3), "ab", None),
        (Constraint(length_min=2, length_max=3), "abcd", "must be 2 to 3 characters, got 4"),
        (Constraint(length_min=2), "a", "must be at least 2 characters, got 1"),
        (Constraint(length_max=2), "abc", "must be at most 2 characters, got 3"),
        (Constraint(length_max=2), "😀😀", None),
        (Constraint(length_max=0), "a", "must be at most 0 characters, got 1"),
    ],
)
def test_lengths_are_counted_in_code_points(
    constraint: Constraint, value: str, description: str | None
) -> None:
    assert field_check(constraint, zero="", explicit=False)(value) == description


@pytest.mark.parametrize(
    ("value", "matches"), [("ab1", True), ("ab1\n", False), ("xab1", False), ("ab\u0661", False)]
)
def test_a_pattern_matches_the_whole_string_and_only_ascii_digits(
    value: str, matches: bool
) -> None:
    check = field_check(Constraint(pattern=r"ab\d"), zero="", explicit=False)
    assert check(value) == (None if matches else r"must match the pattern ab\d")


def test_the_length_is_checked_first_then_the_characters_then_the_pattern() -> None:
    constraint = Constraint(pattern="a*", length_max=2, text=Text.IDENTIFIER)
    check = field_check(constraint, zero="", explicit=False)
    assert check("bb ") == "must be at most 2 characters, got 3"
    assert check("b ") == "must not begin or end with white space"
    assert check("b") == "must match the pattern a*"
    assert check("a") is None


@pytest.mark.parametrize("zero", [0, "", False])
def test_a_required_field_rejects_its_zero_value(zero: object) -> None:
    assert field_check(Constraint(required=True), zero=zero, explicit=False)(zero) == "must be set"


def test_a_required_integer_whose_bounds_include_zero_rejects_zero_by_name() -> None:
    check = field_check(Constraint(minimum=-5, maximum=5, required=True), zero=0, explicit=False)
    assert check(-5) is None
    assert check(0) == "must not be 0"


def test_a_required_field_with_explicit_presence_accepts_zero_and_rejects_none() -> None:
    check = field_check(Constraint(required=True), zero=None, explicit=True)
    assert check(0) is None
    assert check(None) == "must be set"


def test_an_optional_field_is_checked_only_if_it_is_set() -> None:
    check = field_check(BETWEEN, zero=None, explicit=True)
    assert check(None) is None
    assert check(0) == "must be 1 to 10, got 0"


def test_an_empty_required_field_is_reported_with_its_bounds() -> None:
    constraint = Constraint(required=True, length_min=1, length_max=4)
    check = field_check(constraint, zero="", explicit=False)
    assert check("") == "must be 1 to 4 characters, got 0"
