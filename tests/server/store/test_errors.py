"""Test the errors for a replica set without members, another replica set and a dead host."""

import re
from pathlib import Path

import pytest
from credit_server import app
from credit_server.errors import StartError
from credit_server.settings import StoreSettings
from credit_server.store.errors import UserRejected, explain_unreachable, translate
from credit_server.store.port import StoreMisconfigured
from credit_testing.mongod import MongodProcess, running_mongod
from pydantic import SecretStr
from pymongo.errors import OperationFailure
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription
from pymongo.synchronous.settings import TopologySettings
from pymongo.topology_description import TOPOLOGY_TYPE, TopologyDescription

from tests.server.cancelled_connects import sockets_are_collected


async def _start(uri: str, *, timeout_seconds: float = 2) -> None:
    settings = StoreSettings(mongodb_uri=SecretStr(uri), store_timeout_seconds=timeout_seconds)
    async with app.open_store(settings):
        pass


async def _refused(uri: str) -> str:
    with pytest.raises(StartError) as refused:
        await _start(uri)
    message = str(refused.value)
    assert message.endswith("Run credit-server doctor for details.")
    assert "hidden" not in message
    return message


async def test_a_set_that_was_never_initiated_is_reported(tmp_path: Path) -> None:
    mongod = MongodProcess(tmp_path)
    mongod.launch()
    uri = f"mongodb://127.0.0.1:{mongod.port}"
    try:
        # The driver waits until mongod listens.
        with pytest.raises(StoreMisconfigured, match=r"never initiated: run rs\.initiate\(\)"):
            async with app.open_store(
                StoreSettings(
                    mongodb_uri=SecretStr(f"{uri}/?directConnection=true"), store_timeout_seconds=30
                )
            ):
                pass
        message = await _refused(f"{uri}/?replicaSet=rs0")
    finally:
        await mongod.end()
    assert "was never initiated: run rs.initiate() once, in mongosh" in message


async def test_a_set_of_another_name_is_reported(mongod_uri: str) -> None:
    uri = re.sub(r"replicaSet=\w+", "replicaSet=another", mongod_uri)
    assert uri != mongod_uri
    assert "none of them is in a replica set 'another'" in await _refused(uri)


async def test_a_wrong_password_is_reported_as_such(tmp_path: Path) -> None:
    async with running_mongod(tmp_path, "--auth", standalone=True) as mongod:
        uri = mongod.uri.replace("//", "//me:hidden@")
        with pytest.raises(StartError) as refused:
            await _start(uri, timeout_seconds=30)
    assert str(refused.value) == (
        "MongoDB rejects the user that CREDIT_MONGODB_URI names: Authentication failed."
    )


def test_a_command_that_the_user_may_not_send_is_reported_without_its_content() -> None:
    reason = 'not authorized on credit to execute command { find: "users", filter: { _id: 7 } }'
    error = translate(OperationFailure(reason, 13, {"errmsg": reason}))
    assert isinstance(error, UserRejected)
    assert str(error) == (
        "MongoDB rejects the user that CREDIT_MONGODB_URI names: not authorized on credit to"
        " execute command"
    )


@sockets_are_collected
async def test_a_host_where_nothing_listens_is_reported(tmp_path: Path) -> None:
    absent = MongodProcess(tmp_path)  # never started
    uri = absent.uri.replace("//", "//me:hidden@")
    assert f"127.0.0.1:{absent.port}: [Errno 111] Connection refused" in await _refused(uri)


def test_the_error_for_a_set_without_a_primary_names_the_running_members() -> None:
    up, away = ("db1", 27017), ("db2", 27017)
    answer = {
        "ok": 1,
        "setName": "rs0",
        "secondary": True,
        "hosts": ["db1:27017", "db2:27017"],
        "maxWireVersion": 17,
    }
    servers: dict[tuple[str, int | None], ServerDescription] = {
        up: ServerDescription(up, Hello(answer)),
        away: ServerDescription(away, error=OSError("no route to host")),
    }
    topology = TopologyDescription(
        TOPOLOGY_TYPE.ReplicaSetNoPrimary, servers, "rs0", None, None, TopologySettings()
    )
    assert explain_unreachable(topology) == (
        "db1:27017 is up and not the primary: see rs.status(); db2:27017: no route to host"
    )


def test_hosts_outside_a_replica_set_are_reported() -> None:
    topology = TopologyDescription(TOPOLOGY_TYPE.Unknown, {}, None, None, None, TopologySettings())
    assert explain_unreachable(topology) == (
        "the hosts that CREDIT_MONGODB_URI names answer, and none is in a replica set"
    )
