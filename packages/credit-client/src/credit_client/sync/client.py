"""The synchronous client. Made from the asynchronous one by `make generate`. Do not edit."""

# ruff: noqa: A002 - `credits` is the contract's word
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from credit_models import (
    Alert,
    AlertDirection,
    AlertEvent,
    AppPolicy,
    Balance,
    CreditTransaction,
    DeadLetter,
    DirectoryUser,
    Grant,
    GrantCategory,
    Hold,
    Purchase,
    Receipt,
    SignedCheckpoint,
    SummaryGroup,
    TransactionType,
    UserCredits,
    Webhook,
)
from credit_models import GetBalanceAtResponse as BalanceAt
from credit_models import GetForecastResponse as Forecast
from credit_models import GetSpendingCapResponse as UserSpendingCaps
from credit_models import ListAlertsResponse as AlertList
from credit_models import QueryPurchasesResponse as PurchasePage
from credit_models import QueryTransactionsResponse as TransactionPage
from credit_models import SummarizeResponse as Summaries
from credit_models import WatchResponse as WatchEvent

from credit_client import batch as _batch
from credit_client import client as _client
from credit_client import history as _history
from credit_client import hold_handle as _hold_handle
from credit_client.arguments import FilePath, TlsArgument, TokenArgument
from credit_client.batch import BatchOperation
from credit_client.checkpoint import Checkpoint
from credit_client.importing import ImportReport, ImportRow, RejectedRow
from credit_client.settings import ClientSettings
from credit_client.sync.session import Session
from credit_client.transport import Transport
from credit_client.verification import HistoryVerifier
from credit_client.writes import NotedOptions, WriteOptions


class Batch:
    """Collects writes, and sends them together: `with credits.batch() as batch:`.

    Its methods are those of `CreditClient`, with the same arguments except `timeout_seconds`.

    At the end of the `with` block the writes are sent, in messages of up to 1,000. If the block
    raises, nothing is sent. If writes fail, the end of the block raises an `ExceptionGroup` of
    their errors; each `BatchOperation` has its own receipt or error. Call `send` yourself, and
    without `with`, if failed writes are no exception to your app.
    """

    def __init__(self, session: Session, batch: _batch.Batch) -> None:
        """Take the batch to fill; `CreditClient.batch` makes one."""
        self._session = session
        self._wrapped = batch

    def __len__(self) -> int:
        """Return the number of writes."""
        return len(self._wrapped)

    def __iter__(self) -> Iterator[BatchOperation]:
        """Iterate over the writes, in the order in which they were added."""
        return iter(self._wrapped)

    def add(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
    ) -> BatchOperation:
        """Collect an addition; the arguments are those of `CreditClient.add`.

        Raises:
            InvalidField: An argument is out of its range. The write is not part of the batch.
            ValueError: The batch is atomic and has 1,000 writes already.
        """
        return self._wrapped.add(
            user_id=user_id,
            app_id=app_id,
            credits=credits,
            created_by=created_by,
            idempotency_key=idempotency_key,
            expected_revision=expected_revision,
            min_available_after=min_available_after,
        )

    def use(
        self,
        *,
        user_id: int | str,
        app_id: int,
        report_id: str,
        report_name: str,
        credits: int,
        created_by: int,
        once: bool = False,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        min_available_after: int | None = None,
    ) -> BatchOperation:
        """Collect a purchase; the arguments are those of `CreditClient.use`.

        Raises:
            InvalidField: An argument is out of its range. The write is not part of the batch.
            ValueError: The batch is atomic and has 1,000 writes already.
        """
        return self._wrapped.use(
            user_id=user_id,
            app_id=app_id,
            report_id=report_id,
            report_name=report_name,
            credits=credits,
            created_by=created_by,
            once=once,
            idempotency_key=idempotency_key,
            expected_revision=expected_revision,
            min_available_after=min_available_after,
        )

    def send(self) -> Sequence[BatchOperation]:
        """Send the writes that have no receipt yet, and wait until each has its outcome.

        Call it again to send those that failed: with the same keys, so that none counts twice.

        Returns:
            All writes of the batch. A failed write has its `error`; none is raised here.

        Raises:
            ClientClosed: The client is not open.
        """
        return self._session.run(self._wrapped.send())

    def grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        expires_at: datetime | None = None,
        expires_after: timedelta | None = None,
        effective_at: datetime | None = None,
        priority: int | None = None,
        category: GrantCategory = GrantCategory.UNSPECIFIED,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Add credits that have an end, a start, a priority or a category.

        Credits of the lowest priority are spent first, among these the credits that end first, and
        among these the oldest. Credits without an end come last in their priority.

        Args:
            user_id: The user who receives the credits.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_at: When what is left of the credits expires. Not with `expires_after`. If both
                are None, the credits never expire.
            expires_after: The time from the start to the end, at least a second.
            effective_at: When the credits can be spent for the first time; None: at once.
            priority: 0 to 1000. The lowest is spent first. None: 500, as for credits of `add`.
            category: Where the credits come from.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the grant's id.

        Raises:
            ExpiresTooEarly: The grant would end before it starts.
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            GrantsFull: The user has as many live grants in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._wrapped.grant(
            user_id=user_id,
            app_id=app_id,
            credits=credits,
            created_by=created_by,
            expires_at=expires_at,
            expires_after=expires_after,
            effective_at=effective_at,
            priority=priority,
            category=category,
            **options,
        )

    def void_grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        grant_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Take back what is left of one grant. Credits that are held stay held.

        Args:
            user_id: The user who has the grant.
            app_id: The app.
            grant_id: The `transaction_id` of the receipt of `grant`, or `Grant.id`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the credits that were taken back.

        Raises:
            GrantNotFound: The user never had a grant with this id in the app.
            GrantEmpty: Nothing is left of the grant.
        """
        return self._wrapped.void_grant(
            user_id=user_id, app_id=app_id, grant_id=grant_id, created_by=created_by, **options
        )

    def transfer(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        to_user_id: int | str | None = None,
        to_app_id: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Move credits to another user, another app, or both. Both sides take effect or neither.

        The credits keep their priority, their end and their category.

        Args:
            user_id: The user who gives.
            app_id: The app from which the credits come.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            to_user_id: The user who receives the credits; None for the same user.
            to_app_id: The app in which the credits are received; None for the same app.
            options: See `WriteOptions`.

        Returns:
            The receipt of the user and the app that gave the credits.

        Raises:
            InsufficientCredits: The balance is too low.
            BalanceOverflow: The receiver's balance would pass 4294967295.
            TooManyApps: The receiver has credits in as many apps as one user may.
            GrantsFull: The receiver has as many live grants in the app as one user may.
            AccountFull: The receiver has as many grants and holds in all apps as one user may.
        """
        return self._wrapped.transfer(
            user_id=user_id,
            app_id=app_id,
            credits=credits,
            created_by=created_by,
            to_user_id=to_user_id,
            to_app_id=to_app_id,
            **options,
        )

    def place_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        expires_after: timedelta | None = None,
        purpose: str = "",
        allow_partial: bool = False,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Reserve credits for a purchase whose price is not known yet.

        `CreditClient.hold` also releases what is not used. Held credits are not in the balance.

        Args:
            user_id: The user whose credits are reserved.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_after: The time until the hold ends, and what it still holds is free again:
                1 second to 7 days; None for 15 minutes.
            purpose: What the credits are reserved for, for people to read: up to 256 characters.
            allow_partial: Whether to reserve the whole balance if it is lower than `credits`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the hold's id, and `held` are the credits that the
            hold holds.

        Raises:
            InsufficientCredits: The balance is too low. With `allow_partial`: the balance is 0.
            CapExceeded: A spending cap would be exceeded.
            HoldsFull: The user has as many open holds in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
        """
        return self._wrapped.place_hold(
            user_id=user_id,
            app_id=app_id,
            credits=credits,
            created_by=created_by,
            expires_after=expires_after,
            purpose=purpose,
            allow_partial=allow_partial,
            **options,
        )

    def capture_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        report_id: str,
        report_name: str,
        created_by: int,
        credits: int | None = None,
        final: bool = True,
        allow_excess: bool = False,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Buy a report with reserved credits, and record the purchase as `use` does.

        Args:
            user_id: The user who buys.
            app_id: The app.
            hold_id: The `transaction_id` of the receipt of `place_hold`, or `Hold.id`.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            created_by: The identity of the acting person or service.
            credits: The price; None for all that the hold still holds.
            final: Whether to release what is left. If False, the hold stays open for more captures.
            allow_excess: Whether the balance pays the part of the price that exceeds the hold.
            options: See `WriteOptions`.

        Returns:
            The receipt. `held` are the credits that the hold still holds, and `released_credits`
            those that were released.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldAlreadyCaptured: A capture has settled the hold.
            HoldAlreadyReleased: The hold was released.
            HoldExpired: The hold has ended. Call `use` with a new key instead.
            HoldExceeded: The price is above what the hold still holds.
            CapExceeded: With `allow_excess`, a spending cap would be exceeded.
            InsufficientCredits: With `allow_excess`, the balance is too low.
        """
        return self._wrapped.capture_hold(
            user_id=user_id,
            app_id=app_id,
            hold_id=hold_id,
            report_id=report_id,
            report_name=report_name,
            created_by=created_by,
            credits=credits,
            final=final,
            allow_excess=allow_excess,
            **options,
        )

    def release_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Release what a hold still holds, and settle the hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `released_credits` are the released credits.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
        """
        return self._wrapped.release_hold(
            user_id=user_id, app_id=app_id, hold_id=hold_id, created_by=created_by, **options
        )

    def extend_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        expires_after: timedelta,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Set a new end of a hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            expires_after: The time from now to the new end: at least a second. The new end may be
                earlier than the old one. A hold ends at most 7 days after it was placed.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `expires_at` is the new end.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
            HoldLifeExceeded: The hold would end more than 7 days after it was placed.
        """
        return self._wrapped.extend_hold(
            user_id=user_id,
            app_id=app_id,
            hold_id=hold_id,
            expires_after=expires_after,
            created_by=created_by,
            **options,
        )

    def refund(
        self,
        bought: Receipt | CreditTransaction | Purchase,
        *,
        created_by: int,
        user_id: int | str | None = None,
        app_id: int | None = None,
        credits: int | None = None,
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Return credits of a purchase to the grants that paid for it.

        All refunds of a purchase together never exceed its price.

        Args:
            bought: The purchase, the transaction that paid for it, or the receipt of `use` or of a
                capture. With the id alone, call `reverse`.
            created_by: The identity of the acting person or service.
            user_id: The user who bought; required with a receipt, which does not name the user.
            app_id: The app; required with a receipt.
            credits: The number of credits; None for all that were not refunded yet.
            restore_until: Until when credits of grants that have ended since can be spent; None:
                they expire at once.
            options: See `WriteOptions`.

        Raises:
            ValueError: `bought` is not a purchase, or it is a receipt and the user or the app is
                missing.
            TransactionNotFound: The user has no such purchase in the app.
            ReversalExceeds: Less of the price can still be refunded, or nothing.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        return self._wrapped.refund(
            bought,
            created_by=created_by,
            user_id=user_id,
            app_id=app_id,
            credits=credits,
            restore_until=restore_until,
            **options,
        )

    def reverse(
        self,
        *,
        user_id: int | str,
        app_id: int,
        transaction_id: str,
        created_by: int,
        credits: int | None = None,
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Undo a transaction in whole or in part: refund a use, or take back added credits.

        Args:
            user_id: The user of the transaction.
            app_id: The app of the transaction.
            transaction_id: The transaction. A USE is refunded; the credits of an ADD, GRANT or
                TRANSFER_IN are taken back from what is left of them.
            created_by: The identity of the acting person or service.
            credits: The number of credits; None for all that can be reversed.
            restore_until: As for `refund`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the reversed credits.

        Raises:
            TransactionNotFound: The user has no such transaction in the app.
            NotReversible: The transaction has another type.
            ReversalExceeds: Less of the transaction can still be reversed, or nothing.
            InsufficientCredits: Less is left of the added credits than would be taken back.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        return self._wrapped.reverse(
            user_id=user_id,
            app_id=app_id,
            transaction_id=transaction_id,
            created_by=created_by,
            credits=credits,
            restore_until=restore_until,
            **options,
        )

    def adjust(
        self,
        *,
        user_id: int | str,
        app_id: int,
        delta: int,
        note: str,
        created_by: int,
        **options: Unpack[NotedOptions],
    ) -> BatchOperation:
        """Correct a balance, where no other call can. This call is meant for operators.

        Args:
            user_id: The user.
            app_id: The app.
            delta: The change, -4294967295 to 4294967295, not 0. A negative change takes credits in
                the order in which they are spent.
            note: The reason, for people to read: 1 to 500 characters.
            created_by: The identity of the acting person or service.
            options: See `NotedOptions`.

        Raises:
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            InsufficientCredits: The balance would be below 0, and the app's policy does not allow
                that.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._wrapped.adjust(
            user_id=user_id, app_id=app_id, delta=delta, note=note, created_by=created_by, **options
        )

    def set_spending_cap(
        self,
        *,
        user_id: int | str,
        app_id: int,
        created_by: int,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_month: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> BatchOperation:
        """Set a user's own spending caps in an app. They replace those of the app.

        `CreditClient.set_app_spending_cap` sets the caps of the app. The periods are in UTC.

        Args:
            user_id: The user.
            app_id: The app.
            created_by: The identity of the acting person or service.
            per_hour: The credits that can be spent in an hour; None for no cap.
            per_day: The credits that can be spent in a day; None for no cap.
            per_month: The credits that can be spent in a calendar month; None for no cap. If all
                three are None, the user's caps are removed, and those of the app apply again.
            options: See `WriteOptions`.

        Raises:
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._wrapped.set_spending_cap(
            user_id=user_id,
            app_id=app_id,
            created_by=created_by,
            per_hour=per_hour,
            per_day=per_day,
            per_month=per_month,
            **options,
        )

    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Send the writes, unless the block has raised; see `Batch`."""
        self._session.run(self._wrapped.__aexit__(error_type, error, traceback))


class HoldHandle:
    """A hold, by its id: `CreditClient.hold` places one, `CreditClient.hold_of` finds one.

    In a `with` block, the end releases what was not captured; it does so also if the block raises.
    If the release fails, a line of the log names the failure, and the hold's own end frees the
    credits.
    """

    def __init__(self, session: Session, hold: _hold_handle.HoldHandle) -> None:
        """Take the hold; `CreditClient.hold` and `CreditClient.hold_of` make a handle."""
        self._session = session
        self._wrapped = hold

    @property
    def id(self) -> str:
        """The hold's id, which another process may pass to `CreditClient.hold_of`."""
        return self._wrapped.id

    @property
    def user_id(self) -> int | str:
        """The user whose credits are reserved."""
        return self._wrapped.user_id

    @property
    def app_id(self) -> int:
        """The app."""
        return self._wrapped.app_id

    @property
    def receipt(self) -> Receipt | None:
        """The receipt of this handle's latest write; None before the first."""
        return self._wrapped.receipt

    @property
    def expires_at(self) -> datetime | None:
        """When the hold ends; None: this handle has neither placed nor extended it."""
        return self._wrapped.expires_at

    @property
    def held(self) -> int | None:
        """The credits that the hold held after the latest write; None before the first."""
        return self._wrapped.held

    def capture(
        self,
        credits: int | None = None,
        *,
        report_id: str,
        report_name: str,
        final: bool = True,
        allow_excess: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Buy a report with the reserved credits; see `CreditClient.capture_hold`.

        Args:
            credits: The price; None for all that the hold still holds.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            final: Whether to release what is left. If False, the hold stays open for more captures.
            allow_excess: Whether the balance pays the part of the price that exceeds the hold.
            options: See `WriteOptions`.

        Raises:
            HoldSettled: The hold was captured or released, or has ended (`HoldExpired`).
            HoldExceeded: The price is above what the hold still holds.
            CreditError: As `CreditClient.capture_hold` raises.
        """
        return self._session.run(
            self._wrapped.capture(
                credits,
                report_id=report_id,
                report_name=report_name,
                final=final,
                allow_excess=allow_excess,
                **options,
            )
        )

    def release(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Release what the hold still holds; see `CreditClient.release_hold`."""
        return self._session.run(self._wrapped.release(**options))

    def extend(self, expires_after: timedelta, **options: Unpack[WriteOptions]) -> Receipt:
        """Set a new end, counted from now; see `CreditClient.extend_hold`."""
        return self._session.run(self._wrapped.extend(expires_after, **options))

    def __enter__(self) -> Self:
        """Begin the block."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what was not captured. What the block raised passes."""
        self._session.run(self._wrapped.__aexit__(error_type, error, traceback))


class TransactionQuery:
    """The transactions of `CreditClient.query_transactions`, as an iterable.

    `for row in query` reads the pages as they are needed. Each loop starts with the first page. To
    show one page at a time, use `page` and keep its `next_page_token`.
    """

    def __init__(self, session: Session, query: _history.TransactionQuery) -> None:
        """Take the query; `CreditClient.query_transactions` makes one."""
        self._session = session
        self._wrapped = query

    def __iter__(self) -> Generator[CreditTransaction, None, None]:
        """Iterate over the transactions of all pages."""
        return self._session.rows(aiter(self._wrapped))

    def page(self, token: str = "") -> TransactionPage:
        """Return one page.

        Args:
            token: The `next_page_token` of the page before; empty for the first page. It does not
                expire. It belongs to this query and to the identity of the client.

        Returns:
            The `transactions` or `purchases`, and the `next_page_token`, which is empty on the last
            page. A page can have fewer rows than requested, or none, although more follow. In a
            query of all users, `complete_until` is the time before which no row is missing. With
            the newest first, only the first page has it.

        Raises:
            PageTokenInvalid: The token was returned for another query or another identity.
        """
        return self._session.run(self._wrapped.page(token))

    def pages(self, token: str = "") -> Generator[TransactionPage, None, None]:
        """Iterate over the pages, beginning with that of a token; see `page`."""
        return self._session.rows(self._wrapped.pages(token))


class PurchaseQuery:
    """The purchases of `CreditClient.query_purchases`, as an iterable.

    `for row in query` reads the pages as they are needed. Each loop starts with the first page. To
    show one page at a time, use `page` and keep its `next_page_token`.
    """

    def __init__(self, session: Session, query: _history.PurchaseQuery) -> None:
        """Take the query; `CreditClient.query_purchases` makes one."""
        self._session = session
        self._wrapped = query

    def __iter__(self) -> Generator[Purchase, None, None]:
        """Iterate over the purchases of all pages."""
        return self._session.rows(aiter(self._wrapped))

    def page(self, token: str = "") -> PurchasePage:
        """Return one page.

        Args:
            token: The `next_page_token` of the page before; empty for the first page. It does not
                expire. It belongs to this query and to the identity of the client.

        Returns:
            The `transactions` or `purchases`, and the `next_page_token`, which is empty on the last
            page. A page can have fewer rows than requested, or none, although more follow. In a
            query of all users, `complete_until` is the time before which no row is missing. With
            the newest first, only the first page has it.

        Raises:
            PageTokenInvalid: The token was returned for another query or another identity.
        """
        return self._session.run(self._wrapped.page(token))

    def pages(self, token: str = "") -> Generator[PurchasePage, None, None]:
        """Iterate over the pages, beginning with that of a token; see `page`."""
        return self._session.rows(self._wrapped.pages(token))


class CreditClient:
    """Adds, spends and shows credits from code that is not asynchronous.

        with CreditClient("localhost:50051") as credits:
            receipt = credits.add(user_id=7, app_id=1, credits=120, created_by=1)

    All threads of a process may share a client. Keep it open as long as the app runs: it keeps
    connections, reopens them after a loss, and retries calls that may succeed later. `with` is not
    needed: the first call opens the client, and `close` or the end of the process closes it. A
    forked process opens connections of its own, so that a client may be made before the fork.

    Every write has an idempotency key, so that the SDK's own retries never count twice. For your
    own retries, make the key first (`new_key`) and store it: a write that is interrupted, or whose
    process ends, may have taken effect.

    All methods raise `CreditError`s (`credit_client.errors` has the tree), `TypeError` where an
    argument has the wrong type, and `ValueError` where `timeout_seconds` is not above 0 and at most
    a day. An exception from outside, such as KeyboardInterrupt, cancels the call. Ids, `credits`
    and `created_by` are 1 to 4294967295.

    Every `user_id` may also be the text by which the app knows the user, such as a UUID. The client
    looks up the number once and remembers it. `add` and `grant` give a number to a new user, and
    all other methods raise `UserNotFound`.

    A call blocks its thread. In a coroutine it stops the whole event loop for that time: use
    `credit_client.CreditClient` there.
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
        self._session = Session(
            _client.CreditClient(
                target,
                token=token,
                tls=tls,
                client_certificate=client_certificate,
                client_key=client_key,
                insecure=insecure,
                timeout_seconds=timeout_seconds,
                wait_for_ready=wait_for_ready,
                users_app_id=users_app_id,
                settings=settings,
                transport=transport,
            )
        )

    @property
    def settings(self) -> ClientSettings:
        """The settings that the client uses."""
        return self._session.settings

    @staticmethod
    def new_key() -> str:
        """Make an idempotency key for one write, to store before the write is sent.

        Returns:
            32 hexadecimal digits: a random UUID.
        """
        return _client.CreditClient.new_key()

    def add(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
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
                `CreditError` as its attribute, and every exception, an interruption too, in a note.
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
        return self._session.run(
            self._session.client.add(
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                idempotency_key=idempotency_key,
                expected_revision=expected_revision,
                min_available_after=min_available_after,
                timeout_seconds=timeout_seconds,
            )
        )

    def use(
        self,
        *,
        user_id: int | str,
        app_id: int,
        report_id: str,
        report_name: str,
        credits: int,
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
        return self._session.run(
            self._session.client.use(
                user_id=user_id,
                app_id=app_id,
                report_id=report_id,
                report_name=report_name,
                credits=credits,
                created_by=created_by,
                once=once,
                idempotency_key=idempotency_key,
                expected_revision=expected_revision,
                min_available_after=min_available_after,
                timeout_seconds=timeout_seconds,
            )
        )

    def hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        expires_after: timedelta | None = None,
        purpose: str = "",
        allow_partial: bool = False,
        **options: Unpack[WriteOptions],
    ) -> HoldHandle:
        """Reserve credits for a block of code, which captures what it uses.

            with credits.hold(user_id=7, app_id=1, credits=20, created_by=1) as hold:
                tokens = answer()
                hold.capture(tokens, report_id="r-1", report_name="Answer")

        The end of the block releases what was not captured, also if the block raises. Without a
        block, `hold = credits.hold(…)` places the hold, and you release it yourself; at its
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
            CreditError: As `place_hold` raises, when the hold is placed.
        """
        return HoldHandle(
            self._session,
            self._session.run(
                self._session.client.hold(
                    user_id=user_id,
                    app_id=app_id,
                    credits=credits,
                    created_by=created_by,
                    expires_after=expires_after,
                    purpose=purpose,
                    allow_partial=allow_partial,
                    **options,
                )
            ),
        )

    def hold_of(
        self, *, hold_id: str, user_id: int | str, app_id: int, created_by: int
    ) -> HoldHandle:
        """Return a handle of a hold that was placed earlier, perhaps by another process.

        Nothing is sent. `with` on it releases at its end what was not captured.

        Args:
            hold_id: The hold: `HoldHandle.id`, `Hold.id`, or the `transaction_id` of the receipt
                that placed it.
            user_id: The user whose credits are reserved.
            app_id: The app.
            created_by: The identity of the acting person or service.
        """
        return HoldHandle(
            self._session,
            self._session.client.hold_of(
                hold_id=hold_id, user_id=user_id, app_id=app_id, created_by=created_by
            ),
        )

    def batch(self, *, atomic: bool = False, timeout_seconds: float | None = None) -> Batch:
        """Collect writes and send them together, with few messages.

            with credits.batch() as batch:
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
            self._session,
            self._session.client.batch(atomic=atomic, timeout_seconds=timeout_seconds),
        )

    def import_(
        self,
        rows: Iterable[ImportRow],
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
            rows: The rows, from any iterable.
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
        return self._session.import_(
            lambda importing: self._session.client.import_(
                importing.rows(rows),
                name=name,
                concurrency=concurrency,
                progress=importing.function(progress),
                rejected=importing.function(rejected),
                timeout_seconds=timeout_seconds,
            )
        )

    def grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        expires_at: datetime | None = None,
        expires_after: timedelta | None = None,
        effective_at: datetime | None = None,
        priority: int | None = None,
        category: GrantCategory = GrantCategory.UNSPECIFIED,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Add credits that have an end, a start, a priority or a category.

        Credits of the lowest priority are spent first, among these the credits that end first, and
        among these the oldest. Credits without an end come last in their priority.

        Args:
            user_id: The user who receives the credits.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_at: When what is left of the credits expires. Not with `expires_after`. If both
                are None, the credits never expire.
            expires_after: The time from the start to the end, at least a second.
            effective_at: When the credits can be spent for the first time; None: at once.
            priority: 0 to 1000. The lowest is spent first. None: 500, as for credits of `add`.
            category: Where the credits come from.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the grant's id.

        Raises:
            ExpiresTooEarly: The grant would end before it starts.
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            GrantsFull: The user has as many live grants in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._session.run(
            self._session.client.grant(
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                expires_at=expires_at,
                expires_after=expires_after,
                effective_at=effective_at,
                priority=priority,
                category=category,
                **options,
            )
        )

    def void_grant(
        self,
        *,
        user_id: int | str,
        app_id: int,
        grant_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Take back what is left of one grant. Credits that are held stay held.

        Args:
            user_id: The user who has the grant.
            app_id: The app.
            grant_id: The `transaction_id` of the receipt of `grant`, or `Grant.id`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the credits that were taken back.

        Raises:
            GrantNotFound: The user never had a grant with this id in the app.
            GrantEmpty: Nothing is left of the grant.
        """
        return self._session.run(
            self._session.client.void_grant(
                user_id=user_id, app_id=app_id, grant_id=grant_id, created_by=created_by, **options
            )
        )

    def transfer(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        to_user_id: int | str | None = None,
        to_app_id: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Move credits to another user, another app, or both. Both sides take effect or neither.

        The credits keep their priority, their end and their category.

        Args:
            user_id: The user who gives.
            app_id: The app from which the credits come.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            to_user_id: The user who receives the credits; None for the same user.
            to_app_id: The app in which the credits are received; None for the same app.
            options: See `WriteOptions`.

        Returns:
            The receipt of the user and the app that gave the credits.

        Raises:
            InsufficientCredits: The balance is too low.
            BalanceOverflow: The receiver's balance would pass 4294967295.
            TooManyApps: The receiver has credits in as many apps as one user may.
            GrantsFull: The receiver has as many live grants in the app as one user may.
            AccountFull: The receiver has as many grants and holds in all apps as one user may.
        """
        return self._session.run(
            self._session.client.transfer(
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                to_user_id=to_user_id,
                to_app_id=to_app_id,
                **options,
            )
        )

    def place_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        credits: int,
        created_by: int,
        expires_after: timedelta | None = None,
        purpose: str = "",
        allow_partial: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Reserve credits for a purchase whose price is not known yet.

        `CreditClient.hold` also releases what is not used. Held credits are not in the balance.

        Args:
            user_id: The user whose credits are reserved.
            app_id: The app.
            credits: The number of credits.
            created_by: The identity of the acting person or service.
            expires_after: The time until the hold ends, and what it still holds is free again:
                1 second to 7 days; None for 15 minutes.
            purpose: What the credits are reserved for, for people to read: up to 256 characters.
            allow_partial: Whether to reserve the whole balance if it is lower than `credits`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `transaction_id` is the hold's id, and `held` are the credits that the
            hold holds.

        Raises:
            InsufficientCredits: The balance is too low. With `allow_partial`: the balance is 0.
            CapExceeded: A spending cap would be exceeded.
            HoldsFull: The user has as many open holds in the app as one user may.
            AccountFull: The user has as many grants and holds in all apps as one user may.
        """
        return self._session.run(
            self._session.client.place_hold(
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                expires_after=expires_after,
                purpose=purpose,
                allow_partial=allow_partial,
                **options,
            )
        )

    def capture_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        report_id: str,
        report_name: str,
        created_by: int,
        credits: int | None = None,
        final: bool = True,
        allow_excess: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Buy a report with reserved credits, and record the purchase as `use` does.

        Args:
            user_id: The user who buys.
            app_id: The app.
            hold_id: The `transaction_id` of the receipt of `place_hold`, or `Hold.id`.
            report_id: The report's id in the app: 1 to 128 characters.
            report_name: The report's name for people to read: 1 to 256 characters.
            created_by: The identity of the acting person or service.
            credits: The price; None for all that the hold still holds.
            final: Whether to release what is left. If False, the hold stays open for more captures.
            allow_excess: Whether the balance pays the part of the price that exceeds the hold.
            options: See `WriteOptions`.

        Returns:
            The receipt. `held` are the credits that the hold still holds, and `released_credits`
            those that were released.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldAlreadyCaptured: A capture has settled the hold.
            HoldAlreadyReleased: The hold was released.
            HoldExpired: The hold has ended. Call `use` with a new key instead.
            HoldExceeded: The price is above what the hold still holds.
            CapExceeded: With `allow_excess`, a spending cap would be exceeded.
            InsufficientCredits: With `allow_excess`, the balance is too low.
        """
        return self._session.run(
            self._session.client.capture_hold(
                user_id=user_id,
                app_id=app_id,
                hold_id=hold_id,
                report_id=report_id,
                report_name=report_name,
                created_by=created_by,
                credits=credits,
                final=final,
                allow_excess=allow_excess,
                **options,
            )
        )

    def release_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Release what a hold still holds, and settle the hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `released_credits` are the released credits.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
        """
        return self._session.run(
            self._session.client.release_hold(
                user_id=user_id, app_id=app_id, hold_id=hold_id, created_by=created_by, **options
            )
        )

    def extend_hold(
        self,
        *,
        user_id: int | str,
        app_id: int,
        hold_id: str,
        expires_after: timedelta,
        created_by: int,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Set a new end of a hold.

        Args:
            user_id: The user whose credits were reserved.
            app_id: The app.
            hold_id: As for `capture_hold`.
            expires_after: The time from now to the new end: at least a second. The new end may be
                earlier than the old one. A hold ends at most 7 days after it was placed.
            created_by: The identity of the acting person or service.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `expires_at` is the new end.

        Raises:
            HoldNotFound: The user never had a hold with this id in the app.
            HoldSettled: The hold is no longer open.
            HoldLifeExceeded: The hold would end more than 7 days after it was placed.
        """
        return self._session.run(
            self._session.client.extend_hold(
                user_id=user_id,
                app_id=app_id,
                hold_id=hold_id,
                expires_after=expires_after,
                created_by=created_by,
                **options,
            )
        )

    def refund(
        self,
        bought: Receipt | CreditTransaction | Purchase,
        *,
        created_by: int,
        user_id: int | str | None = None,
        app_id: int | None = None,
        credits: int | None = None,
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Return credits of a purchase to the grants that paid for it.

        All refunds of a purchase together never exceed its price.

        Args:
            bought: The purchase, the transaction that paid for it, or the receipt of `use` or of a
                capture. With the id alone, call `reverse`.
            created_by: The identity of the acting person or service.
            user_id: The user who bought; required with a receipt, which does not name the user.
            app_id: The app; required with a receipt.
            credits: The number of credits; None for all that were not refunded yet.
            restore_until: Until when credits of grants that have ended since can be spent; None:
                they expire at once.
            options: See `WriteOptions`.

        Raises:
            ValueError: `bought` is not a purchase, or it is a receipt and the user or the app is
                missing.
            TransactionNotFound: The user has no such purchase in the app.
            ReversalExceeds: Less of the price can still be refunded, or nothing.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        return self._session.run(
            self._session.client.refund(
                bought,
                created_by=created_by,
                user_id=user_id,
                app_id=app_id,
                credits=credits,
                restore_until=restore_until,
                **options,
            )
        )

    def reverse(
        self,
        *,
        user_id: int | str,
        app_id: int,
        transaction_id: str,
        created_by: int,
        credits: int | None = None,
        restore_until: datetime | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Undo a transaction in whole or in part: refund a use, or take back added credits.

        Args:
            user_id: The user of the transaction.
            app_id: The app of the transaction.
            transaction_id: The transaction. A USE is refunded; the credits of an ADD, GRANT or
                TRANSFER_IN are taken back from what is left of them.
            created_by: The identity of the acting person or service.
            credits: The number of credits; None for all that can be reversed.
            restore_until: As for `refund`.
            options: See `WriteOptions`.

        Returns:
            The receipt. Its `credits` are the reversed credits.

        Raises:
            TransactionNotFound: The user has no such transaction in the app.
            NotReversible: The transaction has another type.
            ReversalExceeds: Less of the transaction can still be reversed, or nothing.
            InsufficientCredits: Less is left of the added credits than would be taken back.
            GrantsFull: A grant cannot be restored: the user has as many as one user may.
            AccountFull: A grant cannot be restored, because of the grants and holds in all apps.
            BalanceOverflow: The balance would pass 4294967295.
        """
        return self._session.run(
            self._session.client.reverse(
                user_id=user_id,
                app_id=app_id,
                transaction_id=transaction_id,
                created_by=created_by,
                credits=credits,
                restore_until=restore_until,
                **options,
            )
        )

    def adjust(
        self,
        *,
        user_id: int | str,
        app_id: int,
        delta: int,
        note: str,
        created_by: int,
        **options: Unpack[NotedOptions],
    ) -> Receipt:
        """Correct a balance, where no other call can. This call is meant for operators.

        Args:
            user_id: The user.
            app_id: The app.
            delta: The change, -4294967295 to 4294967295, not 0. A negative change takes credits in
                the order in which they are spent.
            note: The reason, for people to read: 1 to 500 characters.
            created_by: The identity of the acting person or service.
            options: See `NotedOptions`.

        Raises:
            CreditsLimitExceeded: The operator allows fewer credits in one call.
            InsufficientCredits: The balance would be below 0, and the app's policy does not allow
                that.
            BalanceOverflow: The balance would pass 4294967295.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._session.run(
            self._session.client.adjust(
                user_id=user_id,
                app_id=app_id,
                delta=delta,
                note=note,
                created_by=created_by,
                **options,
            )
        )

    def set_spending_cap(
        self,
        *,
        user_id: int | str,
        app_id: int,
        created_by: int,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_month: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Set a user's own spending caps in an app. They replace those of the app.

        `CreditClient.set_app_spending_cap` sets the caps of the app. The periods are in UTC.

        Args:
            user_id: The user.
            app_id: The app.
            created_by: The identity of the acting person or service.
            per_hour: The credits that can be spent in an hour; None for no cap.
            per_day: The credits that can be spent in a day; None for no cap.
            per_month: The credits that can be spent in a calendar month; None for no cap. If all
                three are None, the user's caps are removed, and those of the app apply again.
            options: See `WriteOptions`.

        Raises:
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._session.run(
            self._session.client.set_spending_cap(
                user_id=user_id,
                app_id=app_id,
                created_by=created_by,
                per_hour=per_hour,
                per_day=per_day,
                per_month=per_month,
                **options,
            )
        )

    def app_policy(self, *, app_id: int, timeout_seconds: float | None = None) -> AppPolicy:
        """Return an app's policy: its caps, and whether balances may be negative."""
        return self._session.run(
            self._session.client.app_policy(app_id=app_id, timeout_seconds=timeout_seconds)
        )

    def set_app_policy(
        self,
        *,
        app_id: int,
        created_by: int,
        allow_negative: bool | None = None,
        validate_only: bool = False,
        expected_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AppPolicy:
        """Change an app's policy, and return it.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            allow_negative: Whether `adjust` can take a balance below 0; None: unchanged.
            validate_only: Whether to return the changed policy without writing it.
            expected_revision: The change is rejected with `RevisionChanged` unless this is the
                `AppPolicy.revision`.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.set_app_policy(
                app_id=app_id,
                created_by=created_by,
                allow_negative=allow_negative,
                validate_only=validate_only,
                expected_revision=expected_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def set_app_spending_cap(
        self,
        *,
        app_id: int,
        created_by: int,
        per_hour: int | None = None,
        per_day: int | None = None,
        per_month: int | None = None,
        validate_only: bool = False,
        expected_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AppPolicy:
        """Set the spending caps of each user of an app who has no caps of their own.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            per_hour: The credits that a user can spend in an hour of UTC; None for no cap.
            per_day: The credits that a user can spend in a day; None for no cap.
            per_month: The credits that a user can spend in a calendar month; None for no cap.
            validate_only: As for `set_app_policy`.
            expected_revision: As for `set_app_policy`.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.set_app_spending_cap(
                app_id=app_id,
                created_by=created_by,
                per_hour=per_hour,
                per_day=per_day,
                per_month=per_month,
                validate_only=validate_only,
                expected_revision=expected_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def set_alert(
        self,
        *,
        app_id: int,
        credits: int,
        created_by: int,
        user_id: int | str | None = None,
        direction: AlertDirection = AlertDirection.FALLS_BELOW,
        timeout_seconds: float | None = None,
    ) -> Sequence[Alert]:
        """Set an alert: each time the balance crosses the limit, the server writes an event.

        Args:
            app_id: The app.
            credits: The limit, in credits that can be spent.
            created_by: The identity of the acting person or service.
            user_id: The user; None: the alert is for every user of the app.
            direction: Whether there is an event when the balance falls below the limit, or when it
                rises to it.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            All alerts of the user in the app or, without a user, of the app.

        Raises:
            TooManyAlerts: The user or the app has the maximum number of alerts.
            TooManyApps: The user has credits in as many apps as one user may.
        """
        return self._session.run(
            self._session.client.set_alert(
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                user_id=user_id,
                direction=direction,
                timeout_seconds=timeout_seconds,
            )
        )

    def remove_alert(
        self,
        *,
        app_id: int,
        credits: int,
        created_by: int,
        user_id: int | str | None = None,
        direction: AlertDirection = AlertDirection.FALLS_BELOW,
        timeout_seconds: float | None = None,
    ) -> Sequence[Alert]:
        """Remove an alert. Removing one that is not set changes nothing.

        Args:
            app_id: The app.
            credits: The limit of the alert.
            created_by: The identity of the acting person or service.
            user_id: The user; None: the alert is for every user of the app.
            direction: The direction of the alert.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The alerts that are left, as for `set_alert`.
        """
        return self._session.run(
            self._session.client.remove_alert(
                app_id=app_id,
                credits=credits,
                created_by=created_by,
                user_id=user_id,
                direction=direction,
                timeout_seconds=timeout_seconds,
            )
        )

    def alerts(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AlertList:
        """Return the `app_alerts` of an app and, with a user, the `user_alerts` too.

        Args:
            app_id: The app.
            user_id: The user; None: only the alerts of the app.
            min_revision: As for `user_credits`; only with a user.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.alerts(
                app_id=app_id,
                user_id=user_id,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def alert_events(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        after_position: int = 0,
        timeout_seconds: float | None = None,
    ) -> Generator[AlertEvent, None, None]:
        """Return the events of an app so far, oldest first: `for … in …`.

        The events are read in pages of 1,000. An event can be read about a second after its
        transaction, and for 30 days. To read later events, continue after the `position` of the
        last one.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The events after this `position`; 0 for all that are kept.
            timeout_seconds: The time for each page; None for the client's.

        Raises:
            AlertEventsExpired: The server has removed events of the app after the position, or has
                no event with the position, because an older backup was restored.
        """
        return self._session.rows(
            self._session.client.alert_events(
                app_id=app_id,
                user_id=user_id,
                after_position=after_position,
                timeout_seconds=timeout_seconds,
            )
        )

    def alert_position(self, *, app_id: int, timeout_seconds: float | None = None) -> int:
        """Return the current position, after which `watch_alerts` returns only new events.

        Args:
            app_id: The app.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.alert_position(app_id=app_id, timeout_seconds=timeout_seconds)
        )

    def watch_alerts(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        after_position: int,
        timeout_seconds: float | None = None,
    ) -> Generator[AlertEvent, None, None]:
        """Return the events of an app as they arrive, without an end: `for … in …`.

        The server answers each call when there is an event, or after some seconds. If the server
        cannot be reached, the client retries forever. No event is missed or returned twice.

        Args:
            app_id: The app.
            user_id: Only events of this user; None: of all users.
            after_position: The events after this `position`: 0 for all that are kept, that of the
                last event that your app has processed, or that of `alert_position`. Store it, to
                continue after a restart.
            timeout_seconds: The time for each call; None for the client's.

        Raises:
            AlertEventsExpired: The server has removed events of the app after the position, or has
                no event with the position, because an older backup was restored.
        """
        return self._session.rows(
            self._session.client.watch_alerts(
                app_id=app_id,
                user_id=user_id,
                after_position=after_position,
                timeout_seconds=timeout_seconds,
            )
        )

    def set_webhook(
        self,
        *,
        app_id: int,
        url: str,
        created_by: int,
        secret: str | None = None,
        timeout_seconds: float | None = None,
    ) -> str:
        """Set a webhook: the server sends the events of the app to its URL.

        Args:
            app_id: The app.
            url: Where the events are sent, by HTTPS.
            created_by: The identity of the acting person or service.
            secret: The key of the signatures: `whsec_` followed by base64 of 24 to 64 bytes. None:
                a new secret. It replaces the secret of a webhook that is already set.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The secret. No other call returns it: store it where the messages are verified.

        Raises:
            WebhookUrlNotAllowed: The URL is not HTTPS, or has a private address.
            TooManyWebhooks: The app has the maximum number of webhooks.
        """
        return self._session.run(
            self._session.client.set_webhook(
                app_id=app_id,
                url=url,
                created_by=created_by,
                secret=secret,
                timeout_seconds=timeout_seconds,
            )
        )

    def webhooks(self, *, app_id: int, timeout_seconds: float | None = None) -> Sequence[Webhook]:
        """Return the webhooks of an app, without their secrets."""
        return self._session.run(
            self._session.client.webhooks(app_id=app_id, timeout_seconds=timeout_seconds)
        )

    def remove_webhook(
        self, *, app_id: int, url: str, created_by: int, timeout_seconds: float | None = None
    ) -> None:
        """Remove a webhook, and drop the messages that it has not acknowledged.

        Args:
            app_id: The app.
            url: The URL of the webhook. Removing one that is not set changes nothing.
            created_by: The identity of the acting person or service.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.remove_webhook(
                app_id=app_id, url=url, created_by=created_by, timeout_seconds=timeout_seconds
            )
        )

    def dead_letters(
        self, *, app_id: int, timeout_seconds: float | None = None
    ) -> Generator[DeadLetter, None, None]:
        """Return the dead letters of an app, which no attempt delivered: `for … in …`.

        Args:
            app_id: The app.
            timeout_seconds: The time for each page; None for the client's.
        """
        return self._session.rows(
            self._session.client.dead_letters(app_id=app_id, timeout_seconds=timeout_seconds)
        )

    def resend_dead_letters(
        self,
        *,
        app_id: int,
        created_by: int,
        dead_letter_id: str | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Send dead letters again, like new messages, and return their number.

        Args:
            app_id: The app.
            created_by: The identity of the acting person or service.
            dead_letter_id: The `id` of the dead letter; None: all dead letters of the app.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            DeadLetterNotFound: The app has no dead letter with this id.
        """
        return self._session.run(
            self._session.client.resend_dead_letters(
                app_id=app_id,
                created_by=created_by,
                dead_letter_id=dead_letter_id,
                timeout_seconds=timeout_seconds,
            )
        )

    def user_credits(
        self,
        *,
        user_id: int | str,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> UserCredits:
        """Return a user's balances in all apps; the list is empty without any credits so far.

        Args:
            user_id: The user.
            min_revision: The answer is not older than this revision of the user, such as
                `Receipt.revision`; None: no condition. A server before 0.4.0 ignores it.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            RevisionNotReached: The user has a lower revision.
        """
        return self._session.run(
            self._session.client.user_credits(
                user_id=user_id, min_revision=min_revision, timeout_seconds=timeout_seconds
            )
        )

    def balance(
        self,
        *,
        app_id: int,
        user_id: int | str | None = None,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> int:
        """Return a user's balance in an app or, without `user_id`, the sum over all its users.

        Args:
            app_id: The app.
            user_id: The user; None for all.
            min_revision: As for `user_credits`; only with a user.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            AppTotalOverflow: The sum is past 4294967295. See also `CreditError`.
            RevisionNotReached: The user has a lower revision.
        """
        return self._session.run(
            self._session.client.balance(
                app_id=app_id,
                user_id=user_id,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def balance_details(
        self,
        *,
        app_id: int,
        user_id: int | str,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Balance:
        """Return a user's balance in an app with what is held and owed, and what expires next.

        Args:
            app_id: The app.
            user_id: The user.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            RevisionNotReached: The user has a lower revision.
        """
        return self._session.run(
            self._session.client.balance_details(
                app_id=app_id,
                user_id=user_id,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def purchases(
        self,
        *,
        user_id: int | str,
        after_sequence: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Generator[Purchase, None, None]:
        """Return a user's purchases, oldest first, as they arrive: `for … in …`.

        Leaving the loop early ends the call. The client holds a few messages at a time, however
        long the list is. A list that breaks off is continued after its last row: no row comes
        twice, and none is left out. Servers before 0.2.0 do not number purchases: with them the
        failure is raised.

        Args:
            user_id: The user.
            after_sequence: The purchases after this `sequence`; 0 for all.
            min_revision: As for `user_credits`.
            timeout_seconds: The time to wait for each next message; None for the client's. The
                whole list may take as long as its reader takes.
        """
        return self._session.rows(
            self._session.client.purchases(
                user_id=user_id,
                after_sequence=after_sequence,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def transactions(
        self,
        *,
        user_id: int | str,
        after_sequence: int = 0,
        verify: bool | Checkpoint | HistoryVerifier = False,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Generator[CreditTransaction, None, None]:
        """Return a user's transactions, oldest first. The call behaves like `purchases`.

        Args:
            user_id: The user.
            after_sequence: The transactions after this `sequence`; 0 for all.
            verify: Whether to check that the history was not changed since it was written. True
                checks its hashes and balances. A `Checkpoint` also compares it with the checkpoint.
                A `HistoryVerifier` also compares it with receipts. Each transaction is checked
                before it is returned. Missing ones at the end are reported when the loop reaches
                the end.
            min_revision: As for `user_credits`.
            timeout_seconds: As for `purchases`.

        Raises:
            HistoryAltered: The history is not what the server has written.
            ValueError: The checkpoint was loaded without the user, or `after_sequence` is given
                with a checkpoint.
        """
        return self._session.rows(
            self._session.client.transactions(
                user_id=user_id,
                after_sequence=after_sequence,
                verify=verify,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def query_transactions(
        self,
        *,
        user_id: int | str | None = None,
        app_id: int | None = None,
        types: Sequence[TransactionType] = (),
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        after_sequence: int = 0,
        before_sequence: int | None = None,
        credits_min: int | None = None,
        credits_max: int | None = None,
        report_id: str = "",
        related_id: str = "",
        grant_id: str = "",
        created_by: int | None = None,
        metadata: Mapping[str, str] | None = None,
        oldest_first: bool = False,
        page_size: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> TransactionQuery:
        """Return the transactions of a user, or of an app, that satisfy all conditions.

            for transaction in credits.query_transactions(user_id=7, app_id=1):
                ...

        Nothing is read before the loop begins, and pages are read as they are needed. Each
        transaction is returned once, even if transactions are written meanwhile. The cost of a page
        does not depend on the length of the history. Needs a server of 0.4.0 or later.

        Without a user, the transactions are those of all users in the app, ordered by time. Those
        of about the last 120 seconds are left out, because others can still appear before them. See
        `complete_until` of a page.

        Args:
            user_id: The user; None: all users. Then `app_id` is needed, and `after_sequence`,
                `before_sequence` and `related_id` may not be set: they belong to the history of a
                user.
            app_id: Only in this app; None: in all.
            types: Only of these types; empty: of any.
            created_from: Only those created at this time or later, with a time zone.
            created_until: Only those created before this time, with a time zone.
            after_sequence: Only those with a greater `sequence`.
            before_sequence: Only those with a smaller `sequence`; None: up to the latest.
            credits_min: Only those of at least so many credits.
            credits_max: Only those of at most so many credits.
            report_id: Only purchases of this report.
            related_id: Only those that refer to this transaction, such as a hold.
            grant_id: Only those with credits of this grant.
            created_by: Only those that this person or service requested.
            metadata: Only those with all these pairs.
            oldest_first: Whether the oldest come first. Otherwise the newest do.
            page_size: The most transactions of a page, up to 1,000; 0 for 100.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for each page; None for the client's.

        Raises:
            InvalidField: A page is read, and an argument is out of its range. See also
                `CreditError`.
        """
        return TransactionQuery(
            self._session,
            self._session.client.query_transactions(
                user_id=user_id,
                app_id=app_id,
                types=types,
                created_from=created_from,
                created_until=created_until,
                after_sequence=after_sequence,
                before_sequence=before_sequence,
                credits_min=credits_min,
                credits_max=credits_max,
                report_id=report_id,
                related_id=related_id,
                grant_id=grant_id,
                created_by=created_by,
                metadata=metadata,
                oldest_first=oldest_first,
                page_size=page_size,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            ),
        )

    def query_purchases(
        self,
        *,
        user_id: int | str | None = None,
        app_id: int | None = None,
        created_from: datetime | None = None,
        created_until: datetime | None = None,
        after_sequence: int = 0,
        before_sequence: int | None = None,
        credits_min: int | None = None,
        credits_max: int | None = None,
        report_id: str = "",
        created_by: int | None = None,
        refunded: bool | None = None,
        oldest_first: bool = False,
        page_size: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> PurchaseQuery:
        """Return the purchases of a user, or of an app, that satisfy all conditions.

            for purchase in credits.query_purchases(app_id=1, report_id="r-81"):
                ...

        Pages, their order and what they leave out are as for `query_transactions`. Needs a server
        of 0.4.0 or later.

        Args:
            user_id: The user; None: all users. Then `app_id` is needed, and `after_sequence` and
                `before_sequence` may not be set.
            app_id: Only in this app; None: in all.
            created_from: Only those created at this time or later, with a time zone.
            created_until: Only those created before this time, with a time zone.
            after_sequence: Only those with a greater `sequence`.
            before_sequence: Only those with a smaller `sequence`; None: up to the latest.
            credits_min: Only those of at least this number of credits.
            credits_max: Only those of at most this number of credits.
            report_id: Only those of this report.
            created_by: Only those that this person or service requested.
            refunded: Only those with refunded credits, or only those without; None: both.
            oldest_first: Whether the oldest come first. Otherwise the newest do.
            page_size: The most purchases of a page, up to 1,000; 0 for 100.
            min_revision: As for `user_credits`; only with a user.
            timeout_seconds: The time for each page; None for the client's.

        Raises:
            InvalidField: A page is read, and an argument is out of its range. See also
                `CreditError`.
        """
        return PurchaseQuery(
            self._session,
            self._session.client.query_purchases(
                user_id=user_id,
                app_id=app_id,
                created_from=created_from,
                created_until=created_until,
                after_sequence=after_sequence,
                before_sequence=before_sequence,
                credits_min=credits_min,
                credits_max=credits_max,
                report_id=report_id,
                created_by=created_by,
                refunded=refunded,
                oldest_first=oldest_first,
                page_size=page_size,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            ),
        )

    def watch(
        self,
        *,
        user_id: int | str | None = None,
        app_id: int | None = None,
        resume_token: str = "",
        progress: bool = False,
        progress_seconds: int = 0,
        end_when_current: bool = False,
    ) -> Generator[WatchEvent, None, None]:
        """Return the transactions of a user or an app as they are written: `for … in …`.

            for event in credits.watch(user_id=7):
                if event.transaction is not None:
                    ...

        Without a token the stream begins now. If there is a user, its first event then has the
        balances as `event.snapshot`. Later transactions follow, each once and in order. Store
        `event.resume_token` with what you do for an event, and pass it to continue after the event.

        After the first event, the stream ends only when you leave the loop: after a temporary
        failure, the SDK continues with the last token. Needs a server of 0.4.0 or later.

        Args:
            user_id: The user; None: all users of the app.
            app_id: The app; None: all apps that the caller may read.
            resume_token: The `resume_token` of the last event that was handled; empty: begin now.
            progress: Whether to return events with only a token too. They show that nothing was
                missed so far. The token of an app expires if you do not renew it for hours.
            progress_seconds: The seconds without an event after which the server sends one with
                only a token, up to 300; 0 for 15.
            end_when_current: Whether the stream ends when all transactions that were written before
                the call have been returned.

        Raises:
            InvalidField: An argument is out of its range, or there is neither a user nor an app.
            ResumeTokenInvalid: The token was returned for another user or app.
            ResumeTokenExpired: The server no longer has the app's transactions after the token.
                See also `CreditError`.
        """
        return self._session.rows(
            self._session.client.watch(
                user_id=user_id,
                app_id=app_id,
                resume_token=resume_token,
                progress=progress,
                progress_seconds=progress_seconds,
                end_when_current=end_when_current,
            )
        )

    def transaction(
        self,
        *,
        transaction_id: str = "",
        user_id: int | str | None = None,
        app_id: int | None = None,
        idempotency_key: str = "",
        timeout_seconds: float | None = None,
    ) -> CreditTransaction:
        """Return one transaction: by its id, or by the key of the write that created it.

        With `user_id`, `app_id` and `idempotency_key`, it shows whether a write was applied,
        without sending the write again. Needs a server of 0.4.0 or later.

        Args:
            transaction_id: The transaction's id. Without it, the next three arguments are needed.
            user_id: The user of the write.
            app_id: The app of the write.
            idempotency_key: The key of the write.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            TransactionNotFound: There is no transaction with this id that the caller may read.
            IdempotencyKeyNotFound: No write with this key was applied so far. A write that is still
                in progress can be applied later.
        """
        return self._session.run(
            self._session.client.transaction(
                transaction_id=transaction_id,
                user_id=user_id,
                app_id=app_id,
                idempotency_key=idempotency_key,
                timeout_seconds=timeout_seconds,
            )
        )

    def summarize(
        self,
        *,
        user_id: int | str | None = None,
        app_id: int | None = None,
        created_from: datetime,
        created_until: datetime,
        group_by: SummaryGroup = SummaryGroup.UNSPECIFIED,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Summaries:
        """Return sums of the transactions of a user or of all users in an app, in a span of time.

        Needs a server of 0.4.0 or later.

        Args:
            user_id: The user; None: all users. Then `app_id` is needed, and the latest transactions
                are left out; see `query_transactions`.
            app_id: Only in this app; None: in all.
            created_from: The beginning of the span, with a time zone.
            created_until: The end of the span, which is not in it, with a time zone.
            group_by: How the transactions are grouped. Days and months are in UTC.
            min_revision: As for `user_credits`; only with a user.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The `summaries`, one for each group that has transactions, and `complete_until` if all
            users are summarized.

        Raises:
            SummaryTooLarge: The span has more than 100,000 transactions or 1,000 groups.
        """
        return self._session.run(
            self._session.client.summarize(
                user_id=user_id,
                app_id=app_id,
                created_from=created_from,
                created_until=created_until,
                group_by=group_by,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def balance_at(
        self,
        *,
        user_id: int | str,
        app_id: int,
        at: datetime | None = None,
        sequence: int | None = None,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> BalanceAt:
        """Return a user's balance in an app at an earlier time, or after a transaction.

        A change by time, such as the end of a grant, counts from its exact instant. A write that is
        in progress can still change the balance of about the last 120 seconds. Needs a server of
        0.4.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            at: The time, with a time zone. A time in the future is replaced by the present time.
                Either this or `sequence` is needed.
            sequence: The `sequence` of the last transaction that counts.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The `balance`, the credits that the user `owed`, the `sequence` of the last transaction
            that counts, and the time of the balance, `as_of`.
        """
        return self._session.run(
            self._session.client.balance_at(
                user_id=user_id,
                app_id=app_id,
                at=at,
                sequence=sequence,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def grants(
        self,
        *,
        user_id: int | str,
        app_id: int,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Sequence[Grant]:
        """Return the live grants of a user in an app: at most 256.

        Needs a server of 0.3.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.grants(
                user_id=user_id,
                app_id=app_id,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def holds(
        self,
        *,
        user_id: int | str,
        app_id: int,
        include_settled: bool = False,
        after_sequence: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Generator[Hold, None, None]:
        """Return the holds of a user in an app, oldest first: `for … in …`.

        They are read in pages of 1,000. Needs a server of 0.3.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            include_settled: Whether to return settled holds too, and not only open ones.
            after_sequence: The holds after this `sequence`; 0 for all.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for each part; None for the client's.
        """
        return self._session.rows(
            self._session.client.holds(
                user_id=user_id,
                app_id=app_id,
                include_settled=include_settled,
                after_sequence=after_sequence,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def forecast(
        self,
        *,
        user_id: int | str,
        app_id: int,
        until: datetime | None = None,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> Forecast:
        """Return how a user's balance in an app changes by time alone, if nothing is spent.

        Needs a server of 0.3.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            until: The last moment of the forecast, with a time zone; None: without an end.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The balance now, and the steps by ascending time: which grant starts or expires, which
            hold ends, and the balance after it.
        """
        return self._session.run(
            self._session.client.forecast(
                user_id=user_id,
                app_id=app_id,
                until=until,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def spending_cap(
        self,
        *,
        user_id: int | str,
        app_id: int,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> UserSpendingCaps:
        """Return the spending caps of a user in an app, and what counts.

        Needs a server of 0.3.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The user's own caps, those of the app, and for each cap that applies what is spent and
            held in its period, what is left, and when the period ends.
        """
        return self._session.run(
            self._session.client.spending_cap(
                user_id=user_id,
                app_id=app_id,
                min_revision=min_revision,
                timeout_seconds=timeout_seconds,
            )
        )

    def checkpoint(
        self,
        *,
        app_id: int,
        key: str | Path,
        user_id: int | str | None = None,
        at: datetime | None = None,
        not_before: datetime | None = None,
        timeout_seconds: float | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of an app with the head of a user, after checking both.

            checkpoint = credits.checkpoint(app_id=1, user_id=7, key="checkpoint.pub")
            for transaction in credits.transactions(user_id=7, verify=checkpoint):
                ...

        The server is not trusted: the signature is checked with the operator's key, and the head
        with the signed root. Needs `credit-client[verify]`.

        The proof is about a number. If `user_id` is a text, the server chooses the number, and a
        server that is not honest can choose that of another or a new user. Pass the number that you
        have stored, such as the `user_id` of an earlier transaction.

        Args:
            app_id: The app.
            key: The file with the operator's public key: Ed25519, in PEM. Do not take it from the
                server.
            user_id: The user whose history is to be compared with the checkpoint; None: no user.
                The server has the heads of users for the latest 7 checkpoints of an app.
            at: The newest checkpoint of this time or earlier is returned; None: the newest one.
            not_before: Reject a checkpoint of an earlier time, with a time zone. None: 2 days
                before `at`. A server that returns an old checkpoint hides changes of later
                transactions.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            CheckpointRejected: The server has no such checkpoint, or it is too old, later than
                `at` or of another app, or its signature or the proof is not valid.
            ImportError: The extra is not installed.
            OSError: The key cannot be read.
            ValueError: `not_before` has no time zone.
        """
        return self._session.run(
            self._session.client.checkpoint(
                app_id=app_id,
                key=key,
                user_id=user_id,
                at=at,
                not_before=not_before,
                timeout_seconds=timeout_seconds,
            )
        )

    def checkpoints(
        self, *, app_id: int, timeout_seconds: float | None = None
    ) -> Sequence[SignedCheckpoint]:
        """Return the latest 400 checkpoints of an app, the newest first, without a check.

        Args:
            app_id: The app.
            timeout_seconds: The time for the whole call; None for the client's.
        """
        return self._session.run(
            self._session.client.checkpoints(app_id=app_id, timeout_seconds=timeout_seconds)
        )

    def resolve_user(
        self, *, app_id: int, external_id: str, timeout_seconds: float | None = None
    ) -> DirectoryUser:
        """Return the user with an external id in an app, and assign a number if there is none.

        `add` and `grant` also do this for a new user. The identity needs the scope
        `credits:issue`.

        Args:
            app_id: The app whose directory has the user.
            external_id: The user's id in that app, such as a UUID: 1 to 128 characters. Upper and
                lower case differ.
            timeout_seconds: The time for the whole call; None for the client's.

        Returns:
            The user. All calls return the same `user_id`.

        Raises:
            UserIdsExhausted: No number is left.
        """
        return self._session.run(
            self._session.client.resolve_user(
                app_id=app_id, external_id=external_id, timeout_seconds=timeout_seconds
            )
        )

    def find_user(
        self,
        *,
        user_id: int | None = None,
        app_id: int | None = None,
        external_id: str = "",
        timeout_seconds: float | None = None,
    ) -> DirectoryUser:
        """Return a user of the directory: by the number, or by the app and the external id.

        Args:
            user_id: The number. Without it, the next two arguments are needed.
            app_id: The app whose directory has the user.
            external_id: The user's id in that app.
            timeout_seconds: The time for the whole call; None for the client's.

        Raises:
            UserNotFound: The directory has no such user that the caller may read.
        """
        return self._session.run(
            self._session.client.find_user(
                user_id=user_id,
                app_id=app_id,
                external_id=external_id,
                timeout_seconds=timeout_seconds,
            )
        )

    def close(self) -> None:
        """Close the client and its connections; calls under way end with `ClientClosed`."""
        self._session.close()

    def __enter__(self) -> Self:
        """Open the client.

        Raises:
            RuntimeError: It is in another `with` block already.
        """
        self._session.enter()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client; see `close`."""
        self._session.close()
