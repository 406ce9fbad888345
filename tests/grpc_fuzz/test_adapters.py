"""Adapters read constraints and declared errors from options."""

from dataclasses import replace
from pathlib import Path

import pytest
from credit_models.image import FILE_DESCRIPTOR_SET
from grpc_fuzz.adapters import CustomErrorOptions, CustomFieldOptions, CustomOptions
from grpc_fuzz.config import read, settings_from
from grpc_fuzz.constraint import Constraint
from grpc_fuzz.schema import Schema

from tests.grpc_fuzz.contracts import SHOP_OPTIONS, features_schema, image_of, shop_schema


def of_ruled(name: str) -> Constraint:
    return features_schema().constraint(
        features_schema().method("/features.v1.Features/Up").input.fields_by_name[name]
    )


def of_opaque(name: str) -> Constraint:
    unsure = features_schema().method("/features.v1.Features/Unsure")
    return features_schema().constraint(unsure.input.fields_by_name[name])


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


def test_a_standard_pattern_matches_anywhere_except_at_its_anchors() -> None:
    code = of_ruled("code")

    assert code.broken_by("ABC") == ()
    assert code.broken_by("ABCD") == ("pattern",)
    assert code.broken_by("ABC\n") == ("pattern",)


def test_prefix_and_suffix_become_a_pattern() -> None:
    token = of_ruled("token")

    assert token.broken_by("tk-!") == ()
    assert token.broken_by("tk-any\nthing!") == ()
    assert token.broken_by("k-!") == ("pattern",)


def test_a_required_oneof_is_read() -> None:
    oneofs = features_schema().method("/features.v1.Features/Up").input.oneofs_by_name

    assert features_schema().oneof_required(oneofs["either"])
    assert not features_schema().oneof_required(oneofs["_maybe"])


def test_rules_in_cel_are_opaque() -> None:
    assert of_opaque("even").opaque


def test_a_format_has_a_pattern_for_values() -> None:
    assert of_opaque("address").format_pattern is not None
    assert not of_opaque("address").opaque


def test_custom_options_are_read_as_configured() -> None:
    schema = shop_schema()
    ruled = [
        schema.constraint(field)
        for method in schema.methods
        for field in method.input.fields
        if schema.constraint(field) != Constraint()
    ]

    assert any(constraint.minimum is not None for constraint in ruled)
    assert any(constraint.length_max is not None for constraint in ruled)


def test_custom_options_bound_signed_integers_and_the_keys_and_values_of_maps() -> None:
    file = Path(__file__).parents[2] / "tools" / "fuzz" / "grpc-fuzz.toml"
    adapters = settings_from(read(file)).adapters
    schema = Schema.from_image(FILE_DESCRIPTOR_SET.SerializeToString(), adapters)
    adjust = schema.method("/credit.v1.LedgerService/AdjustBalance")
    fields = adjust.input.fields_by_name

    delta = schema.constraint(fields["delta"])
    assert (delta.minimum, delta.maximum, delta.required) == (-(2**32) + 1, 2**32 - 1, True)
    assert schema.constraint(fields["metadata"]) == Constraint(
        items_max=16,
        key=Constraint(length_min=1, length_max=64, text="identifier"),
        item=Constraint(length_max=256),
    )


def test_options_that_the_contract_does_not_define_are_ignored() -> None:
    nowhere = CustomOptions(
        field_options=CustomFieldOptions(extension="nowhere.rule", map={}),
        error_options=CustomErrorOptions(extension="nowhere.errors", rule="nowhere.refusal"),
    )
    schema = Schema.from_image(image_of("shop.proto"), [nowhere])

    assert all(method.declared is None for method in schema.methods)
    fields = [field for method in schema.methods for field in method.input.fields]
    assert {schema.constraint(field) for field in fields} == {Constraint()}


def test_a_reason_without_a_status_is_misuse() -> None:
    assert SHOP_OPTIONS.error_options is not None
    wrong = CustomOptions(error_options=replace(SHOP_OPTIONS.error_options, rule="shop.v1.nothing"))

    with pytest.raises(ValueError, match=r"carries no option shop\.v1\.nothing"):
        Schema.from_image(image_of("shop.proto"), [wrong])
