"""Frames made by hand are those that a sound implementation reads."""

import pytest
from credit_models import CreditRequest
from credit_models.codec import decode
from credit_resilience.requests import add_message, call_block
from credit_testing import frames
from credit_testing.calls import call_headers, framed
from credit_testing.frames import Flag, Kind
from hpack import Decoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame


def parsed(octets: bytes) -> Frame:
    frame, length = Frame.parse_frame_header(memoryview(octets[:9]))
    frame.parse_body(memoryview(octets[9 : 9 + length]))
    assert len(octets) == 9 + length
    return frame


def decoded(block: bytes) -> object:
    return list(Decoder().decode(block))


def test_headers_are_read_back() -> None:
    block = call_block("/a.B/C", ("x-more", "é"))
    frame = parsed(frames.headers(7, block, Flag.END_HEADERS | Flag.END_STREAM))
    assert isinstance(frame, HeadersFrame)
    assert frame.stream_id == 7
    assert set(frame.flags) == {"END_HEADERS", "END_STREAM"}
    assert decoded(frame.data) == call_headers("/a.B/C", ("x-more", "é"))


def test_a_block_fits_every_stream_for_nothing_is_remembered() -> None:
    decoder, block = Decoder(), call_block("/a.B/C")
    assert list(decoder.decode(block)) == list(decoder.decode(block))


def test_a_remembered_header_is_repeated_by_one_byte() -> None:
    block = frames.remembered("x-bomb", "b" * 100) + b"\xbe" * 3
    assert decoded(block) == [("x-bomb", "b" * 100)] * 4


@pytest.mark.parametrize("size", [0, 1, frames.MAX_FRAME_SIZE, frames.MAX_FRAME_SIZE + 1])
def test_data_is_cut_into_frames_of_which_the_last_ends_the_stream(size: int) -> None:
    octets, bodies, flags = frames.data(1, bytes(size), Flag.END_STREAM), [], []
    while octets:
        _, length = Frame.parse_frame_header(memoryview(octets[:9]))
        frame = parsed(octets[: 9 + length])
        assert isinstance(frame, DataFrame)
        bodies.append(frame.data)
        flags.append(set(frame.flags))
        octets = octets[9 + length :]
    assert b"".join(bodies) == bytes(size)
    assert flags == [set()] * (len(flags) - 1) + [{"END_STREAM"}]


def test_settings_and_window_updates_are_read_back() -> None:
    settings = parsed(frames.settings((4, 0)))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {4: 0}
    update = parsed(frames.window_update(9, stream=3))
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 9)


def test_a_length_may_lie() -> None:
    assert frames.frame(Kind.PING, b"12345678", length=3)[:3] == b"\x00\x00\x03"
    assert framed(b"abc", length=10**9)[1:5] == (10**9).to_bytes(4, "big")


def test_padding_is_of_no_meaning_to_the_contract() -> None:
    padded = decode(CreditRequest, add_message(bytes(1000))[5:])
    assert padded == decode(CreditRequest, add_message()[5:])
