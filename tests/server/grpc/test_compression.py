"""Inflating: sound data is returned, and of a bomb never more than the limit and one byte."""

import gzip
import tracemalloc
import zlib

import pytest
from credit_server.grpc.compression import inflate
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 4096


def refused(data: bytes, encoding: str = "gzip", *, bytes_max: int = LIMIT) -> Status:
    with pytest.raises(GRPCError) as caught:
        inflate(data, encoding, bytes_max=bytes_max)
    return caught.value.status


@given(st.binary(max_size=LIMIT), st.integers(min_value=0, max_value=9))
def test_what_was_compressed_comes_back(data: bytes, level: int) -> None:
    assert inflate(gzip.compress(data, level), "gzip", bytes_max=LIMIT) == data


@given(st.binary(max_size=64), st.data())
def test_any_truncated_data_are_an_internal_error(data: bytes, cut: st.DataObject) -> None:
    packed = gzip.compress(data)
    size = cut.draw(st.integers(min_value=0, max_value=len(packed) - 1))
    assert refused(packed[:size]) is Status.INTERNAL


@given(st.binary(max_size=256))
def test_random_bytes_are_rejected_and_raise_nothing_else(data: bytes) -> None:
    assert refused(b"\0" + data) is Status.INTERNAL


def test_a_message_of_just_the_limit_is_inflated() -> None:
    assert inflate(gzip.compress(bytes(LIMIT)), "gzip", bytes_max=LIMIT) == bytes(LIMIT)
    assert refused(gzip.compress(bytes(LIMIT + 1))) is Status.RESOURCE_EXHAUSTED


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(64 * 2**20))  # a thousandth of it is sent
    tracemalloc.start()
    try:
        assert refused(bomb) is Status.RESOURCE_EXHAUSTED
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # zlib keeps a copy of what it has not yet read, and its window of 32 KiB.
    assert peak_bytes < len(bomb) + LIMIT + 256 * 1024


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(b"a") + b"b", id="something follows"),
        pytest.param(gzip.compress(b"a") + gzip.compress(b"b"), id="another member"),
        pytest.param(zlib.compress(b"a"), id="zlib's own header"),
        pytest.param(gzip.compress(b"a")[:-8] + bytes(8), id="a wrong checksum"),
    ],
)
def test_anything_but_one_sound_member_is_an_internal_error(data: bytes) -> None:
    assert refused(data) is Status.INTERNAL


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_a_flag_without_an_encoding_is_an_internal_error(encoding: str) -> None:
    assert refused(gzip.compress(b"a"), encoding) is Status.INTERNAL


def test_an_encoding_that_is_not_supported_is_unimplemented() -> None:
    assert refused(gzip.compress(b"a"), "deflate") is Status.UNIMPLEMENTED
