"""Charts as SVG: lines over a logarithmic axis, and bars. Both show the spread."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from credit_bench.summary import Spread

# Colours that people with colour blindness can tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_WIDTH, _LEFT, _RIGHT, _TOP = 720, 70, 200, 40
_PLOT_HEIGHT, _BOTTOM = 300, 50
_BAR_HEIGHT, _BAR_LEFT = 22, 330


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The points of one line, by ascending x."""

    name: str
    points: Sequence[tuple[float, Spread]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _LogScale:
    """Maps values to pixels on a logarithmic scale."""

    least: float
    greatest: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        low, high = math.log10(self.least), math.log10(self.greatest)
        share = (math.log10(max(value, self.least)) - low) / (high - low or 1)
        return self.begin + share * (self.end - self.begin)


def line_chart(title: str, x_title: str, y_title: str, lines: Sequence[Series]) -> str:
    """Return a chart with a logarithmic x and y axis, and a vertical bar for each spread."""
    xs = [x for line in lines for x, _ in line.points]
    values = [value for line in lines for _, spread in line.points for value in _positive(spread)]
    x = _LogScale(least=min(xs), greatest=max(xs), begin=_LEFT, end=_WIDTH - _RIGHT)
    bottom = _TOP + _PLOT_HEIGHT
    ticks = _ticks(min(values), max(values))
    y = _LogScale(least=ticks[0], greatest=ticks[-1], begin=bottom, end=_TOP)
    parts = [_text(_LEFT, 22, title, weight="bold")]
    for tick in ticks:
        parts.append(_line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "#dddddd"))
        parts.append(_text(_LEFT - 6, y(tick) + 4, _number(tick), anchor="end"))
    for tick in sorted(set(xs)):
        parts.append(_line(x(tick), bottom, x(tick), bottom + 4, "#666666"))
        parts.append(_text(x(tick), bottom + 18, _number(tick), anchor="middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 38, x_title, anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 4, y_title, size=11))
    for number, line in enumerate(lines):
        parts += _drawn(line, x, y, _COLOURS[number % len(_COLOURS)], number)
    return _svg(bottom + _BOTTOM, parts)


def bar_chart(title: str, x_title: str, bars: Sequence[tuple[str, Spread]]) -> str:
    """Return horizontal bars from zero, with a thin line for each spread."""
    greatest = max((spread.greatest for _, spread in bars), default=1) or 1
    scale = (_WIDTH - _BAR_LEFT - 70) / greatest
    parts = [_text(10, 22, title, weight="bold")]
    for number, (name, spread) in enumerate(bars):
        top = _TOP + number * (_BAR_HEIGHT + 8)
        middle = top + _BAR_HEIGHT / 2
        width = spread.median * scale
        parts.append(_text(_BAR_LEFT - 8, middle + 4, name, anchor="end"))
        parts.append(
            f'<rect x="{_BAR_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}"'
            f' fill="{_COLOURS[0]}"/>'
        )
        low, high = _BAR_LEFT + spread.least * scale, _BAR_LEFT + spread.greatest * scale
        parts.append(_line(low, middle, high, middle, "#000000"))
        parts.append(_text(high + 6, middle + 4, _number(spread.median)))
    height = _TOP + len(bars) * (_BAR_HEIGHT + 8)
    parts.append(_text(_BAR_LEFT, height + 18, x_title))
    return _svg(height + 30, parts)


def _drawn(line: Series, x: _LogScale, y: _LogScale, colour: str, number: int) -> Iterable[str]:
    path = " ".join(f"{x(value):.1f},{y(spread.median):.1f}" for value, spread in line.points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for value, spread in line.points:
        yield _line(x(value), y(spread.least), x(value), y(spread.greatest), colour)
        yield f'<circle cx="{x(value):.1f}" cy="{y(spread.median):.1f}" r="3" fill="{colour}"/>'
    top = _TOP + 10 + number * 20
    left = _WIDTH - _RIGHT + 20
    yield f'<rect x="{left}" y="{top - 9}" width="12" height="12" fill="{colour}"/>'
    yield _text(left + 18, top + 1, line.name)


def _positive(spread: Spread) -> list[float]:
    """Return the values that a logarithmic axis can show."""
    return [value for value in (spread.least, spread.median, spread.greatest) if value > 0] or [1.0]


def _ticks(least: float, greatest: float) -> list[float]:
    """Return 1, 2, 5, 10, … around the values."""
    steps = [
        base * 10.0**power
        for power in range(math.floor(math.log10(least)), math.ceil(math.log10(greatest)) + 1)
        for base in (1, 2, 5)
    ]
    first = max(number for number, step in enumerate(steps) if step <= least)
    last = next((number for number, step in enumerate(steps) if step >= greatest), len(steps) - 1)
    return steps[first : max(last, first + 1) + 1]


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    if value >= 10_000:
        return f"{value / 1_000:g}k"
    return f"{value:.3g}" if value < 1_000 else f"{value:.0f}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 12
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
        f' font-size="{size}">{escape(text)}</text>'
    )


def _svg(height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' width="{_WIDTH}" height="{height:.0f}" font-family="sans-serif" fill="#222222">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )
