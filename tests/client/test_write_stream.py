"""The stream that concurrent writes share: when it is used, and how writes survive its end."""

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from credit_client import (
    ClientClosed,
    ClientSettings,
    CreditClient,
    DeadlineExceeded,
    InsufficientCredits,
    Outcome,
    Overloaded,
    Receipt,
    request_id,
    write_stream,
)
from credit_client.call_stream import CODEC, STATUS_DETAILS_CODEC
from credit_client.grpc_transport import GrpcTransport
from credit_client.methods import ADD, WRITE
from credit_client.testing import FakeCreditService, fake_credits
from credit_client.write_stream import WriteStreams
from credit_models import ErrorReason, OperationOutcome, WriteRequest, WriteResponse
from credit_models.codec import encode
from credit_models.reasons import DOMAIN, reason_name
from credit_testing.calls import framed
from google.rpc.error_details_pb2 import ErrorInfo
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.server import Server, Stream
from grpclib.testing import ChannelFor

from tests.client.ways import OtherStreams, opened

WriteServer = Stream[WriteRequest, WriteResponse]
Serve = Callable[..., AbstractAsyncContextManager[int]]

# Any: the arguments of a call have no common type.
ADDITION: dict[str, Any] = {"user_id": 7, "app_id": 1, "credits": 120, "created_by": 1}
PURCHASE: dict[str, Any] = {**ADDITION, "report_id": "r", "report_name": "R", "credits": 20}


def _streams(client: CreditClient) -> WriteStreams:
    assert isinstance(client._transport, GrpcTransport)
    assert client._transport._streams is not None
    return client._transport._streams


def _paused(client: CreditClient) -> bool:
    return _streams(client)._paused_until > asyncio.get_running_loop().time()


class Counted:
    """A served client, and the calls that its server has received, by their paths."""

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.metadata: list[dict[str, object]] = []

    async def note(self, event: RecvRequest) -> None:
        self.paths[event.method_name] += 1
        self.metadata.append(dict(event.metadata))

    @asynccontextmanager
    async def client(
        self, service: object = None, *, wait: bool = True, **settings: Any
    ) -> AsyncIterator[CreditClient]:
        kit = ChannelFor(
            # Any service of grpclib's: its type is a protocol of methods with two underscores.
            [service or FakeCreditService()],  # type: ignore[list-item]
            codec=CODEC,
            status_details_codec=STATUS_DETAILS_CODEC,
        )
        async with kit as channel:
            server = kit._server
            assert isinstance(server, Server)
            listen(server, RecvRequest, self.note)
            transport = GrpcTransport([channel], name="the server", streams=True)
            settings_ = ClientSettings(retry_backoff_initial_seconds=0.001, **settings)
            async with CreditClient(transport=transport, settings=settings_) as client:
                if wait:
                    await opened(client)
                yield client


@pytest.fixture
def counted() -> Counted:
    return Counted()


async def test_concurrent_writes_share_one_stream_and_a_write_alone_is_a_call(
    counted: Counted,
) -> None:
    async with counted.client() as client:
        await client.add(**ADDITION)
        assert counted.paths == {WRITE.path: 1, ADD.path: 1}
        receipts = await asyncio.gather(*(client.add(**ADDITION) for _ in range(50)))
        assert sorted(each.sequence for each in receipts) == list(range(2, 52))
        # The first of them is alone when it begins.
        assert counted.paths == {WRITE.path: 1, ADD.path: 2}


async def test_writes_do_not_wait_for_a_stream(counted: Counted) -> None:
    async with counted.client(wait=False) as client:
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(10)))
        assert counted.paths == {WRITE.path: 1, ADD.path: 10}
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(10)))
        assert counted.paths == {WRITE.path: 1, ADD.path: 11}


async def test_no_stream_is_opened_where_the_setting_is_off() -> None:
    async with fake_credits(settings=ClientSettings(streams="off")) as client:
        assert isinstance(client._transport, GrpcTransport)
        assert client._transport._streams is None
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(10)))


async def test_a_rejected_write_is_its_caller_s_alone(counted: Counted) -> None:
    async with counted.client() as client:
        await client.add(**ADDITION)
        results = await asyncio.gather(
            *(client.use(**PURCHASE | {"credits": 50}) for _ in range(5)), return_exceptions=True
        )
        few = [each for each in results if isinstance(each, InsufficientCredits)]
        assert len(few) == 3
        assert all(each.outcome is Outcome.NO_CHANGE for each in few)
        stream_id = counted.metadata[0]["x-request-id"]
        assert {each.request_id for each in few} == {stream_id}


async def test_a_call_with_a_request_id_of_the_app_s_is_sent_by_itself(counted: Counted) -> None:
    async with counted.client() as client:
        with request_id("page-1"):
            await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
    assert counted.paths == {WRITE.path: 1, ADD.path: 5}
    assert [each["x-request-id"] for each in counted.metadata[1:]] == ["page-1"] * 5


async def test_a_call_in_a_trace_is_sent_by_itself(counted: Counted) -> None:
    async with counted.client() as client:
        streams = _streams(client)
        (channel,) = streams._streams
        request = ADD.request_type(**ADDITION, idempotency_key="k")
        assert streams.find(channel, request, {}) is not None
        assert streams.find(channel, request, {"traceparent": "00-1-1-01"}) is None
        assert streams.find(channel, ADD.request_type(**ADDITION), {}) is None


async def test_a_new_token_takes_a_new_stream(counted: Counted) -> None:
    tokens = iter("ab")
    async with counted.client(wait=False) as client:
        streams = _streams(client)
        channel = next(iter(streams._pool.under_way))
        for token in tokens:
            streams.open(channel, {"authorization": f"Bearer {token}"})
            await streams._streams[channel].answered.wait()
            assert streams._streams[channel].serves(channel, {"authorization": f"Bearer {token}"})
            assert not streams._streams[channel].serves(channel, {})
        # The server has ended the first one.
        await asyncio.wait(streams._tasks, return_when=asyncio.FIRST_COMPLETED)
    sent = [each.get("authorization") for each in counted.metadata]
    assert sent == ["Bearer a", "Bearer b"]


async def test_without_streams_of_the_server_writes_are_calls(counted: Counted) -> None:
    service = OtherStreams(FakeCreditService(), None)
    async with counted.client(service, wait=False) as client:
        for _ in range(3):
            await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
        assert await client.balance(app_id=1) == 15 * 120
        assert _paused(client)
    # grpclib rejects a call that it has no handler for before it reports it.
    assert counted.paths[ADD.path] == 15


async def test_a_stream_that_is_never_answered_holds_up_no_write(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(stream: WriteServer) -> None:
        await stream.recv_message()

    monkeypatch.setattr(write_stream, "OPEN_SECONDS", 0.02)
    service = OtherStreams(FakeCreditService(), silent)
    async with counted.client(service) as client:
        assert _paused(client)
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
    assert (counted.paths[ADD.path], counted.paths[WRITE.path]) == (5, 1)


async def test_a_stream_that_ends_after_its_writes_took_effect_costs_no_write_twice(
    counted: Counted,
) -> None:
    service = FakeCreditService()

    async def lose(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        for _ in range(4):
            request = await stream.recv_message()
            assert request is not None
            assert request.operation is not None
            assert request.operation.add_credits is not None
            service.ledger.add(request.operation.add_credits)
        await stream.send_trailing_metadata(status=Status.INTERNAL, status_message="lost")

    async with counted.client(OtherStreams(service, lose), retry_attempts_max=1) as client:
        receipts = await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
        assert Counter(each.replayed for each in receipts) == {True: 4, False: 1}
        assert await client.balance(app_id=1) == 5 * 120
        assert _paused(client)
    assert counted.paths[ADD.path] == 5


async def test_what_a_broken_stream_left_open_stays_in_the_outcome_of_the_write(
    counted: Counted,
) -> None:
    async def lose(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        await stream.recv_message()
        await stream.send_trailing_metadata(status=Status.INTERNAL, status_message="lost")

    async with counted.client(OtherStreams(FakeCreditService(), lose)) as client:
        results = await asyncio.gather(
            *(client.use(**PURCHASE) for _ in range(2)), return_exceptions=True
        )
    outcomes = Counter(each.outcome for each in results if isinstance(each, InsufficientCredits))
    # The stream may still deliver what it has carried; a call alone made no change.
    assert outcomes == {Outcome.UNKNOWN: 1, Outcome.NO_CHANGE: 1}


async def test_a_write_that_a_drain_did_not_read_is_sent_as_a_call_and_takes_no_attempt(
    counted: Counted,
) -> None:
    async def drain(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        await stream.recv_message()
        info = ErrorInfo(reason=reason_name(ErrorReason.OVERLOADED), domain=DOMAIN)
        await stream.send_trailing_metadata(
            status=Status.UNAVAILABLE, status_message="shutting down", status_details=[info]
        )

    service = FakeCreditService()
    async with counted.client(OtherStreams(service, drain), retry_attempts_max=1) as client:
        receipts = await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
        assert [each.replayed for each in receipts] == [False] * 5
        assert client._caller is not None
        assert client._caller._budget._tokens == client.settings.retry_budget_tokens
    async with counted.client(OtherStreams(service, drain), retry_attempts_max=1) as client:
        service.fail_next(ErrorReason.OVERLOADED, times=5)
        results = await asyncio.gather(
            *(client.add(**ADDITION) for _ in range(5)), return_exceptions=True
        )
    outcomes = [each.outcome for each in results if isinstance(each, Overloaded)]
    assert outcomes == [Outcome.NO_CHANGE] * 5  # the drain has not left them unknown


async def test_the_outcomes_before_a_reset_of_the_stream_count(counted: Counted) -> None:
    service = FakeCreditService()

    async def drain(stream: WriteServer) -> None:
        """Answer four writes, end the stream and reset it, all in one write to the socket."""
        await stream.send_initial_metadata()
        http, sent = stream._stream._h2_connection, stream._stream.id
        assert sent is not None
        for _ in range(4):
            request = await stream.recv_message()
            assert request is not None
            assert request.operation is not None
            assert request.operation.add_credits is not None
            outcome = OperationOutcome(receipt=service.ledger.add(request.operation.add_credits))
            data = encode(WriteResponse(correlation_id=request.correlation_id, outcome=outcome))
            http.send_data(sent, framed(data))
        info = ErrorInfo(reason=reason_name(ErrorReason.OVERLOADED), domain=DOMAIN)
        details = STATUS_DETAILS_CODEC.encode(Status.UNAVAILABLE, "shutting down", [info])
        trailers = [
            ("grpc-status", str(Status.UNAVAILABLE.value)),
            ("grpc-message", "shutting down"),
            ("grpc-status-details-bin", b64encode(details).decode()),
        ]
        http.send_headers(sent, trailers, end_stream=True)
        stream._stream.reset_nowait()
        stream._send_trailing_metadata_done = True

    async with counted.client(OtherStreams(service, drain), retry_attempts_max=1) as client:
        receipts = await asyncio.gather(*(client.add(**ADDITION) for _ in range(5)))
        assert [each.replayed for each in receipts] == [False] * 5
        assert await client.balance(app_id=1) == 5 * 120
    assert counted.paths[ADD.path] == 1


async def test_a_lost_connection_costs_one_token_and_the_writes_are_retried(
    fake_server: Serve,
) -> None:
    service, reached = FakeCreditService(), asyncio.Event()

    async def hang(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        for _ in range(9):
            await stream.recv_message()
        reached.set()
        await asyncio.Event().wait()

    settings = ClientSettings(channels=1, retry_backoff_initial_seconds=0.001)
    async with fake_server(OtherStreams(service, hang)) as port:
        client = CreditClient(f"127.0.0.1:{port}", settings=settings)
        await client.__aenter__()
        await opened(client)
        writes = [asyncio.create_task(client.add(**ADDITION)) for _ in range(10)]
        await reached.wait()
    async with fake_server(service, port):
        await asyncio.gather(*writes)
        assert await client.balance(app_id=1) == 10 * 120
        assert client._caller is not None
        assert client._caller._budget._tokens >= 99
        await client.__aexit__(None, None, None)


async def test_a_write_that_is_cancelled_before_it_is_sent_is_not_sent(counted: Counted) -> None:
    service = FakeCreditService()
    async with counted.client(service) as client:
        first = asyncio.create_task(client.add(**ADDITION))
        second = asyncio.create_task(client.add(**ADDITION))
        await asyncio.sleep(0)  # both have begun, and the stream's sender has not
        second.cancel()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(2)))
    assert service.ledger.balance(app_id=1) == 3 * 120


async def test_the_time_of_a_write_ends_it_alone(counted: Counted) -> None:
    async def hold(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        async for _ in stream:
            pass

    async with counted.client(OtherStreams(FakeCreditService(), hold)) as client:
        results = await asyncio.gather(
            client.balance(app_id=1),
            client.use(**PURCHASE, timeout_seconds=0.02),
            return_exceptions=True,
        )
        assert isinstance(results[1], DeadlineExceeded)
        assert results[1].outcome is Outcome.UNKNOWN
        assert results[1].idempotency_key is not None
        # No outcome has come over this stream: something may keep them back.
        assert _paused(client)
        await client.add(**ADDITION)


async def test_closing_the_client_ends_writes_and_streams(counted: Counted) -> None:
    reached = asyncio.Event()

    async def hang(stream: WriteServer) -> None:
        await stream.send_initial_metadata()
        await stream.recv_message()
        reached.set()
        await asyncio.Event().wait()

    async with counted.client(OtherStreams(FakeCreditService(), hang)) as client:
        writes = [asyncio.create_task(client.add(**ADDITION)) for _ in range(2)]
        await reached.wait()
        streams = _streams(client)
    (error,) = [each for each in await _ends(writes) if each is not None]
    assert isinstance(error, ClientClosed)
    assert error.outcome is Outcome.UNKNOWN
    assert all(task.done() for task in streams._tasks)


async def _ends(writes: list["asyncio.Task[Receipt]"]) -> list[BaseException | None]:
    await asyncio.wait(writes)
    return [write.exception() for write in writes]


async def test_a_stream_is_replaced_when_its_life_is_over(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_stream, "LIFE_SECONDS", 0.001)
    async with counted.client() as client:
        while counted.paths[WRITE.path] < 3:
            await asyncio.gather(*(client.add(**ADDITION) for _ in range(3)))
            await asyncio.sleep(0.002)
        assert not _paused(client)


async def test_writes_beyond_what_the_server_reads_are_calls(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_stream, "OPERATIONS_MAX", 10)
    async with counted.client() as client:
        await asyncio.gather(*(client.add(**ADDITION) for _ in range(30)))
    assert counted.paths == {WRITE.path: 1, ADD.path: 20}
