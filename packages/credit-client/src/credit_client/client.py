"""The client of the credit service: one method for each thing that an app does with credits."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from credit_models import CreditTransaction, Empty, Purchase, Receipt, UserCredits
from credit_models.codec import WireError, decode
from credit_models.constraints import Violation
from grpclib.const import Status

from credit_client import methods
from credit_client.arguments import FilePath, Made, TlsArgument, TokenArgument, made
from credit_client.call import Caller, Values
from credit_client.correlation import given_request_id
from credit_client.errors import (
    ClientClosed,
    CreditError,
    InvalidField,
    Outcome,
    ProtocolMismatch,
)
from credit_client.grpc_transport import connect
from credit_client.keepalive import KeepaliveTimes
from credit_client.request import RequestT, describe
from credit_client.retry import Backoff
from credit_client.settings import ClientSettings
from credit_client.tracing import Tracing
from credit_client.transport import Answer, Method, Transport


class CreditClient:
    """Adds, spends and shows credits: `async with CreditClient("localhost:50051") as credits:`.

    A client may be shared by all tasks of an event loop, and lives best as long as its app: it
    keeps connections, reopens them after a loss, and retries what may succeed later. Every write
    has an idempotency key, so that the SDK's own retries never count twice. For yours, make the
    key first (`new_key`) and store it: a write that is cancelled, or whose process ends, may have
    taken effect.

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
        """Makes a client. Nothing is connected yet.

        Args:
            target: `host:port`, `[::1]:port`, a host name, `dns:///host:port`, or `unix:path`;
                None for that of the settings.
            token: Proves who calls: a token; the `Path` of a file that holds one, which is read
                again when it has changed; or a function, async or not, that gets one. The function
                is called when a token is needed, expires (where it is a JWT) or is rejected; its
                time is part of the call's.
            tls: True: encrypted, with the system's CAs; a path: with the CAs in that PEM file; or
                an `ssl.SSLContext`. False: not encrypted.
            client_certificate: PEM file with the client's own certificate, which implies `tls`.
            client_key: PEM file with its key, if it has a file of its own.
            insecure: Whether a token may be sent to another machine without TLS.
            timeout_seconds: The time of a whole call; None for that of the settings.
            wait_for_ready: Whether calls wait, for as long as they have time, for a server that
                cannot be reached; None for that of the settings.
            settings: The rest; None reads the `CREDIT_*` environment variables.
            transport: Takes the place of connections to `target`. For tests.

        Raises:
            ValueError: A setting has a value that it cannot have, a file of TLS cannot be used, or
                a token would be sent to another machine without TLS.
        """
        self._made = made(
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
            self._made.check_token_is_safe()
        self._own_transport = transport
        self._transport: Transport | None = None
        self._caller: Caller | None = None

    @property
    def settings(self) -> ClientSettings:
        """What the client was made with."""
        return self._made.settings

    async def __aenter__(self) -> Self:
        """Opens the client.

        Raises:
            RuntimeError: It is open already.
        """
        if self._caller is not None:
            self._caller.home.check()
            raise RuntimeError("the client is open already: share it, or make another one")
        self._transport = self._own_transport or _connect(self._made)
        self._caller = Caller(
            self._transport,
            self._made.settings,
            bearer=self._made.bearer(),
            tracing=Tracing(self._made.target),
        )
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the client and its connections; calls under way end with `ClientClosed`.

        Raises:
            RuntimeError: It was opened in another event loop or process. It stays open.
        """
        caller, transport = self._caller, self._transport
        if caller is not None:
            caller.home.check()
        self._caller = self._transport = None
        if caller is not None and transport is not None:
            caller.close()
            # Lets the calls that have just ended tell the server so, before the connections go.
            await asyncio.sleep(0)
            await transport.close()

    @staticmethod
    def new_key() -> str:
        """Make an idempotency key for one write, to store before the write is sent.

        Returns:
            32 hexadecimal digits: a random UUID.
        """
        return uuid.uuid4().hex

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
        """Adds credits to a user's balance in an app.

        Args:
            user_id: Who gets the credits.
            app_id: In which app.
            credits: How many.
            created_by: The identity of the acting person or service.
            idempotency_key: 1 to 128 characters that name this addition among all writes for the
                user in the app: calls with the same key count once, however late they come. None
                makes a new one, which covers the SDK's own retries. For yours, make the key first
                (`new_key`). Anything that this method raises carries the key: a `CreditError` as
                its attribute, and every exception, a cancellation too, in a note.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            InvalidField: An argument is out of its range.
            IdempotencyKeyReused: The key was used for another request.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
            Unavailable: The server could not be reached, or is in trouble. See also `CreditError`.
        """
        return await self._write(
            methods.ADD,
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
        """Buys a report with a user's credits in an app: takes them and records the purchase.

        Args:
            user_id: Who buys.
            app_id: With the credits of which app.
            report_id: The report, as the app names it: 1 to 128 characters.
            report_name: Its name for people to read: 1 to 256 characters.
            credits: The price.
            created_by: The identity of the acting person or service.
            idempotency_key: As for `add`.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            InvalidField: An argument is out of its range.
            IdempotencyKeyReused: The key was used for another request.
            InsufficientCredits: The user holds fewer credits in the app than the price.
            Unavailable: The server could not be reached, or is in trouble. See also `CreditError`.
        """
        return await self._write(
            methods.USE,
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

    async def user_credits(
        self, *, user_id: int, timeout_seconds: float | None = None
    ) -> UserCredits:
        """Shows a user's balances in all apps; who never had credits has an empty list of them."""
        answer, _ = await self._open_caller.unary(
            methods.USER_CREDITS, {"user_id": user_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply

    async def balance(
        self, *, app_id: int, user_id: int | None = None, timeout_seconds: float | None = None
    ) -> int:
        """Shows a user's balance in an app or, without `user_id`, the sum over all its users.

        Raises:
            AppTotalOverflow: The sum is past 4294967295. See also `CreditError`.
        """
        answer, _ = await self._open_caller.unary(
            methods.BALANCE, {"app_id": app_id, "user_id": user_id}, timeout_seconds=timeout_seconds
        )
        return answer.reply.balance

    def purchases(
        self, *, user_id: int, after_sequence: int = 0, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Purchase, None]:
        """Return a user's purchases, oldest first, as they arrive: `async for … in …`.

        Leaving the loop early ends the call. Holds a few messages at a time, however long the
        history is. A list that breaks off is continued after its last row: no row comes twice, and
        none is left out. Servers before 0.2.0 do not number purchases: there the failure is raised.

        Args:
            user_id: Whose.
            after_sequence: The purchases after this `sequence`; 0 for all.
            timeout_seconds: The time to wait for each next message; None for the client's. The
                whole list may take as long as its reader takes.
        """
        return self._open_caller.stream(
            methods.PURCHASES,
            {"user_id": user_id, "after_sequence": after_sequence},
            timeout_seconds=timeout_seconds,
        )

    def transactions(
        self, *, user_id: int, after_sequence: int = 0, timeout_seconds: float | None = None
    ) -> AsyncGenerator[CreditTransaction, None]:
        """Return a user's transactions, oldest first; otherwise as `purchases`."""
        return self._open_caller.stream(
            methods.TRANSACTIONS,
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
        caller, key = self._open_caller, _key(given_key)
        try:
            answer, request_id = await caller.unary(
                method, {**values, "idempotency_key": key}, timeout_seconds=timeout_seconds
            )
            return _receipt(answer, request_id)
        except BaseException as error:
            _name_key(error, key)
            raise


def _receipt(answer: Answer[Empty], request_id: str) -> Receipt:
    try:
        if answer.receipt is not None:
            return decode(Receipt, answer.receipt)
        problem = "there is no receipt"
    except WireError as error:
        problem = f"the receipt cannot be read: {error}"
    mismatch = ProtocolMismatch(
        f"the write took effect, but {problem}", status=Status.OK, request_id=request_id
    )
    mismatch.outcome = Outcome.APPLIED
    raise mismatch


def _name_key(error: BaseException, key: str) -> None:
    """Let whatever a write raises carry the write's key: a cancellation too."""
    if isinstance(error, CreditError):
        error.idempotency_key = key
        if error.outcome is Outcome.NO_CHANGE:
            return
    error.add_note(
        f"idempotency_key={key!r} identifies this write: sent again unchanged with this key, it"
        " counts once, whether or not it has taken effect"
    )


def _connect(made: Made) -> Transport:
    settings = made.settings
    return connect(
        made.target,
        channels=settings.channels,
        connect_timeout_seconds=settings.connect_within_seconds,
        backoff=Backoff(
            initial_seconds=settings.retry_backoff_initial_seconds,
            max_seconds=settings.retry_backoff_max_seconds,
        ),
        tls=made.tls,
        keepalive=KeepaliveTimes(
            period_seconds=settings.keepalive_seconds,
            timeout_seconds=settings.keepalive_timeout_seconds,
        ),
    )


def _key(given: str | None) -> str:
    if given == "":
        # The contract lets it be empty, for a write that cannot be retried; here all can.
        violation = Violation(field="idempotency_key", description="must be 1 to 128 characters")
        raise InvalidField(
            describe([violation]), violations=[violation], request_id=given_request_id()
        )
    return CreditClient.new_key() if given is None else given
