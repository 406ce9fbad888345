"""Watch a user or an app with the SDK, and compare the events with the history."""

from collections.abc import Iterator, Mapping
from contextlib import aclosing

from credit_client.call import Caller
from credit_client.errors import CreditError
from credit_models import CreditTransaction
from credit_testing.accounts.journal import Journal
from credit_testing.accounts.replay import History
from credit_testing.accounts.watches import watch_findings

from credit_simulate.trace import Trace


class Watcher:
    """One watch, from its first event to the end of the simulation.

    Attributes:
        begun: When the first event arrived, on the journal's clock; None if none has arrived.
    """

    def __init__(self, caller: Caller, journal: Journal, trace: Trace, **scope: int) -> None:
        """Prepare to watch.

        Args:
            caller: Makes the call.
            journal: Has the clock.
            trace: Gets a line for each event.
            scope: `user_id` or `app_id`.
        """
        self.begun: int | None = None
        self._caller = caller
        self._journal = journal
        self._trace = trace
        self._scope = scope
        self._revision = 0
        self._came: list[CreditTransaction] = []
        self._failure: CreditError | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while self._failure is None:
            try:
                await self._follow()
            except CreditError as error:
                if self.begun is not None:  # before the first event, an app retries
                    self._failure = error

    async def _follow(self) -> None:
        name = " ".join(f"{key} {value}" for key, value in self._scope.items())
        async with aclosing(self._caller.watch(dict(self._scope), progress=True)) as events:
            async for event in events:
                if event.snapshot is not None:
                    self._revision = event.snapshot.revision
                if event.transaction is not None:
                    self._came.append(event.transaction)
                    entry = event.transaction
                    self._trace("watcher", f"{name}: {entry.user_id}.{entry.sequence}")
                if self.begun is None:
                    self.begun = self._journal.now()

    def findings(self, histories: Mapping[int, History]) -> Iterator[str]:
        """Yield entries that arrived twice, in a wrong order or not at all."""
        watch = f"the watch of {self._scope}"
        if self._failure is not None:
            yield f"{watch} has ended: {self._failure!r}"
        if self.begun is None:
            return
        for user, history in histories.items():
            if self._scope.get("user_id", user) == user:
                yield from self._gaps(watch, user, history, self.begun)

    def _gaps(self, watch: str, user: int, history: History, begun: int) -> Iterator[str]:
        app_id = self._scope.get("app_id")
        came = [entry for entry in self._came if entry.user_id == user]
        revision = self._revision if app_id is None else None
        return watch_findings(watch, came, history, app_id=app_id, revision=revision, began=begun)
