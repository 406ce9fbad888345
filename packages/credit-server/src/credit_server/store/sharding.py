"""Shard the collections that grow with the users, if MongoDB is a sharded cluster.

The shard key is the user, so an account and its history are on one shard. A unique index of a
sharded collection must begin with the shard key:
https://www.mongodb.com/docs/manual/core/sharding-shard-key/#unique-indexes. All other collections
stay on the primary shard of the database.
"""

from typing import Any

from pymongo.errors import OperationFailure

from credit_server.store.driver import Database
from credit_server.store.port import StoreMisconfigured
from credit_server.store.schema import CREDIT_TRANSACTIONS, PURCHASES, USER_CREDITS

SHARDED = (USER_CREDITS, CREDIT_TRANSACTIONS, PURCHASES)
SHARD_KEY = {"user_id": 1}

_UNAUTHORIZED = 13


async def unsharded(database: Database) -> list[str]:
    """Return the collections that are to be sharded; empty if MongoDB is not a sharded cluster.

    Raises:
        StoreMisconfigured: A collection is sharded by another key, or the MongoDB user may not read
            which ones are sharded.
    """
    hello = await database.client.admin.command("hello")
    if hello.get("msg") != "isdbgrid":
        return []
    found = await _keys(database)
    for name in SHARDED:
        if found.get(name, SHARD_KEY) != SHARD_KEY:
            raise StoreMisconfigured(
                f"The collection {name} is sharded by {found[name]}, so MongoDB does not ensure"
                f" unique keys of users. Nothing was changed. Reshard it by {SHARD_KEY}:"
                " reshardCollection."
            )
    return [name for name in SHARDED if name not in found]


# Any: the values of a shard key are numbers and text.
async def _keys(database: Database) -> dict[str, dict[str, Any]]:
    """Return the shard keys of the database's sharded collections."""
    names = {f"{database.name}.{name}": name for name in SHARDED}
    # Before 5.0, dropped collections stay here. Since 7.0, collections on one shard can be here.
    query = {
        "_id": {"$in": list(names)},
        "dropped": {"$ne": True},
        "unsplittable": {"$ne": True},
    }
    try:
        entries = await database.client["config"]["collections"].find(query).to_list(None)
    except OperationFailure as error:
        raise _explained(error) from error
    return {names[entry["_id"]]: dict(entry["key"]) for entry in entries}


async def shard(database: Database, name: str) -> None:
    """Shard a collection, which needs an index that begins with the shard key. Safe to repeat.

    Raises:
        StoreMisconfigured: The MongoDB user may not shard collections.
    """
    admin = database.client.admin
    try:
        # MongoDB before 6.0 needs this command. It has no effect if it was run before.
        await admin.command({"enableSharding": database.name})
        await admin.command({"shardCollection": f"{database.name}.{name}", "key": SHARD_KEY})
    except OperationFailure as error:
        raise _explained(error) from error


def _explained(error: OperationFailure) -> Exception:
    if error.code != _UNAUTHORIZED:
        return error
    return StoreMisconfigured(
        "MongoDB is a sharded cluster, and its user may not shard collections. No collection was"
        " sharded, and no data is affected. Give the user of migrate the role clusterManager, then"
        " repeat the command."
    )
