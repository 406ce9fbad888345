"""The times of a command line: durations such as 30d, dates, months, and times of a day."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import typer

_ReadT = TypeVar("_ReadT")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DAY_SECONDS = 24 * 60 * 60
_SIZES = {"d": _DAY_SECONDS, "h": 60 * 60, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_TIME = "a time such as 2026-12-31 or 2026-12-31T18:00Z"
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")


def duration(text: str | timedelta) -> timedelta:
    """Read a duration such as 30d, 12h, 15m or 90s.

    Raises:
        typer.BadParameter: The text is not a duration.
    """
    if isinstance(text, timedelta):
        return text
    found = _DURATION.fullmatch(text)
    if found is not None:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    if text.isdecimal():
        raise typer.BadParameter(_without_unit(text))
    raise typer.BadParameter(f"{text!r} is not a duration such as 30d, 12h, 15m or 90s")


def duration_text(seconds: int) -> str:
    """Return a duration in the format that `duration` reads, such as 7d.

    A duration of a year or more is rounded down to whole days.
    """
    if seconds >= 365 * _DAY_SECONDS:
        return f"{seconds // _DAY_SECONDS}d"
    number, unit = next(
        (seconds // size, unit) for unit, size in _SIZES.items() if seconds % size == 0
    )
    return f"{number}{unit}" if seconds else "0s"


def moment(text: str, *, utc: bool = False) -> datetime:
    """Read a date, which means the beginning of the day, or a date with a time.

    Args:
        text: The text.
        utc: Whether a text without a time zone is in UTC. Otherwise it is in local time.

    Raises:
        typer.BadParameter: The text is not a time.
    """
    try:
        return _with_zone(datetime.fromisoformat(text), utc=utc)
    except (OverflowError, ValueError):
        raise typer.BadParameter(f"{text!r} is not {_TIME}") from None


def fixed(text: str) -> str:
    """Read a time as `moment` does, and return it as text that has a time zone.

    The command that retries a write must send the same time, also in another time zone.
    """
    found = moment(text)
    return text if datetime.fromisoformat(text).tzinfo is not None else found.isoformat()


def fixed_or_duration(text: str) -> str:
    """Read a duration or a time. Return a duration unchanged, and a time as `fixed` does.

    Raises:
        typer.BadParameter: The text is neither.
    """
    if is_duration(text):
        duration(text)
        return text
    with _or_a_duration(text):
        return fixed(text)


def is_duration(text: str) -> bool:
    """Return whether a text looks like a duration, or a number without a unit, and not a time."""
    if text.isdecimal():
        return len(text) < len("20261231")
    return text[:1].isdigit() and text[-1:].isalpha() and "T" not in text


def past(text: str, *, utc: bool) -> datetime:
    """Read a time as `moment` does, or a duration before now.

    Raises:
        typer.BadParameter: The text is neither.
    """
    if not is_duration(text):
        with _or_a_duration(text):
            return moment(text, utc=utc)
    try:
        return datetime.now(UTC) - duration(text)
    except OverflowError:
        raise typer.BadParameter(f"{text!r} ago is before the year 1") from None


def month(text: str, *, utc: bool) -> tuple[datetime, datetime]:
    """Read a month such as 2026-11. Return its beginning and that of the next month.

    Raises:
        typer.BadParameter: The text is not a month.
    """
    found = _MONTH.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        year, number = int(found[1]), int(found[2])
        following = (year + 1, 1) if number == 12 else (year, number + 1)
        begin, end = datetime(year, number, 1), datetime(*following, 1)  # noqa: DTZ001
        return _with_zone(begin, utc=utc), _with_zone(end, utc=utc)
    except (OverflowError, ValueError):
        raise typer.BadParameter(f"{text!r} is not a month such as 2026-11") from None


def read_option(name: str, text: str, read: Callable[[str], _ReadT]) -> _ReadT:
    """Read the value of an option that another option changes, such as `--since` and `--utc`.

    Raises:
        typer.BadParameter: It cannot be read. The message names the option.
    """
    try:
        return read(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint=f"'{name}'") from None


@contextmanager
def _or_a_duration(text: str) -> Iterator[None]:
    """Mention durations in the message about a text that is not a time."""
    try:
        yield
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text!r} is neither {_TIME} nor a duration such as 30d or 12h"
        ) from None


def _with_zone(found: datetime, *, utc: bool) -> datetime:
    if found.tzinfo is not None:
        return found
    return found.replace(tzinfo=UTC) if utc else found.astimezone()


def _without_unit(text: str) -> str:
    return f"{text!r} has no unit: write {text}d for days, or {text}h, {text}m or {text}s"
