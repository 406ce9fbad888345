"""Ordinary calls return what the server sent, and never invent a status."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from grpc_fuzz.client import HEALTH_METHOD, Client
from grpc_fuzz.model import Case, Limits
from grpc_fuzz.target import Target

from tests.grpc_fuzz.contracts import features_schema
from tests.grpc_fuzz.http2_server import CallError, Handler, Http2Server, NoReply

Connect = Callable[..., Client]
LONG = Limits(request_timeout=30.0)
SHORT = Limits(request_timeout=0.2, slack=0.1)


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened = []

    def open_client(port: int, limits: Limits = LONG) -> Client:
        client = Client(
            Target(host="127.0.0.1", port=port),
            features_schema(),
            limits,
            lambda presented: (("authorization", "me"),),
        )
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()


def case(name: str, *requests: bytes) -> Case:
    method = features_schema().method(f"/features.v1.Features/{name}")
    return Case(method=method, phase="fuzzing", positive=True, requests=requests)


def _answering(message: bytes) -> Handler:
    return lambda path, data: [message]


def answer(path: str, data: bytes) -> list[bytes]:
    if path == HEALTH_METHOD:
        return [b"\x08\x01"]
    if path.endswith("/Down"):
        return [data, data]
    if path.endswith("/Unsure"):
        raise NoReply
    if data:
        raise CallError("NOT_FOUND", "näh", [("x-bin", "AQI")])
    return [b"\x68\x01"]


def test_a_response_is_returned_unchanged(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        reply = connect(port).send(case("One", b""))

    assert (reply.status, reply.responses) == ("OK", (b"\x68\x01",))
    assert reply.transport_error is None


def test_a_stream_of_responses_is_returned_complete_and_in_order(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        reply = connect(port).send(case("Down", b"\x08\x01"))

    assert (reply.status, reply.responses) == ("OK", (b"\x08\x01", b"\x08\x01"))


def test_an_error_is_returned_with_its_message_and_trailers(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        reply = connect(port).send(case("One", b"\x68\x01"))

    assert (reply.status, reply.message, reply.trailer("x-bin")) == ("NOT_FOUND", "näh", b"\1\2")


def test_a_call_without_a_reply_has_no_status(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        reply = connect(port, SHORT).send(case("Unsure", b""))

    assert reply.status is None
    assert reply.outcome == "NO_REPLY"
    assert reply.seconds >= SHORT.request_timeout


def test_the_call_after_a_call_without_a_reply_succeeds(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        client = connect(port, Limits(request_timeout=2.0, slack=0.1))
        client.send(case("Unsure", b""))
        reply = client.send(case("One", b""))

    assert reply.status == "OK"


def test_responses_larger_than_a_window_do_not_stall_the_connection(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        client = connect(port)
        replies = [client.send(case("Down", bytes(8_000))) for _ in range(20)]

    assert {reply.status for reply in replies} == {"OK"}


def test_a_server_that_does_not_run_gives_no_status(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    reply = connect(port).send(case("One", b""))
    assert (reply.status, reply.outcome) == (None, "CLOSED")


def test_every_response_except_not_serving_is_healthy(connect: Connect) -> None:
    statuses = {b"\x08\x01": True, b"\x08\x02": False, b"": True}
    for response, healthy in statuses.items():
        with Http2Server(_answering(response)).running() as port:
            assert connect(port).healthy() is healthy


def test_a_server_without_health_service_is_healthy(connect: Connect) -> None:
    def refuse(path: str, data: bytes) -> list[bytes]:
        raise CallError("UNIMPLEMENTED")

    with Http2Server(refuse).running() as port:
        assert connect(port).healthy()


def test_a_server_that_stopped_is_not_healthy(connect: Connect) -> None:
    server = Http2Server(answer)
    with server.running() as port:
        client = connect(port)
        assert client.healthy()
        server.dead.set()
        assert not client.healthy()


def test_threads_do_not_share_a_connection(connect: Connect) -> None:
    with Http2Server(answer).running() as port:
        client = connect(port)
        statuses: list[str | None] = []

        def work() -> None:
            statuses.extend(client.send(case("One", b"")).status for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert statuses == ["OK"] * 80
