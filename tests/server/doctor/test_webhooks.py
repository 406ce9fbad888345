"""The doctor's verdicts on what webhooks have not received."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from credit_models.ledger import Alert, AlertEvent, Direction
from credit_server.doctor.report import Finding, Verdict
from credit_server.doctor.subject import StoreReading
from credit_server.doctor.webhooks import check_webhooks
from credit_server.store.mongo import MongoStore
from credit_server.store.report import connected
from credit_server.store.undelivered import dead_letters
from credit_server.store.webhook_documents import DeliveryDocument
from credit_server.store.webhooks import Delivery

from tests.server.doctor.subject import subject_of

AT = datetime(2026, 1, 1, tzinfo=UTC)


def _found(dead: Mapping[int, int] | None) -> list[Finding]:
    return [*check_webhooks(subject_of(store=StoreReading(dead_letters=dead)))]


def test_without_a_dead_letter_all_is_well_and_without_a_store_nothing_is_known() -> None:
    assert [one.verdict for one in _found({})] == [Verdict.OK]
    assert _found(None) == []


@pytest.mark.parametrize(
    ("dead", "shown"),
    [
        ({3: 1}, "1 event could not be delivered to webhooks in about a day (app 3: 1)"),
        ({3: 1, 4: 8}, "9 events could not be delivered to webhooks in about a day (app 4: 8, app"),
        (dict.fromkeys(range(1, 8), 2), "app 5: 2 and 2 more apps)"),
        ({3: 10_000}, "10000 or more events could not"),
    ],
)
def test_dead_letters_are_a_warning_that_names_apps(dead: Mapping[int, int], shown: str) -> None:
    (finding,) = _found(dead)
    assert finding.verdict is Verdict.WARNING
    assert shown in finding.found
    assert "credit webhook resend" in finding.remedy


def _delivery(number: int, app_id: int, failed_at: datetime | None) -> dict[str, object]:
    event = AlertEvent(
        id=f"{number:024x}",
        user_id=7,
        app_id=app_id,
        alert=Alert(credits=20, direction=Direction.FALLS_BELOW),
        balance=19,
        transaction_id=f"{number:024x}",
        sequence=1,
        created_at=AT,
    )
    return DeliveryDocument.from_delivery(
        Delivery(
            id=event.id,
            webhook_id=event.id,
            app_id=app_id,
            event=event,
            due_at=AT if failed_at is None else None,
            created_at=AT,
            failed_at=failed_at,
        )
    ).to_bson()


async def test_dead_letters_are_counted_by_app(mongod_uri: str, migrated_database: str) -> None:
    store = MongoStore(mongod_uri, database=migrated_database)
    await store._database["webhook_deliveries"].insert_many(
        [_delivery(1, 4, AT), _delivery(2, 3, AT), _delivery(3, 4, AT), _delivery(4, 3, None)]
    )
    await store.close()
    async with connected(mongod_uri, timeout_seconds=20) as client:
        assert await dead_letters(client, database=migrated_database) == {3: 1, 4: 2}
