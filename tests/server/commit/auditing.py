"""Check a memory store after a test: everything must add up, and nothing may happen twice."""

from collections import Counter, defaultdict

from credit_models.ledger import GENESIS, Account, Kind, Transaction, hash_of
from credit_server.store.memory import MemoryStore

from tests.server.commit.scripted_store import history


async def audit(store: MemoryStore, *users: int) -> None:
    """Check the accounts, histories and purchases of all users of a store.

    Raises:
        AssertionError: Something does not add up.
    """
    totals: Counter[int] = Counter()
    for user in users:
        entries = await history(store, user)
        account = await store.account(user) or Account.empty(user)
        _check_history(account, entries)
        _check_holds(account, entries)
        _check_grants(entries)
        await _check_purchases(store, user, entries)
        totals.update(account.balances)
    for app_id, total in totals.items():
        assert await store.app_total(app_id) == total


def _check_history(account: Account, entries: list[Transaction]) -> None:
    assert [entry.sequence for entry in entries] == list(range(1, account.revision + 1))
    sums: Counter[int] = Counter()
    heads: dict[int, bytes] = {}
    for entry in entries:
        assert entry.previous_hash == heads.get(entry.app_id, GENESIS)
        assert entry.hash == hash_of(entry, entry.previous_hash)
        heads[entry.app_id] = entry.hash
        sums[entry.app_id] += entry.effect
        assert entry.balance_after == sums[entry.app_id], entry
    assert {app: sums[app] for app in account.balances} == dict(account.balances)
    assert heads == account.heads


def _check_holds(account: Account, entries: list[Transaction]) -> None:
    """A hold's credits are held, or were released once: its effects and RELEASEs add up."""
    left: dict[str, int] = {entry.id: entry.credits for entry in entries if entry.kind is Kind.HOLD}
    for entry in entries:
        if entry.kind is Kind.RELEASE:
            left[entry.details.related_id] -= entry.credits
    held = {hold.id: hold.credits for app in account.apps.values() for hold in app.holds}
    assert {id_: credits_ for id_, credits_ in left.items() if credits_} == held


def _check_grants(entries: list[Transaction]) -> None:
    """No grant expires with more than it had, and it starts once."""
    expired: Counter[str] = Counter()
    started: Counter[str] = Counter()
    added: defaultdict[str, int] = defaultdict(int)
    for entry in entries:
        match entry.kind:
            case Kind.EXPIRE:
                expired[entry.details.related_id] += entry.credits
            case Kind.ACTIVATE:
                started[entry.details.related_id] += 1
            case Kind.GRANT | Kind.SCHEDULE | Kind.TRANSFER_IN:
                added[entry.details.related_id or entry.id] += entry.credits
                added[entry.id] += 0
            case _:
                pass
    assert not started or max(started.values()) == 1
    for grant, credits_ in expired.items():
        assert credits_ <= added[grant] or grant not in added


async def _check_purchases(store: MemoryStore, user: int, entries: list[Transaction]) -> None:
    refunded: Counter[str] = Counter()
    uses = {entry.id: entry for entry in entries if entry.kind is Kind.USE}
    for entry in entries:
        if entry.kind is Kind.REFUND:
            refunded[entry.details.related_id] += entry.credits
    purchases = [row async for page in store.list_purchases(user) for row in page]
    assert [row.transaction_id for row in purchases] == list(uses)
    assert [row.refunded_credits for row in purchases] == [refunded[id_] for id_ in uses]
