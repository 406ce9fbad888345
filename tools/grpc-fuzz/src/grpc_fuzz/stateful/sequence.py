"""A sequence of calls in the making, and the values that its next call may take up."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from grpc_fuzz.binding import write
from grpc_fuzz.conformance import judgeable
from grpc_fuzz.model import Binding, Case, Method, Reply
from grpc_fuzz.schema import Schema
from grpc_fuzz.settings import Link
from grpc_fuzz.stateful.links import Found, Slot, slots, values
from grpc_fuzz.strategies import requests

# A stream's first messages are as good as all.
_REQUESTS_MAX = 3
_RESPONSES_MAX = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """A value that the sequence has seen.

    Attributes:
        found: The value, and where in its message it was.
        call: The position of the call, from 0.
        response: The position of the response message; None: it was in the request.
    """

    found: Found
    call: int
    response: int | None


class CallSequence:
    """The calls made so far. One for each example that hypothesis makes."""

    def __init__(self, schema: Schema, declared: tuple[Link, ...]) -> None:
        self._schema = schema
        self._declared = declared
        self._calls: list[Case] = []
        self._known: list[Known] = []

    def draw(self, method: Method, data: DataObject) -> Case:
        """Draws the next call: a valid request, some of whose values earlier calls have seen."""
        drawn = data.draw(requests(self._schema, method), label="requests")
        sent, bindings = self._linked(method, drawn, data) if drawn else ((), ())
        return Case(
            method=method,
            phase="stateful",
            # Whether a stream may be empty, no constraint tells.
            positive=True if sent and judgeable(self._schema, method.input) else None,
            requests=sent,
            description="a call that takes up values of earlier calls",
            before=tuple(self._calls),
            bindings=bindings,
        )

    def _linked(
        self, method: Method, drawn: tuple[bytes, ...], data: DataObject
    ) -> tuple[tuple[bytes, ...], tuple[Binding, ...]]:
        """The requests, the first of which takes up values, and where it has them from."""
        first, *rest = drawn
        request = self._schema.parse(method.input, first)
        bindings: list[Binding] = []
        for slot in slots(method, self._declared):
            chosen = self._choose(slot, data)
            if chosen is not None:
                write(request, slot.path, chosen.found.value)
                bindings.extend(_binding(slot, chosen))
        linked = request.SerializePartialToString(deterministic=True)
        return (linked, *rest), tuple(bindings)

    def note(self, case: Case, reply: Reply) -> None:
        """Notes a call that was made, and what can be taken from it."""
        call = len(self._calls)
        self._calls.append(replace(case, before=()))
        for response, message in self._messages(case, reply):
            found = values(case.method, message, self._declared, response=response is not None)
            self._known.extend(Known(found=entry, call=call, response=response) for entry in found)

    def _choose(self, slot: Slot, data: DataObject) -> Known | None:
        broken_by = self._schema.constraint(slot.field).broken_by
        fitting: dict[int | str | bytes, Known] = {}
        for known in self._known:
            value = known.found.value
            if known.found.key in slot.keys and not broken_by(value) and _fits(slot, value):
                # Where it was seen first: who repeats an answer's value is not its source.
                fitting.setdefault(value, known)
        if not fitting:
            return None
        choice = st.none() | st.sampled_from(list(fitting.values()))
        return data.draw(choice, label=slot.path)

    def _messages(self, case: Case, reply: Reply) -> Iterator[tuple[int | None, Message]]:
        for request in case.requests[:_REQUESTS_MAX]:
            yield None, self._schema.parse(case.method.input, request)
        for position, octets in enumerate(reply.responses[:_RESPONSES_MAX]):
            try:
                yield position, self._schema.parse(case.method.output, octets)
            except DecodeError:
                # response_conforms has said so already.
                continue


def _fits(slot: Slot, value: int | str | bytes) -> bool:
    """Whether the field's type can hold the value at all."""
    try:
        setattr(_holder(slot), slot.field.name, value)
    except (TypeError, ValueError):
        return False
    return True


def _holder(slot: Slot) -> Message:
    return GetMessageClass(cast(Descriptor, slot.field.containing_type))()


def _binding(slot: Slot, known: Known) -> Iterator[Binding]:
    # A value of a request is the same when the sequence is played again.
    if known.response is not None:
        yield Binding(
            field=slot.path, call=known.call, response=known.response, source=known.found.path
        )
