"""Write commands that are sent together fail together, and leave their connection usable."""

from collections.abc import Iterator
from typing import Any

import pytest
from bson.int64 import Int64
from credit_server.store.pipeline import run_pipelined
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import AutoReconnect, OperationFailure

from tests.server.store.fail_point import failing

UNAUTHORIZED = 13
DUPLICATE_KEY = 11000
NOT_PRIMARY = 10107


def commands() -> list[dict[str, Any]]:
    return [
        {"insert": "firsts", "documents": [{"_id": 1}, {"_id": 2}]},
        {"update": "seconds", "updates": [{"q": {"_id": 1}, "u": {"$inc": {"n": Int64(1)}}}]},
        {"delete": "thirds", "deletes": [{"q": {"_id": 1}, "limit": 1}]},
    ]


@pytest.fixture
def client(mongod_uri: str, database: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](
        mongod_uri, appname="credit-server", maxPoolSize=1, retryWrites=False
    ) as client:
        client[database].create_collection("firsts")
        client[database]["seconds"].insert_one({"_id": 1, "n": 0})
        client[database]["thirds"].insert_one({"_id": 1})
        yield client


@pytest.fixture
def session(client: MongoClient[dict[str, Any]]) -> Iterator[ClientSession]:
    with client.start_session() as session:
        session.start_transaction()
        yield session


def contents(client: MongoClient[dict[str, Any]], database: str) -> list[int]:
    """Return the number of the first documents, the counter, and the number of the third ones."""
    held = client[database]
    return [
        held["firsts"].count_documents({}),
        held["seconds"].find_one({})["n"],  # type: ignore[index]  # it was inserted
        held["thirds"].count_documents({}),
    ]


def test_each_command_has_its_reply_and_the_commit_applies_all(
    client: MongoClient[dict[str, Any]], session: ClientSession, database: str
) -> None:
    replies = run_pipelined(session, database, commands())
    assert [reply["n"] for reply in replies] == [2, 1, 1]
    assert contents(client, database) == [0, 0, 1]  # not before the commit
    session.commit_transaction()
    assert contents(client, database) == [2, 1, 0]


@pytest.mark.parametrize("command", ["insert", "update", "delete"])
async def test_the_error_of_any_command_is_raised_and_nothing_is_applied(
    client: MongoClient[dict[str, Any]],
    session: ClientSession,
    database: str,
    mongod_uri: str,
    command: str,
) -> None:
    async with failing(mongod_uri, command, times=1, errorCode=UNAUTHORIZED):
        with pytest.raises(OperationFailure) as raised:
            run_pipelined(session, database, commands())
        session.abort_transaction()
        assert raised.value.code == UNAUTHORIZED
    assert contents(client, database) == [0, 0, 1]


def test_the_first_of_several_errors_is_raised(session: ClientSession, database: str) -> None:
    twice = {"insert": "firsts", "documents": [{"_id": 1}, {"_id": 1}]}
    with pytest.raises(OperationFailure) as raised:
        run_pipelined(session, database, [twice, *commands()])
    assert raised.value.code == DUPLICATE_KEY  # the other commands found no transaction


async def test_an_error_of_the_primary_leaves_no_reply_on_the_connection(
    client: MongoClient[dict[str, Any]], session: ClientSession, database: str, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "update", times=1, errorCode=NOT_PRIMARY):
        with pytest.raises(AutoReconnect):
            run_pipelined(session, database, commands())
        session.abort_transaction()
    session.start_transaction()
    assert [reply["n"] for reply in run_pipelined(session, database, commands())] == [2, 1, 1]
    session.commit_transaction()
    assert contents(client, database) == [2, 1, 0]


async def test_a_connection_that_breaks_in_between_applies_nothing(
    client: MongoClient[dict[str, Any]], session: ClientSession, database: str, mongod_uri: str
) -> None:
    async with failing(mongod_uri, "update", times=1, closeConnection=True):
        with pytest.raises(AutoReconnect) as raised:
            run_pipelined(session, database, commands())
        session.abort_transaction()
    assert raised.value.has_error_label("TransientTransactionError")
    assert contents(client, database) == [0, 0, 1]


async def test_a_commit_sent_together_would_apply_a_part(
    client: MongoClient[dict[str, Any]], session: ClientSession, database: str, mongod_uri: str
) -> None:
    """An error before a command joins its transaction does not abort it: so the commit waits."""
    async with failing(mongod_uri, "update", times=1, errorCode=UNAUTHORIZED):
        with pytest.raises(OperationFailure):
            run_pipelined(session, database, commands())
        session.commit_transaction()
    assert contents(client, database) == [2, 0, 0]
