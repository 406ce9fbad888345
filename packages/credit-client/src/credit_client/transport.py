"""The seam below the SDK: what an attempt of a call is, and how it ends.

`credit_client.grpc_transport` is the one that talks gRPC; tests may bring their own.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from grpclib.const import Status

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Method(Generic[RequestT, ReplyT]):
    """One call of the contract."""

    path: str
    request_type: type[RequestT]
    reply_type: type[ReplyT]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[ReplyT]):
    """What a successful unary attempt brings: the message, and the serialized `Receipt` if any."""

    reply: ReplyT
    receipt: bytes | None


class AttemptFailed(Exception):
    """An attempt that did not succeed: the only error that a transport raises.

    Attributes:
        budget_tokens: What it takes from the retry budget.
        status: The server's status, or the one that gRPC prescribes for the transport's trouble.
        message: What happened, in a sentence.
        details: The messages of `google.rpc` that came with the status.
        request_id: The `x-request-id` that the server answered with, or None.
    """

    budget_tokens = 1.0

    def __init__(
        self,
        status: Status,
        message: str,
        *,
        details: Sequence[object] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = tuple(details)
        self.request_id = request_id


class AnswerBroken(AttemptFailed):
    """What the server, or something in its place, answered is not of the contract."""


class HandshakeFailed(AttemptFailed):
    """There is no safe connection, and another attempt would end in the same way."""


class NotConnected(AttemptFailed):
    """There is no connection, and nothing was sent.

    It takes nothing from the retry budget, and does not count as an attempt: all calls wait for the
    same connection, and the transport itself waits longer and longer before it tries to open it
    again.
    """

    budget_tokens = 0.0


class ConnectionLost(AttemptFailed):
    """The connection ended before the answer arrived. The server may have done what it was asked.

    Whatever number of calls a connection takes with it, only the first one takes a token from the
    retry budget: one crash is one failure of the server.
    """

    def __init__(
        self, status: Status, message: str, *, first: bool, request_id: str | None = None
    ) -> None:
        super().__init__(status, message, request_id=request_id)
        self.budget_tokens = 1.0 if first else 0.0


class Transport(Protocol):
    """Sends attempts. The caller bounds their time and may cancel them at any moment.

    After a `NotConnected` the caller comes back at once: the transport lets it wait.
    """

    async def unary(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        request_id: str,
        timeout_seconds: float,
        metadata: Mapping[str, str],
        sending: Callable[[], None],
    ) -> Answer[ReplyT]:
        """Sends one request and waits for its one answer.

        Args:
            method: The call.
            request: Its message.
            request_id: Sent as the metadata `x-request-id`.
            timeout_seconds: Told to the server; keeping to it is the caller's business.
            metadata: Sent too, under names in lower case: who calls, and which trace it is part of.
            sending: Called before the request's message is sent: until then the server cannot
                execute it.

        Raises:
            AttemptFailed: There is no good answer.
        """
        ...

    def stream(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[ReplyT, None]:
        """Sends one request and gives the answers as they come; closing the generator ends it.

        Raises:
            AttemptFailed: There are no more good answers.
        """
        ...

    async def close(self) -> None:
        """Ends the connections and, with `AttemptFailed`, every attempt that is under way."""
        ...
