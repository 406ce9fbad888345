"""The path of every call: check, deadline, attempts, waits, and the error in the end."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import betterproto2
from credit_models import UserId, WatchRequest
from credit_models import WatchResponse as WatchEvent
from credit_models.timeouts import Timeout
from grpclib.const import Status

from credit_client.bearer import Bearer
from credit_client.directory import Directory, Name, build_named
from credit_client.effect import Effect, ReadEffect, WriteEffect
from credit_client.errors import (
    ClientClosed,
    CreditError,
    DeadlineExceeded,
)
from credit_client.listing import Listing, RowT
from credit_client.methods import BATCH_WRITE, WATCH
from credit_client.operation import Messages
from credit_client.refusal import error_of, retry_after_seconds
from credit_client.request import RequestT, Values, build, current_request_id
from credit_client.retry import Backoff, RetryBudget, is_retryable
from credit_client.scope import Home, Scope
from credit_client.settings import TIMEOUT_SECONDS_MAX, ClientSettings
from credit_client.target import Target
from credit_client.tracing import CallSpan, Tracing
from credit_client.transport import (
    Answer,
    AttemptFailed,
    Method,
    NotConnected,
    ReplyT,
    StreamBroken,
    Transport,
)
from credit_client.transport import RequestT as SentT
from credit_client.watching import SilentStream, Watching

_LEAST_SECONDS = 0.001

_MessageT = TypeVar("_MessageT")


@dataclass(kw_only=True, slots=True)
class _Call:
    """One call with all its attempts.

    Attributes:
        path: The method's path.
        timeout_seconds: The time of the call; for a list, of each row.
        effect: What the attempts have done to the ledger.
        request_id: Sent with each attempt.
        deadline: When the call times out, in seconds of the caller's clock; 0: not set yet.
        span: The call's trace. It begins, as the deadline does, when the call is under way.
        failure: Why the latest attempt has failed.
        attempts: How many attempts have failed.
        waits_for_token: Whether the call waits for a token and not for an answer.
        token: The token of the latest attempt. No repr shows it.
        token_rejected: The token that the server has rejected. No repr shows it.
    """

    path: str
    timeout_seconds: float
    effect: Effect
    request_id: str = field(default_factory=current_request_id)
    deadline: float = 0.0
    span: CallSpan = field(init=False)
    failure: AttemptFailed | None = None
    attempts: int = 0
    waits_for_token: bool = False
    token: str | None = field(default=None, repr=False)
    token_rejected: str | None = field(default=None, repr=False)


class Caller:
    """Makes the calls of one open client.

    An attempt has all the time that its call has left. A failure that may pass is retried after a
    wait, with the same request id and the same request (so also the same idempotency key), while
    attempts, time and the retry budget last; otherwise the latest failure becomes the call's error.
    While there is no connection nothing is sent, and the call waits for as long as it has time.
    After a token is rejected, a new one is fetched once. The call is retried if it is another one.

    Attributes:
        home: Where the client was opened.
        directory: Looks up the users that requests name by text.
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
        self.directory = Directory(
            lambda method, values, seconds: self.unary(method, values, timeout_seconds=seconds)
        )
        self._users_app_id = settings.users_app_id
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
        """Make a call with one answer.

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
        if isinstance(values.get("user_id"), str) or isinstance(values.get("to_user_id"), str):
            request, names = build_named(method.request_type, values, self._users_app_id)
            timeout_seconds = await self.set_numbers(request, names, timeout_seconds)
        else:
            request = build(method.request_type, values)
        writes = method.writes and not values.get("validate_only")
        call = _Call(
            path=method.path,
            timeout_seconds=self._seconds(timeout_seconds),
            effect=WriteEffect() if writes else ReadEffect(),
        )
        with self._under_way(call) as scope, scope:
            return await self._answer(call, method, request), call.request_id

    async def user_number(
        self,
        method: Method[Any, Any],  # Any: the messages of any call
        values: Values,
        timeout_seconds: float | None = None,
    ) -> tuple[int | None, float | None]:
        """Return the number of the user that the values of a request name, and the time left.

        Args:
            method: Which call.
            values: The fields of its request.
            timeout_seconds: The time for this and the call; None for the client's.

        Returns:
            The number, None if the values name no user; and the time that the call has left, None
            for the client's.

        Raises:
            CreditError: The request is rejected, or the number cannot be resolved.
        """
        request, names = build_named(method.request_type, values, self._users_app_id)
        left = await self.set_numbers(request, names, timeout_seconds)
        return request.user_id, left

    async def batch(self, messages: Messages, *, timeout_seconds: float | None = None) -> None:
        """Send operations until each has its outcome.

        Operations whose failure may pass are sent again, as a call is, while attempts, time and the
        retry budget last. A message that settles at least one operation resets the attempts.

        Args:
            messages: Makes the messages, and takes the answers.
            timeout_seconds: The time for all messages together; None for the client's.

        Raises:
            CreditError: Operations are left without a final outcome.
            ValueError: The timeout is not above 0 and at most a day.
        """
        call = _Call(
            path=BATCH_WRITE.path,
            timeout_seconds=self._seconds(timeout_seconds),
            effect=messages,
        )
        with self._under_way(call) as scope, scope:
            while True:
                answer = await self._answer(call, BATCH_WRITE, messages.next_message())
                progress = messages.settle(answer.reply, call.request_id)
                if progress.failure is None:
                    return
                if progress.settled:
                    call.attempts = 0
                call.failure = progress.failure
                await self._wait_or_raise(call, progress.failure)

    def stream(
        self,
        method: Method[UserId, RowT],
        values: Values,
        *,
        timeout_seconds: float | None = None,
        on_number: Callable[[int], object] = lambda _: None,
    ) -> AsyncGenerator[RowT, None]:
        """Make a call with many answers, and hold no more than one of them.

        A list that breaks off is continued after its last row: when the server ends it at a time
        limit of its own, and after any failure that may be retried. Each row resets the count of
        attempts.

        Args:
            method: Which list.
            values: The fields of its request.
            timeout_seconds: The limit for the first row, including all attempts and the look-up of
                the user, and the limit for each later row; None for the client's. There is no limit
                for the whole list.
            on_number: Receives the number of the user before the first row.

        Raises:
            CreditError: The client rejects the request. The generator raises later errors.
            TypeError: A value has the wrong type.
            ValueError: The timeout is not above 0 and at most a day.
        """
        request, names = build_named(method.request_type, values, self._users_app_id)
        # `_Call` takes the request id from the current context, so it is created here: the
        # generator runs in the context of its reader.
        call = _Call(
            path=method.path,
            timeout_seconds=self._seconds(timeout_seconds),
            effect=ReadEffect(),
        )
        rows = self._rows(Listing(method, request), call)
        if names:
            return self._of_named(rows, request, names, call, on_number)
        on_number(request.user_id)
        return rows

    async def set_numbers(
        self,
        request: betterproto2.Message,
        names: Sequence[Name],
        timeout_seconds: float | None,
    ) -> float | None:
        """Set the numbers of the users that a request names by text.

        Args:
            request: The request.
            names: The users.
            timeout_seconds: The time of the call; None for the client's.

        Returns:
            The time that the call has left.

        Raises:
            CreditError: A number cannot be had. The request was not sent.
        """
        for name in names:
            number = self.directory.known(name)
            if number is None:
                time_left = self.countdown(timeout_seconds)
                number = await self.directory.number(name, timeout_seconds)
                timeout_seconds = time_left()
            setattr(request, name.field, number)
        return timeout_seconds

    def countdown(self, timeout_seconds: float | None) -> Callable[[], float]:
        """Return a function that returns the remaining time in seconds.

        The function never returns 0 or less, because a timeout of 0 is a ValueError. When no time
        remains, it returns a very short timeout, with which the next call exceeds its deadline.

        Args:
            timeout_seconds: The time from now on; None for the client's.

        Raises:
            ValueError: The timeout is not above 0 and at most a day.
        """
        deadline = self._clock() + self._seconds(timeout_seconds)
        return lambda: max(_LEAST_SECONDS, deadline - self._clock())

    async def _of_named(
        self,
        messages: AsyncGenerator[_MessageT, None],
        request: Any,  # the message of any list
        names: Sequence[Name],
        call: _Call,
        on_number: Callable[[int], object] = lambda _: None,
    ) -> AsyncGenerator[_MessageT, None]:
        call.deadline = self._clock() + call.timeout_seconds
        async with aclosing(messages):
            await self.set_numbers(request, names, call.timeout_seconds)
            on_number(request.user_id)
            async for message in messages:
                yield message

    def watch(self, values: Values, *, progress: bool) -> AsyncGenerator[WatchEvent, None]:
        """Watch until the caller stops, and reconnect forever after the first event.

        Before the first event, a failure is treated like that of any other call.

        Args:
            values: The fields of the request.
            progress: Whether to yield events with only a token.

        Raises:
            CreditError: The client rejects the request. The generator raises later errors.
            TypeError: A value has the wrong type.
        """
        request, names = build_named(WatchRequest, values, self._users_app_id)
        call = _Call(path=WATCH.path, timeout_seconds=self._timeout_seconds, effect=ReadEffect())
        events = self._events(Watching(request), call, progress=progress)
        return self._of_named(events, request, names, call) if names else events

    async def _answer(
        self, call: _Call, method: Method[SentT, ReplyT], request: SentT
    ) -> Answer[ReplyT]:
        while True:
            try:
                async with Timeout(self._time_left(call)) as limit:
                    if call.failure is not None:
                        call.effect.begin_attempt()
                    metadata = call.span.metadata
                    if self._bearer is not None:
                        metadata = await self._metadata(call)
                    answer = await self._transport.unary(
                        method,
                        request,
                        request_id=call.request_id,
                        timeout_seconds=self._time_left(call),
                        metadata=metadata,
                        sending=call.effect.sending,
                    )
            except TimeoutError:
                if not limit.expired():
                    raise  # not this timeout: a bug of the transport
                raise _too_late(call) from call.failure
            except AttemptFailed as failure:
                await self._failed(call, failure)
            else:
                self._budget.succeeded()
                return answer

    def close(self) -> None:
        """End every call that is under way with `ClientClosed`."""
        for scope in list(self._scopes):
            scope.cancel(ClientClosed("the client was closed during the call"))
        if self._bearer is not None:
            self._bearer.close()

    async def _rows(self, listing: Listing[RowT], call: _Call) -> AsyncGenerator[RowT, None]:
        with self._under_way(call) as scope:
            try:
                while True:
                    self.home.check()
                    with scope:
                        row = await self._next_row(call, listing)
                    if row is None:
                        return
                    yield row
                    self._restart_deadline(call)
            finally:
                self.home.check()  # in another event loop the stream must not be closed
                await listing.close()

    async def _next_row(self, call: _Call, listing: Listing[RowT]) -> RowT | None:
        while True:
            try:
                async with Timeout(self._time_left(call)) as limit:
                    if not listing.is_open:
                        metadata = await self._metadata(call)
                        listing.open(self._transport, request_id=call.request_id, metadata=metadata)
                    row = await listing.message()
                wanted = row is None or listing.accept(row)
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
            self._restart_deadline(call)

    async def _continue_or_raise(
        self, call: _Call, listing: Listing[RowT], failure: AttemptFailed
    ) -> None:
        if not listing.can_continue:
            raise _error(call, failure) from failure
        if failure.status is Status.DEADLINE_EXCEEDED and listing.rows:
            # The client sends no time limit for a list: this is the server's own, and no failure.
            call.span.retried(failure, attempts=1, wait_seconds=0.0)
            return
        await self._failed(call, failure)

    async def _events(
        self, watching: Watching, call: _Call, *, progress: bool
    ) -> AsyncGenerator[WatchEvent, None]:
        with self._under_way(call) as scope:
            try:
                while True:
                    self.home.check()
                    with scope:
                        event = await self._next_event(call, watching)
                    if event is None:
                        return
                    if progress or event.transaction is not None or event.snapshot is not None:
                        yield event
            finally:
                self.home.check()  # in another event loop the stream must not be closed
                await watching.close()

    async def _next_event(self, call: _Call, watching: Watching) -> WatchEvent | None:
        while True:
            seconds = watching.silence_seconds if watching.begun else self._time_left(call)
            try:
                async with Timeout(seconds) as limit:
                    if not watching.is_open:
                        metadata = await self._metadata(call)
                        watching.open(
                            self._transport, request_id=call.request_id, metadata=metadata
                        )
                    event = await watching.event()
            except TimeoutError:
                if not limit.expired():
                    raise
                if not watching.begun:
                    raise _too_late(call) from call.failure
                await watching.close()
                await self._reconnect(call, watching, SilentStream(seconds))
            except AttemptFailed as failure:
                await self._reconnect(call, watching, failure)
            else:
                if watching.events == 1:
                    self._budget.succeeded()
                call.failure = call.token_rejected = None
                call.attempts = 0
                return event

    async def _reconnect(self, call: _Call, watching: Watching, failure: AttemptFailed) -> None:
        """Return when the next attempt of a watch may begin. Its retries take no retry budget."""
        if not watching.begun:
            await self._failed(call, failure)
            return
        call.failure = failure
        if failure.status is Status.DEADLINE_EXCEEDED and watching.events:
            # The client sends no time limit: this is the server's own, and no failure.
            call.span.retried(failure, attempts=1, wait_seconds=0.0)
            return
        if isinstance(failure, NotConnected):
            call.span.retried(failure, attempts=call.attempts, wait_seconds=0.0)
            await asyncio.sleep(0)  # the transport holds the next attempt until it reconnects
            return
        call.attempts += 1
        if self._reject_token(call, failure):
            call.span.retried(failure, attempts=call.attempts, wait_seconds=0.0)
            return
        if not is_retryable(failure):
            raise _error(call, failure) from failure
        wait_seconds = self._backoff.wait_seconds(
            attempts=call.attempts,
            minimum_seconds=retry_after_seconds(failure),
            draw=self._draw,
        )
        call.span.retried(failure, attempts=call.attempts, wait_seconds=wait_seconds)
        await self._sleep(wait_seconds)

    def _seconds(self, timeout_seconds: float | None) -> float:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        if not 0 < seconds <= TIMEOUT_SECONDS_MAX:
            raise ValueError(
                f"timeout_seconds must be above 0, at most {TIMEOUT_SECONDS_MAX:g}, not {seconds}"
            )
        return seconds

    @contextmanager
    def _under_way(self, call: _Call) -> Iterator[Scope]:
        """Trace a call, complete the error that ends it, and let `close` end it."""
        call.span = self._tracing.begin(call.path)
        call.deadline = call.deadline or self._clock() + call.timeout_seconds
        scope = Scope()
        try:
            self.home.check()
            self._scopes.add(scope)
            yield scope
        except BaseException as error:
            if isinstance(error, CreditError):
                error.request_id = error.request_id or call.request_id
                call.effect.complete(error)
            call.span.end(error)
            raise
        else:
            call.span.end(None)
        finally:
            self._scopes.discard(scope)

    async def _metadata(self, call: _Call) -> Mapping[str, str]:
        """Return the metadata of the next attempt, when its token is there."""
        if self._bearer is None:
            return call.span.metadata
        call.waits_for_token = True
        call.token = await self._bearer.token()
        call.waits_for_token = False
        if call.token == call.token_rejected and call.failure is not None:
            raise _error(call, call.failure) from call.failure
        return {**call.span.metadata, "authorization": f"Bearer {call.token}"}

    def _restart_deadline(self, call: _Call) -> None:
        call.deadline = self._clock() + call.timeout_seconds

    def _time_left(self, call: _Call) -> float:
        return max(0.0, call.deadline - self._clock())

    async def _failed(self, call: _Call, failure: AttemptFailed) -> None:
        """Record why an attempt has failed; return when the next one may begin."""
        call.failure = failure
        call.effect.failed(failure)
        await self._wait_or_raise(call, failure)

    async def _wait_or_raise(self, call: _Call, failure: AttemptFailed) -> None:
        not_connected = isinstance(failure, NotConnected) and self._waits_for_ready
        if not_connected or isinstance(failure, StreamBroken):
            await self._go_on(call, failure)
            return
        call.attempts += 1
        if self._reject_token(call, failure):
            call.span.retried(failure, attempts=call.attempts, wait_seconds=0.0)
            return
        # The order matters: every failure that may pass is charged to the budget.
        retry = (
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
        if not retry or wait_seconds >= self._time_left(call):
            raise _error(call, failure) from failure
        call.span.retried(failure, attempts=call.attempts, wait_seconds=wait_seconds)
        await self._sleep(wait_seconds)

    async def _go_on(self, call: _Call, failure: AttemptFailed) -> None:
        """Begin the next attempt at once.

        The transport holds it until it opens the next connection, or sends it in another way.

        Raises:
            DeadlineExceeded: The call has no time left.
        """
        if self._time_left(call) <= 0:
            raise _too_late(call) from failure
        call.span.retried(failure, attempts=call.attempts, wait_seconds=0.0)
        # A transport that fails at once must not block the event loop.
        await asyncio.sleep(0)

    def _reject_token(self, call: _Call, failure: AttemptFailed) -> bool:
        """Drop the token that the server has rejected, and return whether to fetch another one."""
        if failure.status is not Status.UNAUTHENTICATED or self._bearer is None:
            return False
        if call.token is None or call.token_rejected is not None:
            return False
        call.token_rejected = call.token
        self._bearer.reject(call.token)
        return True


def _error(call: _Call, failure: AttemptFailed) -> CreditError:
    return error_of(failure, request_id=call.request_id, path=call.path)


def _too_late(call: _Call) -> DeadlineExceeded:
    awaited = "token" if call.waits_for_token else "answer"
    if isinstance(call.failure, NotConnected):
        awaited = "connection"
    message = f"no {awaited} within {call.timeout_seconds:g} s"
    if call.failure is not None:
        # Its first clause: the server's advice after it is for a caller that gets this failure.
        message += f"; before that: {call.failure.message.partition(';')[0]}"
    return DeadlineExceeded(message, request_id=call.request_id)
