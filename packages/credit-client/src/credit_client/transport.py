"""The interface below the SDK: what an attempt of a call is, and how it ends.

`credit_client.grpc_transport` implements it with gRPC; tests may bring their own transport.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from credit_models import Receipt
from grpclib.const import Status

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Method(Generic[RequestT, ReplyT]):
    """One call of the contract.

    Attributes:
        path: Its path.
        request_type: The message that is sent.
        reply_type: The message, or each message, that is answered.
        writes: Whether the call changes something.
    """

    path: str
    request_type: type[RequestT]
    reply_type: type[ReplyT]
    writes: bool = False


class Answer(NamedTuple, Generic[ReplyT]):
    """The answer of a successful unary attempt.

    Attributes:
        reply: The message.
        receipt: The receipt of a write, as it was sent or already read; None without one.
    """

    reply: ReplyT
    receipt: bytes | Receipt | None


class AttemptFailed(Exception):
    """An attempt that did not succeed: the only error that a transport raises.

    Attributes:
        budget_tokens: How many tokens it takes from the retry budget.
        status: The server's status, or the one that gRPC prescribes for a transport's failure.
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
    """The answer, of the server or of something in its place, breaks the contract."""


class HandshakeFailed(AttemptFailed):
    """There is no safe connection, and another attempt would fail in the same way."""


class NotConnected(AttemptFailed):
    """There is no connection, and nothing was sent.

    It takes nothing from the retry budget, and does not count as an attempt: all calls wait for the
    same connection, and the transport itself waits longer and longer before it opens the next one.
    """

    budget_tokens = 0.0


class StreamBroken(AttemptFailed):
    """The stream that carried a write has ended without the write's outcome.

    The server may have executed the write, unless the details have the reason OVERLOADED: then the
    server drains the connection. It does not count as an attempt, because a call of its own would
    not have failed; the transport sends the next attempts in another way.
    """

    budget_tokens = 0.0


class ConnectionLost(AttemptFailed):
    """The connection ended before the answer arrived. The server may have executed the request.

    However many calls end with a connection, only the first takes a token from the retry budget:
    one crash is one failure of the server.
    """

    def __init__(self, status: Status, message: str, *, first: bool) -> None:
        super().__init__(status, message)
        self.budget_tokens = 1.0 if first else 0.0


class Transport(Protocol):
    """Sends attempts. The caller bounds their time and may cancel them at any moment.

    After a `NotConnected` the caller retries at once: the transport makes it wait.
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
        """Send one request and wait for its one answer.

        Args:
            method: The call.
            request: Its message.
            request_id: Sent as the metadata `x-request-id`.
            timeout_seconds: Sent to the server. The caller enforces it.
            metadata: Sent too, under names in lower case: the token, and the trace.
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
        """Send one request and yield the answers as they come; closing the generator ends it.

        Raises:
            AttemptFailed: There are no more good answers.
        """
        ...

    async def close(self) -> None:
        """End the connections and, with `AttemptFailed`, every attempt that is under way."""
        ...
