"""Send requests with broken headers: each gets a reply or GOAWAY, and one log line."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from credit_testing import frames
from credit_testing.calls import Answer, call_headers
from credit_testing.frames import Header
from credit_testing.http2_client import Connection

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.requests import BALANCE, balance_message, call_block

Verdict = Callable[[Connection, Answer], bool]

_NEXT_STREAM = 3


async def _broken(fields: Sequence[Header], accepted: Verdict, target: Target) -> Outcome:
    """Send a request with these headers, and read what the server logs about it."""
    offset = target.server.log_bytes()
    async with target.connect() as peer:
        _, answer = peer.begin(frames.header_block(fields), balance_message())
        try:
            async with asyncio.timeout(target.seconds):
                await answer.ended.wait()
                await peer.settled()
        except TimeoutError:
            return unended(peer, target)
        lines, traceback = await _log_of(peer.address, offset, target)
    seen = answer.outcome or peer.ending
    result = f"{seen}; {lines} log line{'' if lines == 1 else 's'}" + (
        ", a traceback" if traceback else ""
    )
    return Outcome(seen=result, held=accepted(peer, answer) and lines == 1 and not traceback)


async def _log_of(address: str, offset: int, target: Target) -> tuple[int, bool]:
    """Return the number of lines about a peer, and whether the log contains a traceback.

    Raises:
        TimeoutError: The server does not serve another call, or does not log it.
    """
    request_id = uuid.uuid4().hex
    # The server logs a later call after the attack.
    async with asyncio.timeout(target.seconds), target.connect() as later:
        block = call_block(BALANCE, ("x-request-id", request_id))
        _, answer = later.begin(block, balance_message())
        await answer.ended.wait()
        lines = await target.server.logged(offset, request_id)
    about = sum(line.get("peer") == address for line in lines)
    return about, any("exception" in line or "text" in line for line in lines)


def unended(peer: Connection, target: Target) -> Outcome:
    """Return the outcome of an attack whose answer did not arrive in time."""
    return Outcome(seen=f"no answer in {target.seconds:g} s: {peer.ending}", held=False)


def _answered(peer: Connection, answer: Answer) -> bool:
    return answer.outcome is not None or peer.goaway is not None


def _refused(peer: Connection, answer: Answer) -> bool:
    return _answered(peer, answer) and answer.outcome != "OK"


def _status(*names: str) -> Verdict:
    return lambda _, answer: answer.outcome in names


def _without(name: str) -> list[Header]:
    return [header for header in call_headers(BALANCE) if header[0] != name]


async def _unknown_frames(target: Target) -> Outcome:
    """Send frames of unknown types, and calls before and after them."""
    async with target.connect() as peer:
        _, before = peer.begin(call_block(BALANCE), balance_message())
        await peer.write_all(
            frames.frame(0xFA, b"?") + frames.frame(0xFA, b"?", stream=_NEXT_STREAM)
        )
        return await _then_served(peer, before, "OK", target)


async def _alone(block: bytes, expected: str, target: Target) -> Outcome:
    """Send a request that the server must reject, and a valid call after it."""
    async with target.connect() as peer:
        _, refused = peer.begin(block, balance_message())
        return await _then_served(peer, refused, expected, target)


async def _then_served(peer: Connection, before: Answer, expected: str, target: Target) -> Outcome:
    """Send a valid call and check that the call before it ends as expected."""
    _, after = peer.begin(call_block(BALANCE), balance_message())
    try:
        async with asyncio.timeout(target.seconds):
            await before.ended.wait()
            await after.ended.wait()
    except TimeoutError:
        return unended(peer, target)
    statuses = [answer.outcome or peer.ending for answer in (before, after)]
    return Outcome(seen=", ".join(statuses), held=statuses == [expected, "OK"])


def _attack(name: str, required: str, fields: Sequence[Header], accepted: Verdict) -> Attack:
    return Attack(
        name=name,
        required=f"{required}; one log line, no traceback",
        run=partial(_broken, fields, accepted),
        heavy=False,
    )


def _refused_alone(name: str, block: bytes, expected: str) -> Attack:
    return Attack(
        name=f"header:{name}",
        required=f"{expected}, and the call after it is served",
        run=partial(_alone, block, expected),
        heavy=False,
    )


_CALL = call_headers(BALANCE)
# A header of 4,000 bytes is indexed and repeated four times: RFC 7541, section 6.1.
_LONG_BLOCK = call_block(BALANCE) + frames.remembered("x-long", "x" * 4000) + b"\xbe" * 4

ATTACKS = (
    _attack("header:no-path", "refused", _without(":path"), _refused),
    _attack("header:no-method", "refused", _without(":method"), _refused),
    _attack(
        "header:bad-binary",
        "a reply or GOAWAY",
        [*_CALL, ("credit-odd-bin", "not/base64!")],
        _answered,
    ),
    _attack(
        "header:timeout-of-400-digits",
        "INVALID_ARGUMENT or INTERNAL",
        [*_CALL, ("grpc-timeout", "9" * 400 + "S")],
        _status("INVALID_ARGUMENT", "INTERNAL"),
    ),
    _attack(
        "header:timeout-of-0-s",
        "DEADLINE_EXCEEDED",
        [*_CALL, ("grpc-timeout", "0S")],
        _status("DEADLINE_EXCEEDED"),
    ),
    Attack(
        name="header:unknown-frame",
        required="ignored: calls before and after it are served",
        run=_unknown_frames,
        heavy=False,
    ),
    # PROTOCOL-HTTP2.md, ASCII-Value: gRPC allows printable ASCII only, HTTP allows more.
    _refused_alone("not-ascii", call_block(BALANCE, ("x-odd", "é")), "INVALID_ARGUMENT"),
    _refused_alone("upper-case", call_block(BALANCE, ("X-Odd", "1")), "RST_STREAM PROTOCOL_ERROR"),
    _refused_alone("20-kilobytes", _LONG_BLOCK, "RESOURCE_EXHAUSTED"),
    _attack("header:line-break", "refused", [*_CALL, ("x-odd", "a\r\nx-admin: yes")], _refused),
)
