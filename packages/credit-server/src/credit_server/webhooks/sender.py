"""Send one event to one webhook."""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpcore
import structlog
from credit_models.ledger import AlertEvent
from credit_models.timeouts import Timeout

from credit_server.store.webhooks import Webhook
from credit_server.webhooks.network import CheckedNetwork, HostNotAllowed, url_fault
from credit_server.webhooks.signature import headers_of

log = structlog.get_logger("credit_server.webhooks")

# The time of a whole attempt. Standard Webhooks recommends 15 to 30 seconds.
ATTEMPT_SECONDS = 20.0

# The body of an answer is read only so that the connection can be reused.
_ANSWER_BYTES_MAX = 64 * 1024

_TYPE = "alert.crossed"


class SendFailed(Exception):
    """The webhook has not acknowledged the event. The message has the reason, not the URL."""


def payload_of(event: AlertEvent) -> bytes:
    """Return the body of the message of an event."""
    crossed_at = event.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {
        "type": _TYPE,
        "timestamp": crossed_at,
        "data": {
            "id": event.id,
            "user_id": event.user_id,
            "app_id": event.app_id,
            "credits": event.alert.credits,
            "direction": event.alert.direction.name,
            "balance": event.balance,
            "transaction_id": event.transaction_id,
            "sequence": event.sequence,
        },
    }
    return json.dumps(message, separators=(",", ":")).encode()


class Sender:
    """Sends events. Connections are kept for the next event."""

    def __init__(
        self,
        *,
        allow_private: bool,
        attempt_seconds: float = ATTEMPT_SECONDS,
        ssl_context: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare to send.

        Args:
            allow_private: Whether private addresses are allowed.
            attempt_seconds: The time of a whole attempt.
            ssl_context: Checks the certificates; None: with the CAs of the system.
            wall: The clock of the signatures, in seconds since 1970.
        """
        self._allow_private = allow_private
        self._seconds = attempt_seconds
        self._wall = wall
        self._ssl_context = ssl_context
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def send(self, event: AlertEvent, webhook: Webhook) -> None:
        """Send an event. A 2xx status acknowledges it. Redirects are not followed.

        Raises:
            SendFailed: The webhook has not acknowledged it. No other error is raised.
        """
        try:
            pool = await self._opened()
            async with Timeout(self._seconds):
                status = await self._post(pool, event, webhook)
        except TimeoutError:
            raise SendFailed(f"no answer within {self._seconds:g} seconds") from None
        except (HostNotAllowed, SendFailed) as error:
            raise SendFailed(str(error)) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise SendFailed(f"{type(error).__name__}: {error}"[:200]) from None
        except OSError as error:  # such as the ssl.SSLError of a bad record after the handshake
            raise SendFailed(type(error).__name__) from None
        except Exception as error:
            log.exception("an event cannot be sent because of an unexpected error; it is retried")
            raise SendFailed(type(error).__name__) from error
        if not 200 <= status < 300:
            raise SendFailed(f"the answer has the status {status}")

    async def _post(
        self, pool: httpcore.AsyncConnectionPool, event: AlertEvent, webhook: Webhook
    ) -> int:
        url = webhook.url
        # The operator may have forbidden such URLs after the webhook was set.
        if not self._allow_private and (fault := url_fault(url)):
            raise SendFailed(f"the URL {fault}")
        body = payload_of(event)
        headers = {
            "content-type": "application/json",
            "user-agent": "credit-server",
            **headers_of(event.id, int(self._wall()), body, webhook.secret),
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        read = 0
        async with pool.stream("POST", url, headers=pairs, content=body) as answer:
            async for part in answer.aiter_stream():
                read += len(part)
                if read > _ANSWER_BYTES_MAX:
                    break
            return int(answer.status)

    async def _opened(self) -> httpcore.AsyncConnectionPool:
        """Return the pool of connections, which the first event creates.

        A server without webhooks saves 70 ms of CPU time: 30 ms to load the CA certificates, and
        40 ms for the modules that are imported when the pool is closed.
        """
        if self._pool is None:
            # In a thread, so that other calls do not wait for it.
            context = self._ssl_context or await asyncio.to_thread(ssl.create_default_context)
            self._pool = self._pool or httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=64,  # as many as the dispatcher sends at once
                max_keepalive_connections=32,
                keepalive_expiry=30.0,
                network_backend=CheckedNetwork(allow_private=self._allow_private),
            )
        return self._pool
