"""Query the histories of users while writes happen, and compare the answers with the histories."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from credit_client import methods
from credit_client.call import Caller
from credit_client.errors import CreditError
from credit_models import CreditTransaction, Summary, SummaryGroup, TransactionType
from credit_testing.accounts.journal import Call, Journal, Kind, Read
from credit_testing.accounts.replay import History
from credit_testing.accounts.windows import Windows

from credit_simulate.server import World

_SPAN = {
    "created_from": datetime(2026, 3, 1, tzinfo=UTC),
    "created_until": datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=2),
}
"""Contains the time of all entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """The answer to a query of a user's history.

    Attributes:
        call: The user, the time and the required revision of the query.
        what: The name of the query in findings.
        answer: What the query returned.
        expected: Returns the answer that is correct for a number of entries.
    """

    call: Call
    what: str
    answer: object
    expected: Callable[[History, int], object]


class Queries:
    """Queries histories, and keeps the answers."""

    def __init__(self, world: World, journal: Journal, connect: Callable[[], Caller]) -> None:
        """Prepare to query.

        Args:
            world: Has the trace and the replica set.
            journal: Has the clock. The queries are not among its calls.
            connect: Returns a client of the SDK.
        """
        self._world = world
        self._journal = journal
        self._connect = connect
        self._queries: list[Query] = []

    async def rows(self, user: int, required: int | None) -> None:
        """Read the list of a user's transactions."""
        caller = self._connect()

        async def read() -> object:
            rows = caller.stream(methods.TRANSACTIONS, {"user_id": user, "min_revision": required})
            return [row async for row in rows]

        def expected(history: History, count: int) -> object:
            return list(history.shown[:count])

        await self.ask(user, "the list", read, expected, required=required)

    async def pages(
        self, user: int, required: int | None, *, oldest_first: bool, page_size: int
    ) -> None:
        """Read all pages of a user's transactions."""
        caller = self._connect()
        values = {"user_id": user, "oldest_first": oldest_first, "page_size": page_size}

        async def read() -> object:
            found: list[CreditTransaction] = []
            token = ""
            while True:
                answer, _ = await caller.unary(
                    methods.QUERY_TRANSACTIONS,
                    {**values, "min_revision": required, "page_token": token},
                )
                found += answer.reply.transactions
                token = answer.reply.next_page_token
                if not token:
                    return found

        def expected(history: History, count: int) -> object:
            entries = list(history.shown[:count])
            return entries if oldest_first else entries[::-1]

        await self.ask(user, f"pages {values}", read, expected, required=required)

    async def sums(self, user: int, required: int | None, *, by_type: bool) -> None:
        """Read the sums of a user's transactions, in all or by type."""
        caller = self._connect()
        group_by = SummaryGroup.TYPE if by_type else SummaryGroup.UNSPECIFIED

        async def read() -> object:
            values = {"user_id": user, "group_by": group_by, "min_revision": required, **_SPAN}
            answer, _ = await caller.unary(methods.SUMMARIZE, values)
            return {one.type: _figures(one) for one in answer.reply.summaries}

        def expected(history: History, count: int) -> object:
            groups: dict[TransactionType, list[CreditTransaction]] = {}
            for entry in history.shown[:count]:
                type_ = entry.type if by_type else TransactionType.UNSPECIFIED
                groups.setdefault(type_, []).append(entry)
            return {type_: _sums(entries) for type_, entries in groups.items()}

        await self.ask(user, f"sums by_type={by_type}", read, expected, required=required)

    async def balance(self, user: int, required: int | None, *, app_id: int, sequence: int) -> None:
        """Read the balance in an app after an entry of the user."""
        caller = self._connect()

        async def read() -> object:
            answer, _ = await caller.unary(
                methods.BALANCE_AT,
                {
                    "user_id": user,
                    "app_id": app_id,
                    "sequence": sequence,
                    "min_revision": required,
                },
            )
            return answer.reply.balance, answer.reply.owed, answer.reply.sequence

        def expected(history: History, count: int) -> object:
            entries = [
                entry for entry in history.shown[: min(count, sequence)] if entry.app_id == app_id
            ]
            if not entries:
                return 0, 0, 0
            return entries[-1].balance_after, entries[-1].owed_after, entries[-1].sequence

        what = f"balance in app {app_id} at {sequence}"
        await self.ask(user, what, read, expected, required=required)

    async def draw(
        self, random: Random, user: int, apps: Sequence[int], *, min_revision: int | None = None
    ) -> None:
        """Make a random query of a user."""
        match random.choice(("rows", "pages", "sums", "balance", "alerts")):
            case "rows":
                await self.rows(user, min_revision)
            case "pages":
                oldest_first, page_size = random.random() < 0.5, random.randint(1, 6)
                await self.pages(user, min_revision, oldest_first=oldest_first, page_size=page_size)
            case "sums":
                await self.sums(user, min_revision, by_type=random.random() < 0.5)
            case "alerts":
                await self.alerts(user, min_revision, app_id=random.choice(apps))
            case _:
                app_id, sequence = random.choice(apps), random.randint(1, 30)
                await self.balance(user, min_revision, app_id=app_id, sequence=sequence)

    async def alerts(self, user: int, required: int | None, *, app_id: int) -> None:
        """Read the alerts of a user in an app."""
        caller = self._connect()

        async def read() -> object:
            values = {"user_id": user, "app_id": app_id, "min_revision": required}
            answer, _ = await caller.unary(methods.ALERTS, values)
            return {(alert.credits, alert.direction) for alert in answer.reply.user_alerts}

        def expected(history: History, count: int) -> object:
            state = history.states[count]
            return None if state is None else state.app(app_id).alerts

        await self.ask(user, f"alerts in app {app_id}", read, expected, required=required)

    async def ask(
        self,
        user: int,
        what: str,
        read: Callable[[], Awaitable[object]],
        expected: Callable[[History, int], object],
        *,
        required: int | None = None,
        writes: bool = False,
    ) -> None:
        """Make a call, and record the answer. A failed call is not audited.

        Args:
            user: The user.
            what: The name of the call in findings.
            read: Makes the call.
            expected: Returns the answer that is correct for a number of entries.
            required: The revision that the call requires.
            writes: Whether the answer must not be older than earlier answers.
        """
        question = Read(kind=Kind.TRANSACTIONS, user_id=user, app_id=0)
        call = Call(
            client=0, question=question, began=self._journal.now(), min_revision=required or 0
        )
        began = self._world.cluster.time()
        try:
            answer = await read()
        except CreditError:
            return
        call.ended = self._journal.now()
        call.stale = not writes and self._world.cluster.stale_until >= began
        self._world.trace("queries", f"user {user}: {what} ->", answer)
        self._queries.append(Query(call=call, what=what, answer=answer, expected=expected))

    def findings(self, histories: Mapping[int, History]) -> Iterator[str]:
        """Yield answers that do not match any state of the history during the query."""
        windows = Windows(self._journal, histories)
        for query in self._queries:
            assert isinstance(query.call.question, Read)  # noqa: S101 - for the type checker
            user = query.call.question.user_id
            history = histories[user]
            least, greatest = windows.bounds(query.call, user)
            # The entries can end within a group if the last page comes from an old primary.
            counts = [
                count
                for count in range(least, greatest + 1)
                if query.call.stale or history.states[count] is not None
            ]
            if all(query.answer != query.expected(history, count) for count in counts):
                yield (
                    f"user {user}: {query.what} returned {query.answer}, with {least} to"
                    f" {greatest} entries"
                )


def _figures(summary: Summary) -> tuple[int, ...]:
    return (
        summary.transactions,
        *(summary.credits_in, summary.credits_out),
        *(summary.spent, summary.expired, summary.refunded),
    )


def _sums(entries: Sequence[CreditTransaction]) -> tuple[int, ...]:
    def credits_of(type_: TransactionType) -> int:
        return sum(entry.credits for entry in entries if entry.type is type_)

    return (
        len(entries),
        sum(max(0, entry.effect) for entry in entries),
        sum(max(0, -entry.effect) for entry in entries),
        credits_of(TransactionType.USE),
        credits_of(TransactionType.EXPIRE),
        credits_of(TransactionType.REFUND),
    )
