"""Tests of the requests, of prefilled ledgers, and of the peer's rules over a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from credit_bench.audit import Audit, audit
from credit_bench.contract import contract
from credit_bench.generator.requests import FIRST_AT, Request, Requests
from credit_bench.inserts import Inserts
from credit_bench.prefill import account, fill, history
from credit_bench.sample import Sample
from credit_bench.systems import Server, Variants, migrate, replica_set, serving
from credit_bench.watchers import watching
from credit_bench.workloads import Ledger, Operation, System, Users
from credit_server.store.documents import PurchaseDocument, TransactionDocument
from credit_testing.child import ChildFailed, module, output
from grpc import aio  # type: ignore[import-untyped]  # grpcio ships no types
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

pytestmark = pytest.mark.usefixtures("forked_children")
EMPTY = Sample(
    operations_per_second=0,
    warm_up_operations_per_second=0,
    p50_ms=None,
    p99_ms=None,
    acknowledged=0,
    errors={},
    cpu_ms={},
)
GOOD_AUDIT = Audit(transactions=30, purchases=10, findings=(), acknowledged=30, failed=0)


@pytest.mark.parametrize(
    "audit",
    [
        replace(GOOD_AUDIT, findings=["a history adds up to another balance than is held"]),
        replace(GOOD_AUDIT, findings=["a payment without its purchase"]),
        replace(GOOD_AUDIT, transactions=29),
        replace(GOOD_AUDIT, transactions=31),
        replace(GOOD_AUDIT, transactions=32, failed=1),
        replace(GOOD_AUDIT, prefilled=1),
    ],
)
def test_an_audit_fails_on_anything_that_does_not_add_up(audit: Audit) -> None:
    assert GOOD_AUDIT.passed
    assert not audit.passed


def test_a_failed_call_may_have_happened_or_not() -> None:
    for transactions in (30, 31):
        assert replace(GOOD_AUDIT, transactions=transactions, failed=1).passed


def test_transactions_from_before_the_run_are_not_counted() -> None:
    assert replace(GOOD_AUDIT, transactions=1030, prefilled=1000).passed


def some(operation: Operation, count: int, users: Users = Users.RANDOM) -> list[Request]:
    return list(islice(Requests(contract(), users, 100, "seed").of(operation), count))


def test_all_systems_get_the_same_requests_with_new_keys() -> None:
    first, second = some(Operation.WRITE, 200), some(Operation.WRITE, 200)
    keys = {request.message.idempotency_key for request in first + second}
    assert len(keys) == 400
    for request in first + second:
        request.message.idempotency_key = ""
    assert first == second
    assert {request.path for request in first} == {
        "/credit.v1.CreditService/AddCredits",
        "/credit.v1.CreditService/UseCredits",
    }
    assert all(1 <= request.message.user_id <= 100 for request in first)


@pytest.mark.parametrize(
    "operation",
    [
        Operation.READ,
        Operation.LIST,
        Operation.BALANCE,
        Operation.LATEST,
        Operation.STATEMENT,
    ],
)
def test_reads_of_one_hot_user_are_all_of_this_user(operation: Operation) -> None:
    requests = some(operation, 20, Users.HOT)
    assert {request.message.user_id for request in requests} == {1}
    assert len({request.path for request in requests}) == 1


def test_every_account_is_opened_once() -> None:
    users = [
        request.message.user_id
        for request in Requests(contract(), Users.RANDOM, 50, "seed").opening()
    ]
    assert users == list(range(1, 51))


def test_a_prefilled_history_ends_at_the_balance_of_its_account() -> None:
    for length in (1, 2, 3, 10):
        entries = list(history(7, length))
        assert [entry["sequence"] for entry, _ in entries] == list(range(1, length + 1))
        assert entries[-1][0]["balance_after"] == account(7, length)["balances"][0]["balance"]
        assert account(7, length)["revision"] == length
        assert [purchase is not None for _, purchase in entries] == [
            entry["type"] == "use" for entry, _ in entries
        ]


def test_a_prefilled_transaction_has_the_fields_and_types_that_the_store_writes() -> None:
    for document, purchase in history(7, 5):
        entry = TransactionDocument.model_validate(document).to_transaction()
        assert TransactionDocument.from_transaction(entry).to_bson() == document
        assert entry.created_at == FIRST_AT + timedelta(seconds=entry.sequence - 1)
        if purchase is not None:
            bought = PurchaseDocument.model_validate(purchase).to_purchase()
            assert PurchaseDocument.from_purchase(bought).to_bson() == purchase
            assert (bought.id, bought.report_id) == (entry.purchase_id, entry.report_id)


def test_a_second_process_inserts_other_documents() -> None:
    entries = [entry for _ in range(2) for entry in Inserts(users=1, batch=10).documents()[0]]
    assert len({entry["sequence"] for entry in entries}) == 20


async def test_a_prefilled_database_passes_the_audit(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    await migrate(mongod_uri, database, tmp_path)
    ledger = Ledger(users=30, history=7, grants=2)
    await asyncio.to_thread(fill, mongod_uri, database, ledger, totals=True)
    found = await audit(
        mongod_uri, database, totals=True, acknowledged=0, failed=0, prefilled=ledger.transactions
    )
    assert found.passed, found
    assert (found.transactions, found.purchases, found.only_counted) == (270, 90, False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """The peer's stub, whose class exists only at run time, and its database."""

    stub: Any
    uri: str
    server: Server

    async def add(self, **fields: object) -> Any:
        return await self._write(self.stub.AddCredits, contract().messages.CreditRequest, fields)

    async def use(self, **fields: object) -> Any:
        fields = {"report_id": "r", "report_name": "Report"} | fields
        return await self._write(self.stub.UseCredits, contract().messages.PurchaseRequest, fields)

    async def balance(self, **fields: object) -> int:
        answer = await self.stub.GetAppBalance(contract().messages.AppId(**fields))
        return int(answer.balance)

    async def _write(self, method: Any, message: Any, fields: dict[str, object]) -> Any:
        call = method(message(**({"app_id": 1, "created_by": 9} | fields)))
        await call
        trailers = dict(await call.trailing_metadata())
        return contract().messages.Receipt.FromString(trailers["credit-receipt-bin"])


@pytest.fixture(scope="module")
async def peer(
    tmp_path_factory: pytest.TempPathFactory, forked_children: None
) -> AsyncIterator[Peer]:
    folder: Path = tmp_path_factory.mktemp("peer")
    async with (
        replica_set(None, folder) as mongod,
        serving(System.PEER, mongod.uri, "peer", folder) as server,
        aio.insecure_channel(server.target) as channel,
    ):
        stub = contract().services.CreditServiceStub(channel)
        yield Peer(stub=stub, uri=mongod.uri, server=server)


async def rejected(answer: Any) -> str:
    with pytest.raises(aio.AioRpcError) as caught:
        await answer
    return str(caught.value.code().name)


async def test_the_peer_follows_the_rules_of_the_ledger(peer: Peer) -> None:
    added = await peer.add(user_id=1, credits=10, idempotency_key="a")
    assert (added.balance, added.sequence, added.replayed) == (10, 1, False)
    again = await peer.add(user_id=1, credits=10, idempotency_key="a")
    assert (again.transaction_id, again.balance, again.replayed) == (added.transaction_id, 10, True)
    assert await rejected(peer.add(user_id=1, credits=11, idempotency_key="a")) == "ALREADY_EXISTS"
    assert await rejected(peer.use(user_id=1, credits=10, idempotency_key="a")) == "ALREADY_EXISTS"
    assert await rejected(peer.use(user_id=1, credits=11)) == "FAILED_PRECONDITION"
    assert await rejected(peer.use(user_id=2, credits=1)) == "FAILED_PRECONDITION"
    assert await rejected(peer.add(user_id=1, credits=2**32 - 10)) == "OUT_OF_RANGE"
    assert await rejected(peer.add(user_id=0, credits=1)) == "INVALID_ARGUMENT"
    assert await rejected(peer.use(user_id=1, credits=1, report_id="")) == "INVALID_ARGUMENT"
    used = await peer.use(user_id=1, credits=10, idempotency_key="b")
    assert (used.balance, used.sequence) == (0, 2)
    # A replay takes precedence over the refusal that the balance would now cause.
    assert (await peer.use(user_id=1, credits=10, idempotency_key="b")).replayed
    other = await peer.add(user_id=1, app_id=2, credits=2**32 - 1)
    assert (other.balance, other.sequence) == (2**32 - 1, 3)
    assert await peer.balance(app_id=2, user_id=1) == 2**32 - 1
    assert await peer.balance(app_id=2) == 2**32 - 1
    assert await peer.balance(app_id=3, user_id=77) == 0


async def test_the_peer_lists_a_history_and_returns_an_account(peer: Peer) -> None:
    added = await peer.add(user_id=700, credits=10, idempotency_key="a")
    used = await peer.use(user_id=700, credits=3)
    question = contract().messages.UserId(user_id=700)
    rows = [row async for row in peer.stub.ListUserTransactions(question)]
    assert [(row.sequence, row.credits, row.balance_after) for row in rows] == [
        (1, 10, 10),
        (2, 3, 7),
    ]
    assert [row.id for row in rows] == [added.transaction_id, used.transaction_id]
    assert [row.type for row in rows] == [1, 2]
    assert [row.idempotency_key for row in rows] == ["a", ""]
    assert rows[1].purchase_id == used.purchase_id
    found = await peer.stub.GetUserCredits(question)
    assert (found.user_id, found.revision, found.balances[0].balance) == (700, 2, 7)
    unknown = await peer.stub.GetUserCredits(contract().messages.UserId(user_id=701))
    assert unknown == contract().messages.UserCredits(user_id=701)
    question.after_sequence = 1
    assert [row.sequence async for row in peer.stub.ListUserTransactions(question)] == [2]


async def test_watchers_that_cannot_begin_end_the_run(peer: Peer) -> None:
    with pytest.raises(ChildFailed, match="the watchers could not begin"):
        async with watching(peer.server, 1, users=1):
            pass


async def test_what_watchers_miss_is_an_error_of_the_sample(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    await migrate(mongod_uri, database, tmp_path)
    async with AsyncExitStack() as stack:
        async with serving(System.OURS, mongod_uri, database, tmp_path) as server:
            watchers = await stack.enter_async_context(watching(server, 3, users=3))
        sample = await watchers.checked(replace(EMPTY, acknowledged=5))
    assert sample.errors == {"EVENT_MISSING": 5, "WATCH_ENDED": 3}


async def test_several_processes_of_the_peer_share_a_port(
    mongod_uri: str, database: str, tmp_path: Path
) -> None:
    variants = Variants(workers=2)
    async with serving(System.PEER_WORKERS, mongod_uri, database, tmp_path, variants) as server:
        assert len(set(server.pids)) == 2
        sample = Sample.from_json(
            await output(
                module(
                    "credit_bench.generator",
                    f"--target={server.target}",
                    "--users=10",
                    "--open-accounts",
                )
            )
        )
    assert (sample.acknowledged, sample.failed) == (10, 0)


async def test_concurrent_first_transactions_on_the_peer_all_count(peer: Peer) -> None:
    receipts = await asyncio.gather(*(peer.add(user_id=500, credits=1) for _ in range(16)))
    assert sorted(receipt.sequence for receipt in receipts) == list(range(1, 17))
    assert sorted(receipt.balance for receipt in receipts) == list(range(1, 17))


async def test_the_audit_notices_what_was_changed_behind_the_ledger(peer: Peer) -> None:
    await peer.add(user_id=600, credits=5)
    await peer.use(user_id=600, credits=2)
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(peer.uri) as client:
        store: AsyncDatabase[dict[str, Any]] = client[peer.server.database]
        written = await store["credit_transactions"].count_documents({})

        async def audited() -> Audit:
            return await audit(
                peer.uri, peer.server.database, totals=False, acknowledged=written, failed=0
            )

        assert (await audited()).passed
        await store["user_credits"].update_one(
            {"user_id": 600}, {"$inc": {"balances.0.balance": 1}}
        )
        (finding,) = (await audited()).findings
        assert finding.startswith("a history adds up to another balance")
        await store["purchases"].delete_one({"user_id": 600})
        assert len((await audited()).findings) == 2
        assert not (await audited()).passed
