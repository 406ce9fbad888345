"""Work in the background is repeated, also after failures."""

import asyncio
from random import Random

import pytest
import structlog
from credit_server.repeat import Pauses, repeat


class Away(Exception):
    pass


async def test_pauses_double_after_failures_and_the_first_expected_error_in_a_row_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sleep that may be shortened is used only before the first run and after a success."""
    results: list[Exception | None] = [Away(), Away(), Away(), None, ValueError(), ValueError()]
    slept: list[tuple[str, float]] = []

    async def run() -> None:
        if not results:
            raise asyncio.CancelledError
        result = results.pop(0)
        if result is not None:
            raise result

    async def shortened(seconds: float) -> None:
        slept.append(("shortened", seconds))

    async def full(seconds: float) -> None:
        slept.append(("full", seconds))

    monkeypatch.setattr(asyncio, "sleep", full)
    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await repeat(
            run,
            Pauses(interval_seconds=1.0, backoff_seconds_max=3.0, shortest=1.0),
            random=Random(1),
            log=structlog.get_logger("test"),
            warning="failed",
            expected=(Away,),
            sleep=shortened,
        )
    assert slept == [
        ("shortened", 1.0),
        ("full", 2.0),
        ("full", 3.0),
        ("full", 3.0),
        ("shortened", 1.0),
        ("full", 2.0),
        ("full", 3.0),
    ]
    assert [type(line["exc_info"]) for line in lines] == [type(None), ValueError, ValueError]
