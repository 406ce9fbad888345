"""Work in the background is repeated, also after failures."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import structlog
from credit_server.repeat import Pauses, repeat


class Away(Exception):
    pass


@dataclass
class Work:
    """Work with given results, after which its task is cancelled."""

    results: list[Exception | None]
    pauses: list[tuple[str, float]] = field(default_factory=list)

    async def run(self) -> None:
        if not self.results:
            raise asyncio.CancelledError
        result = self.results.pop(0)
        if result is not None:
            raise result

    async def until_woken(self, seconds: float) -> None:
        self.pauses.append(("until woken", seconds))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(("sleep", seconds))


async def _repeated(
    work: Work, backoff_seconds_max: float, monkeypatch: pytest.MonkeyPatch
) -> Sequence[Any]:
    """Repeat work to its end, and return the lines of the log."""
    monkeypatch.setattr(asyncio, "sleep", work.sleep)
    with structlog.testing.capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await repeat(
            work.run,
            Pauses(interval_seconds=1.0, backoff_seconds_max=backoff_seconds_max, shortest=1.0),
            random=Random(1),
            log=structlog.get_logger("test"),
            warning="failed",
            expected=(Away,),
            sleep=work.until_woken,
        )
    return lines


async def test_pauses_double_after_failures_and_the_first_expected_error_in_a_row_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work([Away(), Away(), Away(), None, ValueError(), ValueError()])
    lines = await _repeated(work, 3.0, monkeypatch)
    assert work.pauses == [
        ("until woken", 1.0),
        ("sleep", 2.0),
        ("sleep", 3.0),
        ("sleep", 3.0),
        ("until woken", 1.0),
        ("sleep", 2.0),
        ("sleep", 3.0),
    ]
    assert [type(line["exc_info"]) for line in lines] == [type(None), ValueError, ValueError]


async def test_each_error_is_logged_if_the_pause_does_not_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work([Away(), Away()])
    assert len(await _repeated(work, 1.0, monkeypatch)) == 2
    assert work.pauses == [("until woken", 1.0)] * 3
