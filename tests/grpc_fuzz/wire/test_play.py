"""The player returns an outcome for every way in which an exchange can end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from grpc_fuzz.model import Case, Limits, Reply, WireStep
from grpc_fuzz.target import Target
from grpc_fuzz.wire.play import play
from grpc_fuzz.wire.script import (
    RESET,
    call_fields,
    data,
    frame,
    headers,
    prefixed,
    raw,
    valid_call,
    wire_case,
)

from tests.grpc_fuzz.contracts import shop_schema
from tests.grpc_fuzz.shop_server import running_shop

SCHEMA = shop_schema()
PUT = SCHEMA.method("/shop.v1.Orders/Put")
GET = SCHEMA.method("/shop.v1.Orders/Get")
BODY = prefixed(b"\x0a\x03pen\x10\x05")
LONG = Limits(request_timeout=30.0)
SHORT = Limits(request_timeout=0.2, slack=0.1)


@pytest.fixture(scope="module")
def shop() -> Iterator[int]:
    with running_shop() as port:
        yield port


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Serve one connection with a fixed reply, and close it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join()
        listener.close()


def playing(port: int, *steps: WireStep, limits: Limits = LONG) -> Reply:
    return play(script(*steps), Target(host="127.0.0.1", port=port), limits, SCHEMA)


def script(*steps: WireStep) -> Case:
    return wire_case(PUT, "a test", *steps)


def test_a_valid_call_returns_status_and_response(shop: int) -> None:
    reply = playing(shop, *valid_call(PUT, BODY))

    assert (reply.status, reply.outcome, len(reply.responses)) == ("OK", "OK", 1)


def test_an_error_is_returned_with_its_details(shop: int) -> None:
    reply = playing(shop, *valid_call(GET, prefixed(b"\x0a\x01x")))

    assert reply.status == "NOT_FOUND"
    assert [detail.name for detail in reply.details] == ["google.rpc.ErrorInfo"]


def test_the_outcome_of_a_plain_http_response_is_its_status(shop: int) -> None:
    wrong = call_fields(PUT, replaced={b"content-type": b"text/plain"})

    assert playing(shop, headers(wrong), data(BODY)).outcome == "HTTP_415"


def test_a_forbidden_frame_ends_with_goaway(shop: int) -> None:
    reply = playing(shop, headers(call_fields(PUT)), raw(frame(0, b"")))

    assert (reply.status, reply.outcome) == (None, "GOAWAY")


def test_a_cancelled_call_ends_with_the_answer_to_a_ping(shop: int) -> None:
    assert playing(shop, headers(call_fields(PUT)), RESET).outcome == "ALIVE"


def test_a_call_after_a_storm_of_resets_is_answered(shop: int) -> None:
    storm = WireStep(action="storm", headers=call_fields(PUT), times=20)

    assert playing(shop, storm, *valid_call(PUT, BODY)).outcome == "OK"


def test_a_header_list_may_be_split_into_many_frames(shop: int) -> None:
    steps = (headers(call_fields(PUT), frames=7), data(BODY))

    assert playing(shop, *steps).outcome == "OK"


def test_more_data_than_the_window_is_sent_as_flow_control_allows(shop: int) -> None:
    unknown = b"\x7a" + b"\x80\x80\x40" + bytes(2**20)

    assert playing(shop, *valid_call(PUT, prefixed(BODY[5:] + unknown))).outcome == "OK"


def test_metadata_of_the_run_is_sent_with_every_script(shop: int) -> None:
    target = Target(host="127.0.0.1", port=shop)

    reply = play(
        script(*valid_call(PUT, BODY)), target, LONG, SCHEMA, (("grpc-timeout", "nonsense"),)
    )

    assert reply.status == "INVALID_ARGUMENT"


def test_a_missing_reply_is_reported_after_the_time_limit(shop: int) -> None:
    reply = playing(shop, headers(call_fields(PUT)), limits=SHORT)

    assert (reply.status, reply.outcome) == (None, "NO_REPLY")
    assert reply.seconds >= 0.3


def test_a_connection_that_the_server_closes_is_closed() -> None:
    with answering(b"") as port:
        assert playing(port, *valid_call(PUT, BODY)).outcome == "CLOSED"


def test_a_server_that_does_not_speak_http2_is_no_reply() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert playing(port, *valid_call(PUT, BODY)).outcome in {"NO_REPLY", "CLOSED"}


def test_a_port_without_a_server_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    reply = playing(port, *valid_call(PUT, BODY))

    assert reply.outcome == "CLOSED"
