"""Values of the well-known types that are more than their fields say."""

import json
from collections.abc import Callable

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.strategies.unnamed import (
    DURATION_SECONDS,
    NANOS_MAX,
    TIMES_OUT_OF_RANGE,
    TIMESTAMP_SECONDS,
)


def well_known(descriptor: Descriptor) -> SearchStrategy[Message] | None:
    """Values of a well-known type, or None where its fields say everything."""
    make = _MAKERS.get(descriptor.full_name)
    return None if make is None else make(descriptor)


def out_of_range(descriptor: Descriptor) -> tuple[Message, ...]:
    """Times outside the documented range of their type; none where it is not a time."""
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
    # An Any of a type that every implementation knows; what else may be in it, no contract says.
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
