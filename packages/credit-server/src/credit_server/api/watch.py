"""Serve one stream of `Watch`: first earlier transactions, then the feed of new ones."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from credit_models import WatchRequest, WatchResponse
from credit_models.codec import encode
from credit_models.constraints import Violation
from credit_models.ledger import Account
from credit_models.translation import messages
from credit_models.translation.refusals import (
    bad_request,
    resume_token_expired,
    resume_token_invalid,
)

from credit_server.access import authorize
from credit_server.access.authorize import Access
from credit_server.access.identity import Identity
from credit_server.admission.list_slots import ListSlots
from credit_server.api import convert, errors
from credit_server.api.watch_hub import Feed, Shared, WatchHub
from credit_server.api.watch_token import (
    ResumeTokenInvalid,
    Scope,
    log_token,
    position_of,
    sequence_of,
    sequence_token,
)
from credit_server.grpc.call import Call
from credit_server.store.history import TransactionQuery
from credit_server.store.port import LogPosition, LogTruncated, Store, StoreUnavailable

# The interval of events with only a token that the contract defines.
_PROGRESS_SECONDS = 15

# The most transactions of an app that are read from the log at a time.
_PAGE_SIZE = 256

# How often the caller's identity is checked again.
_ACCESS_SECONDS = 15.0

# Right after a change of primary, reads can miss what was committed a moment before. Such a read is
# retried at most this many times, with this pause.
_STALE_READS_MAX = 5
_STALE_READ_SECONDS = 0.2

_TOKEN_VIOLATION = bad_request(
    [Violation(field="resume_token", description="must be a token for this user and this app")]
)

WatchCall = Call[WatchRequest, WatchResponse]


class Watch:
    """Serves one stream."""

    def __init__(
        self,
        call: WatchCall,
        request: WatchRequest,
        *,
        hub: WatchHub,
        store: Store,
        list_slots: ListSlots,
        access: Access,
    ) -> None:
        """Prepare to serve.

        Args:
            call: The call.
            request: Its valid request.
            hub: Distributes new transactions.
            store: Has the earlier transactions.
            list_slots: Limits how many pages are read at the same time.
            access: Checks the caller's identity again.
        """
        self._call = call
        self._request = request
        self._hub = hub
        self._access = access
        self._scope = Scope(request.user_id or 0, request.app_id or 0)
        source = _UserSource if self._scope.user_id else _AppSource
        self._source: Source = source(call, self._scope, store, list_slots)
        self._progress_seconds = request.progress_seconds or _PROGRESS_SECONDS
        self._clock = asyncio.get_running_loop().time
        self._checked_at = self._sent_at = self._clock()

    async def run(self) -> None:
        """Serve the stream until its client, its deadline or an error ends it.

        Raises:
            GRPCError: The token is invalid or too old, or the connection is drained.
            AccessDenied: The caller may no longer watch.
            NotAdmitted: Too many pages are being read.
            StoreUnavailable: The store cannot be reached.
        """
        token = self._request.resume_token
        try:
            if token:
                self._source.resume(token)
            async with self._hub.feed(self._scope) as feed:
                with self._call.on_drain(lambda: feed.end(errors.watch_drained())):
                    await self._serve(feed, resumed=bool(token))
        except ResumeTokenInvalid:
            raise errors.status_of(*resume_token_invalid(), _TOKEN_VIOLATION) from None
        except LogTruncated:
            raise errors.status_of(*resume_token_expired()) from None

    async def _serve(self, feed: Feed, *, resumed: bool) -> None:
        if resumed:
            await self._catch_up(feed)
            await self._send([self._source.progress(feed.start)])
        else:
            await self._send([await self._source.begin(feed)])
        while not self._request.end_when_current:
            await asyncio.sleep(self._sent_at + self._hub.pause_seconds - self._clock())
            taken = await feed.take(self._sent_at + self._progress_seconds - self._clock())
            self._check_access()
            await self._send(self._accepted(feed, taken))
            if feed.lost:
                self._hub.restart(feed)
                await self._catch_up(feed)
            elif self._clock() - self._sent_at >= self._progress_seconds and feed.empty:
                await self._send([self._source.progress(self._hub.position)])

    def _accepted(self, feed: Feed, taken: Sequence[Shared]) -> Sequence[bytes]:
        """Return the events of what was taken, up to a gap."""
        events = []
        for shared in taken:
            if not self._source.follows(shared):
                feed.lost = True
                break
            event = self._source.accept(shared)
            if event is not None:
                events.append(event)
        return events

    async def _catch_up(self, feed: Feed) -> None:
        async for events in self._source.catch_up(feed):
            feed.raise_failure()
            self._check_access()
            await self._send(events)

    async def _send(self, events: Sequence[bytes]) -> None:
        if events:
            await self._call.send_framed(self._call.framed(events), count=len(events))
            self._sent_at = self._clock()

    def _check_access(self) -> None:
        if self._clock() - self._checked_at >= _ACCESS_SECONDS:
            self._checked_at = self._clock()
            self._source.show(self._access.check_again(self._call, self._request))


class Source(Protocol):
    """The source of the events of a stream, and the stream's position."""

    def show(self, identity: Identity | None) -> None:
        """Return only what an identity may read from now on; None: everything."""

    def resume(self, token: str) -> None:
        """Go to the position of a token.

        Raises:
            ResumeTokenInvalid: The token belongs to another user or app.
        """

    async def begin(self, feed: Feed) -> bytes:
        """Go to the present position, and return the first event."""
        ...

    def catch_up(self, feed: Feed) -> AsyncIterator[Sequence[bytes]]:
        """Iterate over events up to the start of the feed, or beyond it."""
        ...

    def follows(self, shared: Shared) -> bool:
        """Return whether there is no gap between the position and what the feed has next."""
        ...

    def accept(self, shared: Shared) -> bytes | None:
        """Return the event of what the feed has next; None if it is not wanted."""
        ...

    def progress(self, distributed: LogPosition) -> bytes:
        """Return an event with a token alone.

        Args:
            distributed: The position of the log up to which everything was accepted.
        """
        ...


class _UserSource:
    """The transactions of a user. Their `sequence` is the position, and shows every gap."""

    def __init__(self, call: WatchCall, scope: Scope, store: Store, list_slots: ListSlots) -> None:
        self._caller = call.caller_name
        self._scope = scope
        self._store = store
        self._list_slots = list_slots
        # The sequence of the last transaction that was examined, of the last that is known, and of
        # the last that the stream had.
        self._last = self._known = self._sent = 0
        self._identity: Identity | None = None
        self._apps: frozenset[int] | None = None
        self._sees_all = True
        self._resumed = False
        self.show(authorize.identity_of(call))

    def show(self, identity: Identity | None) -> None:
        self._identity = identity
        visible = authorize.visible_apps(identity)
        self._sees_all = visible is None
        self._apps = frozenset({self._scope.app_id}) if self._scope.app_id else visible

    def resume(self, token: str) -> None:
        self._sent, self._resumed = sequence_of(token, self._scope), True
        if self._sees_all:
            self._last = self._known = self._sent

    async def begin(self, feed: Feed) -> bytes:
        # The stored account: what is due by time follows as transactions.
        user_id = self._scope.user_id
        account = await self._store.account_since(user_id, feed.start) or Account.empty(user_id)
        self._last = self._known = self._sent = account.revision
        if not self._sees_all:
            self._sent = await self._newest(account.revision)
        visible = authorize.visible_account(account, self._identity)
        snapshot = messages.account_to_message(visible)
        if self._scope.app_id:
            snapshot.balances = [
                each for each in snapshot.balances if each.app_id == self._scope.app_id
            ]
        return encode(WatchResponse(resume_token=self._token(), snapshot=snapshot))

    async def catch_up(self, feed: Feed) -> AsyncIterator[Sequence[bytes]]:
        if self._resumed and not self._sees_all:
            await self._check_sent(feed.start)
        self._resumed = False
        revision = await self._revision(feed.start)
        pages = self._store.list_transactions(
            self._scope.user_id,
            self._apps,
            after_sequence=max(self._last, self._sent),
            stored_sequence=revision,
        )
        while True:
            async with self._list_slots.slot(self._caller):
                rows = await anext(pages, None)
                if rows is None:
                    break
                events = []
                encoded = convert.transactions_to_wire(rows)
                for row, data in zip(rows, encoded, strict=True):
                    self._last = self._sent = row.sequence
                    events.append(convert.transaction_event_to_wire(self._token(), data))
                await asyncio.sleep(0)  # let other tasks run first
            yield events
        self._last = self._known = max(self._last, revision)

    async def _revision(self, start: LogPosition) -> int:
        """Return the number of the user's transactions, once it includes all known ones.

        Args:
            start: The start of the feed. The result includes all transactions up to it, because
                the feed has only later ones.
        """
        for _ in range(_STALE_READS_MAX):
            account = await self._store.account_since(self._scope.user_id, start)
            revision = 0 if account is None else account.revision
            if revision >= self._known:
                return revision
            await asyncio.sleep(_STALE_READ_SECONDS)
        if self._sees_all and await self._store.latest_revision(self._scope.user_id) < self._last:
            raise ResumeTokenInvalid
        raise StoreUnavailable("reads do not return the committed transactions yet")

    async def _check_sent(self, start: LogPosition) -> None:
        """Go back to the newest visible transaction if the token is beyond it.

        The result and its time depend on visible transactions alone. Otherwise a forged token would
        reveal how many transactions the user has in other apps.
        """
        for _ in range(_STALE_READS_MAX):
            if await self._newest(await self._revision(start)) >= self._sent:
                return
            await asyncio.sleep(_STALE_READ_SECONDS)
        revision = await self._store.latest_revision(self._scope.user_id)
        self._sent = min(self._sent, await self._newest(revision, stored_sequence=revision))

    async def _newest(self, revision: int, *, stored_sequence: int = 0) -> int:
        """Return the sequence of the newest visible transaction up to a revision; 0: none.

        Args:
            revision: The revision.
            stored_sequence: See `HistoryQuery`.
        """
        page = await self._store.query_transactions(
            TransactionQuery(
                user_id=self._scope.user_id,
                apps=self._apps,
                before_sequence=revision + 1,
                stored_sequence=stored_sequence,
                limit=1,
            )
        )
        newest = page.rows[0].sequence if page.rows else 0
        # Usually empty. This read fails if it misses transactions, unlike the query.
        pages = self._store.list_transactions(
            self._scope.user_id, self._apps, after_sequence=newest, stored_sequence=revision
        )
        async for rows in pages:
            newest = max([newest, *(row.sequence for row in rows if row.sequence <= revision)])
        return newest

    def follows(self, shared: Shared) -> bool:
        self._known = max(self._known, shared.row.sequence)
        return shared.row.sequence <= self._last + 1

    def accept(self, shared: Shared) -> bytes | None:
        if shared.row.sequence <= self._last:
            return None
        self._last = shared.row.sequence
        if self._apps is not None and shared.row.app_id not in self._apps:
            return None
        self._sent = self._last
        return shared.event(self._scope, self._token)

    def progress(self, distributed: LogPosition) -> bytes:
        return encode(WatchResponse(resume_token=self._token()))

    def _token(self) -> str:
        # The position among all transactions would reveal that there are some in other apps.
        return sequence_token(self._scope, self._last if self._sees_all else self._sent)


class _AppSource:
    """The transactions in an app. Their position is the one in the log."""

    def __init__(self, call: WatchCall, scope: Scope, store: Store, list_slots: ListSlots) -> None:
        self._caller = call.caller_name
        self._scope = scope
        self._store = store
        self._list_slots = list_slots
        self._last = b""

    def show(self, identity: Identity | None) -> None:
        pass  # an identity that may watch an app may read all of it

    def resume(self, token: str) -> None:
        self._last = position_of(token, self._scope)

    async def begin(self, feed: Feed) -> bytes:
        return self.progress(feed.start)

    async def catch_up(self, feed: Feed) -> AsyncIterator[Sequence[bytes]]:
        while True:
            async with self._list_slots.slot(self._caller):
                page = await self._store.read_log(self._last, self._scope.app_id, limit=_PAGE_SIZE)
                events = []
                encoded = convert.transactions_to_wire(entry.row() for entry in page.entries)
                for entry, data in zip(page.entries, encoded, strict=True):
                    token = log_token(self._scope, entry.position.token)
                    events.append(convert.transaction_event_to_wire(token, data))
                await asyncio.sleep(0)  # let other tasks run first
            self._last = max(self._last, page.end.token)
            yield events
            if page.at_end and page.end.time >= feed.start.time:
                return
            if page.at_end:
                await asyncio.sleep(_STALE_READ_SECONDS)

    def follows(self, shared: Shared) -> bool:
        return True

    def accept(self, shared: Shared) -> bytes | None:
        token = shared.entry.position.token
        if token <= self._last:
            return None
        self._last = token
        return shared.event(self._scope, self._token)

    def progress(self, distributed: LogPosition) -> bytes:
        self._last = max(self._last, distributed.token)
        return encode(WatchResponse(resume_token=self._token()))

    def _token(self) -> str:
        return log_token(self._scope, self._last)
