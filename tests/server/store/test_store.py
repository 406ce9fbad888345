"""Test every store behind the port with one suite: MongoDB and the memory store.

The tests of reads run with each driver of MongoDB. Transactions use the same driver with both.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from credit_models.ledger import UINT32_MAX, Account, Kind, Purchase, Transaction
from credit_server.store.driver import Driver
from credit_server.store.history import PurchaseRow, TransactionRow
from credit_server.store.memory import MemoryStore
from credit_server.store.mongo import MongoStore
from credit_server.store.port import Changes, Conflict, Head, Store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture(params=["memory", Driver.MOTOR])
async def store(
    request: pytest.FixtureRequest, mongod_uri: str, migrated_database: str
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(page_size=3)
        return
    mongo = MongoStore(mongod_uri, database=migrated_database, page_size=3, driver=request.param)
    yield mongo
    await mongo.close()


with_each_driver = pytest.mark.parametrize("store", ["memory", *Driver], indirect=True)


def account(user: int = 7, *, balance: int = 10, revision: int = 1) -> Account:
    return Account(
        user_id=user,
        balances={1: balance},
        revision=revision,
        created_at=NOW,
        updated_at=NOW + timedelta(seconds=revision % 100),
        created_by=3,
        updated_by=4,
    )


def entry(store: Store, *, user: int = 7, sequence: int = 1, key: str = "") -> Transaction:
    return Transaction(
        id=store.new_id(),
        user_id=user,
        app_id=1,
        kind=Kind.ADD,
        credits=10,
        balance_after=10,
        sequence=sequence,
        created_at=NOW,
        created_by=3,
        key=key,
    )


def purchase_of(store: Store, paid: Transaction) -> tuple[Transaction, Purchase]:
    purchase = Purchase(
        id=store.new_id(),
        user_id=paid.user_id,
        app_id=paid.app_id,
        report_id="r-\x00-1",
        report_name="Jahresbericht \N{SNOWMAN}",
        credits=paid.credits,
        created_at=paid.created_at,
        created_by=paid.created_by,
        transaction_id=paid.id,
        sequence=paid.sequence,
    )
    used = replace(
        paid,
        kind=Kind.USE,
        purchase_id=purchase.id,
        report_id=purchase.report_id,
        report_name=purchase.report_name,
    )
    return used, purchase


def changes(
    accounts: Sequence[tuple[int, Account]] = (),
    transactions: Sequence[Transaction] = (),
    purchases: Sequence[Purchase] = (),
    totals: dict[int, int] | None = None,
    counter_shard: int = 0,
) -> Changes:
    return Changes(
        # These accounts keep nothing for any app, so that only the revision before counts.
        accounts=[(replace(each, revision=revision), each) for revision, each in accounts],
        transactions=transactions,
        purchases=purchases,
        totals=totals or {},
        counter_shard=counter_shard,
    )


def milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def row(entry: Transaction) -> TransactionRow:
    return TransactionRow(
        id=entry.id,
        user_id=entry.user_id,
        app_id=entry.app_id,
        credits=entry.credits,
        created_at=milliseconds(entry.created_at),
        created_by=entry.created_by,
        kind=entry.kind,
        balance_after=entry.balance_after,
        sequence=entry.sequence,
        purchase_id=entry.purchase_id,
        key=entry.key,
        report_id=entry.report_id,
        report_name=entry.report_name,
    )


def purchase_row(purchase: Purchase) -> PurchaseRow:
    return PurchaseRow(
        id=purchase.id,
        user_id=purchase.user_id,
        app_id=purchase.app_id,
        report_id=purchase.report_id,
        report_name=purchase.report_name,
        credits=purchase.credits,
        created_at=milliseconds(purchase.created_at),
        created_by=purchase.created_by,
        transaction_id=purchase.transaction_id,
        sequence=purchase.sequence,
    )


async def write(store: Store, what: Changes) -> None:
    async with store.writer().begin() as transaction:
        await transaction.write(what)
        await transaction.commit()


async def transactions_of(
    store: Store, user: int = 7, apps: frozenset[int] | None = None, *, after: int = 0
) -> list[TransactionRow]:
    pages = store.list_transactions(user, apps, after_sequence=after)
    return [found async for page in pages for found in page]


async def purchases_of(
    store: Store, user: int = 7, apps: frozenset[int] | None = None, *, after: int = 0
) -> list[PurchaseRow]:
    pages = store.list_purchases(user, apps, after_sequence=after)
    return [found async for page in pages for found in page]


async def test_ids_are_24_hexadecimal_digits_and_differ(store: Store) -> None:
    ids = {store.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(id_) == 24 and int(id_, 16) >= 0 for id_ in ids)


@with_each_driver
async def test_committed_data_are_read_back_unchanged(store: Store) -> None:
    used, purchase = purchase_of(store, entry(store, key="k"))
    await write(store, changes([(0, account())], [used], [purchase], {1: 10}))
    found = await store.account(7)
    assert found is not None
    assert found.id
    assert replace(found, id="") == account()
    assert await transactions_of(store) == [row(used)]
    assert await purchases_of(store) == [purchase_row(purchase)]
    assert await store.app_total(1) == 10
    async with store.writer().begin() as transaction:
        assert await transaction.transactions([(7, 1, "k")], []) == [used]


@with_each_driver
async def test_the_greatest_values_are_stored(store: Store) -> None:
    greatest = replace(
        account(UINT32_MAX, balance=UINT32_MAX, revision=2**40),
        created_by=UINT32_MAX,
        updated_by=UINT32_MAX,
    )
    await write(store, changes([(0, greatest)], totals={UINT32_MAX: 2**40}))
    found = await store.account(UINT32_MAX)
    assert found is not None
    assert replace(found, id="") == greatest
    assert await store.app_total(UINT32_MAX) == 2**40


@with_each_driver
async def test_a_user_without_credits_has_no_data(store: Store) -> None:
    assert await store.account(7) is None
    assert await store.app_total(1) == 0
    assert await transactions_of(store) == []
    assert await purchases_of(store) == []


async def test_without_a_commit_nothing_is_written(store: Store) -> None:
    async with store.writer().begin() as transaction:
        await transaction.write(changes([(0, account())], [entry(store)], totals={1: 10}))
    assert await store.account(7) is None
    assert await transactions_of(store) == []
    assert await store.app_total(1) == 0


async def test_a_transaction_reads_the_accounts_that_exist(store: Store) -> None:
    await write(store, changes([(0, account(7)), (0, account(8, balance=5))]))
    async with store.writer().begin() as transaction:
        found = await transaction.accounts([7, 8, 9])
        await transaction.commit()
    assert {user: value.balance(1) for user, value in found.items()} == {7: 10, 8: 5}


async def test_a_transaction_finds_transactions_by_key_and_by_id(store: Store) -> None:
    with_key, without, other, elsewhere = (
        entry(store, key="k"),
        entry(store, sequence=2),
        entry(store, user=8, key="k"),
        replace(entry(store, sequence=3, key="k"), app_id=2),
    )
    await write(store, changes(transactions=[with_key, without, other, elsewhere]))
    async with store.writer().begin() as transaction:
        keys = [(7, 1, "k"), (7, 1, "absent"), (9, 1, "k"), (8, 2, "k")]
        by_key = await transaction.transactions(keys, [])
        by_id = await transaction.transactions([], [without.id, store.new_id()])
        both = await transaction.transactions([(7, 1, "k")], [with_key.id])
        nothing = await transaction.transactions([], [])
        await transaction.commit()
    assert (by_key, by_id, both, nothing) == ([with_key], [without], [with_key], [])


async def test_a_transaction_reads_one_snapshot(store: Store) -> None:
    await write(store, changes([(0, account())]))
    async with store.writer().begin() as transaction:
        before = await transaction.accounts([7])
        await write(store, changes([(1, account(balance=20, revision=2))]))
        again = await transaction.accounts([7])
    assert before == again


async def test_an_account_that_has_changed_is_a_conflict(store: Store) -> None:
    await write(store, changes([(0, account())]))
    with pytest.raises(Conflict):
        await write(store, changes([(5, account(revision=6))], totals={1: 1}))
    assert await store.app_total(1) == 0


async def test_an_account_that_exists_already_is_a_conflict(store: Store) -> None:
    await write(store, changes([(0, account())]))
    with pytest.raises(Conflict):
        await write(store, changes([(0, account(balance=99))]))
    found = await store.account(7)
    assert found is not None
    assert found.balance(1) == 10


async def test_two_transactions_that_write_one_account_do_not_both_commit(store: Store) -> None:
    await write(store, changes([(0, account())]))
    async with store.writer().begin() as first, store.writer().begin() as second:
        await first.accounts([7])
        await second.accounts([7])
        await first.write(changes([(1, account(balance=11, revision=2))]))
        # MongoDB rejects the second write, the memory store its commit.
        second_written = await succeeds(
            second.write(changes([(1, account(balance=12, revision=2))]))
        )
        assert await succeeds(first.commit())
        assert not (second_written and await succeeds(second.commit()))
    found = await store.account(7)
    assert found is not None
    assert found.balance(1) == 11


async def succeeds(step: Awaitable[None]) -> bool:
    try:
        await step
    except Conflict:
        return False
    return True


@pytest.mark.parametrize("taken", ["id", "sequence", "key"])
async def test_a_unique_value_that_is_taken_is_a_conflict(store: Store, taken: str) -> None:
    first = entry(store, key="k")
    await write(store, changes(transactions=[first]))
    second = entry(store, sequence=2, key="other")
    match taken:
        case "id":
            second = replace(second, id=first.id)
        case "sequence":
            second = replace(second, sequence=1)
        case _:
            second = replace(second, key="k")
    with pytest.raises(Conflict):
        await write(store, changes(transactions=[second]))
    assert await transactions_of(store) == [row(first)]


async def test_a_key_may_be_used_once_in_each_app_of_a_user(store: Store) -> None:
    first, second, third = (
        replace(entry(store, sequence=number, key="k"), app_id=app)
        for number, app in enumerate((1, 2, 2), 1)
    )
    await write(store, changes(transactions=[first]))
    await write(store, changes(transactions=[second]))
    with pytest.raises(Conflict):
        await write(store, changes(transactions=[third]))
    async with store.writer().begin() as transaction:
        assert await transaction.transactions([(7, 1, "k")], []) == [first]
        assert await transaction.transactions([(7, 2, "k")], []) == [second]
        assert await transaction.transactions([(7, 3, "k")], []) == []


async def test_any_number_of_transactions_have_no_key(store: Store) -> None:
    await write(store, changes(transactions=[entry(store), entry(store, sequence=2)]))
    assert len(await transactions_of(store)) == 2


@with_each_driver
async def test_a_list_has_pages_in_order_of_the_sequence_for_one_user(store: Store) -> None:
    entries = [entry(store, sequence=number) for number in range(1, 8)]
    pairs = [purchase_of(store, paid) for paid in entries]
    await write(
        store,
        changes(
            transactions=[used for used, _ in reversed(pairs)] + [entry(store, user=8)],
            purchases=[purchase for _, purchase in reversed(pairs)],
        ),
    )
    pages = [len(page) async for page in store.list_transactions(7)]
    assert pages == [3, 3, 1]
    assert await transactions_of(store) == [row(used) for used, _ in pairs]
    assert await purchases_of(store) == [purchase_row(purchase) for _, purchase in pairs]


@with_each_driver
async def test_a_history_of_whole_pages_ends(store: Store) -> None:
    await write(store, changes(transactions=[entry(store, sequence=n) for n in range(1, 7)]))
    assert [len(page) async for page in store.list_transactions(7)] == [3, 3]


async def history_of_apps(store: Store, apps: Sequence[int]) -> list[tuple[Transaction, Purchase]]:
    """Write a purchase in each of these apps, one after another."""
    pairs = [
        purchase_of(store, replace(entry(store, sequence=number), app_id=app))
        for number, app in enumerate(apps, 1)
    ]
    purchases = [purchase for _, purchase in pairs]
    await write(store, changes(transactions=[used for used, _ in pairs], purchases=purchases))
    return pairs


@pytest.mark.parametrize("apps", [{1}, {2}, {3}, {1, 3}, {1, 2, 3}, {4}, {1, 4}, set()])
async def test_a_list_of_some_apps_has_all_their_entries_and_no_others(
    store: Store, apps: set[int]
) -> None:
    # App 3 has the first and the last entry, more than a page apart.
    pairs = await history_of_apps(store, [3, 1, 2, 2, 2, 2, 2, 2, 2, 1, 1, 2, 3])
    expected = [pair for pair in pairs if pair[0].app_id in apps]
    shown = frozenset(apps)
    assert await transactions_of(store, 7, shown) == [row(used) for used, _ in expected]
    assert await purchases_of(store, 7, shown) == [
        purchase_row(purchase) for _, purchase in expected
    ]
    assert await transactions_of(store, 8, shown) == []


@with_each_driver
@pytest.mark.parametrize(
    ("apps", "lengths"),
    [
        ({1}, [3, 3]),
        ({2}, [3, 2]),
        ({3}, [1]),
        ({1, 3}, [3, 3, 1]),
        ({1, 2}, [3, 3, 3, 2]),
        ({4}, []),
        (set(), []),
    ],
)
async def test_all_pages_of_a_list_of_some_apps_but_the_last_are_full(
    store: Store, apps: set[int], lengths: list[int]
) -> None:
    """A short page would mean that the store also reads entries of other apps."""
    await history_of_apps(store, [1, 1, 2, 1, 1, 1, 2, 2, 2, 2, 1, 3])
    shown = frozenset(apps)
    assert [len(page) async for page in store.list_transactions(7, shown)] == lengths
    assert [len(page) async for page in store.list_purchases(7, shown)] == lengths


@pytest.mark.parametrize("apps", [None, {1}, {2}, {1, 3}, {4}], ids=str)
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 9, 10, 2**31, 2**63 - 1])
async def test_a_list_starts_after_a_sequence(
    store: Store, apps: set[int] | None, after: int
) -> None:
    pairs = await history_of_apps(store, [1, 2, 1, 1, 3, 2, 1, 1, 2, 1])
    shown = None if apps is None else frozenset(apps)
    rest = [
        pair
        for pair in pairs
        if pair[0].sequence > after and (shown is None or pair[0].app_id in shown)
    ]
    assert await transactions_of(store, 7, shown, after=after) == [row(used) for used, _ in rest]
    assert await purchases_of(store, 7, shown, after=after) == [
        purchase_row(bought) for _, bought in rest
    ]


@with_each_driver
@pytest.mark.parametrize("apps", [None, frozenset({1})], ids=["all apps", "some"])
async def test_a_list_includes_entries_written_while_it_is_read(
    store: Store, apps: frozenset[int] | None
) -> None:
    await write(store, changes(transactions=[entry(store, sequence=n) for n in (1, 2, 3)]))
    pages = store.list_transactions(7, apps)
    assert [found.sequence for found in await anext(pages)] == [1, 2, 3]
    await write(store, changes(transactions=[entry(store, sequence=n) for n in (4, 5)]))
    assert [[found.sequence for found in page] async for page in pages] == [[4, 5]]


@with_each_driver
async def test_totals_add_up_over_counter_shards_and_may_be_negative_in_one(store: Store) -> None:
    await write(store, changes(totals={1: 100, 2: 5}, counter_shard=1))
    await write(store, changes(totals={1: -30}, counter_shard=2))
    await write(store, changes(totals={1: 1}, counter_shard=1))
    assert await store.app_total(1) == 71
    assert await store.app_total(2) == 5


async def test_an_account_is_updated_in_place_and_keeps_its_id(store: Store) -> None:
    await write(store, changes([(0, account())]))
    first = await store.account(7)
    await write(store, changes([(1, account(balance=20, revision=2))]))
    second = await store.account(7)
    assert first is not None
    assert second is not None
    assert second.id == first.id
    assert (second.balance(1), second.revision) == (20, 2)


@with_each_driver
async def test_a_read_sees_what_was_written_before_it_while_other_reads_run(store: Store) -> None:
    await write(store, changes([(0, account(user)) for user in range(1, 11)], totals={1: 400}))

    async def read_on(user: int) -> None:
        while True:
            await asyncio.gather(store.account(user), store.app_total(1))
            await asyncio.sleep(0)  # the store in memory never waits

    others = [asyncio.create_task(read_on(user)) for user in range(1, 11)]
    for revision in range(1, 11):
        changed = account(balance=10 + revision, revision=revision + 1)
        await write(store, changes([(revision, changed)], totals={1: 1}))
        found = await asyncio.gather(*(store.account(7) for _ in range(5)))
        assert [one and one.revision for one in found] == [revision + 1] * 5
        assert await store.app_total(1) == 400 + revision
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@with_each_driver
async def test_concurrent_reads_return_each_users_own_account(store: Store) -> None:
    users = range(1, 301)
    some = [account(user, balance=user) for user in users if user % 3]
    await write(store, changes([(0, one) for one in some]))
    found = await asyncio.gather(*(store.account(user) for user in users))
    assert [one and (one.user_id, one.balance(1)) for one in found] == [
        (user, user) if user % 3 else None for user in users
    ]


@with_each_driver
async def test_concurrent_totals_are_each_apps_own(store: Store) -> None:
    for shard in range(3):
        await write(store, changes(totals={app: app for app in range(1, 31)}, counter_shard=shard))
    totals = await asyncio.gather(*(store.app_total(app) for app in range(40)))
    assert totals == [0, *(3 * app for app in range(1, 31)), *[0] * 9]


@with_each_driver
async def test_a_reachable_store_answers_a_ping(store: Store) -> None:
    await store.ping()


@with_each_driver
async def test_heads_are_those_of_an_app_by_user(store: Store) -> None:
    heads = {1: b"\x01" * 33, 2: b"\x02" * 33}
    accounts = [
        replace(account(user), balances={1: 10, 2: 5}, heads=heads if user != 5 else {2: heads[2]})
        for user in (9, 2**32 - 1, 7, 5, 8)
    ]
    async with store.writer().begin() as transaction:
        await transaction.write(changes(accounts=[(0, each) for each in accounts]))
        await transaction.commit()

    async def found(app_id: int, page_size: int) -> list[Head]:
        return [head async for page in store.heads(app_id, page_size=page_size) for head in page]

    for page_size in (1, 2, 5, 9):
        assert await found(3, page_size) == []
        assert await found(1, page_size) == [(user, heads[1]) for user in (7, 8, 9, 2**32 - 1)]
        assert await found(2, page_size) == [(user, heads[2]) for user in (5, 7, 8, 9, 2**32 - 1)]


async def test_hashes_are_stored_and_a_head_moves_with_its_account(store: Store) -> None:
    first = replace(entry(store, key="k"), hash=b"\x01" * 33)
    second = replace(entry(store, sequence=2), previous_hash=first.hash, hash=b"\x02" * 33)
    bare = entry(store, sequence=3)
    made = replace(account(revision=3), heads={1: second.hash})
    async with store.writer().begin() as transaction:
        await transaction.write(changes(accounts=[(0, made)], transactions=[first, second, bare]))
        await transaction.commit()
    pages = [page async for page in store.list_transactions(7)]
    assert [(one.previous_hash, one.hash) for one in pages[0]] == [
        (b"", first.hash),
        (first.hash, second.hash),
        (b"", b""),
    ]
    found = await store.find_transaction((7, 1, "k"))
    assert found is not None
    assert found.hash == first.hash
    async with store.writer().begin() as transaction:
        assert await transaction.transactions([(7, 1, "k")], []) == [first]
        (stored,) = (await transaction.accounts([7])).values()
        assert stored.heads == {1: second.hash}
        await transaction.commit()
    moved = replace(stored, revision=4, heads={1: b"\x04" * 33})
    async with store.writer().begin() as transaction:
        await transaction.write(
            Changes(
                accounts=[(stored, moved)],
                transactions=[],
                purchases=[],
                totals={},
                counter_shard=0,
            )
        )
        await transaction.commit()
    held = await store.account(7)
    assert held is not None
    assert held.heads == {1: b"\x04" * 33}
