"""Write calls and events to files of NDJSON, and read them again.

A message is recorded as its type and its bytes, so that it is read without changes. The other
fields of a line are readable: the caller, the time, and the kind of the answer.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import betterproto2
import credit_models
from credit_models import CreditTransaction, Receipt
from credit_models.codec import decode, encode
from credit_testing.accounts.journal import (
    Answer,
    Call,
    Kind,
    NoEffect,
    Question,
    Read,
    Together,
    Unforeseen,
    Unknown,
    Written,
)
from credit_testing.accounts.rules.decision import Refused

# Any, everywhere here: a line of JSON, or a message of any type.
Line = dict[str, Any]


class Recorder:
    """Appends lines to one file; each line is in the file at once."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def write(self, line: Line) -> None:
        """Append a line."""
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file; a last line that is incomplete is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def call_line(call: Call) -> Line:
    """Return the line of a call that has ended."""
    return {
        "client": call.client,
        "began": call.began,
        "ended": call.ended,
        "repeated": call.repeated,
        "question": _question_line(call.question),
        "answer": _answer_line(call.answer),
    }


def call_of(line: Line) -> Call:
    """Return the call of a line."""
    return Call(
        client=line["client"],
        question=_question_of(line["question"]),
        began=line["began"],
        ended=line["ended"],
        answer=_answer_of(line["answer"]),
        repeated=line["repeated"],
    )


def message_line(message: betterproto2.Message) -> Line:
    """Return the line of a message."""
    data = b64encode(encode(message)).decode()
    return {"type": type(message).__name__, "bytes": data}


def message_of(line: Line) -> Any:
    """Return the message of a line."""
    return decode(getattr(credit_models, line["type"]), b64decode(line["bytes"]))


def entry_of(line: Line) -> CreditTransaction:
    """Return the entry of a line."""
    entry = message_of(line)
    assert isinstance(entry, CreditTransaction)
    return entry


def _question_line(question: Question) -> Line:
    match question:
        case Written(request=request):
            return {"kind": "written", "requests": [message_line(request)]}
        case Together(requests=requests):
            return {"kind": "together", "requests": [message_line(one) for one in requests]}
        case Read(kind=kind, user_id=user, app_id=app, until=until):
            instant = until.isoformat() if until else None
            return {
                "kind": "read",
                "read": kind.value,
                "user": user,
                "app": app,
                "until": instant,
            }


def _question_of(line: Line) -> Question:
    match line["kind"]:
        case "written":
            (request,) = line["requests"]
            return Written(request=message_of(request))
        case "together":
            return Together(requests=tuple(map(message_of, line["requests"])))
        case _:
            until = line["until"] and datetime.fromisoformat(line["until"])
            kind = Kind(line["read"])
            return Read(kind=kind, user_id=line["user"], app_id=line["app"], until=until)


def _answer_line(answer: Answer) -> Line:
    match answer:
        case Receipt():
            return {"kind": "receipt", **message_line(answer)}
        case Refused(reason=reason, metadata=metadata):
            return {"kind": "refused", "reason": reason, "metadata": metadata}
        case Unknown():
            return {"kind": "unknown"}
        case NoEffect():
            return {"kind": "no effect"}
        case Unforeseen(error=error):
            return {"kind": "unforeseen", "error": error}
        case tuple():
            return {"kind": "together", "parts": [_answer_line(one) for one in answer]}
        case _:
            return {"kind": "shown", "messages": [message_line(one) for one in answer]}


def _answer_of(line: Line) -> Any:
    match line["kind"]:
        case "receipt":
            return message_of(line)
        case "refused":
            metadata = tuple((name, value) for name, value in line["metadata"])
            return Refused(line["reason"], metadata)
        case "unknown":
            return Unknown()
        case "no effect":
            return NoEffect()
        case "unforeseen":
            return Unforeseen(error=line["error"])
        case "together":
            return tuple(map(_answer_of, line["parts"]))
        case _:
            return [message_of(one) for one in line["messages"]]
