"""Requests whose headers are broken: each gets a reply or GOAWAY, and one line of the log."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from credit_testing import frames
from credit_testing.frames import Header
from credit_testing.http2_client import call_headers

from credit_resilience.attack import Attack, Outcome, Target
from credit_resilience.peer import Answer, Peer
from credit_resilience.requests import BALANCE, balance_message, call_block

Verdict = Callable[[Peer, Answer], bool]

_STREAM, _NEXT_STREAM = 1, 3


async def _broken(fields: Sequence[Header], accepted: Verdict, target: Target) -> Outcome:
    """Send a request with these headers, and read what the server writes about it in its log."""
    offset = target.server.log_bytes()
    async with Peer.connect(target.port) as peer:
        answer = await peer.request(_STREAM, frames.header_block(fields), balance_message())
        try:
            async with asyncio.timeout(target.seconds):
                await answer.ended.wait()
                await peer.settled()
        except TimeoutError:
            return unended(peer, target)
        lines, traceback = await _log_of(peer.address, offset, target)
    seen = answer.status or peer.ending
    said = f"{seen}; {lines} log line{'' if lines == 1 else 's'}" + (
        ", a traceback" if traceback else ""
    )
    return Outcome(seen=said, held=accepted(peer, answer) and lines == 1 and not traceback)


async def _log_of(address: str, offset: int, target: Target) -> tuple[int, bool]:
    """Count the lines about a peer, and say whether anything was logged with a traceback.

    Raises:
        TimeoutError: The server takes no further call, or does not log it.
    """
    request_id = uuid.uuid4().hex
    # What a later call logs comes after what was logged about the attack.
    async with asyncio.timeout(target.seconds), Peer.connect(target.port) as later:
        block = call_block(BALANCE, ("x-request-id", request_id))
        answer = await later.request(_STREAM, block, balance_message())
        await answer.ended.wait()
        lines = await target.server.logged(offset, request_id)
    about = sum(line.get("peer") == address for line in lines)
    return about, any("exception" in line or "text" in line for line in lines)


def unended(peer: Peer, target: Target) -> Outcome:
    """Tell that what was waited for has not come."""
    return Outcome(seen=f"no answer in {target.seconds:g} s: {peer.ending}", held=False)


def _answered(peer: Peer, answer: Answer) -> bool:
    return answer.status is not None or peer.goaway is not None


def _refused(peer: Peer, answer: Answer) -> bool:
    return _answered(peer, answer) and answer.status != "OK"


def _status(*names: str) -> Verdict:
    return lambda _, answer: answer.status in names


def _without(name: str) -> list[Header]:
    return [header for header in call_headers(BALANCE) if header[0] != name]


async def _unknown_frames(target: Target) -> Outcome:
    """Send frames of types that nobody knows, and calls before and after them."""
    async with Peer.connect(target.port) as peer:
        before = await peer.request(_STREAM, call_block(BALANCE), balance_message())
        await peer.send(frames.frame(0xFA, b"?") + frames.frame(0xFA, b"?", stream=_NEXT_STREAM))
        return await _then_served(peer, before, "OK", target)


async def _alone(block: bytes, expected: str, target: Target) -> Outcome:
    """Send a request that must be refused alone, and a sound call after it."""
    async with Peer.connect(target.port) as peer:
        refused = await peer.request(_STREAM, block, balance_message())
        return await _then_served(peer, refused, expected, target)


async def _then_served(peer: Peer, before: Answer, expected: str, target: Target) -> Outcome:
    """Make a call after another, which must end with what is expected."""
    after = await peer.request(_NEXT_STREAM, call_block(BALANCE), balance_message())
    try:
        async with asyncio.timeout(target.seconds):
            await before.ended.wait()
            await after.ended.wait()
    except TimeoutError:
        return unended(peer, target)
    statuses = [answer.status or peer.ending for answer in (before, after)]
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
# One header of 4,000 bytes that is remembered, and four times more: RFC 7541, section 6.1.
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
    # PROTOCOL-HTTP2.md, ASCII-Value: HTTP allows other values than printable ASCII, gRPC does not.
    _refused_alone("not-ascii", call_block(BALANCE, ("x-odd", "é")), "INVALID_ARGUMENT"),
    _refused_alone("upper-case", call_block(BALANCE, ("X-Odd", "1")), "RST_STREAM PROTOCOL_ERROR"),
    _refused_alone("20-kilobytes", _LONG_BLOCK, "RESOURCE_EXHAUSTED"),
    _attack("header:line-break", "refused", [*_CALL, ("x-odd", "a\r\nx-admin: yes")], _refused),
)
