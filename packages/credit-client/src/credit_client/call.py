"""The one way of every call: check, deadline, attempts, waits, and the error in the end."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from credit_models import UserId
from grpclib.const import Status

from credit_client.bearer import Bearer
from credit_client.correlation import current_request_id
from credit_client.errors import (
    ClientClosed,
    CreditError,
    DeadlineExceeded,
    IdempotencyKeyReused,
    Outcome,
)
from credit_client.home import Home
from credit_client.listing import Listing, RowT
from credit_client.outcome import outcome_of
from credit_client.refusal import error_of, retry_after_seconds
from credit_client.request import RequestT, build
from credit_client.retry import Backoff, RetryBudget, is_retryable
from credit_client.scope import Scope
from credit_client.settings import TIMEOUT_SECONDS_MAX, ClientSettings
from credit_client.target import Target
from credit_client.tracing import CallSpan, Tracing
from credit_client.transport import Answer, AttemptFailed, Method, NotConnected, ReplyT, Transport

Values = Mapping[str, int | str | None]


@dataclass(kw_only=True, slots=True)
class _Call:
    """One call with all its attempts."""

    timeout_seconds: float
    deadline: float  # by the caller's clock, in seconds
    request_id: str
    span: CallSpan
    writes: bool = False
    outcome: Outcome = Outcome.NO_CHANGE  # of the latest attempt; unknown once it is sent
    earlier_unknown: bool = False  # whether the outcome of an attempt before it is unknown
    failure: AttemptFailed | None = None  # the latest
    attempts: int = 0
    waits_for_token: bool = False
    # What must not be shown where somebody prints the call.
    token: str | None = field(default=None, repr=False)
    token_rejected: str | None = field(default=None, repr=False)

    def begin_attempt(self) -> None:
        """Note that the latest attempt is now one of the earlier ones."""
        self.earlier_unknown |= self.outcome is Outcome.UNKNOWN
        self.outcome = Outcome.NO_CHANGE

    def sending(self) -> None:
        """Note that from now on the server may execute the latest attempt."""
        self.outcome = Outcome.UNKNOWN

    def failed(self, failure: AttemptFailed) -> None:
        """Note how the latest attempt has failed."""
        self.failure = failure
        if self.outcome is Outcome.UNKNOWN:
            self.outcome = outcome_of(failure)


class Caller:
    """Makes the calls of one open client.

    An attempt has all the time that its call has left. A failure that may pass is repeated after a
    wait, with the same request id and the same request (so also the same idempotency key), while
    attempts, time and the retry budget last; otherwise the latest failure becomes the call's error.
    While there is no connection nothing is sent, and the call waits for as long as it has time.
    A token that the server rejects is got anew once, and the call repeated if it is another one.
    """

    def __init__(
        self,
        transport: Transport,
        settings: ClientSettings,
        *,
        bearer: Bearer | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.home = Home()
        self._transport = transport
        self._bearer = bearer
        self._tracing = tracing or Tracing(Target.parse(settings.target))
        self._timeout_seconds = settings.timeout_seconds
        self._attempts_max = settings.retry_attempts_max
        self._waits_for_ready = settings.wait_for_ready and settings.retry_attempts_max > 1
        self._backoff = Backoff(
            initial_seconds=settings.retry_backoff_initial_seconds,
            max_seconds=settings.retry_backoff_max_seconds,
        )
        self._budget = RetryBudget(
            tokens_max=settings.retry_budget_tokens, ratio=settings.retry_budget_ratio
        )
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._scopes: set[Scope] = set()

    async def unary(
        self,
        method: Method[RequestT, ReplyT],
        values: Values,
        *,
        timeout_seconds: float | None = None,
    ) -> tuple[Answer[ReplyT], str]:
        """Makes a call with one answer.

        Args:
            method: Which call.
            values: The fields of its request.
            timeout_seconds: The time for all attempts together; None for the client's.

        Returns:
            The answer, and the id of the request that got it.

        Raises:
            CreditError: The call did not succeed.
            TypeError: A value has the wrong type.
            ValueError: The timeout is not above 0 and at most a day.
        """
        request = build(method.request_type, values)
        call = self._begin(method.path, self._seconds(timeout_seconds))
        call.writes = "idempotency_key" in values
        with _observed(call), self._closable() as scope, scope:
            while True:
                try:
                    async with asyncio.timeout(self._time_left(call)) as limit:
                        call.begin_attempt()
                        metadata = await self._metadata(call)
                        answer = await self._transport.unary(
                            method,
                            request,
                            request_id=call.request_id,
                            timeout_seconds=self._time_left(call),
                            metadata=metadata,
                            sending=call.sending,
                        )
                except TimeoutError:
                    if not limit.expired():
                        raise  # of something else, that failed
                    raise _too_late(call) from call.failure
                except AttemptFailed as failure:
                    await self._wait_or_raise(call, failure)
                else:
                    self._budget.succeeded()
                    return answer, call.request_id

    def stream(
        self,
        method: Method[UserId, RowT],
        values: Values,
        *,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[RowT, None]:
        """Makes a call with many answers, and holds no more than one of them.

        A list that breaks off is continued after its last row: when the server ends it at a time
        limit of its own, and after any failure that may be retried. Each row sets the count of
        attempts back.

        Args:
            method: Which list.
            values: The fields of its request.
            timeout_seconds: The time for the first row, with all attempts, and again for each next
                one; None for the client's. The whole list may take as long as its reader takes.

        Raises:
            CreditError: The request is refused here; the generator raises what comes later.
            TypeError: A value has the wrong type.
            ValueError: The timeout is not above 0 and at most a day.
        """
        listing = Listing(method, build(method.request_type, values))
        seconds = self._seconds(timeout_seconds)
        # Asked for here: the generator runs wherever its reader is.
        return self._rows(listing, seconds, current_request_id())

    def close(self) -> None:
        """Ends every call that is under way with `ClientClosed`."""
        for scope in list(self._scopes):
            scope.cancel(ClientClosed("the client was closed during the call"))
        if self._bearer is not None:
            self._bearer.close()

    async def _rows(
        self, listing: Listing[RowT], timeout_seconds: float, request_id: str
    ) -> AsyncGenerator[RowT, None]:
        call = self._begin(listing.method.path, timeout_seconds, request_id)
        with _observed(call), self._closable() as scope:
            try:
                while True:
                    with scope:
                        row = await self._next_row(call, listing)
                    if row is None:
                        return
                    yield row
                    call.deadline = self._clock() + call.timeout_seconds
            finally:
                self.home.check()  # in another event loop the stream must not be closed
                await listing.close()

    async def _next_row(self, call: _Call, listing: Listing[RowT]) -> RowT | None:
        while True:
            try:
                async with asyncio.timeout(self._time_left(call)) as limit:
                    if not listing.is_open:
                        metadata = await self._metadata(call)
                        listing.open(self._transport, request_id=call.request_id, metadata=metadata)
                    row = await listing.message()
                wanted = row is None or listing.takes(row)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise _too_late(call) from call.failure
            except AttemptFailed as failure:
                await self._continue_or_raise(call, listing, failure)
                continue
            if wanted:
                if listing.rows == (0 if row is None else 1):  # the attempt's first answer
                    self._budget.succeeded()
                call.failure = call.token_rejected = None
                call.attempts = 0
                return row
            # A server of an older version starts at the first row again.
            call.deadline = self._clock() + call.timeout_seconds

    async def _continue_or_raise(
        self, call: _Call, listing: Listing[RowT], failure: AttemptFailed
    ) -> None:
        if not listing.can_continue:
            raise error_of(failure, request_id=call.request_id) from failure
        if failure.status is Status.DEADLINE_EXCEEDED and listing.rows:
            # The client sets no time limit for a list: this is the server's own, and no failure.
            call.span.repeated(failure, attempts=1, wait_seconds=0.0)
            return
        await self._wait_or_raise(call, failure)

    def _seconds(self, timeout_seconds: float | None) -> float:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        if not 0 < seconds <= TIMEOUT_SECONDS_MAX:
            raise ValueError(
                f"timeout_seconds must be above 0, at most {TIMEOUT_SECONDS_MAX:g}, not {seconds}"
            )
        return seconds

    def _begin(self, path: str, timeout_seconds: float, request_id: str | None = None) -> _Call:
        return _Call(
            timeout_seconds=timeout_seconds,
            deadline=self._clock() + timeout_seconds,
            request_id=request_id or current_request_id(),
            span=self._tracing.begin(path),
        )

    async def _metadata(self, call: _Call) -> Mapping[str, str]:
        if self._bearer is None:
            return call.span.metadata
        call.waits_for_token = True
        call.token = await self._bearer.token()
        call.waits_for_token = False
        if call.token == call.token_rejected and call.failure is not None:
            raise error_of(call.failure, request_id=call.request_id) from call.failure
        return {**call.span.metadata, "authorization": f"Bearer {call.token}"}

    @contextmanager
    def _closable(self) -> Iterator[Scope]:
        scope = Scope(self.home.check)
        self._scopes.add(scope)
        try:
            yield scope
        finally:
            self._scopes.discard(scope)

    def _time_left(self, call: _Call) -> float:
        return max(0.0, call.deadline - self._clock())

    async def _wait_or_raise(self, call: _Call, failure: AttemptFailed) -> None:
        call.failed(failure)
        if isinstance(failure, NotConnected) and self._waits_for_ready:
            await self._wait_for_connection(call, failure)
            return
        call.attempts += 1
        if self._may_get_another_token(call, failure):
            call.span.repeated(failure, attempts=call.attempts, wait_seconds=0.0)
            return
        # The order matters: every failure that may pass is charged to the budget.
        repeat = (
            is_retryable(failure)
            and self._budget.failed(failure.budget_tokens)
            and call.attempts < self._attempts_max
        )
        wait_seconds = self._backoff.wait_seconds(
            attempts=call.attempts,
            minimum_seconds=retry_after_seconds(failure),
            draw=self._draw,
        )
        # A wait past the deadline would only hide what went wrong behind DEADLINE_EXCEEDED.
        if not repeat or wait_seconds >= self._time_left(call):
            raise error_of(failure, request_id=call.request_id) from failure
        call.span.repeated(failure, attempts=call.attempts, wait_seconds=wait_seconds)
        await self._sleep(wait_seconds)

    async def _wait_for_connection(self, call: _Call, failure: NotConnected) -> None:
        """Let the call come back: the transport holds it until it tries the next connection.

        Raises:
            DeadlineExceeded: The call has no time left.
        """
        if self._time_left(call) <= 0:
            raise _too_late(call) from failure
        call.span.repeated(failure, attempts=call.attempts, wait_seconds=0.0)
        # A transport that fails at once must not keep the event loop from everything else.
        await asyncio.sleep(0)

    def _may_get_another_token(self, call: _Call, failure: AttemptFailed) -> bool:
        if failure.status is not Status.UNAUTHENTICATED or self._bearer is None:
            return False
        if call.token is None or call.token_rejected is not None:
            return False
        call.token_rejected = call.token
        self._bearer.reject(call.token)
        return True


@contextmanager
def _observed(call: _Call) -> Iterator[None]:
    """End the call's span with the call's result. Name the call and its outcome in its error."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, CreditError):
            error.request_id = error.request_id or call.request_id
            _name_outcome(call, error)
        call.span.end(error)
        raise
    call.span.end(None)


def _name_outcome(call: _Call, error: CreditError) -> None:
    error.outcome = Outcome.NO_CHANGE
    if not call.writes:
        return
    clause = "no change was made"
    if call.outcome is Outcome.UNKNOWN:
        error.outcome, clause = Outcome.UNKNOWN, "the write may have taken effect"
    elif call.earlier_unknown and not isinstance(error, IdempotencyKeyReused):
        # A refusal proves that the earlier attempt had not taken effect by then. It may still be on
        # its way to another server, and take effect once there are credits, say. Only a key that
        # belongs to another request rejects it for good.
        error.outcome, clause = Outcome.UNKNOWN, "an earlier attempt may have taken effect"
    elif "nothing happened" in error.message or clause in error.message:
        return
    error.message = f"{error.message}; {clause}"
    error.args = (error.message,)


def _too_late(call: _Call) -> DeadlineExceeded:
    awaited = "token" if call.waits_for_token else "answer"
    if isinstance(call.failure, NotConnected):
        awaited = "connection"
    message = f"no {awaited} within {call.timeout_seconds:g} s"
    if call.failure is not None:
        # Its first clause: what the server advises after that is for who gets this failure alone.
        message += f"; before that: {call.failure.message.partition(';')[0]}"
    return DeadlineExceeded(message, request_id=call.request_id)
