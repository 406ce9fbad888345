"""No token comes into a log, however much is logged, and whatever is wrong with the call."""

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

import pytest
from credit_models import CreditRequest, UserId
from credit_server.http2.header_block import Header, LiteralEncoder
from credit_server.http2.header_log import without_bytes
from credit_testing.http2_client import SERVICE, Wire, call_headers
from credit_testing.stores import FailingStore
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from tests.server.identities import EVERYTHING, FakeAuthenticator
from tests.server.serving import serving

TOKEN = "s3cret-5f0c"
BEARER = ("authorization", f"Bearer {TOKEN}")
AUTHENTICATOR = FakeAuthenticator({TOKEN: EVERYTHING})


class QuietEncoder(LiteralEncoder):
    """Has the server remember each header, and logs nothing, as hpack's own would."""

    def encode(self, headers: Iterable[Header], huffman: bool = False) -> bytes:  # type: ignore[override] # all that h2 passes
        # RFC 7541, section 6.2.1: a literal with indexing is one without, but for its first bits.
        blocks = [super(QuietEncoder, self).encode([header]) for header in headers]
        return b"".join(b"\x40" + block[1:] if block[0] == 0 else block for block in blocks)


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Has all loggers of the process log all."""
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
        Wire.connect(served.port) as wire,
    ):
        wire.h2.encoder = QuietEncoder()
        await wire.call("GetUserCredits", UserId(user_id=7), BEARER)
        await wire.call("UseCredits", UserId(user_id=7), BEARER)
        await wire.call("AddCredits", CreditRequest(user_id=7, app_id=1), BEARER)
        await wire.call("GetUserCredits", UserId(user_id=7), ("authorization", f"Basic {TOKEN}"))
        # So many others that the server's table forgets the token, which hpack logs as well.
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
        Wire.connect(served.port) as wire,
    ):
        wire.h2.encoder = QuietEncoder()
        answer = await wire.request(call_headers(SERVICE + "GetUserCredits", header))
        assert answer.reset is ErrorCodes.PROTOCOL_ERROR
    (line,) = (line for line in logged if line["event"] == "request reset")
    assert "header" in line["reason"]
    assert TOKEN not in repr(logged) + everything.text


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Header block missing mandatory b':path' header",) * 2,
        ("Connection-specific header field present: b'keep-alive'.",) * 2,
        ("Encountered request-only headers {b':path', b':method'}",) * 2,
        (r"Invalid value for TE header: b'a1'", "Invalid value for TE header"),
        ('Received header value surrounded by whitespace b" \'"', None),
        ("Illegal character '\n' in header value: b'x\\n'", None),
    ],
)
def test_what_is_wrong_is_told_and_names_are(said: str, shown: str | None) -> None:
    told = without_bytes(ProtocolError(said))
    assert told.isprintable()
    assert "b'x" not in told
    assert said.startswith(told[:15])
    assert shown in (None, told)
