"""Texts that differ only in their values are equal after normalization."""

import pytest
from grpc_fuzz.normalize import normalize, without_values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("balance is 5, not 7", "balance is 17, not -2.5"),
        ("ratio is 1e-05", "ratio is 2.5E+10"),
        ("no 'a' here", "no 'other thing' here"),
        ('no "a" here', 'no "b" here'),
        (r"no 'it\'s' here", "no 'b' here"),
        ("no b'\\x00' here", "no b'' here"),
        ("no `a` here", "no `b` here"),
        ("id 5f3a9c0e1b2d", "id 0a1b2c3d4e5f"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-0000-4000-8000-000000000000"),
        ("object at 0x7f", "object at 0xdeadbeef01"),
        ("order order-17 is gone", "order xy9z is gone"),
        ("items [1, 2, 3] are wrong", "items [7] are wrong"),
        ("items [] are wrong", "items {'a': [1, 2]} are wrong"),
        ("item a is wrong", "item ab is wrong"),
        ("name é漢 is wrong", "name \u202eß is wrong"),
        ("a\n  b", "a b"),
    ],
)
def test_texts_with_different_values_are_equal(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


def test_texts_with_different_words_differ() -> None:
    assert normalize("balance is 5") != normalize("balance was 5")


def test_an_apostrophe_is_not_a_quotation_mark() -> None:
    assert normalize("that can't work, and won't") == "that can't work, and won't"


def test_values_of_a_request_are_replaced_longest_first() -> None:
    assert without_values("no such item: pen box", ["pen", "pen box"]) == "no such item: …"


def test_a_short_value_of_a_request_does_not_change_words() -> None:
    assert without_values("a balance of an app", ["a", "an", ""]) == "a balance of an app"


def test_a_normalized_text_is_short() -> None:
    assert len(normalize("word " * 1000)) < 170


def test_normalizing_twice_changes_nothing() -> None:
    once = normalize("order 17 of 'you' has é items: [1, 2]")

    assert normalize(once) == once
