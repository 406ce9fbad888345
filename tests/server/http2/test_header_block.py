"""Header blocks are what any HPACK decoder reads back, and leave nothing behind in its table."""

import contextlib

import pytest
from credit_server.http2.header_block import CompressionError, HeaderDecoder, LiteralEncoder
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Decoder, Encoder, OversizedHeaderListError
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from([":status", "grpc-status", "x-request-id", "credit-receipt-bin"])
VALUES = st.one_of(
    st.sampled_from(["200", "0", ""]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400),
)


def write(encoder: LiteralEncoder, headers: list[tuple[str, str]]) -> bytes:
    return encoder.encode([(name.encode(), value.encode()) for name, value in headers])


def read(decoder: Decoder, block: bytes) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in decoder.decode(block)]


@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=5))
def test_a_decoder_reads_back_what_was_written(blocks: list[list[tuple[str, str]]]) -> None:
    encoder, decoder = LiteralEncoder(), Decoder()
    for headers in blocks:
        assert read(decoder, write(encoder, headers)) == headers
    assert len(decoder.header_table.dynamic_entries) == 0


def test_long_values_are_written_with_their_length() -> None:
    headers = [("grpc-status-details-bin", "x" * length) for length in (126, 127, 128, 20_000)]
    decoder = Decoder(max_header_list_size=1_000_000)
    assert read(decoder, write(LiteralEncoder(), headers)) == headers


def test_a_smaller_table_is_acknowledged_once() -> None:
    encoder, decoder = LiteralEncoder(), Decoder()
    decoder.max_allowed_table_size = 0
    encoder.header_table_size = 0
    first, second = (write(encoder, [("grpc-status", "0")]) for _ in range(2))
    assert first == b"\x20" + second
    assert read(decoder, first) == [("grpc-status", "0")]


def test_an_h2_connection_writes_the_usual_status_in_one_byte() -> None:
    server = H2Connection(H2Configuration(client_side=False))
    client = H2Connection()
    client.initiate_connection()
    client.send_headers(
        1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
    )
    server.receive_data(client.data_to_send())
    server.encoder = LiteralEncoder()
    server.data_to_send()
    server.send_headers(1, [(":status", "200")])
    assert server.data_to_send().endswith(b"\x00\x00\x00\x01\x88")


@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=5))
def test_what_another_encoder_remembers_is_read_without_blanks(
    blocks: list[list[tuple[str, str]]],
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(list_bytes_max=16_384)
    for headers in blocks:
        found = decoder.decode(encoder.encode(headers))
        assert [tuple(header) for header in found] == [
            (name.encode(), (value if name.startswith(":") else value.strip(" \t")).encode())
            for name, value in headers
        ]
        assert decoder.list_bytes == sum(len(name) + len(value) + 32 for name, value in headers)


def test_of_a_long_list_a_few_headers_are_left_and_all_are_remembered() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(list_bytes_max=1000)
    headers = [(":path", "/" + "x" * 999), ("te", "trailers"), ("x-long", "y" * 200)]
    found = dict(decoder.decode(encoder.encode(headers)))
    assert found == {b":path": b"/" + b"x" * 255, b"te": b"trailers"}
    again = decoder.decode(encoder.encode(headers[1:]))
    assert [name for name, _ in again] == [b"te", b"x-long"]


def test_a_list_that_is_far_too_long_is_not_decoded_to_its_end() -> None:
    decoder = HeaderDecoder(list_bytes_max=1000)
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(Encoder().encode([("x-long", "y" * 4000)]))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_list_or_an_error_of_compression(block: bytes) -> None:
    with contextlib.suppress(CompressionError):
        HeaderDecoder(list_bytes_max=16_384).decode(block)
