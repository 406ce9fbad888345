"""Header blocks: any HPACK decoder reads them, and no token in them reaches a log."""

import contextlib
import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

import pytest
from credit_models import CreditRequest, UserId
from credit_server.http2.header_block import (
    CompressionError,
    Header,
    HeaderDecoder,
    LiteralEncoder,
    without_bytes,
)
from credit_testing.calls import SERVICE, call_headers
from credit_testing.frames import ErrorCode
from credit_testing.http2_client import Connection
from credit_testing.stores import FailingStore
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from hpack import Decoder, Encoder, OversizedHeaderListError
from hypothesis import given
from hypothesis import strategies as st

from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.serving import serving

NAMES = st.sampled_from([":status", "grpc-status", "x-request-id", "credit-receipt-bin"])
VALUES = st.one_of(
    st.sampled_from(["200", "0", ""]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400),
)

TOKEN = "s3cret-5f0c"
BEARER = ("authorization", f"Bearer {TOKEN}")
AUTHENTICATOR = FakeAuthenticator({TOKEN: EVERYTHING})


def write(encoder: LiteralEncoder, headers: list[tuple[str, str]]) -> bytes:
    return encoder.encode([(name.encode(), value.encode()) for name, value in headers])


def read(decoder: Decoder, block: bytes) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in decoder.decode(block)]


@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=5))
def test_a_decoder_reads_what_was_encoded(blocks: list[list[tuple[str, str]]]) -> None:
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
def test_headers_that_an_encoder_has_indexed_are_read(
    blocks: list[list[tuple[str, str]]],
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(list_bytes_max=16_384)
    for headers in blocks:
        found = decoder.decode(encoder.encode(headers))
        assert [tuple(header) for header in found] == [
            (name.encode(), value.encode()) for name, value in headers
        ]
        assert decoder.list_bytes == sum(len(name) + len(value) + 32 for name, value in headers)


def test_of_a_long_list_few_headers_are_returned_and_all_are_indexed() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(list_bytes_max=1000)
    headers = [(":path", "/" + "x" * 999), ("te", "trailers"), ("x-long", "y" * 200)]
    found = dict(decoder.decode(encoder.encode(headers)))
    assert found == {b":path": b"/" + b"x" * 255, b"te": b"trailers"}
    again = decoder.decode(encoder.encode(headers[1:]))
    assert [name for name, _ in again] == [b"te", b"x-long"]


def test_a_list_that_is_several_times_too_long_is_not_decoded_to_its_end() -> None:
    decoder = HeaderDecoder(list_bytes_max=1000)
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(Encoder().encode([("x-long", "y" * 4000)]))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_list_or_an_error_of_compression(block: bytes) -> None:
    with contextlib.suppress(CompressionError):
        HeaderDecoder(list_bytes_max=16_384).decode(block)


class QuietEncoder(LiteralEncoder):
    """Makes the server index each header, and logs nothing, as hpack's own encoder would."""

    def encode(self, headers: Iterable[Header], huffman: bool = False) -> bytes:  # type: ignore[override] # all that h2 passes
        # RFC 7541, section 6.2.1: a literal with indexing differs only in its first bits.
        blocks = [super(QuietEncoder, self).encode([header]) for header in headers]
        return b"".join(b"\x40" + block[1:] if block[0] == 0 else block for block in blocks)


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Set all loggers of the process to debug."""
    caplog.set_level(logging.DEBUG)
    for name in logging.root.manager.loggerDict:
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


async def test_no_logger_shows_a_token_at_debug(
    everything: pytest.LogCaptureFixture,
    logged: list[MutableMapping[str, Any]],  # Any: structlog's own type
) -> None:
    bug = FailingStore(ZeroDivisionError("a bug"))
    async with (
        serving(bug, authenticator=AUTHENTICATOR) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.encoder = QuietEncoder()
        await wire.call("GetUserCredits", UserId(user_id=7), BEARER)
        await wire.call("UseCredits", UserId(user_id=7), BEARER)
        await wire.call("AddCredits", CreditRequest(user_id=7, app_id=1), BEARER)
        await wire.call("GetUserCredits", UserId(user_id=7), ("authorization", f"Basic {TOKEN}"))
        # So many other headers that the server's table evicts the token, which hpack logs too.
        await wire.call("GetUserCredits", UserId(user_id=7), *((f"x-{n}", "") for n in range(200)))
    assert logged
    assert any(record.name.startswith("hpack") for record in everything.records)
    assert TOKEN not in everything.text
    assert TOKEN not in repr(logged)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(("authorization", f"Bearer {TOKEN}\n"), id="a line's end after the token"),
        pytest.param(("authorization", f"Bearer {TOKEN}\0"), id="a zero byte after it"),
        pytest.param((f"authorization: Bearer {TOKEN}", ""), id="a name that is the whole header"),
        pytest.param((f"Authorization: Bearer {TOKEN}", ""), id="the same in upper case"),
    ],
)
async def test_a_malformed_header_is_not_shown(
    header: tuple[str, str],
    everything: pytest.LogCaptureFixture,
    logged: list[MutableMapping[str, Any]],  # Any: structlog's own type
) -> None:
    async with (
        serving(authenticator=AUTHENTICATOR) as served,
        Connection.connect(served.port) as wire,
    ):
        wire.encoder = QuietEncoder()
        answer = await wire.request(call_headers(SERVICE + "GetUserCredits", header))
        assert answer.reset is ErrorCode.PROTOCOL_ERROR
    (line,) = (line for line in logged if line["event"] == "request reset")
    assert "header" in line["reason"]
    assert TOKEN not in repr(logged) + everything.text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Header block missing mandatory b':path' header",) * 2,
        ("Connection-specific header field present: b'keep-alive'.",) * 2,
        ("Encountered request-only headers {b':path', b':method'}",) * 2,
        (r"Invalid value for TE header: b'a1'", "Invalid value for TE header"),
        ('Received header value surrounded by whitespace b" \'"', None),
        ("Illegal character '\n' in header value: b'x\\n'", None),
    ],
)
def test_the_message_of_an_error_keeps_names_and_no_values(message: str, shown: str | None) -> None:
    safe = without_bytes(ProtocolError(message))
    assert safe.isprintable()
    assert "b'x" not in safe
    assert message.startswith(safe[:15])
    assert shown in (None, safe)
