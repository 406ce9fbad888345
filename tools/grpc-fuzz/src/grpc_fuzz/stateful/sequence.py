"""A growing sequence of calls, with the values that its next call may take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from grpc_fuzz.conformance import can_be_judged
from grpc_fuzz.model import Binding, Case, Method, Reply
from grpc_fuzz.schema import Schema
from grpc_fuzz.settings import Link
from grpc_fuzz.stateful.bindings import write
from grpc_fuzz.stateful.links import LinkSource, LinkTarget, sources, targets
from grpc_fuzz.strategies import requests

# The first messages represent all messages of a stream.
_REQUESTS_MAX = 3
_RESPONSES_MAX = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenValue:
    """A value of an earlier call.

    Attributes:
        source: The value and its place in its message.
        call: The position of the call, from 0.
        response: The position of the response message; None if the value was in the request.
    """

    source: LinkSource
    call: int
    response: int | None


class CallSequence:
    """The calls of one sequence so far. Each example of hypothesis has its own."""

    def __init__(self, schema: Schema, declared: tuple[Link, ...]) -> None:
        self._schema = schema
        self._declared = declared
        self._calls: list[Case] = []
        self._seen: list[SeenValue] = []

    def draw(self, method: Method, data: DataObject) -> Case:
        """Draw the next call: a valid request that takes some values of earlier calls."""
        drawn = data.draw(requests(self._schema, method), label="requests")
        sent, bindings = self._linked(method, drawn, data) if drawn else ((), ())
        return Case(
            method=method,
            phase="stateful",
            # No constraint defines whether a stream may be empty.
            positive=True if sent and can_be_judged(self._schema, method.input) else None,
            requests=sent,
            description="a call that takes values of earlier calls",
            before=tuple(self._calls),
            bindings=bindings,
        )

    def _linked(
        self, method: Method, drawn: tuple[bytes, ...], data: DataObject
    ) -> tuple[tuple[bytes, ...], tuple[Binding, ...]]:
        """Return the requests, the first with values of earlier calls, and their bindings."""
        first, *rest = drawn
        request = self._schema.parse(method.input, first)
        bindings: list[Binding] = []
        for target in targets(method, self._declared):
            chosen = self._choose(target, data)
            if chosen is not None:
                write(request, target.path, chosen.source.value)
                bindings.extend(_binding(target, chosen))
        linked = request.SerializePartialToString(deterministic=True)
        return (linked, *rest), tuple(bindings)

    def add(self, case: Case, reply: Reply) -> None:
        """Add a call that was made, and the values that later calls may take from it."""
        call = len(self._calls)
        self._calls.append(replace(case, before=()))
        for response, message in self._messages(case, reply):
            found = sources(case.method, message, self._declared, response=response is not None)
            self._seen.extend(
                SeenValue(source=source, call=call, response=response) for source in found
            )

    def _choose(self, target: LinkTarget, data: DataObject) -> SeenValue | None:
        broken_by = self._schema.constraint(target.field).broken_by
        fitting: dict[int | str | bytes, SeenValue] = {}
        for seen in self._seen:
            value = seen.source.value
            if seen.source.key in target.keys and not broken_by(value) and _fits(target, value):
                # Where it was seen first: a request that repeats the value is not its source.
                fitting.setdefault(value, seen)
        if not fitting:
            return None
        choice = st.none() | st.sampled_from(list(fitting.values()))
        return data.draw(choice, label=target.path)

    def _messages(self, case: Case, reply: Reply) -> Iterator[tuple[int | None, Message]]:
        for request in case.requests[:_REQUESTS_MAX]:
            yield None, self._schema.parse(case.method.input, request)
        for position, octets in enumerate(reply.responses[:_RESPONSES_MAX]):
            try:
                yield position, self._schema.parse(case.method.output, octets)
            except DecodeError:
                # response_conforms reports it.
                continue


def _fits(target: LinkTarget, value: int | str | bytes) -> bool:
    """Return whether the field's type can hold the value."""
    try:
        holder = GetMessageClass(cast(Descriptor, target.field.containing_type))()
        setattr(holder, target.field.name, value)
    except (TypeError, ValueError):
        return False
    return True


def _binding(target: LinkTarget, seen: SeenValue) -> Iterator[Binding]:
    # A value of a request is the same when the sequence is sent again.
    if seen.response is not None:
        yield Binding(
            field=target.path, call=seen.call, response=seen.response, source=seen.source.path
        )
