"""The client of the credit service: one method for each call of the contract."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self, Unpack

from credit_models import CreditRequest, Empty, Receipt

from credit_client.alerts import Alerts
from credit_client.arguments import (
    Config,
    FilePath,
    TlsArgument,
    TokenArgument,
    resolve_config,
)
from credit_client.async_only import AsyncOnly
from credit_client.batch import Batch, pending_write, write_alone
from credit_client.call import Caller
from credit_client.checkpoints import Checkpoints
from credit_client.corrections import CorrectionWrites
from credit_client.errors import ClientClosed, Outcome
from credit_client.grants import GrantWrites
from credit_client.grpc_transport import connect
from credit_client.hold_handle import RELEASE_SECONDS, AwaitedReceipt, HoldHandle, PendingHold
from credit_client.holds import HoldWrites
from credit_client.importing import Import, ImportReport, ImportRow, RejectedRow
from credit_client.keepalive import KeepaliveTimes
from credit_client.methods import ADD, USE, WriteReplyT, WriteT
from credit_client.operation import checked_key, complete_receipt, name_key, new_key, receipt_of
from credit_client.policies import Policies
from credit_client.reads import Reads
from credit_client.request import Values, given_request_id
from credit_client.retry import Backoff
from credit_client.settings import ClientSettings, Streams
from credit_client.tracing import Tracing
from credit_client.transport import Method, Transport
from credit_client.users import Users
from credit_client.webhooks import Webhooks
from credit_client.writes import NotedOptions, WriteOptions


class CreditClient(
    GrantWrites[AwaitedReceipt],
    HoldWrites[AwaitedReceipt],
    CorrectionWrites[AwaitedReceipt],
    Policies,
    Alerts,
    Webhooks,
    Reads,
    Checkpoints,
    Users,
    AsyncOnly,
):
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

    Every `user_id` may also be the text by which the app knows the user, such as a UUID. The client
    looks up the number once and remembers it. `add` and `grant` give a number to a new user, and
    all other methods raise `UserNotFound`.
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
        users_app_id: int | None = None,
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
            users_app_id: The app whose directory has the users that `user_id` names by text; None
                for the one in the settings, and without one there the app of each call.
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
            users_app_id=users_app_id,
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
            raise RuntimeError("the client is already open: share it, or create another client")
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
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
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
            expected_revision: The write is rejected with `RevisionChanged` unless this is the
                `revision` of the user's `UserCredits`.
            min_available_after: The write is rejected with `AvailableTooLow` if the user's balance
                in the app would be lower than this after it.
            timeout_seconds: The time for the whole call; None for the client's.

        A server up to 0.2.0 would ignore the two conditions. So such a write travels as a batch of
        one, which that server rejects with `ServerTooOld`.

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
                "expected_revision": expected_revision,
                "min_available_after": min_available_after,
            },
            {"idempotency_key": idempotency_key, "timeout_seconds": timeout_seconds},
        )

    async def use(
        self,
        *,
        user_id: int | str,
        app_id: int,
        report_id: str,
        report_name: str,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        once: bool = False,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
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
            once: Whether the purchase is rejected with `AlreadyPurchased` if the user owns the
                report in this app: a purchase of it is not fully refunded.
            idempotency_key: As for `add`.
            expected_revision: As for `add`, and so is `min_available_after`. With one of them or
                `once`, a server up to 0.2.0 rejects the purchase with `ServerTooOld`.
            min_available_after: See `expected_revision`.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            InvalidField: An argument is out of its range.
            IdempotencyKeyReused: The key was used for another request.
            CapExceeded: A spending cap would be exceeded.
            InsufficientCredits: The user has fewer credits in the app than the price.
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
                "once": once,
                "expected_revision": expected_revision,
                "min_available_after": min_available_after,
            },
            {"idempotency_key": idempotency_key, "timeout_seconds": timeout_seconds},
        )

    def hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,  # noqa: A002 - the contract's word
        created_by: int,
        expires_after: timedelta | None = None,
        purpose: str = "",
        allow_partial: bool = False,
        **options: Unpack[WriteOptions],
    ) -> PendingHold:
        """Reserve credits for a block of code, which captures what it uses.

            async with credits.hold(user_id=7, app_id=1, credits=20, created_by=1) as hold:
                tokens = await answer()
                await hold.capture(tokens, report_id="r-1", report_name="Answer")

        The end of the block releases what was not captured, also if the block raises. Without a
        block, `hold = await credits.hold(…)` places the hold, and you release it yourself; at its
        end what it still holds is free again.

        Args:
            user_id: The user whose credits are reserved.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service, also for captures.
            expires_after: As for `place_hold`, and so are the other arguments. Make it longer than
                the block takes: a hold that has ended cannot be captured (`HoldExpired`).
            purpose: See `expires_after`.
            allow_partial: See `expires_after`. `HoldHandle.held` are the credits that it holds.
            options: See `WriteOptions`.

        Raises:
            CreditError: As `place_hold` raises, when the hold is awaited or the block begins.
        """

        async def place() -> HoldHandle:
            receipt = await self.place_hold(
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                expires_after=expires_after,
                purpose=purpose,
                allow_partial=allow_partial,
                **options,
            )
            return HoldHandle(
                self,
                hold_id=receipt.transaction_id,
                user_id=user_id,
                app_id=app_id,
                created_by=created_by,
                release_seconds=self._release_seconds,
                placed=receipt,
            )

        return PendingHold(place())

    def hold_of(
        self, *, hold_id: str, user_id: int | str, app_id: int, created_by: int
    ) -> HoldHandle:
        """Return a handle of a hold that was placed earlier, perhaps by another process.

        Nothing is sent. `async with` on it releases at its end what was not captured.

        Args:
            hold_id: The hold: `HoldHandle.id`, `Hold.id`, or the `transaction_id` of the receipt
                that placed it.
            user_id: The user whose credits are reserved.
            app_id: The app.
            created_by: The identity of the acting person or service.
        """
        return HoldHandle(
            self,
            hold_id=hold_id,
            user_id=user_id,
            app_id=app_id,
            created_by=created_by,
            release_seconds=self._release_seconds,
        )

    def batch(self, *, atomic: bool = False, timeout_seconds: float | None = None) -> Batch:
        """Collect writes and send them together, with few messages.

            async with credits.batch() as batch:
                first = batch.add(user_id=7, app_id=1, credits=120, created_by=1)
                batch.add(user_id=8, app_id=1, credits=60, created_by=1)
            print(first.receipt.balance)

        Not atomic: each write stands alone, as if it had been called by itself. Writes of one user
        are applied in their order. Needs a server of 0.3.0 or later.

        Args:
            atomic: Whether all writes take effect together or none does: at most 1,000 then. If one
                is rejected, the others fail with `BatchAborted`. A write that makes the batch too
                large, such as one of many transfers of many grants, fails with `BatchTooLarge`.
            timeout_seconds: The time for each message of up to 1,000 writes, with all its attempts;
                None for the client's.
        """
        return Batch(
            lambda: self._open_caller,
            atomic=atomic,
            timeout_seconds=timeout_seconds,
            users_app_id=self.settings.users_app_id,
        )

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
        name: rows that took effect are not repeated. Needs a server of 0.3.0 or later.

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
            users_app_id=self.settings.users_app_id,
        )
        return await importing.run(rows)

    @property
    def _release_seconds(self) -> float:
        return min(self.settings.timeout_seconds, RELEASE_SECONDS)

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
        self, method: Method[WriteT, WriteReplyT], values: Values, options: NotedOptions
    ) -> Receipt:
        caller = self._caller or self._open_caller  # the property raises if not open
        key = checked_key(options.pop("idempotency_key", None))
        timeout_seconds = options.pop("timeout_seconds", None)
        fields: Values = {**values, **options, "idempotency_key": key}
        try:
            # Only the replies of `add` and `use` are empty. Servers up to 0.2.0 ignore these fields
            # in their requests.
            if method.reply_type is Empty and (
                values.get("once")
                or values["expected_revision"] is not None
                or values["min_available_after"] is not None
            ):
                users_app_id = self.settings.users_app_id
                write = pending_write(method.request_type, fields, key, users_app_id)
                return await write_alone(caller, write, timeout_seconds=timeout_seconds)
            answer, request_id = await caller.unary(method, fields, timeout_seconds=timeout_seconds)
            receipt = receipt_of(answer, request_id)
            if method.reply_type is Empty and isinstance(amount := values["credits"], int):
                complete_receipt(
                    receipt, amount if method.request_type is CreditRequest else -amount
                )
            return receipt
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
