"""Leaks are recognised, and prose is not taken for one."""

import pytest
from grpc_fuzz.checks.leaks import NO_INTERNAL_LEAK
from grpc_fuzz.model import Case, Context, Finding, Reply

from tests.grpc_fuzz.protocols import features

CONTEXT = Context(schema=features(), send=lambda case: Reply(status="OK"))


def cause(text: str, *, sent: bytes = b"") -> str | Finding | None:
    case = Case(method=features().methods[0], phase="fuzzing", positive=True, requests=(sent,))
    return NO_INTERNAL_LEAK.run(case, Reply(status="INTERNAL", message=text), CONTEXT)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('Traceback (most recent call last):\n  File "a.py", line 3', "a Python traceback"),
        ("at com.shop.Order.put(Order.java:12)", "a Java stack trace"),
        ("panic: nil map", "a Go stack trace"),
        ("thread 'main' panicked at src/main.rs", "a Rust panic"),
        ("at put (order.js:1:2)", "a JavaScript stack trace"),
        ("cannot open /srv/shop/orders.db", "a path of the server's"),
        (r"cannot open C:\shop", "a path of the server's"),
        ("failed in orders.py:17", "a source location"),
        ("<class 'int'> is wrong", "an object's address"),
        ("<shop.orders.Order object", "an object's address"),
        ("KeyError: 'a'", "the name of an exception class"),
        ("pymongo.errors.AutoReconnect", "the name of an exception class"),
        ("java.lang.NullPointerException: null", "the name of an exception class"),
        ("E11000 duplicate key", "a database's message"),
        ("user_id must be 1 to 4294967295, got 0", None),
        ("Error: no such order", None),
        ("the rate is 5/s, see /docs", None),
        ("at least 3 items", None),
        ("there were errors. Mend them", None),
    ],
)
def test_a_message_is_judged_by_what_it_shows(text: str, what: str | None) -> None:
    assert cause(text) == (None if what is None else f"the status message contains {what}")


def test_trailers_are_searched_too() -> None:
    case = Case(method=features().methods[0], phase="fuzzing", positive=True, requests=(b"",))
    reply = Reply(status="INTERNAL", trailers=(("debug-bin", b"\x01panic: \xff"),))

    assert NO_INTERNAL_LEAK.run(case, reply, CONTEXT) == "debug-bin contains a Go stack trace"


def test_what_the_request_said_itself_is_no_leak() -> None:
    assert cause("no order named KeyError: x", sent=b"\x0aKeyError: x") is None
