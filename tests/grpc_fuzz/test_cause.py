"""A cause reads the same whatever values met it."""

import pytest
from grpc_fuzz.checks.cause import same_for_all


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("balance is 5, not 7", "balance is 17, not -2.5"),
        ("no 'a' here", "no 'other thing' here"),
        ('no "a" here', 'no "b" here'),
        ("id 5f3a9c0e1b2d", "id 0a1b2c3d4e5f"),
        ("a\n  b", "a b"),
    ],
)
def test_values_do_not_tell_causes_apart(one: str, other: str) -> None:
    assert same_for_all(one) == same_for_all(other)


def test_words_do() -> None:
    assert same_for_all("balance is 5") != same_for_all("balance was 5")


def test_a_cause_is_short() -> None:
    assert len(same_for_all("word " * 1000)) < 130
