"""Certificates that expire: a metric has the days left, and warnings are logged daily."""

from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from credit_server.access.tls import Validity
from credit_server.telemetry.certificates import CertificateWatch
from credit_server.telemetry.metrics import CertificateMetrics
from prometheus_client import CollectorRegistry

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SERVER, CA = Path("server.pem"), Path("ca.pem")


def _validity(path: Path = SERVER, *, ends: datetime, begins: datetime = NOW - DAY) -> Validity:
    return Validity(path=path, begins=begins, ends=ends)


class _End(Exception):
    """Ends a watch."""


async def _watched(
    validities: Sequence[Validity], *, hours: int, registry: CollectorRegistry | None = None
) -> None:
    """Let a watch look once an hour."""
    now = NOW

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)
        if now > NOW + timedelta(hours=hours):
            raise _End

    certificates = CertificateWatch(CertificateMetrics(registry or CollectorRegistry()))
    with pytest.raises(_End):
        await certificates.watch(lambda: validities, now=lambda: now, sleep=sleep)


async def test_the_days_left_are_exported_for_each_file() -> None:
    registry = CollectorRegistry()
    files = [_validity(ends=NOW + 40 * DAY), _validity(CA, ends=NOW - 2 * DAY)]
    await _watched(files, hours=12, registry=registry)
    shown = [
        registry.get_sample_value("credit_certificate_days_left", {"file": str(path)})
        for path in (SERVER, CA)
    ]
    assert shown == [39.5, -2.5]


@pytest.mark.parametrize(
    ("validity", "words"),
    [
        (_validity(ends=NOW - DAY), "has expired"),
        (_validity(ends=NOW), "has expired"),
        (_validity(ends=NOW + 13 * DAY), "expires soon"),
        (_validity(ends=NOW + 90 * DAY, begins=NOW + 2 * DAY), "not valid yet"),
    ],
)
async def test_a_certificate_that_is_invalid_or_expires_soon_is_logged_at_start_and_daily(
    validity: Validity, words: str, logged: list[MutableMapping[str, Any]]
) -> None:
    await _watched([validity], hours=50)
    days = 2 if words == "not valid yet" else 3  # it becomes valid on the third day
    assert [words in line["event"] for line in logged] == [True] * days
    assert {line["log_level"] for line in logged} == {"warning"}
    assert {line["path"] for line in logged} == {"server.pem"}


async def test_a_certificate_that_is_valid_for_long_is_not_logged(
    logged: list[MutableMapping[str, Any]],
) -> None:
    await _watched([_validity(ends=NOW + 90 * DAY)], hours=50)
    assert not logged
