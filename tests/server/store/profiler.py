"""The reads that a real mongod has executed, which its profiler records.

See https://www.mongodb.com/docs/manual/reference/database-profiler/.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient


# Any: the fields of a command.
@contextmanager
def profiled_reads(uri: str, database: str) -> Iterator[list[dict[str, Any]]]:
    """Profile a database during the context, and return a list that then has its reads.

    Each read is the command with `docsExamined`, the number of documents that it examined.
    """
    reads: list[dict[str, Any]] = []
    with MongoClient[dict[str, Any]](uri) as client:
        profiled = client[database]
        profiled.command("profile", 2)
        try:
            yield reads
        finally:
            profiled.command("profile", 0)
        commands = [{f"command.{name}": {"$exists": True}} for name in ("find", "aggregate")]
        found = profiled["system.profile"].find({"$or": commands}).sort("$natural", 1)
        reads += [each["command"] | {"docsExamined": each["docsExamined"]} for each in found]
        profiled.drop_collection("system.profile")
