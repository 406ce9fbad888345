"""Strategies generate messages that keep the contract, or that break exactly one rule."""

import math
import re

import pytest
from google.protobuf.message import Message
from grpc_fuzz.conformance import violations
from grpc_fuzz.engine import sample, samples
from grpc_fuzz.schema import Schema, descriptor_of
from grpc_fuzz.strategies import Negative, messages, negatives, requests, unknown_enums
from grpc_fuzz.strategies.boundary import boundary_values
from grpc_fuzz.strategies.edges import float_edges, integer_edges
from grpc_fuzz.strategies.encodings import explicit_zeros, varint, with_unknown_fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.grpc_fuzz.contracts import features_schema, image_of

SCHEMA = features_schema()
EVERYTHING = SCHEMA.method("/features.v1.Features/One").input
RULED = SCHEMA.method("/features.v1.Features/Up").input
NEGATIVES = negatives(SCHEMA, RULED)
ALL_NEGATIVES = negatives(SCHEMA, EVERYTHING)

quick = settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))


def broken_in(message: Message) -> set[tuple[str, str]]:
    return {(broken.field, broken.rule) for broken in violations(SCHEMA, message)}


@quick
@given(messages(SCHEMA, EVERYTHING))
def test_valid_messages_of_every_feature_are_parsed_unchanged(message: Message) -> None:
    data = message.SerializeToString(deterministic=True)

    again = SCHEMA.parse(EVERYTHING, data)
    assert again.SerializeToString(deterministic=True) == data
    assert broken_in(message) == set()


@quick
@given(messages(SCHEMA, RULED))
def test_valid_messages_keep_every_rule(message: Message) -> None:
    assert broken_in(message) == set()


def test_every_field_of_every_kind_is_set_at_some_time() -> None:
    wanted = set(EVERYTHING.fields_by_name)
    reached: set[str] = set()
    # What a seed draws depends on the constants that hypothesis finds in the loaded modules.
    for seed in range(8):
        for message in samples(messages(SCHEMA, EVERYTHING), seed, 60):
            reached |= {field.name for field, _ in message.ListFields()}
        if reached == wanted:
            break

    assert reached == wanted


@pytest.mark.parametrize("negative", NEGATIVES, ids=lambda negative: str(negative.broken))
def test_a_negative_message_breaks_its_rule_and_no_other_field(negative: Negative) -> None:
    field, rule = negative.broken.field, negative.broken.rule.removeprefix("item.")
    # An unknown enum number is a violation in a response even without that rule.
    rule = "known_enum" if rule == "defined_only" else rule
    for message in samples(negative.strategy, 7, 8):
        broken = broken_in(message)
        where = {path.replace("[]", "") for path, _ in broken}
        assert where == {field}, broken
        assert rule in {name for _, name in broken}


def test_every_rule_is_broken() -> None:
    rules = {(negative.broken.field, negative.broken.rule) for negative in NEGATIVES}

    assert rules == {
        ("small", "minimum"),
        ("small", "maximum"),
        ("ratio", "minimum"),
        ("ratio", "maximum"),
        ("name", "length_min"),
        ("name", "length_max"),
        ("code", "pattern"),
        ("token", "pattern"),
        ("digest", "bytes_min"),
        ("digest", "bytes_max"),
        ("colour", "defined_only"),
        ("few", "items_min"),
        ("few", "items_max"),
        ("few", "unique"),
        ("few", "item.minimum"),
        ("maybe", "one_of"),
        ("line", "required"),
        ("line.sku", "length_min"),
        ("line.sku", "length_max"),
        ("either", "required"),
        ("octets", "bytes_max"),
        ("but", "none_of"),
    }


def test_a_message_without_rules_can_break_only_the_ranges_of_times() -> None:
    rules = {(negative.broken.field, negative.broken.rule) for negative in ALL_NEGATIVES}

    assert rules == {
        *(("at", "range"), ("lasting", "range")),
        *(("nested.at", "range"), ("nested.lasting", "range")),
    }


@pytest.mark.parametrize("negative", ALL_NEGATIVES, ids=lambda negative: str(negative.broken))
def test_each_time_out_of_range_is_the_only_violation(negative: Negative) -> None:
    assert len(negative.each) >= 8
    for strategy in negative.each:
        for message in samples(strategy, 3, 2):
            assert broken_in(message) == {(negative.broken.field, "range")}


def test_enums_at_every_level_get_unknown_numbers() -> None:
    image = image_of("jobs.proto")
    schema = Schema.from_image(image)
    job = schema.method("/jobs.v1.Jobs/Make").input
    unknown = unknown_enums(schema, job)

    assert {negative.broken.field for negative in unknown} == {
        *("size", "part.size", "parts[0].size", "by_name[].size", "sizes", "sized", "maybe.size"),
    }
    for negative in unknown:
        for message in (samples(strategy, 3, 1)[0] for strategy in negative.each):
            (broken,) = violations(schema, message)
            assert broken.field.replace("[]", "") == re.sub(r"\[0?\]", "", negative.broken.field)
            assert broken.rule == "known_enum"
            # A server may store the number and return it.
            assert not any(violations(schema, message, allow_sent=True))


def test_the_same_seed_draws_the_same() -> None:
    strategy = requests(SCHEMA, SCHEMA.method("/features.v1.Features/Down"))
    drawn = [sample(strategy, 3) for _ in range(2)]

    assert drawn[0] == drawn[1]
    assert drawn[0] != sample(strategy, 4)


def test_a_streaming_client_sends_no_one_and_many_messages() -> None:
    up = SCHEMA.method("/features.v1.Features/Up")

    counts = {len(request) for request in samples(requests(SCHEMA, up), 1, 30)}
    assert {0, 1, 2} <= counts


@given(low=st.integers(-(2**63), 2**64 - 1), high=st.integers(-(2**63), 2**64 - 1))
def test_integer_edges_are_within_the_range_and_include_its_ends(low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)

    edges = integer_edges(low, high)
    assert {low, high} <= set(edges)
    assert all(low <= edge <= high for edge in edges)


def test_float_edges_within_bounds_include_no_nan() -> None:
    assert any(math.isnan(edge) for edge in float_edges(None, None, single=False))
    assert set(float_edges(0.0, 1.0, single=True)) >= {0.0, 1.0}
    assert not any(math.isnan(edge) for edge in float_edges(0.0, 1.0, single=True))


def test_boundary_values_keep_the_rule_of_their_field() -> None:
    plain = samples(messages(SCHEMA, RULED), 1, 1)[0]
    boundary = {(field.name, str(value)) for field, value, _ in boundary_values(SCHEMA, plain)}

    assert {("small", "1"), ("small", "9"), ("name", "aa"), ("name", "aaaaa")} <= boundary
    assert {("small", "0"), ("small", "10")}.isdisjoint(boundary)


def test_an_unknown_field_does_not_change_the_rest_of_the_message() -> None:
    plain = sample(messages(SCHEMA, RULED), 1)
    encodings = dict(with_unknown_fields(plain))

    assert len(encodings) >= 5
    for data in encodings.values():
        parsed = SCHEMA.parse(RULED, data)
        parsed.DiscardUnknownFields()
        assert parsed == plain


def test_explicit_zeros_mean_the_same_as_unset_fields() -> None:
    plain = sample(messages(SCHEMA, EVERYTHING), 1)
    fields = {field.name for field, *_ in explicit_zeros(plain)}

    assert {"a_double", "a_float", "an_int32", "a_fixed64", "a_string", "colour"} <= fields
    assert {"maybe", "numbers", "tree", "number"}.isdisjoint(fields)
    for _, without, with_zero in explicit_zeros(plain):
        assert without != with_zero
        assert SCHEMA.parse(EVERYTHING, without) == SCHEMA.parse(EVERYTHING, with_zero)


def test_varints_are_encoded_as_protobuf_does() -> None:
    assert [varint(value) for value in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\1", b"\xac\2"]


def test_the_descriptor_of_a_message_is_its_type() -> None:
    assert descriptor_of(SCHEMA.message_class(RULED)()) is RULED
