"""Kill the real server while it writes batches and streams: nothing is lost, split or repeated."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from signal import SIGKILL
from typing import Any

from credit_models import (
    BatchWriteRequest,
    BatchWriteResponse,
    CreditRequest,
    Operation,
    OperationOutcome,
    PurchaseRequest,
    WriteRequest,
    WriteResponse,
)
from credit_models.codec import encode
from credit_testing.calls import call_headers, framed
from credit_testing.http2_client import Connection
from credit_testing.ledger_check import findings
from credit_testing.ports import lasting_port
from credit_testing.server import PATIENT, migrated
from grpclib.const import Status
from pymongo import MongoClient
from pymongo.database import Database

from tests.conftest import StartServer
from tests.server.operations import WRITE, batch_write

USERS = range(1, 13)
GRANT = 1_000_000
CALLERS, ROUNDS, KILLS = 6, 6, 2


def _add(user: int, amount: int, key: str) -> Operation:
    request = CreditRequest(
        user_id=user, app_id=1, credits=amount, created_by=1, idempotency_key=key
    )
    return Operation(add_credits=request)


def _use(user: int, amount: int, key: str) -> Operation:
    request = PurchaseRequest(
        user_id=user,
        app_id=1,
        credits=amount,
        created_by=1,
        report_id="r",
        report_name="R",
        idempotency_key=key,
    )
    return Operation(use_credits=request)


def _transfers(name: str) -> list[Operation]:
    """Return one credit from each user to the next, over all shards."""
    return [
        operation
        for user in USERS
        for operation in (
            _use(user, 1, f"{name}-from-{user}"),
            _add(user % len(USERS) + 1, 1, f"{name}-to-{user}"),
        )
    ]


class Journal:
    """Records the receipts by the operation's key, and signals when to kill the server."""

    def __init__(self) -> None:
        self.transactions: dict[str, str] = {}
        self.faults: list[str] = []
        self._milestones: list[tuple[int, asyncio.Event]] = []

    def note(self, operation: Operation, outcome: OperationOutcome | None) -> bool:
        """Record an outcome; return whether it is a receipt."""
        request = operation.add_credits or operation.use_credits
        assert request is not None
        assert outcome is not None
        if outcome.receipt is None:
            assert outcome.failure is not None
            if outcome.failure.code != Status.UNAVAILABLE.value:
                self.faults.append(outcome.failure.message)
            return False
        key = f"{request.user_id} {request.idempotency_key}"
        known = self.transactions.setdefault(key, outcome.receipt.transaction_id)
        if known != outcome.receipt.transaction_id:
            self.faults.append(f"{key} has two transactions")
        for count, event in self._milestones:
            if len(self.transactions) >= count:
                event.set()
        return True

    async def reached(self, count: int) -> None:
        """Wait until a number of operations have succeeded."""
        event = asyncio.Event()
        self._milestones.append((count, event))
        await event.wait()


async def _batch(port: int, batch: BatchWriteRequest, journal: Journal) -> bool:
    """Send a batch; return whether all of it has succeeded."""
    async with Connection.connect(port) as wire:
        answer = await batch_write(wire, batch)
    if answer.status is not Status.OK:
        return False
    outcomes = answer.message(BatchWriteResponse).outcomes
    noted = [journal.note(*each) for each in zip(batch.operations, outcomes, strict=True)]
    if batch.atomic and len(set(noted)) > 1:
        journal.faults.append("an atomic batch has succeeded in part")
    return all(noted)


async def _stream(port: int, left: dict[int, Operation], journal: Journal) -> bool:
    """Send operations over one stream; return whether all have succeeded."""
    async with Connection.connect(port) as wire:
        stream_id, answer = wire.begin(call_headers(WRITE), end=False)
        requests = [
            WriteRequest(correlation_id=number, operation=operation)
            for number, operation in left.items()
        ]
        data = b"".join(framed(encode(request)) for request in requests)
        await wire.send_all(stream_id, data, end=True)
        await wire.ended(answer)
        received = bytes(answer.data)
    whole = 0  # the connection may break within a message
    while whole + 5 <= len(received):
        end = whole + 5 + int.from_bytes(received[whole + 1 : whole + 5])
        if end > len(received):
            break
        whole = end
    del answer.data[whole:]
    for response in answer.messages(WriteResponse):
        if journal.note(left[response.correlation_id], response.outcome):
            del left[response.correlation_id]
    return not left


async def _until(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Repeat an attempt until it succeeds; a killed server breaks connections."""
    while True:
        with contextlib.suppress(OSError):
            if await attempt():
                return
        await asyncio.sleep(0.05)


async def test_what_was_acknowledged_is_stored_once_and_no_atomic_batch_in_part(
    credit_server_process: StartServer, mongod_that_forgets: str
) -> None:
    name, port, journal = "killed_batches", lasting_port(), Journal()
    store_options = await migrated(mongod_that_forgets, name)
    options = ("--port", str(port), *store_options, *PATIENT)
    server = await credit_server_process(*options)
    grants = [_add(user, GRANT, "grant") for user in USERS]
    assert await _batch(port, BatchWriteRequest(operations=grants, atomic=True), journal)

    async def write(caller: int) -> None:
        for turn in range(ROUNDS):
            atomic = BatchWriteRequest(operations=_transfers(f"a{caller}.{turn}"), atomic=True)
            await _until(partial(_batch, port, atomic, journal))
            several = BatchWriteRequest(operations=_transfers(f"b{caller}.{turn}"))
            await _until(partial(_batch, port, several, journal))
            left = dict(enumerate(_transfers(f"s{caller}.{turn}")))
            await _until(partial(_stream, port, left, journal))

    total = CALLERS * ROUNDS * 3 * 2 * len(USERS)
    writing = asyncio.gather(*(write(caller) for caller in range(CALLERS)))
    with MongoClient[dict[str, Any]](mongod_that_forgets) as client:
        database = client[name]
        for kill in range(1, KILLS + 1):
            await journal.reached(kill * total // (KILLS + 1))
            await server.stop(SIGKILL)
            # A killed server leaves a transaction open, which ends at the end of its lifetime.
            counts = Counter(_names(database))
            atomic = {name: count for name, count in counts.items() if name.startswith("a")}
            assert set(atomic.values()) <= {2 * len(USERS)}, atomic
            server = await credit_server_process(*options)
        await writing
        await server.stop()
        assert journal.faults == []
        assert findings(database) == []
        stored = {
            f"{entry['user_id']} {entry['idempotency_key']}": str(entry["_id"])
            for entry in database["credit_transactions"].find()
        }
        assert stored == journal.transactions
        assert len(stored) == total + len(USERS)
        held = [account["balances"] for account in database["user_credits"].find()]
        assert sum(each[0]["balance"] for each in held) == GRANT * len(USERS)


def _names(database: Database[dict[str, Any]]) -> list[str]:
    """Return the name of the batch of each entry."""
    entries = database["credit_transactions"].find({}, {"idempotency_key": True})
    return [entry["idempotency_key"].partition("-")[0] for entry in entries]
