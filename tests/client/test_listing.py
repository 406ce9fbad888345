"""Lists that break off and go on: every row once, in order, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from credit_client import (
    ClientClosed,
    CreditClient,
    CreditTransaction,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    ProtocolMismatch,
    Purchase,
    Unavailable,
)
from credit_client.grpc_transport import GrpcTransport
from credit_client.settings import ClientSettings
from credit_client.transport import AttemptFailed
from credit_models import ErrorReason, UserId
from credit_models.codec import decode, encode
from credit_models.reasons import DOMAIN, RULES, reason_name
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from h2.errors import ErrorCodes
from h2.events import DataReceived
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# Any: the transport and the servers are those of conftest, which importlib mode cannot name here.
Scripted = Callable[..., Any]
Raw = Callable[..., AbstractAsyncContextManager[Any]]

LOST = AttemptFailed(Status.UNAVAILABLE, "the connection was lost")
ENDED = AttemptFailed(Status.DEADLINE_EXCEEDED, "the list took longer than the server allows")


def _refused(reason: ErrorReason) -> AttemptFailed:
    info = ErrorInfo(reason=reason_name(reason), domain=DOMAIN)
    return AttemptFailed(RULES[reason].status, "not now", details=[info])


def _rows(*sequences: int) -> list[object]:
    return [CreditTransaction(sequence=sequence) for sequence in sequences]


def _purchases(*sequences: int) -> list[object]:
    return [Purchase(sequence=sequence) for sequence in sequences]


@asynccontextmanager
async def _client(transport: Any, **settings: Any) -> AsyncIterator[CreditClient]:
    quick = {"retry_backoff_initial_seconds": 0.000_1, "retry_backoff_max_seconds": 0.000_1}
    async with CreditClient(
        transport=transport,
        settings=ClientSettings(**(quick | settings)),
    ) as client:
        yield client


async def _sequences(client: CreditClient, after: int = 0) -> list[int]:
    return [row.sequence async for row in client.transactions(user_id=7, after_sequence=after)]


def _asked(transport: Any) -> list[int]:
    return [sent.request.after_sequence for sent in transport.sent]


@pytest.mark.parametrize(
    "failure",
    [
        LOST,
        ENDED,
        _refused(ErrorReason.STORE_UNAVAILABLE),
        _refused(ErrorReason.OVERLOADED),
        _refused(ErrorReason.RATE_LIMITED),
    ],
    ids=lambda failure: failure.message,
)
async def test_an_interrupted_list_continues_after_its_last_row(
    scripted: Scripted, failure: AttemptFailed
) -> None:
    transport = scripted([*_rows(1, 2), failure], [failure] if failure is not ENDED else [], [])
    transport.outcomes[1:] = [[*_rows(3), failure], _rows(4, 7)]
    async with _client(transport) as client:
        assert await _sequences(client) == [1, 2, 3, 4, 7]
    assert _asked(transport) == [0, 2, 3]
    assert len({sent.request_id for sent in transport.sent}) == 1


async def test_purchases_go_on_too(scripted: Scripted) -> None:
    transport = scripted([*_purchases(2, 5), LOST], [LOST], _purchases(9))
    async with _client(transport) as client:
        rows = [row.sequence async for row in client.purchases(user_id=7, after_sequence=1)]
    assert rows == [2, 5, 9]
    assert _asked(transport) == [1, 5, 5]


@settings(
    deadline=None,  # the machine may be slow
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it keeps no state
)
@given(
    length=st.integers(0, 12),
    breaks=st.lists(st.integers(0, 4), max_size=12),
    knows_after=st.booleans(),
)
async def test_every_row_comes_once_wherever_a_list_breaks_off(
    scripted: Scripted, length: int, breaks: Sequence[int], knows_after: bool
) -> None:
    """Whether the server knows `after_sequence` or starts at the first row again."""
    delivered, attempts = 0, []
    for count in breaks:
        end = min(length, delivered + count)
        first = delivered if knows_after else 0
        attempts.append([*_rows(*range(first + 1, end + 1)), LOST])
        delivered = end
    attempts.append(_rows(*range((delivered if knows_after else 0) + 1, length + 1)))
    async with _client(
        scripted(*attempts), retry_attempts_max=100, retry_budget_tokens=1000
    ) as client:
        assert await _sequences(client) == list(range(1, length + 1))


async def test_a_row_sets_the_attempts_back_and_without_one_they_end(scripted: Scripted) -> None:
    transport = scripted(*([*_rows(each), LOST] for each in range(1, 11)), [LOST])
    async with _client(transport, retry_attempts_max=3) as client:
        rows = client.transactions(user_id=7)
        assert [(await anext(rows)).sequence for _ in range(10)] == list(range(1, 11))
        with pytest.raises(Unavailable):
            await anext(rows)
    # The attempt that brought the tenth row is the first of the three that failed after it.
    assert _asked(transport) == [*range(11), 10]


async def test_the_time_limit_of_a_server_costs_neither_a_wait_nor_the_retry_budget(
    scripted: Scripted,
) -> None:
    transport = scripted(*([*_rows(each), ENDED] for each in range(1, 51)), [])
    async with _client(
        transport,
        retry_budget_tokens=1,
        retry_attempts_max=1,
        retry_backoff_initial_seconds=3600,
        retry_backoff_max_seconds=3600,
    ) as client:
        assert await _sequences(client) == list(range(1, 51))


async def test_a_server_whose_time_is_too_short_for_one_row_ends_the_list(
    scripted: Scripted,
) -> None:
    transport = scripted([*_rows(1), ENDED], [ENDED])
    async with _client(transport) as client:
        rows = client.transactions(user_id=7)
        await anext(rows)
        with pytest.raises(DeadlineExceeded, match="longer than the server allows"):
            await anext(rows)
    assert len(transport.sent) == 2


async def test_a_failure_that_no_retry_can_help_ends_the_list(scripted: Scripted) -> None:
    transport = scripted([*_rows(1), AttemptFailed(Status.INTERNAL, "a bug")])
    async with _client(transport) as client:
        rows = client.transactions(user_id=7)
        await anext(rows)
        with pytest.raises(InternalError, match="a bug"):
            await anext(rows)
    assert len(transport.sent) == 1


async def test_purchases_without_numbers_cannot_continue(scripted: Scripted) -> None:
    transport = scripted([*_purchases(0, 0), LOST])
    async with _client(transport) as client:
        rows = client.purchases(user_id=7)
        for _ in range(2):
            await anext(rows)
        with pytest.raises(Unavailable):
            await anext(rows)
        assert len(transport.sent) == 1
        with pytest.raises(ProtocolMismatch, match=r"older than 0\.2\.0"):
            await anext(client.purchases(user_id=7, after_sequence=3))


@pytest.mark.parametrize("sequences", [(1, 2, 2), (1, 3, 2), (1, 2, 0)])
async def test_a_row_out_of_order_is_not_given_to_the_reader(
    scripted: Scripted, sequences: Sequence[int]
) -> None:
    transport = scripted(_rows(*sequences))
    async with _client(transport) as client:
        rows = client.transactions(user_id=7)
        for sequence in sequences[:2]:
            assert (await anext(rows)).sequence == sequence
        with pytest.raises(ProtocolMismatch):
            await anext(rows)
    assert transport.closed_streams == len(transport.sent) == 1


async def test_a_token_that_expires_while_a_list_is_read_is_replaced(scripted: Scripted) -> None:
    expired = AttemptFailed(Status.UNAUTHENTICATED, "expired")
    tokens = iter("abcd")
    transport = scripted(
        [expired], [*_rows(1), LOST], [expired], [*_rows(2), LOST], [expired], _rows(3)
    )
    async with CreditClient(
        transport=transport,
        token=lambda: next(tokens),
        settings=ClientSettings(retry_backoff_initial_seconds=0.000_1),
    ) as client:
        assert await _sequences(client) == [1, 2, 3]
    assert [sent.metadata["authorization"][-1] for sent in transport.sent] == list("abbccd")


async def test_closing_the_client_ends_a_list_that_waits_to_continue(scripted: Scripted) -> None:
    transport = scripted([*_rows(1), LOST])
    async with _client(
        transport,
        retry_backoff_initial_seconds=3600,
        retry_backoff_max_seconds=3600,
        timeout_seconds=86_400,
    ) as client:
        rows = client.transactions(user_id=7)
        await anext(rows)
        waiting = asyncio.ensure_future(anext(rows))
        await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await waiting


async def test_a_list_starts_after_the_sequence_in_the_request(scripted: Scripted) -> None:
    transport = scripted(_rows(1, 2, 3, 4))
    async with _client(transport) as client:
        assert await _sequences(client, after=2) == [3, 4]
        for broken in (-1, 2**63):
            with pytest.raises(InvalidField, match="after_sequence"):
                client.transactions(user_id=7, after_sequence=broken)
    assert _asked(transport) == [2]


def _goaway(peer: Any, _stream_id: int) -> None:
    peer.h2.close_connection(last_stream_id=0)  # a graceful one would let the list go on


def _reset(peer: Any, stream_id: int) -> None:
    peer.h2.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)


def _hang_up(peer: Any, _stream_id: int) -> None:
    peer.transport.abort()


def _rubbish(peer: Any, _stream_id: int) -> None:
    peer.transport.write(bytes(9))


def _deadline(peer: Any, stream_id: int) -> None:
    peer.trailers(stream_id, status=Status.DEADLINE_EXCEEDED.value)


def _deadline_within_a_row(peer: Any, stream_id: int) -> None:
    """As of a server whose reader is slow: the window had room for a part of a row alone."""
    peer.h2.send_data(stream_id, b"\0\0\0\0\x20half of a row")
    _deadline(peer, stream_id)


@pytest.mark.parametrize(
    "fail", [_goaway, _reset, _hang_up, _rubbish, _deadline, _deadline_within_a_row]
)
async def test_a_list_continues_over_real_connections(
    raw_server: Raw, fail: Callable[[Any, int], None]
) -> None:
    def first(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        for sequence in (1, 2):
            peer.message(stream_id, encode(CreditTransaction(sequence=sequence)))
        peer.flush()
        # Later, as rows that are still on their way get lost with the connection.
        asyncio.get_running_loop().call_later(0.05, _then)
        failing.append((peer, stream_id))

    def _then() -> None:
        peer, stream_id = failing[0]
        fail(peer, stream_id)
        if not peer.transport.is_closing():
            peer.flush()

    def second(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(CreditTransaction(sequence=3)))
        peer.trailers(stream_id)

    failing: list[tuple[Any, int]] = []
    async with (
        raw_server(first, second) as server,
        CreditClient(f"127.0.0.1:{server.port}", settings=ClientSettings(channels=1)) as client,
    ):
        assert await _sequences(client) == [1, 2, 3]
        requests = [(await server.event(DataReceived)).data for _ in range(2)]
    assert [decode(UserId, each[5:]).after_sequence for each in requests] == [0, 2]


async def test_a_list_whose_status_is_read_after_the_connection_has_gone_is_continued(
    raw_server: Raw,
) -> None:
    def first(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        for sequence in (1, 2):
            peer.message(stream_id, encode(CreditTransaction(sequence=sequence)))
        _deadline(peer, stream_id)
        peer.flush()
        peer.transport.close()

    def second(peer: Any, stream_id: int) -> None:
        peer.headers(stream_id)
        peer.message(stream_id, encode(CreditTransaction(sequence=3)))
        peer.trailers(stream_id)

    async with (
        raw_server(first, second) as server,
        CreditClient(f"127.0.0.1:{server.port}", settings=ClientSettings(channels=1)) as client,
    ):
        rows = client.transactions(user_id=7)
        assert (await anext(rows)).sequence == 1
        assert isinstance(client._transport, GrpcTransport)
        (channel,) = client._transport._pool._owned
        while channel.connected:  # noqa: ASYNC110 - the channel has no event for it
            await asyncio.sleep(0)
        assert [row.sequence async for row in rows] == [2, 3]
