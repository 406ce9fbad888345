"""Values of the well-known types whose rules are more than those of their fields."""

import json
from collections.abc import Callable

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z; google/protobuf/timestamp.proto.
TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)
# Ten thousand years; google/protobuf/duration.proto.
DURATION_SECONDS = 315_576_000_000
NANOS_MAX = 999_999_999

_INT32, _INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)

# Seconds and nanos. Each pair breaks one rule.
#
# Protobuf parses any seconds and nanos. A server may store such a time and return it later, so the
# times are few and far from those that a server makes: another time out of range in a response
# comes from the server itself.
TIMES_OUT_OF_RANGE: dict[str, tuple[tuple[int, int], ...]] = {
    "google.protobuf.Timestamp": (
        (TIMESTAMP_SECONDS[1] + 1, 0),
        (TIMESTAMP_SECONDS[0] - 1, 0),
        (0, NANOS_MAX + 1),
        (0, -1),
        *((seconds, 0) for seconds in _INT64),
        *((0, nanos) for nanos in _INT32),
    ),
    "google.protobuf.Duration": (
        (DURATION_SECONDS + 1, 0),
        (-DURATION_SECONDS - 1, 0),
        (0, NANOS_MAX + 1),
        (0, -NANOS_MAX - 1),
        (1, -1),
        (-1, 1),
        *((seconds, 0) for seconds in _INT64),
        *((0, nanos) for nanos in _INT32),
    ),
}


def well_known(descriptor: Descriptor) -> SearchStrategy[Message] | None:
    """Return the values of a well-known type, or None if its fields express all of its rules."""
    make = _MAKERS.get(descriptor.full_name)
    return None if make is None else make(descriptor)


def out_of_range(descriptor: Descriptor) -> tuple[Message, ...]:
    """Return times outside the documented range of their type; none if it is not a time."""
    make = GetMessageClass(descriptor)
    times = TIMES_OUT_OF_RANGE.get(descriptor.full_name, ())
    return tuple(make(seconds=seconds, nanos=nanos) for seconds, nanos in times)


def _edges(low: int, high: int) -> SearchStrategy[int]:
    return st.one_of(st.sampled_from(sorted({0, low, high}, key=abs)), st.integers(low, high))


def _timestamps(descriptor: Descriptor) -> SearchStrategy[Message]:
    make = GetMessageClass(descriptor)
    return st.builds(make, seconds=_edges(*TIMESTAMP_SECONDS), nanos=_edges(0, NANOS_MAX))


def _durations(descriptor: Descriptor) -> SearchStrategy[Message]:
    make = GetMessageClass(descriptor)
    sizes = st.tuples(
        st.sampled_from([1, -1]), _edges(0, DURATION_SECONDS - 1), _edges(0, NANOS_MAX)
    )
    # Seconds and nanos must not differ in sign.
    return sizes.map(lambda size: make(seconds=size[0] * size[1], nanos=size[0] * size[2]))


def _field_masks(descriptor: Descriptor) -> SearchStrategy[Message]:
    make = GetMessageClass(descriptor)
    paths = st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8})?(\.[a-z]{1,8})?", fullmatch=True)
    return st.builds(make, paths=st.lists(paths, max_size=3))


def _anys(descriptor: Descriptor) -> SearchStrategy[Message]:
    # An Any of a type that every implementation knows. No contract says what else it may hold.
    make = GetMessageClass(descriptor)
    contents = st.binary(max_size=8).map(lambda value: b"\x0a" + bytes([len(value)]) + value)
    url = st.just("type.googleapis.com/google.protobuf.BytesValue")
    return st.one_of(st.just(make()), st.builds(make, type_url=url, value=contents))


def _json_values(descriptor: Descriptor) -> SearchStrategy[Message]:
    # A Value must have a kind, and its numbers must be finite; google/protobuf/struct.proto.
    make = GetMessageClass(descriptor)
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8))
    trees = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )
    return trees.map(lambda tree: json_format.Parse(json.dumps(tree), make()))


_MAKERS: dict[str, Callable[[Descriptor], SearchStrategy[Message]]] = {
    "google.protobuf.Timestamp": _timestamps,
    "google.protobuf.Duration": _durations,
    "google.protobuf.FieldMask": _field_masks,
    "google.protobuf.Any": _anys,
    "google.protobuf.Value": _json_values,
}
