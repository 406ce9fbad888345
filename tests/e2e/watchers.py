"""Watchers and writers of several servers, and the check of what they have received."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from credit_client import ClientSettings, CreditClient, CreditTransaction, WatchEvent
from credit_models import Receipt
from credit_testing.accounts.replay import History
from credit_testing.accounts.watches import watch_findings

PATIENT = ClientSettings(timeout_seconds=300, retry_attempts_max=100, retry_budget_tokens=1000)

_APP, _OPENING_CREDITS = 3, 1_000_000
# Each write has an event for every watcher of its user and of the app, so the writers pause.
_PAUSE_SECONDS = 0.2
_POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Watcher:
    """What a watcher has received.

    Attributes:
        user: The user whom it watches; None: all users of the app.
        entries: The transactions, in the order of their events.
    """

    user: int | None
    entries: list[CreditTransaction] = field(default_factory=list)

    def of(self, user: int) -> list[CreditTransaction]:
        """Return the transactions of a user."""
        return [entry for entry in self.entries if entry.user_id == user]

    def latest(self, user: int) -> int:
        """Return the greatest `sequence` of a user; 0: there is no transaction."""
        return max((entry.sequence for entry in self.of(user)), default=0)

    async def read(self, events: AsyncGenerator[WatchEvent, None]) -> None:
        """Receive transactions until this is cancelled."""
        async for event in events:
            if event.transaction is not None:
                self.entries.append(event.transaction)


class Watched:
    """Users who are watched, and for whom credits are written, through each of several servers.

    Attributes:
        watchers: The watchers of all servers.
        receipts: The receipts of the writes for each user, in any order.
    """

    def __init__(self, users: Sequence[int], *, seed: int) -> None:
        """Start nothing yet.

        Args:
            users: The users.
            seed: The seed of the writes.
        """
        self.watchers: list[Watcher] = []
        self.receipts: dict[int, list[Receipt]] = {user: [] for user in users}
        self._random = Random(seed)
        self._ended = False

    @asynccontextmanager
    async def through(
        self, addresses: Sequence[str], *, of_user: int, of_app: int
    ) -> AsyncIterator[None]:
        """Watch and write during the context, wait for the last events, and check all of them.

        Args:
            addresses: The addresses of the servers.
            of_user: The number of watchers of each user on each server.
            of_app: The number of watchers of the app on each server.
        """
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(CreditClient(address, settings=PATIENT))
                for address in addresses
            ]
            reading = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                await self._watch(reading, client, user)
                for client in clients
                for user in [*self.receipts] * of_user + [None] * of_app
            ]
            for user in self.receipts:
                await self._add(clients[0], user, _OPENING_CREDITS)
            async with asyncio.TaskGroup() as writing:
                for client in clients:
                    for user in self.receipts:
                        writing.create_task(self._write(client, user))
                yield
                self._ended = True
            await self.caught_up()
            # An event that came twice would arrive before that of the next write.
            for user in self.receipts:
                await self._add(clients[-1], user, 1)
            await self.caught_up()
            for task in tasks:
                task.cancel()
            for user in self.receipts:
                await self._check(user, clients[0])
            self._check_order()

    async def caught_up(self, *, writes: int = 0) -> None:
        """Wait until every watcher has received what was acknowledged.

        Args:
            writes: Wait for so many more writes for each user before that.
        """
        wanted = {user: len(receipts) + writes for user, receipts in self.receipts.items()}
        while any(len(self.receipts[user]) < number for user, number in wanted.items()):  # noqa: ASYNC110 - a poll
            await asyncio.sleep(_POLL_SECONDS)
        # By the sequence: a lost event then fails the check, and not this wait.
        for watcher in self.watchers:
            for user, number in wanted.items():
                while watcher.user in (None, user) and watcher.latest(user) < number:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)

    async def _watch(
        self, group: asyncio.TaskGroup, client: CreditClient, user: int | None
    ) -> "asyncio.Task[None]":
        watcher = Watcher(user=user)
        self.watchers.append(watcher)
        events = client.watch(user_id=user, app_id=_APP, progress=True)
        await anext(events)
        return group.create_task(watcher.read(events))

    async def _write(self, client: CreditClient, user: int) -> None:
        while not self._ended:
            await self._add(client, user, self._random.randint(1, 10))
            receipt = await client.use(
                user_id=user,
                app_id=_APP,
                credits=self._random.randint(1, 10),
                created_by=1,
                report_id="r",
                report_name="Report",
            )
            self.receipts[user].append(receipt)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _add(self, client: CreditClient, user: int, number: int) -> None:
        receipt = await client.add(user_id=user, app_id=_APP, credits=number, created_by=1)
        self.receipts[user].append(receipt)

    async def _check(self, user: int, client: CreditClient) -> None:
        """Check that all watchers have received the acknowledged writes of a user, once each."""
        shown = [entry async for entry in client.transactions(user_id=user)]
        written = sorted((each.sequence, each.transaction_id) for each in self.receipts[user])
        assert [(place, entry.id) for place, entry in enumerate(shown, start=1)] == written
        balance = await client.balance(app_id=_APP, user_id=user)
        assert sum(entry.effect for entry in shown) == balance
        history = History(shown=shown, purchases=[], states=[], asked=[])
        findings = [
            finding
            for number, watcher in enumerate(self.watchers)
            if watcher.user in (None, user)
            for finding in watch_findings(
                f"watcher {number}", watcher.of(user), history, app_id=_APP, revision=0
            )
        ]
        assert findings == []

    def _check_order(self) -> None:
        """Check that all watchers of the app have received the same order."""
        orders = {
            tuple(entry.id for entry in watcher.entries)
            for watcher in self.watchers
            if watcher.user is None
        }
        assert len(orders) == 1
