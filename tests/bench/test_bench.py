"""Tests of the benchmark's arithmetic on fixed samples, and of the peer's rules over a socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import pytest
from credit_bench.audit import Audit, audit
from credit_bench.cell import Cell, Users
from credit_bench.contract import contract
from credit_bench.generator.load import Load, send_all
from credit_bench.generator.workload import Request, opening_requests, requests
from credit_bench.options import parse
from credit_bench.report import document, show
from credit_bench.run import Result
from credit_bench.sample import Sample, percentile
from credit_bench.summary import Measurement, summarise
from credit_bench.system import System, replica_set, serving
from grpc import aio
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from rich.console import Console

CELL = Cell(users=Users.HOT, callers=16)
GOOD_AUDIT = Audit(transactions=30, purchases=10, findings=(), acknowledged=30, failed=0)


def sample(rate: float, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "operations_per_second": rate,
        "p50_ms": 1000 / rate if rate else None,
        "p99_ms": 3000 / rate if rate else None,
        "acknowledged": 10,
        "errors": {},
        "generator_cpu_share": 0.25,
    }
    return Sample(**(fields | changes))


def measurements(ours: list[float], peer: list[float]) -> list[Measurement]:
    return [
        Measurement(system=system, cell=CELL, repetition=repetition, sample=sample(rate))
        for system, rates in ((System.OURS, ours), (System.PEER, peer))
        for repetition, rate in enumerate(rates, start=1)
    ]


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    [
        ([5.0], 50, 5.0),
        ([5.0], 99, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 51, 3.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 102)], 99, 100.0),
        ([], 50, None),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], rank: float, expected: float | None
) -> None:
    assert percentile(values, rank) == expected


def test_the_ratio_is_the_median_of_the_ratios_of_the_repetitions() -> None:
    # The ratio of the medians would be 200 / 100 = 2.
    (row,) = summarise(measurements(ours=[100, 200, 900], peer=[25, 200, 100]))
    assert row.ratio is not None
    assert (row.ratio.median, row.ratio.least, row.ratio.greatest) == (4.0, 1.0, 9.0)
    assert row.ours is not None
    assert row.ours.operations_per_second == 200
    assert row.peer is not None
    assert row.peer.p50_ms == 10


def test_a_server_measured_alone_has_no_ratio() -> None:
    (row,) = summarise(measurements(ours=[], peer=[25]))
    assert row.ours is None
    assert row.ratio is None


def test_a_peer_without_a_finished_call_has_no_ratio() -> None:
    (row,) = summarise(measurements(ours=[10], peer=[0]))
    assert row.peer is not None
    assert row.peer.p99_ms is None
    assert row.ratio is None


def test_a_sample_survives_a_round_trip_through_json() -> None:
    original = sample(12.5, errors={"UNAVAILABLE": 3})
    assert Sample.from_json(original.to_json()) == original
    assert original.failed == 3


@pytest.mark.parametrize(
    "audit",
    [
        replace(GOOD_AUDIT, findings=["a history adds up to another balance than is held"]),
        replace(GOOD_AUDIT, findings=["a payment without its purchase"]),
        replace(GOOD_AUDIT, transactions=29),
        replace(GOOD_AUDIT, transactions=31),
        replace(GOOD_AUDIT, transactions=32, failed=1),
    ],
)
def test_an_audit_fails_on_anything_that_does_not_add_up(audit: Audit) -> None:
    assert GOOD_AUDIT.passed
    assert not audit.passed


def test_a_failed_call_may_have_happened_or_not() -> None:
    for transactions in (30, 31):
        assert replace(GOOD_AUDIT, transactions=transactions, failed=1).passed


def shown(result: Result) -> str:
    console = Console(record=True, width=120, file=StringIO())
    show(result, summarise(result.measurements), parse(["--seed", "7"]), console)
    return console.export_text()


def test_the_report_shows_figures_ratio_and_seed() -> None:
    result = Result(
        measurements=measurements(ours=[200], peer=[100]), audits={System.OURS: GOOD_AUDIT}
    )
    text = shown(result)
    assert result.clean
    assert "2.00 (2.00..2.00)" in text
    assert "5.0/15.0" in text
    assert "seed 7" in text
    assert "nothing acknowledged is lost" in text
    assert "NOT CLEAN" not in text


def test_a_run_with_errors_is_flagged() -> None:
    with_errors = Measurement(
        system=System.PEER,
        cell=CELL,
        repetition=1,
        sample=sample(50, errors={"DEADLINE_EXCEEDED": 2}),
    )
    result = Result(measurements=[with_errors], audits={})
    assert not result.clean
    text = shown(result)
    assert "(2 errors)" in text
    assert "NOT CLEAN" in text


def test_the_json_document_does_not_contain_the_database_uri() -> None:
    options = parse(["--mongodb-uri", "mongodb://me:secret@db"])
    result = Result(
        measurements=measurements(ours=[200], peer=[100]), audits={System.OURS: GOOD_AUDIT}
    )
    text = document(result, summarise(result.measurements), options)
    assert "secret" not in text
    assert json.loads(text)["rows"][0]["ratio"]["median"] == 2
    assert json.loads(text)["audits"]["ours"]["passed"] is True


def test_both_servers_get_the_same_requests_with_new_keys() -> None:
    def row() -> list[Request]:
        return list(islice(requests(contract(), Users.RANDOM, 100, "seed"), 200))

    first, second = row(), row()
    keys = {request.message.idempotency_key for request in first + second}
    assert len(keys) == 400
    for request in first + second:
        request.message.idempotency_key = ""
    assert first == second
    assert {request.method for request in first} == {"AddCredits", "UseCredits"}
    assert all(1 <= request.message.user_id <= 100 for request in first)


async def test_the_load_counts_every_call_once() -> None:
    calls = 0

    async def call(request: Request) -> None:
        nonlocal calls
        calls += 1
        number = calls  # other calls change the counter during the sleep
        await asyncio.sleep(0)
        if number % 10 == 0:
            raise aio.AioRpcError(grpc.StatusCode.ABORTED, aio.Metadata(), aio.Metadata())

    rows = [requests(contract(), Users.HOT, 1, str(caller)) for caller in range(4)]
    seen = await Load(call, rows, warm_up_seconds=0.01, seconds=0.05).run()
    assert seen.acknowledged + seen.failed == calls
    assert seen.errors == {"ABORTED": calls // 10}
    assert 0 < seen.operations_per_second * 0.05 <= seen.acknowledged


async def test_every_account_is_opened_once() -> None:
    users = []

    async def call(request: Request) -> None:
        users.append(request.message.user_id)
        await asyncio.sleep(0)

    seen = await send_all(call, opening_requests(contract(), 50), callers=8)
    assert sorted(users) == list(range(1, 51))
    assert seen.acknowledged == 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """The peer's stub, whose class exists only at run time, and its database."""

    stub: Any
    uri: str
    database: str

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
async def peer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Peer]:
    folder: Path = tmp_path_factory.mktemp("peer")
    async with (
        replica_set(None, folder) as uri,
        serving(System.PEER, uri, "peer", folder) as server,
        aio.insecure_channel(server.target) as channel,
    ):
        stub = contract().services.CreditServiceStub(channel)
        yield Peer(stub=stub, uri=uri, database=server.database)


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


async def test_concurrent_first_transactions_on_the_peer_all_count(peer: Peer) -> None:
    receipts = await asyncio.gather(*(peer.add(user_id=500, credits=1) for _ in range(16)))
    assert sorted(receipt.sequence for receipt in receipts) == list(range(1, 17))
    assert sorted(receipt.balance for receipt in receipts) == list(range(1, 17))


async def test_the_audit_notices_what_was_changed_behind_the_ledger(peer: Peer) -> None:
    await peer.add(user_id=600, credits=5)
    await peer.use(user_id=600, credits=2)
    client: AsyncMongoClient[dict[str, Any]]
    async with AsyncMongoClient(peer.uri) as client:
        store: AsyncDatabase[dict[str, Any]] = client[peer.database]
        written = await store["credit_transactions"].count_documents({})

        async def audited() -> Audit:
            return await audit(
                peer.uri, peer.database, totals=False, acknowledged=written, failed=0
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
