"""Call the servers with the SDK, and count how often a request was sent."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from random import Random
from typing import Any

from credit_client.call import Caller
from credit_client.grpc_transport import connect
from credit_client.settings import ClientSettings
from credit_client.target import Target
from credit_client.tracing import Tracing
from credit_client.transport import Answer, Method, ReplyT, RequestT, Transport

_CONNECT_SECONDS = 2.0
_HURRIED = tuple(
    ClientSettings(
        timeout_seconds=8.0,
        retry_attempts_max=attempts,
        retry_backoff_max_seconds=1.0,
        retry_budget_tokens=10,
    )
    for attempts in (8, 3, 1)
)
"""The settings of callers during the faults; each call takes one of them."""
_PATIENT = ClientSettings(timeout_seconds=600, retry_attempts_max=100, retry_budget_tokens=1000)
"""The settings after the faults, when each outcome must become certain."""

# This takes 3 ms to create.
_TRACING = Tracing(Target.parse(_PATIENT.target))


class _Counted:
    """Sends through another transport, and counts the attempts that may have reached a server."""

    def __init__(self, transport: Transport) -> None:
        self.sent = 0
        self._transport = transport

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
        def counted() -> None:
            self.sent += 1
            sending()

        return await self._transport.unary(
            method,
            request,
            request_id=request_id,
            timeout_seconds=timeout_seconds,
            metadata=metadata,
            sending=counted,
        )

    def stream(
        self,
        method: Method[RequestT, ReplyT],
        request: RequestT,
        *,
        request_id: str,
        metadata: Mapping[str, str],
    ) -> AsyncGenerator[ReplyT, None]:
        return self._transport.stream(method, request, request_id=request_id, metadata=metadata)

    async def close(self) -> None:
        """Leave the shared connections open."""


class Clients:
    """Connections to each server.

    Attributes:
        patient: Whether calls wait until the servers answer.
    """

    def __init__(self, transports: Sequence[Transport], random: Random) -> None:
        """Prepare, without connecting.

        Args:
            transports: The connections to each server.
            random: Chooses the settings of each call.
        """
        self.patient = False
        self._random = random
        self._transports = transports

    @property
    def count(self) -> int:
        """Return the number of servers."""
        return len(self._transports)

    # Any: the type of the answer depends on the call.
    async def ask(self, server: int, what: Callable[[Caller], Any]) -> tuple[Any, int]:
        """Call a server; return the answer, and how often the request was sent."""
        transport = _Counted(self._transports[server])
        return await what(self._caller(transport)), transport.sent

    def watching(self, server: int) -> Caller:
        """Return a caller for the watches of a server."""
        return self._caller(self._transports[server])

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(transport.close() for transport in self._transports))

    def _caller(self, transport: Transport) -> Caller:
        settings = _PATIENT if self.patient else self._random.choice(_HURRIED)
        return Caller(transport, settings, tracing=_TRACING)


def connected(addresses: Sequence[str], random: Random) -> Clients:
    """Return clients of servers, each at `host:port`; writes made together share a stream."""
    transports = [
        connect(
            Target.parse(address),
            channels=1,
            connect_timeout_seconds=_CONNECT_SECONDS,
            streams=True,
        )
        for address in addresses
    ]
    return Clients(transports, random)
