"""A text has the same shape whatever values met it."""

import pytest
from grpc_fuzz.shape import shape, without


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
def test_values_do_not_tell_shapes_apart(one: str, other: str) -> None:
    assert shape(one) == shape(other)


def test_words_do() -> None:
    assert shape("balance is 5") != shape("balance was 5")


def test_an_apostrophe_is_no_quotation_mark() -> None:
    assert shape("that can't work, and won't") == "that can't work, and won't"


def test_values_of_a_request_are_replaced_the_longest_first() -> None:
    assert without("no such item: pen box", ["pen", "pen box"]) == "no such item: …"


def test_a_short_value_of_a_request_leaves_words_alone() -> None:
    assert without("a balance of an app", ["a", "an", ""]) == "a balance of an app"


def test_a_shape_is_short() -> None:
    assert len(shape("word " * 1000)) < 170


def test_the_shape_of_a_shape_is_the_same() -> None:
    once = shape("order 17 of 'you' has é items: [1, 2]")

    assert shape(once) == once
