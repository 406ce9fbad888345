"""Commit one batch: load, decide and write, in one transaction of the store.

`plan` decides all commands in memory. `BatchWriter` reads what they need, and writes the changes.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from random import Random

from cachetools import LRUCache
from credit_models.ledger import (
    GENESIS,
    NO_DETAILS,
    NOTHING_FOUND,
    Accepted,
    Account,
    Add,
    AlertEvent,
    BatchAborted,
    BatchSize,
    Command,
    Decided,
    KeyReused,
    Kind,
    Lookup,
    Outcome,
    Purchase,
    Refunded,
    Refusal,
    Replayed,
    ReportKey,
    Transaction,
    Use,
    aborting,
    decide,
    refusal_of_aborted,
)

from credit_server.commit.clock import Clock
from credit_server.commit.policies import PolicyCache
from credit_server.store.port import (
    AppKey,
    Changes,
    CommitUnknown,
    Conflict,
    Interrupted,
    Reference,
    References,
    Rejected,
    StoreTransaction,
    StoreUnavailable,
    Unreadable,
    Void,
    Writer,
)

# An app's total is split into this many counter shards, and each shard of a server picks one.
# Shards of all servers that pick the same one conflict, so there are many more than shards are
# usual. A read sums this many documents at most.
_COUNTER_SHARDS = 256

# The number of batches that read all accounts after a cached account was stale. If several servers
# write for the same users, most batches have a stale account. If the other servers stop, the cache
# is used again after about a second.
_READS_AFTER_STALE = 64

# After this many new entries, the event loop runs other calls. To decide 512 entries of one account
# takes 35 ms (2-core machine).
_ENTRIES_IN_A_ROW = 256

_NO_REFERENCES = References()

# A commit raises these if it certainly had no effect; see `StoreTransaction.commit`.
_NOTHING_WRITTEN = (Conflict, Interrupted, Rejected, StoreUnavailable, Unreadable)


@dataclass(kw_only=True, slots=True)
class DedupIndex:
    """An index of committed transactions, by key and by id, to detect retries."""

    by_key: dict[AppKey, Transaction] = field(default_factory=dict)
    by_id: dict[str, Transaction] = field(default_factory=dict)

    def add(self, entries: Iterable[Transaction]) -> None:
        """Add transactions."""
        for entry in entries:
            self.by_id[entry.id] = entry
            if entry.key:
                self.by_key[entry.user_id, entry.app_id, entry.key] = entry

    def find(self, command: Command) -> Transaction | None:
        """Return the transaction of this command, or of an earlier one with its key."""
        made = self.by_id.get(command.transaction_id)
        if made is None and command.key:
            return self.by_key.get((command.user_id, command.app_id, command.key))
        return made


@dataclass(kw_only=True, slots=True)
class _History:
    """What is needed to decide a batch's commands: what was read, and earlier commands' effects.

    Attributes:
        index: The known transactions: earlier ones, and those of the batch.
        read: What was read of earlier entries, grants and purchases.
    """

    index: DedupIndex
    read: References
    _related: dict[Reference, Transaction] = field(default_factory=dict, init=False)
    _voided: dict[Reference, Void] = field(default_factory=dict, init=False)
    _bought: dict[ReportKey, list[Purchase]] = field(default_factory=dict, init=False)
    _refunded: dict[str, int] = field(default_factory=dict, init=False)

    def lookup(self, command: Command) -> Lookup:
        """Return what is needed to decide a command."""
        if self.read is _NO_REFERENCES and not (self.index.by_id or self.index.by_key):
            return NOTHING_FOUND
        earlier = self.index.find(command)
        reference, report = command.reference, command.once_key
        if not reference and report is None:
            return NOTHING_FOUND if earlier is None else Lookup(earlier=earlier)
        place = (command.user_id, reference)
        referenced = self.read.entries.get(place) or self._made(place)
        return Lookup(
            earlier=earlier,
            referenced=referenced,
            latest_related=self._related.get(place) or self.read.latest_related.get(place),
            voided={} if referenced is None else self._voided_after(referenced),
            owned_purchase=None if report is None else self._owned(report),
        )

    def _voided_after(self, entry: Transaction) -> dict[str, datetime]:
        """Return the grants of an entry that were voided after it, and when."""
        voided: dict[str, datetime] = {}
        for part in entry.details.allocations:
            place = (entry.user_id, part.grant_id)
            void = self._voided.get(place) or self.read.voided.get(place)
            if void is not None and void.sequence > entry.sequence:
                voided[part.grant_id] = void.created_at
        return voided

    def _made(self, place: Reference) -> Transaction | None:
        made = self.index.by_id.get(place[1])
        return made if made is not None and made.user_id == place[0] else None

    def _owned(self, report: ReportKey) -> Purchase | None:
        owned: list[Purchase] = [
            *self._bought.get(report, ()),
            *self.read.purchases.get(report, ()),
        ]
        for purchase in owned:
            if self._refunded.get(purchase.id, purchase.refunded_credits) < purchase.credits:
                return purchase
        return None

    def add(self, accepted: Accepted) -> None:
        """Add the effects of a command."""
        self.index.add(accepted.transactions)
        for entry in accepted.transactions:
            if entry.details is not NO_DETAILS and entry.details.related_id:
                place = (entry.user_id, entry.details.related_id)
                self._related[place] = entry
                if entry.kind is Kind.VOID:
                    self._voided[place] = Void(entry.sequence, entry.created_at)
        purchase, refunded = accepted.purchase, accepted.refunded
        if purchase is not None:
            report = (purchase.user_id, purchase.app_id, purchase.report_id)
            self._bought.setdefault(report, []).append(purchase)
        if refunded is not None:
            self._refunded[refunded.purchase_id] = refunded.refunded_credits


@dataclass(kw_only=True, slots=True)
class Plan:
    """The result of a batch.

    Attributes:
        outcomes: One for each command that was decided, in their order. The commands after these
            belong to another transaction of the store.
        accounts: The changed accounts.
        transactions: New entries, in order.
        purchases: New purchases, in order.
        refunded: Changed purchases by their id, each with its user.
        totals: The change of each app's total.
        events: New events of alerts.
        depends_on_reads: Whether the answer to a command that writes nothing depends on what was
            read: a balance, or that the key is new. Such an answer is certain only after a cached
            balance was read from the store and the keys were looked up.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    accounts: dict[int, Account] = field(default_factory=dict)
    transactions: list[Transaction] = field(default_factory=list)
    purchases: list[Purchase] = field(default_factory=list)
    refunded: dict[str, tuple[int, Refunded]] = field(default_factory=dict)
    totals: dict[int, int] = field(default_factory=dict)
    events: list[AlertEvent] = field(default_factory=list)
    depends_on_reads: bool = False

    def add(self, accepted: Accepted) -> None:
        """Add the effects of a command."""
        for account in accepted.accounts:
            self.accounts[account.user_id] = account
        self.transactions.extend(accepted.transactions)
        self.events.extend(accepted.events)
        if accepted.purchase is not None:
            self.purchases.append(accepted.purchase)
        if (refunded := accepted.refunded) is not None:
            self.refunded[refunded.purchase_id] = (accepted.main.user_id, refunded)
        for entry in accepted.transactions:
            self.totals[entry.app_id] = self.totals.get(entry.app_id, 0) + entry.effect


async def plan(
    commands: Sequence[Command],
    accounts: Mapping[int, Account],
    known: DedupIndex,
    now: datetime,
    latest: datetime | None = None,
    *,
    references: References = _NO_REFERENCES,
    atomic: bool = False,
    genesis: bytes | None = GENESIS,
) -> Plan:
    """Decide a batch in memory.

    A key that is in a batch twice needs no special case: the second command finds the transaction
    of the first. If the first is rejected, the second is a new request, as the contract defines.
    A command that is only validated has no effect on the commands after it.

    Args:
        commands: The commands, in the order of arrival.
        accounts: The account of each of their users.
        known: Earlier transactions with their keys or ids.
        now: The time, UTC, in whole milliseconds.
        latest: The latest time that an entry may have; None: there is no limit.
        references: What the history has about the entries and reports that the commands refer to.
        atomic: Whether no command takes effect if one is rejected. An atomic batch that exceeds
            `BatchSize` is rejected. Of another batch, only the first commands that fit are decided.
        genesis: See `decide`.
    """
    result = Plan()
    history = _History(
        index=DedupIndex(by_key=dict(known.by_key), by_id=dict(known.by_id)), read=references
    )
    size = BatchSize()
    entries = 0

    for command in commands:
        if len(result.transactions) - entries >= _ENTRIES_IN_A_ROW:
            entries = len(result.transactions)
            await asyncio.sleep(0)
        account = result.accounts.get(command.user_id) or accounts[command.user_id]
        target = None
        for user_id in command.users[1:]:
            target = result.accounts.get(user_id) or accounts[user_id]
        lookup = history.lookup(command)
        outcome = decide(account, command, lookup, now, latest, target, genesis=genesis)
        match outcome:
            case Accepted() if not command.validate_only:
                if too_large := size.add(outcome):
                    if atomic:
                        result.outcomes.append(too_large)
                    break
                result.add(outcome)
                history.add(outcome)
            case Replayed() | KeyReused():  # decided by the key: transactions never change
                pass
            case _:
                result.depends_on_reads = True
        result.outcomes.append(outcome)
    return _aborted(result, commands) if atomic else result


def _aborted(batch: Plan, commands: Sequence[Command]) -> Plan:
    """Return the batch unchanged, or without any effect if it is aborted: see `aborting`.

    Args:
        batch: The batch. After a command that exceeds its size, none was decided.
        commands: Its commands.
    """
    first = aborting(
        [
            Decided(
                refused=isinstance(outcome, Refusal),
                replayed=isinstance(outcome, Replayed),
                dry_run=command.validate_only,
            )
            for outcome, command in zip(batch.outcomes, commands, strict=False)
        ]
    )
    if first is None:
        return batch
    aborted = BatchAborted(index=first)
    own = {purchase.id for purchase in batch.purchases}
    return Plan(
        outcomes=[
            *(
                refusal_of_aborted(outcome, own) if isinstance(outcome, Refusal) else aborted
                for outcome in batch.outcomes
            ),
            *[aborted] * (len(commands) - len(batch.outcomes)),
        ],
        # An accepted command is not written, so nothing else proves that its key is new. A refusal
        # of another command with the key rests on it.
        depends_on_reads=batch.depends_on_reads or bool(batch.transactions),
    )


class BatchWriter:
    """Commits the batches of one shard, one after another, and caches accounts and keys.

    The caches hold only what this writer has committed, so all of it is durable. Accounts may be
    stale if another server or worker writes too; each write compares their revision. A batch with a
    stale account runs twice, so the batches that follow it read all accounts.
    """

    def __init__(
        self,
        writer: Writer,
        policies: PolicyCache,
        *,
        clock: Clock,
        random: Random,
        cache_max: int,
        genesis: bytes | None = GENESIS,
        on_events: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            writer: Begins the transactions of the store.
            policies: The cache of the policies of apps, which all shards share.
            clock: The clock for new entries.
            random: Picks the counter shard of the apps' totals.
            cache_max: How many accounts, and how many keys, are cached; 0: none.
            genesis: See `decide`.
            on_events: Called after events of alerts were committed.
        """
        self._writer = writer
        self._policies = policies
        self._clock = clock
        self._random = random
        self._counter_shard = random.randrange(_COUNTER_SHARDS)
        self._accounts: LRUCache[int, Account] = LRUCache(cache_max)
        self._reads = 0  # how many of the next batches read all accounts, cached or not
        self._by_key: LRUCache[AppKey, Transaction] = LRUCache(cache_max)
        self._genesis = genesis
        self._on_events = on_events

    async def commit(
        self, commands: Sequence[Command], *, verify_first: bool, atomic: bool = False
    ) -> list[Outcome]:
        """Decide commands and commit the first that fit in one transaction; see `Attempt`.

        The first attempt is optimistic: it uses cached accounts and does not look up keys, because
        the store's unique indexes and the comparison of revisions reject a wrong guess. A refusal
        writes nothing that could be rejected, so it is decided on what was read.
        """
        committing = False
        try:
            moment = self._clock.now()
            known = self._cached(commands)
            async with self._writer.begin() as transaction:
                # A replay needs no policy. A batch of replays commits nothing, so it keeps none.
                new = [command for command in commands if known.find(command) is None]
                policies = await self._policies.read(transaction, new)
                if policies.by_app:
                    commands = policies.apply(commands)
                # An add, and a use of a report that may be bought again, refer to nothing.
                referring = [
                    each
                    for each in commands
                    if not isinstance(each, Add) and (not isinstance(each, Use) or each.once)
                ]
                references = _NO_REFERENCES
                if referring:
                    references = await self._references(transaction, referring, known)
                decided = partial(
                    plan,
                    commands,
                    known=known,
                    now=moment.now,
                    references=references,
                    atomic=atomic,
                    genesis=self._genesis,
                )
                load = partial(self._load, transaction, commands, known, referring)
                accounts = await load(verify=verify_first)
                batch = await decided(accounts, latest=self._clock.latest(moment))
                verified = verify_first
                if batch.depends_on_reads and not verified:
                    accounts = await load(verify=True)
                    batch = await decided(accounts, latest=self._clock.latest(moment))
                    verified = True
                if batch.transactions:
                    await transaction.write(self._changes(batch, accounts))
                # An answer that rests on what was read needs the commit too, and so does a replay
                # whose key was looked up: only the commit proves that a majority of the nodes has
                # what was read.
                if verified or batch.transactions:
                    check = partial(self._clock.check_age, moment) if batch.transactions else None
                    committing = True
                    await transaction.commit(check)
                    if policies.read:
                        self._policies.keep(policies)
            self._cache(batch)
        except Exception as error:
            self._forget(commands, error)
            # Once the commit has begun it may take effect, whatever raised the error.
            if committing and not isinstance(error, (*_NOTHING_WRITTEN, CommitUnknown)):
                raise CommitUnknown(f"the commit failed ({type(error).__name__})") from error
            raise
        if batch.events:
            self._on_events()
        return batch.outcomes

    async def _load(
        self,
        transaction: StoreTransaction,
        commands: Sequence[Command],
        known: DedupIndex,
        referring: Sequence[Command],
        *,
        verify: bool,
    ) -> dict[int, Account]:
        """Return the accounts of all users, from the cache unless they must be verified.

        To verify is to read all accounts from the store, and to look up the keys and ids there that
        the index does not contain.

        The account of a command with a reference is always read. What the command refers to was
        read from the store, and would contradict an older account: another server may have placed
        the hold that this one releases.
        """
        users = {user_id for command in commands for user_id in command.users}
        accounts: dict[int, Account] = {}
        if self._reads and not verify:
            self._reads -= 1
        elif not verify:
            read = {command.user_id for command in referring if command.reference}
            for user_id in users - read:
                cached = self._accounts.get(user_id)
                if cached is not None:
                    accounts[user_id] = cached
        missing = users - accounts.keys()
        if missing:
            accounts.update(await transaction.accounts(missing))
            if any(self._is_stale(account) for account in accounts.values()):
                self._reads = _READS_AFTER_STALE
            for user_id in missing - accounts.keys():
                accounts[user_id] = Account.empty(user_id)
        if verify:
            new = [command for command in commands if known.find(command) is None]
            keys = {
                (command.user_id, command.app_id, command.key) for command in new if command.key
            }
            # The ids show whether an earlier attempt with an unknown result took effect. A command
            # that makes no entry of its own has none.
            ids = {command.transaction_id for command in new if command.transaction_id}
            known.add(await transaction.transactions(keys, ids))
        return accounts

    async def _references(
        self, transaction: StoreTransaction, commands: Sequence[Command], known: DedupIndex
    ) -> References:
        """Return the entries and purchases of the history to which the commands refer.

        They are never cached, and are read in the snapshot in which `_load` reads the accounts of
        these users.
        """
        references: set[Reference] = set()
        reports: set[ReportKey] = set()
        for command in commands:
            reference, report = command.reference, command.once_key
            if (reference or report is not None) and known.find(command) is None:
                if reference:
                    references.add((command.user_id, reference))
                if report is not None:
                    reports.add(report)
        if not references and not reports:
            return _NO_REFERENCES
        return await transaction.references(references, reports)

    def _is_stale(self, account: Account) -> bool:
        """Return whether the cached account is older than one that was read."""
        cached = self._accounts.get(account.user_id)
        return cached is not None and cached.revision != account.revision

    def _changes(self, batch: Plan, accounts: Mapping[int, Account]) -> Changes:
        return Changes(
            accounts=[(accounts[user_id], account) for user_id, account in batch.accounts.items()],
            transactions=batch.transactions,
            purchases=batch.purchases,
            totals={app_id: delta for app_id, delta in batch.totals.items() if delta},
            counter_shard=self._counter_shard,
            refunded=list(batch.refunded.values()),
            events=batch.events,
        )

    def _cached(self, commands: Sequence[Command]) -> DedupIndex:
        known = DedupIndex()
        for command in commands:
            if command.key:
                entry = self._by_key.get((command.user_id, command.app_id, command.key))
                if entry is not None:
                    known.add([entry])
        return known

    def _cache(self, batch: Plan) -> None:
        if not self._accounts.maxsize:
            return
        self._accounts.update(batch.accounts)
        for entry in batch.transactions:
            if entry.key:
                self._by_key[entry.user_id, entry.app_id, entry.key] = entry

    def forget_users(self, commands: Sequence[Command]) -> None:
        """Drop the cached accounts of the commands' users: another writer may change them."""
        for command in commands:
            for user_id in command.users:
                self._accounts.pop(user_id, None)

    def _forget(self, commands: Sequence[Command], error: Exception) -> None:
        """Drop what a failed attempt may have made stale."""
        self.forget_users(commands)
        if isinstance(error, Conflict):
            self._reads = _READS_AFTER_STALE
            self._counter_shard = self._random.randrange(_COUNTER_SHARDS)
