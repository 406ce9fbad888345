"""Leaks in replies are found, and prose is not reported as a leak."""

import pytest
from grpc_fuzz.checks.check import Context, Finding
from grpc_fuzz.checks.leaks import NO_INTERNAL_LEAK
from grpc_fuzz.model import Case, Reply

from tests.grpc_fuzz.contracts import features_schema

METHOD = features_schema().methods[0]
CONTEXT = Context(schema=features_schema(), send=lambda case: Reply(status="OK"))


def cause(text: str, *, sent: bytes = b"") -> str | Finding | None:
    case = Case(
        method=features_schema().methods[0], phase="fuzzing", positive=True, requests=(sent,)
    )
    return NO_INTERNAL_LEAK.run(case, Reply(status="INTERNAL", message=text), CONTEXT)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('Traceback (most recent call last):\n  File "a.py", line 3', "a Python traceback"),
        ("at com.shop.Order.put(Order.java:12)", "a Java stack trace"),
        ("panic: nil map", "a Go stack trace"),
        ("thread 'main' panicked at src/main.rs", "a Rust panic"),
        ("at put (order.js:1:2)", "a JavaScript stack trace"),
        ("cannot open /srv/shop/orders.db", "a file path of the server"),
        (r"cannot open C:\shop", "a file path of the server"),
        ("failed in orders.py:17", "a source location"),
        ("<class 'int'> is wrong", "an object address"),
        ("<shop.orders.Order object", "an object address"),
        ("KeyError: 'a'", "the name of an exception class"),
        ("pymongo.errors.AutoReconnect", "the name of an exception class"),
        ("java.lang.NullPointerException: null", "the name of an exception class"),
        ("E11000 duplicate key", "a database message"),
        ("user_id must be 1 to 4294967295, got 0", None),
        ("Error: no such order", None),
        ("the rate is 5/s, see /docs", None),
        ("at least 3 items", None),
        ("there were errors. Fix them", None),
    ],
)
def test_a_leak_in_a_message_is_found(text: str, what: str | None) -> None:
    assert cause(text) == (None if what is None else f"the status message contains {what}")


def test_trailers_are_searched() -> None:
    case = Case(
        method=features_schema().methods[0], phase="fuzzing", positive=True, requests=(b"",)
    )
    reply = Reply(status="INTERNAL", trailers=(("debug-bin", b"\x01panic: \xff"),))

    assert NO_INTERNAL_LEAK.run(case, reply, CONTEXT) == "debug-bin contains a Go stack trace"


def test_text_from_the_request_is_no_leak() -> None:
    assert cause("no order named KeyError: x", sent=b"\x0aKeyError: x") is None
