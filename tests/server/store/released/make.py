"""Make a database by a released server, and write it into a file for the tests of migrations.

    mkdir release && git archive COMMIT packages | tar -x -C release
    python -m tests.server.store.released.make release MONGODB_URI > 0.3.0.ndjson

COMMIT is the release's last one: 1d65d8df for 0.1.0, 99510e33 for 0.2.0, 74b82589 for 0.3.0. The
code of the release migrates the database and serves it; the client is that of today.
"""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from credit_client import CreditClient
from credit_server.store.extended_json import to_line
from credit_server.store.fields import DECODED
from credit_testing.child import module, started
from credit_testing.ports import HOST, lasting_port
from pymongo import MongoClient
from pymongo.database import Database

_CREATED_BY = 9
_STDERR = 2


async def _plain(credits_: CreditClient) -> None:
    """Make the writes that every release has."""
    for user, app, key in ((7, 1, "order-4711"), (7, 2, "grant-2"), (8, 1, "order-4711")):
        await credits_.add(
            user_id=user, app_id=app, credits=100, created_by=_CREATED_BY, idempotency_key=key
        )
    await credits_.use(
        user_id=7, app_id=1, report_id="r-1", report_name="Traffic", credits=30,
        created_by=_CREATED_BY, idempotency_key="use-1",
    )  # fmt: skip


async def _kinds(credits_: CreditClient) -> None:
    """Make the writes that are new in 0.3.0."""
    write: dict[str, Any] = {"user_id": 8, "app_id": 1, "created_by": _CREATED_BY}
    ends = datetime.now(UTC) + timedelta(days=9000)
    await credits_.grant(**write, credits=50, expires_at=ends, idempotency_key="grant-3")
    await credits_.place_hold(**write, credits=20, idempotency_key="hold-1")
    used = await credits_.use(
        **write, report_id="r-2", report_name="Größe", credits=10, idempotency_key="use-2"
    )
    await credits_.reverse(
        **write, transaction_id=used.transaction_id, credits=4, idempotency_key="refund-1"
    )
    await credits_.transfer(
        **write, to_user_id=7, to_app_id=1, credits=5, idempotency_key="transfer-1"
    )


async def _fill(release: Path, uri: str, database: str) -> None:
    paths = [
        str(release / "packages" / name / "src") for name in ("credit-models", "credit-server")
    ]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "CREDIT_MONGODB_URI": uri,
        "CREDIT_MONGODB_DATABASE": database,
    }
    async with started(
        *module("credit_server.main", "migrate"), environment=variables, stdout=_STDERR
    ) as migration:
        if await migration.wait() != 0:
            raise SystemExit("the database was not migrated")
    port = lasting_port()
    async with (
        started(
            *module("credit_server.main", "serve", "--port", str(port)),
            environment=variables,
            stdout=_STDERR,
        ),
        CreditClient(f"{HOST}:{port}", wait_for_ready=True, timeout_seconds=60) as credits_,
    ):
        await _plain(credits_)
        if (release / "packages/credit-server/src/credit_server/access").exists():  # since 0.3.0
            await _kinds(credits_)


def _lines(uri: str, database: str) -> Iterator[str]:
    """Yield a line for each collection, with its options and indexes, and one for each document."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(uri) as client:
        made: Database[dict[str, Any]] = client.get_database(database, codec_options=DECODED)
        for found in sorted(made.list_collections(), key=lambda each: str(each["name"])):
            collection = made[found["name"]]
            indexes = [dict(each) for each in collection.list_indexes() if each["name"] != "_id_"]
            for index in indexes:
                index["key"] = list(index["key"].items())
            described = {"collection": collection.name, "options": found["options"]}
            yield json.dumps({**described, "indexes": indexes}) + "\n"
            for document in collection.find().sort("_id", 1):
                yield to_line(document).decode()
        client.drop_database(database)


if __name__ == "__main__":
    name = f"made_{uuid.uuid4().hex}"
    asyncio.run(_fill(Path(sys.argv[1]), sys.argv[2], name))
    sys.stdout.writelines(_lines(sys.argv[2], name))
