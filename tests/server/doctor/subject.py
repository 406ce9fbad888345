"""A subject of the doctor's checks that is sound except for what a test changes."""

from typing import Any

from credit_server.doctor.subject import LedgerReading, StoreReading, StoreReport, Subject
from credit_server.settings import ServerSettings

from tests.server.doctor.credential_files import NOW


# Any: the settings and fields of a subject have many types.
def subject_of(settings: dict[str, Any] | None = None, **fields: Any) -> Subject:
    """Make a subject. The settings are not validated: a test sets only what its check reads."""
    return Subject(
        settings=ServerSettings().model_copy(update=settings or {}),
        **{"now": NOW, "open_files_max": 10_000, "cpus": 2, **fields},
    )


def stored(
    report: StoreReport | None,
    *,
    embedded: bool = False,
    ledger: LedgerReading | None = None,
    settings: dict[str, Any] | None = None,
) -> Subject:
    """Make a subject with a store."""
    return subject_of(settings, store=StoreReading(embedded=embedded, report=report, ledger=ledger))
