"""Count the messages that no attempt has delivered, for `credit-server doctor`."""

from collections.abc import Mapping

from credit_server.store import schema
from credit_server.store.driver import Client
from credit_server.store.errors import all_translated

# The count stops here, because the exact number of so many does not matter.
DEAD_LETTERS_COUNTED_MAX = 10_000


async def dead_letters(client: Client, *, database: str) -> Mapping[int, int]:
    """Return the number of dead letters of each app that has some, by app.

    Args:
        client: A connection to MongoDB with a primary.
        database: The name of the ledger's database, whose schema must be complete.

    Raises:
        StoreError: The store cannot be read.
    """
    deliveries = client.get_database(database)[schema.WEBHOOK_DELIVERIES]
    with all_translated():
        cursor = await deliveries.aggregate(
            [
                {"$match": {"failed_at": {"$exists": True}}},
                {"$limit": DEAD_LETTERS_COUNTED_MAX},
                {"$group": {"_id": "$app_id", "number": {"$sum": 1}}},
                {"$sort": {"_id": 1}},
            ],
            hint=schema.BY_DEAD_LETTER,
        )
        return {found["_id"]: found["number"] async for found in cursor}
