"""Check the ledger in a database: its history, balances, purchases and totals must add up.

Run as `python -m credit_testing.ledger_check MONGODB_URI DATABASE`. Exit codes: 0 it adds up, 1 it
does not. The database computes the sums, so that the check takes seconds for any number of users.
It uses none of the server's own code, which could be wrong in the same way.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

UINT32_MAX = 2**32 - 1
SHOWN_MAX = 10

# Any: documents hold values of many types.
Document = Mapping[str, Any]
Stage = dict[str, Any]

_ADDING = ["add", "grant", "activate", "release", "refund", "transfer_in"]
_TAKING = ["use", "expire", "void", "hold", "revoke", "transfer_out"]
# Entries that only an operator makes, and that may leave a debt.
_CORRECTING = ["adjust"]

_BY_TYPE = {
    "$switch": {
        "branches": [
            {"case": {"$in": ["$type", _ADDING]}, "then": "$credits"},
            {"case": {"$in": ["$type", _TAKING]}, "then": {"$multiply": ["$credits", -1]}},
        ],
        "default": 0,
    }
}
# The change of the balance: the effect of an entry.
_SIGNED = {"$ifNull": ["$delta", _BY_TYPE]}
_BY_USER_AND_APP = {"user_id": "$user_id", "app_id": "$app_id"}


def findings(database: Database[dict[str, Any]], *, totals: bool = True) -> list[str]:
    """Find what must never be in a ledger at rest.

    Args:
        database: The server's database; no server may be writing to it.
        totals: Whether it stores the totals of apps.

    Returns:
        One sentence for each finding, at most `SHOWN_MAX` of each kind; none for a sound ledger.
    """
    transactions = database["credit_transactions"]
    looked_for: list[tuple[str, str, Sequence[Stage]]] = [
        (
            "a balance leaves 0 to 4294967295 without an adjustment, or an entry has another",
            transactions.name,
            _running(),
        ),
        (
            "a history has a gap, or ends elsewhere than its account",
            transactions.name,
            _sequences(),
        ),
        ("a history adds up to another balance than is held", transactions.name, _sums()),
        ("the hashes of a history are not a chain", transactions.name, _chains()),
        ("an account has another hash than its latest entry", transactions.name, _heads()),
        ("an account has no history", "user_credits", _without("credit_transactions", "user_id")),
        ("a payment without its purchase", transactions.name, _unbought()),
        ("a purchase without its payment", "purchases", _unpaid()),
        ("a key has happened twice", transactions.name, _keys()),
        ("a purchase shows other refunds than were made", transactions.name, _refunds()),
        ("a hold has other credits than its entries leave", transactions.name, _holds()),
        ("a grant has other credits than its entries leave", transactions.name, _grants()),
        ("more was granted than the balance has", "user_credits", _granted()),
    ]
    if totals:
        sentence = "an app's total is not the sum of its balances"
        looked_for.append((sentence, "user_credits", _totals()))
    return [
        f"{sentence}: {found}"
        for sentence, collection, pipeline in looked_for
        for found in _found(database, collection, pipeline)
    ]


def _found(
    database: Database[dict[str, Any]], collection: str, pipeline: Sequence[Stage]
) -> Iterator[Document]:
    stages = [*pipeline, {"$limit": SHOWN_MAX}]
    yield from database[collection].aggregate(stages, allowDiskUse=True)


def _running() -> list[Stage]:
    """Return entries whose balance is not the sum of all changes so far."""
    window = {
        "partitionBy": _BY_USER_AND_APP,
        "sortBy": {"sequence": 1},
        "output": {
            "sum": {"$sum": _SIGNED, "window": {"documents": ["unbounded", "current"]}},
        },
    }
    wrong = {
        "$or": [
            {"$ne": ["$sum", "$balance_after"]},
            {"$gt": ["$sum", UINT32_MAX]},
            {"$lt": ["$sum", -UINT32_MAX]},
            {
                "$and": [
                    {"$lt": ["$sum", 0]},
                    {"$lt": [_SIGNED, 0]},
                    {"$not": [{"$in": ["$type", _CORRECTING]}]},
                ]
            },
        ]
    }
    return [{"$setWindowFields": window}, {"$match": {"$expr": wrong}}]


def _sequences() -> list[Stage]:
    """Return users whose sequences are not 1, 2, 3 … up to their account's revision."""
    group = {
        "_id": "$user_id",
        "entries": {"$sum": 1},
        "distinct": {"$addToSet": "$sequence"},
        "first": {"$min": "$sequence"},
        "last": {"$max": "$sequence"},
    }
    wrong = {
        "$or": [
            {"$ne": ["$first", 1]},
            {"$ne": ["$last", "$entries"]},
            {"$ne": [{"$size": "$distinct"}, "$entries"]},
            {"$ne": [["$last"], "$account.revision"]},
        ]
    }
    shown = {"entries": 1, "first": 1, "last": 1, "revision": "$account.revision"}
    return [
        {"$group": group},
        _join("user_credits", "_id", "user_id", "account"),
        {"$match": {"$expr": wrong}},
        {"$project": shown},
    ]


def _chains() -> list[Stage]:
    """Return entries whose previous hash is not the hash of the entry before in the app.

    This does not compute the hashes from the fields. A consumer of the history does that.
    """
    window = {
        "partitionBy": _BY_USER_AND_APP,
        "sortBy": {"sequence": 1},
        "output": {"before": {"$shift": {"output": "$hash", "by": -1}}},
    }
    linked = {"$eq": [{"$ifNull": ["$previous_hash", None]}, {"$ifNull": ["$before", None]}]}
    hashed = {"$or": [{"$gt": ["$hash", None]}, {"$eq": [{"$ifNull": ["$before", None]}, None]}]}
    return [
        {"$setWindowFields": window},
        {"$match": {"$expr": {"$not": [{"$and": [linked, hashed]}]}}},
    ]


def _heads() -> list[Stage]:
    """Return users whose account does not have the hashes of their latest entries, by app."""
    held = {
        "$map": {
            "input": {"$ifNull": [{"$first": "$account.balances"}, []]},
            "in": {"app_id": "$$this.app_id", "head": {"$ifNull": ["$$this.head", None]}},
        }
    }
    latest = {"$max": {"sequence": "$sequence", "hash": {"$ifNull": ["$hash", None]}}}
    heads = {"$push": {"app_id": "$_id.app_id", "head": "$latest.hash"}}
    return [
        {"$group": {"_id": _BY_USER_AND_APP, "latest": latest}},
        {"$group": {"_id": "$_id.user_id", "heads": heads}},
        _join("user_credits", "_id", "user_id", "account"),
        {"$project": {"heads": 1, "held": held}},
        {"$match": {"$expr": {"$not": [{"$setEquals": ["$heads", "$held"]}]}}},
    ]


def _sums() -> list[Stage]:
    """Return users whose account does not hold the sums of their history, app by app."""
    held = {
        "$map": {
            "input": {"$ifNull": [{"$first": "$account.balances"}, []]},
            "in": {"app_id": "$$this.app_id", "balance": "$$this.balance"},
        }
    }
    return [
        {"$group": {"_id": _BY_USER_AND_APP, "balance": {"$sum": _SIGNED}}},
        {
            "$group": {
                "_id": "$_id.user_id",
                "earned": {"$push": {"app_id": "$_id.app_id", "balance": "$balance"}},
            }
        },
        _join("user_credits", "_id", "user_id", "account"),
        {"$project": {"earned": 1, "held": held}},
        {"$match": {"$expr": {"$not": [{"$setEquals": ["$earned", "$held"]}]}}},
    ]


def _unbought() -> list[Stage]:
    """Return USE entries without their purchase, and other entries that name one."""
    same = [
        {"$eq": [[f"${name}"], f"$bought.{name}"]}
        for name in ("user_id", "app_id", "credits", "created_by", "sequence", "created_at")
    ]
    sound = {
        "$cond": [
            {"$eq": ["$type", "use"]},
            {"$and": [*same, {"$eq": [["$_id"], "$bought.transaction_id"]}]},
            {"$eq": [{"$type": "$purchase_id"}, "missing"]},
        ]
    }
    return [
        _join("purchases", "purchase_id", "_id", "bought"),
        {"$match": {"$expr": {"$not": [sound]}}},
    ]


def _unpaid() -> list[Stage]:
    """Return purchases whose transaction is missing or names another purchase."""
    return [
        _join("credit_transactions", "transaction_id", "_id", "paid"),
        {"$match": {"$expr": {"$ne": [["$_id"], "$paid.purchase_id"]}}},
    ]


def _keys() -> list[Stage]:
    """Return keys of a user in an app with more than one entry."""
    scope = {"user_id": "$user_id", "app_id": "$app_id", "key": "$idempotency_key"}
    return [
        {"$match": {"idempotency_key": {"$exists": True}}},
        {"$group": {"_id": scope, "count": {"$sum": 1}}},
        {"$match": {"count": {"$gt": 1}}},
    ]


def _refunds() -> list[Stage]:
    """Return payments whose REFUNDs are not the sum that their purchase shows, or exceed it.

    Both sides are grouped: a look-up of each purchase's refunds would read the user's history each
    time where no index serves it.
    """
    shown: list[Stage] = [
        {"$match": {"refunded_credits": {"$exists": True}}},
        {
            "$project": {
                "user_id": 1,
                "related_id": "$transaction_id",
                "shown": "$refunded_credits",
                "paid": "$credits",
            }
        },
    ]
    made: list[Stage] = [
        {"$match": {"type": "refund"}},
        {"$project": {"user_id": 1, "related_id": 1, "made": "$credits"}},
    ]
    payment = {"user_id": "$user_id", "transaction_id": "$related_id"}
    sums = {name: {"$sum": f"${name}"} for name in ("made", "shown", "paid")}
    return [
        *made,
        {"$unionWith": {"coll": "purchases", "pipeline": shown}},
        {"$group": {"_id": payment, **sums}},
        {"$match": {"$expr": {"$or": [{"$ne": ["$made", "$shown"]}, {"$gt": ["$made", "$paid"]}]}}},
    ]


def _holds() -> list[Stage]:
    """Return holds that do not hold what was held less what was released."""
    signed = {"$cond": [{"$eq": ["$type", "hold"]}, "$credits", {"$multiply": ["$credits", -1]}]}
    hold = {"$cond": [{"$eq": ["$type", "hold"]}, "$_id", "$related_id"]}
    return [
        {"$match": {"type": {"$in": ["hold", "release"]}}},
        {"$project": {**_BY_USER_AND_APP, "id": hold, "signed": signed}},
        *_compared_with("holds", "credits"),
    ]


def _grants() -> list[Stage]:
    """Return grants that do not have what entries added to them less what they took from them."""
    part = "$allocations.credits"
    signed = {"$cond": [{"$lt": [_SIGNED, 0]}, {"$multiply": [part, -1]}, part]}
    return [
        # A schedule adds nothing before its start, nor does taking it back take anything.
        {"$match": {"allocations": {"$exists": True}, "$expr": {"$ne": [_SIGNED, 0]}}},
        {"$unwind": "$allocations"},
        {"$match": {"allocations.grant_id": {"$exists": True}}},
        {"$project": {**_BY_USER_AND_APP, "id": "$allocations.grant_id", "signed": signed}},
        *_compared_with("grants", "left"),
    ]


def _compared_with(kind: str, field: str) -> list[Stage]:
    """Compare the sums of changes of holds or grants with those in the accounts.

    The changes have the fields `user_id`, `app_id`, `id` and `signed`.
    """
    kept: list[Stage] = [
        {"$unwind": "$apps"},
        {"$unwind": f"$apps.{kind}"},
        {
            "$project": {
                "_id": 0,
                "user_id": 1,
                "app_id": "$apps.app_id",
                "id": f"$apps.{kind}.id",
                "kept": f"$apps.{kind}.{field}",
            }
        },
    ]
    return [
        {"$unionWith": {"coll": "user_credits", "pipeline": kept}},
        {
            "$group": {
                "_id": {"user_id": "$user_id", "app_id": "$app_id", "id": "$id"},
                "left": {"$sum": "$signed"},
                "kept": {"$sum": "$kept"},
            }
        },
        {"$match": {"$expr": {"$ne": ["$left", "$kept"]}}},
    ]


def _granted() -> list[Stage]:
    """Return apps of accounts whose grants have more credits than the balance."""
    of_app = {"$filter": {"input": "$balances", "cond": {"$eq": ["$$this.app_id", "$apps.app_id"]}}}
    return [
        {"$unwind": "$apps"},
        {
            "$project": {
                "user_id": 1,
                "app_id": "$apps.app_id",
                "granted": {"$sum": "$apps.grants.left"},
                "balance": {"$sum": {"$map": {"input": of_app, "in": "$$this.balance"}}},
            }
        },
        {"$match": {"$expr": {"$gt": ["$granted", {"$max": ["$balance", 0]}]}}},
    ]


def _totals() -> list[Stage]:
    """Return apps whose parts of the total do not add up to what the users hold."""
    part = {"_id": "$app_id", "held": {"$literal": 0}, "total": "$total"}
    return [
        {"$unwind": "$balances"},
        {
            "$project": {
                "_id": "$balances.app_id",
                "held": "$balances.balance",
                "total": {"$literal": 0},
            }
        },
        {"$unionWith": {"coll": "app_totals", "pipeline": [{"$project": part}]}},
        {"$group": {"_id": "$_id", "held": {"$sum": "$held"}, "total": {"$sum": "$total"}}},
        {"$match": {"$expr": {"$ne": ["$held", "$total"]}}},
    ]


def _without(collection: str, name: str) -> list[Stage]:
    """Return documents without a partner in a collection.

    One partner is enough: all entries of a long history would exceed the size of a document.
    """
    join = _join(collection, name, name, "joined")
    join["$lookup"]["pipeline"] = [{"$limit": 1}, {"$project": {"_id": 1}}]
    return [join, {"$match": {"joined": []}}]


def _join(collection: str, local: str, foreign: str, name: str) -> Stage:
    return {
        "$lookup": {
            "from": collection,
            "localField": local,
            "foreignField": foreign,
            "as": name,
        }
    }


def main(uri: str, name: str) -> int:
    """Check a database, print the findings, and return the exit code."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        database: Database[dict[str, Any]] = client[name]
        found = findings(database)
        entries = database["credit_transactions"].count_documents({})
    for finding in found:
        print(f"the ledger is wrong: {finding}", file=sys.stderr)  # noqa: T201 - a command prints
    if not found:
        print(f"the ledger adds up: {entries} transactions")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
