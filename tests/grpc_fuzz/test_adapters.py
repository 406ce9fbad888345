"""Options become constraints."""

from dataclasses import replace

import pytest
from grpc_fuzz.adapters import House, HouseErrors, HouseFields
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.schema import Schema

from tests.grpc_fuzz.broken_server import HOUSE, shop_image, shop_schema
from tests.grpc_fuzz.protocols import features


def of_ruled(name: str) -> Constraint:
    return features().constraint(
        features().method("/features.v1.Features/Up").input.fields_by_name[name]
    )


def of_opaque(name: str) -> Constraint:
    unsure = features().method("/features.v1.Features/Unsure")
    return features().constraint(unsure.input.fields_by_name[name])


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("small", Constraint(minimum=1, maximum=9)),
        ("ratio", Constraint(minimum=0.0, maximum=1.0)),
        ("name", Constraint(length_min=2, length_max=5)),
        ("digest", Constraint(bytes_min=2, bytes_max=4)),
        ("colour", Constraint(defined_only=True)),
        ("maybe", Constraint(one_of=(3, 5))),
        ("line", Constraint(required=True)),
        ("octets", Constraint(bytes_max=4)),
        ("but", Constraint(none_of=(7,))),
        (
            "few",
            Constraint(items_min=1, items_max=3, unique=True, item=Constraint(minimum=1)),
        ),
        ("pairs", Constraint(items_max=2, key=Constraint(length_min=1))),
        ("left", Constraint()),
    ],
)
def test_a_standard_rule_becomes_a_constraint(field: str, expected: Constraint) -> None:
    assert of_ruled(field) == expected


def test_a_standard_pattern_searches_and_keeps_its_anchors() -> None:
    code = of_ruled("code")

    assert code.broken_by("ABC") == ()
    assert code.broken_by("ABCD") == ("pattern",)
    assert code.broken_by("ABC\n") == ("pattern",)


def test_prefix_and_suffix_become_a_pattern() -> None:
    token = of_ruled("token")

    assert token.broken_by("tk-!") == ()
    assert token.broken_by("tk-any\nthing!") == ()
    assert token.broken_by("k-!") == ("pattern",)


def test_a_required_oneof_is_seen() -> None:
    oneofs = features().method("/features.v1.Features/Up").input.oneofs_by_name

    assert features().oneof_required(oneofs["either"])
    assert not features().oneof_required(oneofs["_maybe"])


def test_rules_in_cel_are_known_to_be_unknown() -> None:
    assert of_opaque("even").opaque


def test_a_format_has_a_shape_to_make_values_from() -> None:
    assert of_opaque("address").shape is not None
    assert not of_opaque("address").opaque


def test_house_options_are_read_as_the_configuration_says() -> None:
    schema = shop_schema()
    ruled = [
        schema.constraint(field)
        for method in schema.methods
        for field in method.input.fields
        if schema.constraint(field) != Constraint()
    ]

    assert any(constraint.minimum is not None for constraint in ruled)
    assert any(constraint.length_max is not None for constraint in ruled)


def test_options_that_the_contract_does_not_have_are_no_options() -> None:
    nowhere = House(
        fields=HouseFields(extension="nowhere.rule", map={}),
        errors_from=HouseErrors(extension="nowhere.errors", rule="nowhere.refusal"),
    )
    schema = Schema.from_image(shop_image(), [nowhere])

    assert all(method.declared is None for method in schema.methods)
    fields = [field for method in schema.methods for field in method.input.fields]
    assert {schema.constraint(field) for field in fields} == {Constraint()}


def test_a_reason_without_a_status_is_the_configurations_fault() -> None:
    assert HOUSE.errors_from is not None
    wrong = House(errors_from=replace(HOUSE.errors_from, rule="shop.v1.nothing"))

    with pytest.raises(ValueError, match=r"carries no option shop\.v1\.nothing"):
        Schema.from_image(shop_image(), [wrong])
