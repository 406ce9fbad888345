"""Create the databases that released servers made; `make` describes how the files were written."""

import json
from pathlib import Path
from typing import Any

from credit_server.store.extended_json import from_line
from pymongo import IndexModel, MongoClient
from pymongo.collection import Collection

Document = dict[str, Any]  # values of BSON

RELEASES = {"0.1.0": 1, "0.2.0": 2, "0.3.0": 3}
"""The releases, each with the version of its schema."""


def create(release: str, uri: str, database: str) -> None:
    """Create the database of a release: collections, validators, indexes and documents."""
    lines = Path(__file__).with_name(f"{release}.ndjson").read_bytes().splitlines()
    client: MongoClient[Document]
    with MongoClient(uri) as client:
        collection: Collection[Document] = client[database]["none"]
        for line in lines:
            described = json.loads(line)
            if "collection" not in described:
                collection.insert_one(from_line(line))
                continue
            name = described["collection"]
            collection = client[database].create_collection(name, **described["options"])
            indexes = [
                IndexModel(index.pop("key"), **{**index, "v": 2}) for index in described["indexes"]
            ]
            if indexes:
                collection.create_indexes(indexes)
