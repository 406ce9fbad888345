"""Messages are judged by every rule, and by the requirements of protobuf."""

from typing import Any

import pytest
from grpc_fuzz.conformance import can_be_judged, violations
from grpc_fuzz.strategies.edges import unknown_numbers
from grpc_fuzz.strategies.well_known import TIMES_OUT_OF_RANGE

from tests.grpc_fuzz.contracts import features_schema, jobs_schema

SCHEMA = features_schema()
RULED = SCHEMA.method("/features.v1.Features/Up").input
EVERYTHING = SCHEMA.method("/features.v1.Features/One").input
OPAQUE = SCHEMA.method("/features.v1.Features/Unsure").input


def valid() -> Any:
    message: Any = SCHEMA.message_class(RULED)()
    message.small, message.name, message.code, message.token = 1, "ab", "ABC", "tk-!"
    message.digest, message.left = b"ab", 0
    message.few.append(1)
    message.line.sku = "abcd"
    return message


def broken_in(message: Any) -> list[str]:
    return [str(broken) for broken in violations(SCHEMA, message)]


def test_a_valid_message_breaks_nothing() -> None:
    assert broken_in(valid()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: setattr(m, "small", 10), ["small: maximum"]),
        (lambda m: setattr(m, "ratio", float("nan")), ["ratio: minimum", "ratio: maximum"]),
        (lambda m: setattr(m, "octets", "ééé"), ["octets: bytes_max"]),
        (lambda m: setattr(m, "maybe", 4), ["maybe: one_of"]),
        (lambda m: setattr(m, "but", 7), ["but: none_of"]),
        (lambda m: setattr(m, "colour", 5), ["colour: known_enum"]),
        (lambda m: m.few.extend([1]), ["few: unique"]),
        (lambda m: m.few.extend([0]), ["few[]: minimum"]),
        (lambda m: m.few.extend([2, 3, 4]), ["few: items_max"]),
        (lambda m: m.ClearField("few"), ["few: items_min"]),
        (lambda m: m.ClearField("line"), ["line: required"]),
        (lambda m: setattr(m.line, "sku", ""), ["line.sku: length_min"]),
        (lambda m: m.ClearField("left"), ["either: required"]),
        (lambda m: m.MergeFromString(b"\xf8\x07\x01"), ["Ruled: known_field"]),
    ],
)
def test_each_broken_rule_is_named_with_its_field(change: Any, expected: list[str]) -> None:
    message = valid()
    change(message)

    assert broken_in(message) == expected


@pytest.mark.parametrize(
    ("field", "seconds", "nanos", "is_valid"),
    [
        ("at", 253402300799, 999999999, True),
        ("at", 253402300800, 0, False),
        ("at", 0, -1, False),
        ("lasting", -1, -1, True),
        ("lasting", 1, -1, False),
        ("lasting", 315576000001, 0, False),
    ],
)
def test_times_outside_their_documented_range_are_violations(
    field: str, seconds: int, nanos: int, is_valid: bool
) -> None:
    message = SCHEMA.message_class(EVERYTHING)()
    getattr(message, field).seconds = seconds
    getattr(message, field).nanos = nanos

    assert broken_in(message) == ([] if is_valid else [f"{field}: range"])


def test_values_of_maps_are_judged_like_other_values() -> None:
    message: Any = SCHEMA.message_class(EVERYTHING)()
    message.trees[1].weight = 1
    ruled = valid()
    ruled.pairs[""] = 1
    schema = jobs_schema()
    job: Any = schema.message_class(schema.methods[0].input)()
    job.by_name["a"].size = 99
    job.by_name["b"].at.nanos = -5

    assert broken_in(message) == []
    assert broken_in(ruled) == ["pairs[]: length_min"]
    broken = {str(entry) for entry in violations(schema, job, allow_sent=True)}
    assert broken == {"by_name[].size: known_enum", "by_name[].at: range"}


def test_values_that_the_run_has_sent_are_allowed_in_responses() -> None:
    schema = jobs_schema()
    job: Any = schema.message_class(schema.methods[0].input)()
    for number in unknown_numbers(job.part.DESCRIPTOR.fields_by_name["size"].enum_type):
        job.parts.add().size = number
    for seconds, nanos in TIMES_OUT_OF_RANGE["google.protobuf.Timestamp"]:
        at = job.parts.add().at
        at.seconds, at.nanos = seconds, nanos

    assert len([*violations(schema, job)]) == 3 + 8
    assert [*violations(schema, job, allow_sent=True)] == []


def test_a_message_with_rules_that_cannot_be_evaluated_cannot_be_judged() -> None:
    assert can_be_judged(SCHEMA, RULED)
    assert not can_be_judged(SCHEMA, OPAQUE)
