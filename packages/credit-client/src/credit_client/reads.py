"""The calls that read: balances, histories, grants, holds, forecasts, spending caps."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

from credit_models import (
    Balance,
    CreditTransaction,
    Grant,
    Hold,
    Purchase,
    SummaryGroup,
    TransactionType,
    UserCredits,
)
from credit_models import GetBalanceAtResponse as BalanceAt
from credit_models import GetForecastResponse as Forecast
from credit_models import GetSpendingCapResponse as UserSpendingCaps
from credit_models import QueryPurchasesResponse as PurchasePage
from credit_models import QueryTransactionsResponse as TransactionPage
from credit_models import SummarizeResponse as Summaries
from credit_models import WatchResponse as WatchEvent
from grpclib.const import Status

from credit_client.call import Caller
from credit_client.checkpoint import Checkpoint
from credit_client.errors import ProtocolMismatch
from credit_client.history import PurchaseQuery, TransactionQuery
from credit_client.methods import (
    BALANCE,
    BALANCE_AT,
    FORECAST,
    GRANTS,
    HOLDS,
    PURCHASES,
    QUERY_PURCHASES,
    QUERY_TRANSACTIONS,
    SPENDING_CAP,
    SUMMARIZE,
    TRANSACTION,
    TRANSACTIONS,
    USER_CREDITS,
)
from credit_client.request import Values
from credit_client.verification import HistoryVerifier, verified

_PAGE_SIZE = 1000


class Reads(ABC):
    """The calls that change nothing."""

    @property
    @abstractmethod
    def _open_caller(self) -> Caller:
        """What makes the calls of the open client."""

    async def user_credits(
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
        answer, _ = await self._open_caller.unary(
            USER_CREDITS,
            {"user_id": user_id, "min_revision": min_revision},
            timeout_seconds=timeout_seconds,
        )
        return answer.reply

    async def balance(
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
        values: Values = {"app_id": app_id, "user_id": user_id, "min_revision": min_revision}
        answer, _ = await self._open_caller.unary(BALANCE, values, timeout_seconds=timeout_seconds)
        return answer.reply.balance

    async def balance_details(
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
        values: Values = {"app_id": app_id, "user_id": user_id, "min_revision": min_revision}
        answer, _ = await self._open_caller.unary(BALANCE, values, timeout_seconds=timeout_seconds)
        return answer.reply

    def purchases(
        self,
        *,
        user_id: int | str,
        after_sequence: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[Purchase, None]:
        """Return a user's purchases, oldest first, as they arrive: `async for … in …`.

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
        return self._open_caller.stream(
            PURCHASES,
            {
                "user_id": user_id,
                "after_sequence": after_sequence,
                "min_revision": min_revision,
            },
            timeout_seconds=timeout_seconds,
        )

    def transactions(
        self,
        *,
        user_id: int | str,
        after_sequence: int = 0,
        verify: bool | Checkpoint | HistoryVerifier = False,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[CreditTransaction, None]:
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
        verifier = verify if isinstance(verify, HistoryVerifier) else None
        if verify is True:
            verifier = HistoryVerifier(after_sequence=after_sequence)
        if isinstance(verify, Checkpoint):
            verifier = HistoryVerifier(checkpoint=verify, after_sequence=after_sequence)

        def on_number(number: int) -> None:
            if verifier is not None:
                verifier.expect(user_id=number)

        rows = self._open_caller.stream(
            TRANSACTIONS,
            {
                "user_id": user_id,
                "after_sequence": after_sequence,
                "min_revision": min_revision,
            },
            timeout_seconds=timeout_seconds,
            on_number=on_number,
        )
        return rows if verifier is None else verified(rows, verifier)

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

            async for transaction in credits.query_transactions(user_id=7, app_id=1):
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "types": types,
            "created_from": created_from,
            "created_until": created_until,
            "after_sequence": after_sequence,
            "before_sequence": before_sequence,
            "credits_min": credits_min,
            "credits_max": credits_max,
            "report_id": report_id,
            "related_id": related_id,
            "grant_id": grant_id,
            "created_by": created_by,
            "metadata": metadata or {},
            "oldest_first": oldest_first,
            "page_size": page_size,
            "min_revision": min_revision,
        }

        async def read(token: str) -> TransactionPage:
            answer, _ = await self._open_caller.unary(
                QUERY_TRANSACTIONS,
                {**values, "page_token": token},
                timeout_seconds=timeout_seconds,
            )
            return answer.reply

        return TransactionQuery(read)

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

            async for purchase in credits.query_purchases(app_id=1, report_id="r-81"):
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "created_from": created_from,
            "created_until": created_until,
            "after_sequence": after_sequence,
            "before_sequence": before_sequence,
            "credits_min": credits_min,
            "credits_max": credits_max,
            "report_id": report_id,
            "created_by": created_by,
            "refunded": refunded,
            "oldest_first": oldest_first,
            "page_size": page_size,
            "min_revision": min_revision,
        }

        async def read(token: str) -> PurchasePage:
            answer, _ = await self._open_caller.unary(
                QUERY_PURCHASES, {**values, "page_token": token}, timeout_seconds=timeout_seconds
            )
            return answer.reply

        return PurchaseQuery(read)

    def watch(
        self,
        *,
        user_id: int | str | None = None,
        app_id: int | None = None,
        resume_token: str = "",
        progress: bool = False,
        progress_seconds: int = 0,
        end_when_current: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Return the transactions of a user or an app as they are written: `async for … in …`.

            async for event in credits.watch(user_id=7):
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "resume_token": resume_token,
            "progress_seconds": progress_seconds,
            "end_when_current": end_when_current,
        }
        return self._open_caller.watch(values, progress=progress)

    async def transaction(
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
        values: Values = {
            "transaction_id": transaction_id,
            "user_id": user_id,
            "app_id": app_id,
            "idempotency_key": idempotency_key,
        }
        answer, request_id = await self._open_caller.unary(
            TRANSACTION, values, timeout_seconds=timeout_seconds
        )
        if answer.reply.transaction is None:
            raise ProtocolMismatch(
                "the server returned no transaction",
                status=Status.INTERNAL,
                request_id=request_id,
            )
        return answer.reply.transaction

    async def summarize(
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "created_from": created_from,
            "created_until": created_until,
            "group_by": group_by,
            "min_revision": min_revision,
        }
        answer, _ = await self._open_caller.unary(
            SUMMARIZE, values, timeout_seconds=timeout_seconds
        )
        return answer.reply

    async def balance_at(
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "at": at,
            "sequence": sequence,
            "min_revision": min_revision,
        }
        answer, _ = await self._open_caller.unary(
            BALANCE_AT, values, timeout_seconds=timeout_seconds
        )
        return answer.reply

    async def grants(
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
        values: Values = {"user_id": user_id, "app_id": app_id, "min_revision": min_revision}
        answer, _ = await self._open_caller.unary(GRANTS, values, timeout_seconds=timeout_seconds)
        return answer.reply.grants

    async def holds(
        self,
        *,
        user_id: int | str,
        app_id: int,
        include_settled: bool = False,
        after_sequence: int = 0,
        min_revision: int | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[Hold, None]:
        """Return the holds of a user in an app, oldest first: `async for … in …`.

        They are read in pages of 1,000. Needs a server of 0.3.0 or later.

        Args:
            user_id: The user.
            app_id: The app.
            include_settled: Whether to return settled holds too, and not only open ones.
            after_sequence: The holds after this `sequence`; 0 for all.
            min_revision: As for `user_credits`.
            timeout_seconds: The time for each part; None for the client's.
        """
        while True:
            values: Values = {
                "user_id": user_id,
                "app_id": app_id,
                "include_settled": include_settled,
                "after_sequence": after_sequence,
                "page_size": _PAGE_SIZE,
                "min_revision": min_revision,
            }
            answer, _ = await self._open_caller.unary(
                HOLDS, values, timeout_seconds=timeout_seconds
            )
            for hold in answer.reply.holds:
                yield hold
            if answer.reply.next_after_sequence <= after_sequence:
                return
            after_sequence = answer.reply.next_after_sequence

    async def forecast(
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
        values: Values = {
            "user_id": user_id,
            "app_id": app_id,
            "until": until,
            "min_revision": min_revision,
        }
        answer, _ = await self._open_caller.unary(FORECAST, values, timeout_seconds=timeout_seconds)
        return answer.reply

    async def spending_cap(
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
        values: Values = {"user_id": user_id, "app_id": app_id, "min_revision": min_revision}
        answer, _ = await self._open_caller.unary(
            SPENDING_CAP, values, timeout_seconds=timeout_seconds
        )
        return answer.reply
