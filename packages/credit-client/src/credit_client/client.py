"""The client of the credit service: one method for each call of the contract."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import Self

from credit_models import CreditTransaction, Empty, Purchase, Receipt, UserCredits

from credit_client.arguments import (
    Config,
    FilePath,
    TlsArgument,
    TokenArgument,
    resolve_config,
)
from credit_client.batch import Batch
from credit_client.call import Caller
from credit_client.errors import ClientClosed, Outcome
from credit_client.grpc_transport import connect
from credit_client.importing import Import, ImportReport, ImportRow, RejectedRow
from credit_client.keepalive import KeepaliveTimes
from credit_client.operation import checked_key, name_key, new_key, receipt_of
from credit_client.request import (
    ADD,
    BALANCE,
    PURCHASES,
    TRANSACTIONS,
    USE,
    USER_CREDITS,
    RequestT,
    Values,
    given_request_id,
)
from credit_client.retry import Backoff
from credit_client.settings import ClientSettings, Streams
from credit_client.tracing import Tracing
from credit_client.transport import Method, Transport


class CreditClient:
    """Adds, spends and shows credits: `async with CreditClient("localhost:50051") as credits:`.

    All tasks of an event loop may share a client. Keep it open as long as the app runs: it keeps
    connections, reopens them after a loss, and retries calls that may succeed later. Every write
    has an idempotency key, so that the SDK's own retries never count twice. For your own retries,
    make the key first (`new_key`) and store it: a write that is cancelled, or whose process ends,
    may have taken effect.

    All methods raise `CreditError`s (`credit_client.errors` has the tree), `TypeError` where an
    argument has the wrong type, and `ValueError` where `timeout_seconds` is not above 0 and at most
    a day. In another event loop, thread or process than the one that has opened the client they
    raise `RuntimeError`, and send nothing. Ids, `credits` and `created_by` are 1 to 4294967295.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: TokenArgument | None = None,
        tls: TlsArgument | None = None,
        client_certificate: FilePath | None = None,
        client_key: FilePath | None = None,
        insecure: bool | None = None,
        timeout_seconds: float | None = None,
        wait_for_ready: bool | None = None,
        settings: ClientSettings | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Make a client. Nothing is connected yet.

        Args:
            target: `host:port`, `[::1]:port`, a host name, `dns:///host:port`, or `unix:path`;
                None for the one in the settings.
            token: Identifies the caller: a token; the `Path` of a file that holds one, which is
                read again when it has changed; or a function, async or not, that returns one. The
                function is called when a token is needed, expires (where it is a JWT) or is
                rejected; its time is part of the call's.
            tls: True: encrypted, with the system's CAs; a path: with the CAs in that PEM file; or
                an `ssl.SSLContext`. False: not encrypted.
            client_certificate: PEM file with the client's own certificate, which implies `tls`.
            client_key: PEM file with the certificate's key, if the key has a file of its own.
            insecure: Whether a token may be sent to another machine without TLS.
            timeout_seconds: The time of a whole call; None for the one in the settings.
            wait_for_ready: Whether calls wait, for as long as they have time, for a server that
                cannot be reached; None for the value in the settings.
            settings: All other settings; None reads the `CREDIT_*` environment variables.
            transport: Replaces connections to `target`. For tests.

        Raises:
            ValueError: A setting has a value that is not allowed, a TLS file cannot be used, or a
                token would be sent to another machine without TLS.
        """
        self._config = resolve_config(
            settings,
            target=target,
            token=token,
            tls=tls,
            client_certificate=client_certificate,
            client_key=client_key,
            insecure=insecure,
            timeout_seconds=timeout_seconds,
            wait_for_ready=wait_for_ready,
        )
        if transport is None:
            self._config.check_token_is_safe()
        self._own_transport = transport
        self._transport: Transport | None = None
        self._caller: Caller | None = None

    @property
    def settings(self) -> ClientSettings:
        """The settings that the client uses."""
        return self._config.settings

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            RuntimeError: It is open already.
        """
        if self._caller is not None:
            self._caller.home.check()
            raise RuntimeError("the client is open already: share it, or make another one")
        self._transport = self._own_transport or _connect(self._config)
        self._caller = Caller(
            self._transport,
            self._config.settings,
            bearer=self._config.bearer(),
            tracing=Tracing(self._config.target),
        )
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client and its connections; calls under way end with `ClientClosed`.

        Raises:
            RuntimeError: It was opened in another event loop or process. It stays open.
        """
        caller, transport = self._caller, self._transport
        if caller is not None:
            caller.home.check()
        self._caller = self._transport = None
        if caller is not None and transport is not None:
            caller.close()
            # The calls that have just ended reset their streams before the connections close.
            await asyncio.sleep(0)
            await transport.close()

    @staticmethod
    def new_key() -> str:
        """Make an idempotency key for one write, to store before the write is sent.

        Returns:
            32 hexadecimal digits: a random UUID.
        """
        return new_key()

    async def add(
        self,
        *,
        user_id: int,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Receipt:
        """Add credits to a user's balance in an app.

        Args:
            user_id: The user who gets the credits.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            idempotency_key: 1 to 128 characters that name this addition among all writes for the
                user in the app: calls with the same key count once, however late they come. None
                makes a new key, which covers the SDK's own retries. For your own, make the key
                first (`new_key`). Every exception that this method raises carries the key: a
                `CreditError` as its attribute, and every exception, a cancellation too, in a note.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            InvalidField: An argument is out of its range.
            IdempotencyKeyReused: The key was used for another request.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
            Unavailable: The server could not be reached, or cannot serve. See also `CreditError`.
        """
        return await self._write(
            ADD,
            {
                "user_id": user_id,
                "app_id": app_id,
                "credits": credits,
                "created_by": created_by,
            },
            idempotency_key,
            timeout_seconds,
        )

    async def use(
        self,
        *,
        user_id: int,
        app_id: int,
        report_id: str,
        report_name: str,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        idempotency_key: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Receipt:
        """Buy a report with a user's credits in an app: take them and record the purchase.

        Args:
            user_id: The user who buys.
            app_id: The app whose credits pay.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            credits: The price.
            created_by: The identity of the acting person or service.
            idempotency_key: As for `add`.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            InvalidField: An argument is out of its range.
            IdempotencyKeyReused: The key was used for another request.
            InsufficientCredits: The user holds fewer credits in the app than the price.
            Unavailable: The server could not be reached, or cannot serve. See also `CreditError`.
        """
        return await self._write(
            USE,
            {
                "user_id": user_id,
                "app_id": app_id,
                "report_id": report_id,
                "report_name": report_name,
                "credits": credits,
                "created_by": created_by,
            },
            idempotency_key,
            timeout_seconds,
        )

    def batch(self, *, atomic: bool = False, timeout_seconds: float | None = None) -> Batch:
        """Collect writes and send them together, with few messages.

            async with credits.batch() as batch:
                first = batch.add(user_id=7, app_id=1, credits=120, created_by=1)
                batch.add(user_id=8, app_id=1, credits=60, created_by=1)
            print(first.receipt.balance)

        Not atomic: each write stands alone, as if it had been called by itself. Writes of one user
        are applied in their order. Needs a server newer than 0.2.0.

        Args:
            atomic: Whether all writes take effect together or none does: at most 1,000 then. If one
                is rejected, the others fail with `BatchAborted`.
            timeout_seconds: The time for each message of up to 1,000 writes, with all its attempts;
                None for the client's.
        """
        return Batch(lambda: self._open_caller, atomic=atomic, timeout_seconds=timeout_seconds)

    async def import_(
        self,
        rows: Iterable[ImportRow] | AsyncIterable[ImportRow],
        *,
        name: str | None = None,
        concurrency: int = 4,
        progress: Callable[[ImportReport], None] | None = None,
        rejected: Callable[[RejectedRow], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> ImportReport:
        """Write many rows, and continue after rows that are rejected.

        Rows are read as they are sent, so that there may be any number of them. Rows of one user
        take effect in their order. If the import ends early, run it again with the same rows and
        name: rows that took effect are not repeated. Needs a server newer than 0.2.0.

        Args:
            rows: The rows, from any iterable, async or not.
            name: Makes the keys of rows without one: `name:1`, `name:2` and so on by their
                position, so that rows must keep their positions. 1 to 100 characters.
            concurrency: How many messages are under way at a time, 1 to 64.
            progress: Called with the numbers so far after each message.
            rejected: Called with each rejected row, which is then not collected in the report.
            timeout_seconds: The time for each message, with all its attempts; None for the
                client's. While a message settles some of its rows, the others are sent again.

        Raises:
            CreditError: The server cannot be reached, or fails. Run the import again.
            ValueError: A row has no key and the import no name, or an argument is out of its range.
        """
        importing = Import(
            self._open_caller,
            name=name,
            concurrency=concurrency,
            progress=progress,
            rejected=rejected,
            timeout_seconds=timeout_seconds,
        )
        return await importing.run(rows)

    async def user_credits(
        self, *, user_id: int, timeout_seconds: float | None = None
    ) -> UserCredits:
        """Return a user's balances in all apps; the list is empty without any credits so far."""
        answer, _ = await self._open_caller.unary(
            USER_CREDITS, {"user_id": user_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply

    async def balance(
        self, *, app_id: int, user_id: int | None = None, timeout_seconds: float | None = None
    ) -> int:
        """Return a user's balance in an app or, without `user_id`, the sum over all its users.

        Raises:
            AppTotalOverflow: The sum is past 4294967295. See also `CreditError`.
        """
        answer, _ = await self._open_caller.unary(
            BALANCE, {"app_id": app_id, "user_id": user_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply.balance

    def purchases(
        self, *, user_id: int, after_sequence: int = 0, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Purchase, None]:
        """Return a user's purchases, oldest first, as they arrive: `async for … in …`.

        Leaving the loop early ends the call. The client holds a few messages at a time, however
        long the list is. A list that breaks off is continued after its last row: no row comes
        twice, and none is left out. Servers before 0.2.0 do not number purchases: with them the
        failure is raised.

        Args:
            user_id: The user.
            after_sequence: The purchases after this `sequence`; 0 for all.
            timeout_seconds: The time to wait for each next message; None for the client's. The
                whole list may take as long as its reader takes.
        """
        return self._open_caller.stream(
            PURCHASES,
            {"user_id": user_id, "after_sequence": after_sequence},
            timeout_seconds=timeout_seconds,
        )

    def transactions(
        self, *, user_id: int, after_sequence: int = 0, timeout_seconds: float | None = None
    ) -> AsyncGenerator[CreditTransaction, None]:
        """Return a user's transactions, oldest first. All else is as for `purchases`."""
        return self._open_caller.stream(
            TRANSACTIONS,
            {"user_id": user_id, "after_sequence": after_sequence},
            timeout_seconds=timeout_seconds,
        )

    @property
    def _open_caller(self) -> Caller:
        if self._caller is None:
            error = ClientClosed(
                "the client is not open: use it inside 'async with CreditClient(…)'",
                request_id=given_request_id(),
            )
            error.outcome = Outcome.NO_CHANGE
            raise error
        return self._caller

    async def _write(
        self,
        method: Method[RequestT, Empty],
        values: Values,
        given_key: str | None,
        timeout_seconds: float | None,
    ) -> Receipt:
        caller = self._open_caller
        key = checked_key(given_key)
        try:
            answer, request_id = await caller.unary(
                method, {**values, "idempotency_key": key}, timeout_seconds=timeout_seconds
            )
            return receipt_of(answer, request_id)
        except BaseException as error:
            name_key(error, key)
            raise


def _connect(config: Config) -> Transport:
    settings = config.settings
    return connect(
        config.target,
        channels=settings.channels,
        connect_timeout_seconds=settings.connect_within_seconds,
        backoff=Backoff(
            initial_seconds=settings.retry_backoff_initial_seconds,
            max_seconds=settings.retry_backoff_max_seconds,
        ),
        tls=config.tls,
        engine=settings.http2,
        streams=settings.streams is Streams.AUTO,
        keepalive=KeepaliveTimes(
            period_seconds=settings.keepalive_seconds,
            timeout_seconds=settings.keepalive_timeout_seconds,
        ),
    )
