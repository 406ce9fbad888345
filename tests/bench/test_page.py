"""Tests of the arithmetic, the tables, the charts and the page, on fixed samples."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from credit_bench.audit import Audit
from credit_bench.bars import BARS
from credit_bench.chart import Series, bar_chart, line_chart
from credit_bench.overload import Overload
from credit_bench.page import UnknownFigures, bars, chart, figures, filled
from credit_bench.results import Measurement, Result, read, read_all
from credit_bench.sample import Sample, percentile
from credit_bench.summary import Measure, Spread, Summary
from credit_bench.workloads import OVERLOAD, WORKLOADS, System, Users, find

WRITES = find(group="writes", callers=16, users=Users.HOT)
CELL, PEER = (WRITES, System.OURS), (WRITES, System.PEER)
GOOD_AUDIT = Audit(transactions=30, purchases=10, findings=(), acknowledged=30, failed=0)
FACTS: dict[str, str | int | float] = {
    "began_at": "2026-01-01T00:00+00:00",
    "commit": "abc",
    "cores": 2,
    "load_average_at_start": 0.5,
    "load_average_at_end": 1.5,
    "python": "3.11",
}
DOCS = Path(__file__).resolve().parents[2] / "docs"


def sample(rate: float, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "operations_per_second": rate,
        "warm_up_operations_per_second": rate,
        "p50_ms": 1000 / rate if rate else None,
        "p99_ms": 3000 / rate if rate else None,
        "acknowledged": 10,
        "errors": {},
        "cpu_ms": {"server": 100 / rate, "mongod": 0.0, "load": 0.25} if rate else {},
    }
    return Sample(**(fields | changes))


def measurements(ours: list[float], peer: list[float]) -> list[Measurement]:
    return [
        Measurement(workload=WRITES.name, system=system, repetition=repetition, sample=sample(rate))
        for system, rates in ((System.OURS, ours), (System.PEER, peer))
        for repetition, rate in enumerate(rates, start=1)
    ]


def result(*given: Measurement, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "group": "writes",
        "facts": FACTS,
        "measurements": given,
        "audits": {"ours": GOOD_AUDIT},
        "unavailable": {System.MEDICI: "node and npm are not installed"},
    }
    return Result(**(fields | changes))


@pytest.mark.parametrize(
    ("values", "rank", "expected"),
    [
        ([5.0], 50, 5.0),
        ([5.0], 99, 5.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 51, 3.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 102)], 99, 100.0),
        ([], 50, None),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], rank: float, expected: float | None
) -> None:
    assert percentile(values, rank) == expected


def test_the_ratio_is_the_median_of_the_ratios_of_the_repetitions() -> None:
    # The ratio of the medians would be 200 / 100 = 2.
    summary = Summary(measurements(ours=[100, 200, 900], peer=[25, 200, 100]))
    assert summary.ratio(CELL, PEER, Measure.RATE) == Spread(median=4.0, least=1.0, greatest=9.0)
    ours = summary.spread(CELL, Measure.RATE)
    assert ours is not None
    assert ours == Spread(median=200, least=100, greatest=900)
    peer = summary.spread(PEER, Measure.P50)
    assert peer is not None
    assert peer.median == 10
    cpu = summary.ratio(CELL, PEER, Measure.SERVER_CPU)
    assert cpu is not None
    assert cpu.median == 0.25


def test_the_cpu_of_a_system_without_a_server_is_that_of_its_load() -> None:
    given = {"server": 1.0, "mongod": 2.0, "load": 4.0}
    assert Measure.CPU.of(sample(1, cpu_ms=given)) == 3
    del given["server"]
    assert Measure.CPU.of(sample(1, cpu_ms=given)) == 6
    del given["mongod"]
    assert Measure.CPU.of(sample(1, cpu_ms=given)) is None


def test_a_system_measured_alone_has_no_ratio() -> None:
    summary = Summary(measurements(ours=[], peer=[25]))
    assert summary.spread(CELL, Measure.RATE) is None
    assert summary.ratio(CELL, PEER, Measure.RATE) is None


def test_a_peer_without_a_finished_call_has_no_ratio() -> None:
    summary = Summary(measurements(ours=[10], peer=[0]))
    assert summary.spread(PEER, Measure.RATE) is not None
    assert summary.spread(PEER, Measure.P99) is None
    assert summary.ratio(CELL, PEER, Measure.RATE) is None


def test_a_sample_survives_a_round_trip_through_json() -> None:
    original = sample(12.5, errors={"UNAVAILABLE": 3})
    assert Sample.from_json(original.to_json()) == original
    assert original.failed == 3
    assert original.load_share == 12.5 * 0.25 / 1000


def test_a_result_survives_a_round_trip_through_its_file(tmp_path: Path) -> None:
    original = result(*measurements(ours=[200], peer=[100]))
    original.write(tmp_path)
    found = read_all(tmp_path)["writes"]
    assert found.audits["ours"].passed
    found.write(tmp_path / "again")
    assert (tmp_path / "again/writes.json").read_text() == (tmp_path / "writes.json").read_text()
    assert list(found.measurements) == list(original.measurements)
    assert (found.facts, found.unavailable) == (original.facts, original.unavailable)


def test_an_overload_survives_a_round_trip_through_its_file(tmp_path: Path) -> None:
    overload = Overload(
        system=System.PEER,
        repetition=2,
        busy=True,
        searched={64: sample(10), 256: sample(20)},
        flooded=sample(5, errors={"UNSENT": 7}),
        again=sample(40),
    )
    result(group=OVERLOAD, overloads=[overload]).write(tmp_path)
    assert list(read(tmp_path / "overload.json").overloads) == [overload]


def test_results_hold_no_more_digits_than_they_are_worth(tmp_path: Path) -> None:
    result(*measurements(ours=[123.456789], peer=[])).write(tmp_path)
    assert '"operations_per_second": 123.46' in (tmp_path / "writes.json").read_text()


def test_the_table_shows_figures_ratio_and_what_is_missing() -> None:
    good = result(*measurements(ours=[200], peer=[100]))
    text = figures(good, Path("charts"))
    assert good.clean
    assert "| 2 (2..2) |" in text
    assert "| 5 / 15 |" in text
    assert "![Writes](charts/writes.svg)" in text
    assert "Not measured: medici (node and npm are not installed)." in text
    assert "NOT CLEAN" not in text


def test_a_run_with_errors_is_flagged() -> None:
    with_errors = Measurement(
        workload=WRITES.name,
        system=System.PEER,
        repetition=1,
        sample=sample(50, errors={"DEADLINE_EXCEEDED": 2}),
    )
    bad = result(with_errors)
    assert not bad.clean
    text = figures(bad, Path())
    assert ", 2 failed or rejected" in text
    assert f"NOT CLEAN: {WRITES.name}, peer: DEADLINE_EXCEEDED 2." in text


def test_a_run_with_rejected_calls_is_clean_and_shows_them() -> None:
    entry = replace(
        measurements(ours=[200], peer=[])[0], sample=sample(50, errors={"UNAVAILABLE": 1234})
    )
    assert result(entry).clean
    assert ", 1,234 failed or rejected" in figures(result(entry), Path())


def test_a_failed_audit_is_flagged() -> None:
    bad = result(audits={"ours": replace(GOOD_AUDIT, findings=["a payment without its purchase"])})
    assert not bad.clean
    assert "NOT CLEAN: the audit of ours failed: a payment without its purchase." in figures(
        bad, Path()
    )


def test_bars_are_reached_by_the_median() -> None:
    workload = find(group="writes", callers=128, users=Users.HOT)
    given = [
        Measurement(
            workload=workload.name, system=system, repetition=repetition, sample=sample(rate)
        )
        for system, rates in ((System.OURS, (590, 600, 6000)), (System.PEER, (10, 10, 10)))
        for repetition, rate in enumerate(rates)
    ]
    text = bars({"writes": result(*given)})
    assert "one hot user: ours / peer | ≥ 60 | 60 (59..600) | yes | 60 (59..600) |" in text
    assert text.count("not measured") == len(BARS) + 2 - 1
    bar = next(bar for bar in BARS if bar.measure is Measure.SERVER_CPU)
    assert bar.reached(Spread(median=bar.goal, least=0, greatest=9))
    assert not bar.reached(Spread(median=bar.goal + 0.1, least=0, greatest=9))


def test_a_statement_may_take_50_ms_and_the_time_of_a_list_for_its_rows() -> None:
    (bar,) = (bar for bar in BARS if bar.against is Measure.STATEMENT_LIMIT)
    (statement, ours), (listed, _) = bar.ours, bar.other
    given = [
        Measurement(workload=workload.name, system=ours, repetition=1, sample=found)
        for workload, found in (
            (statement, sample(1, p50_ms=80.0)),
            (listed, sample(20_000)),  # 1,000 rows in 50 ms
        )
    ]
    ratio = bar.ratio(Summary(given))
    assert ratio is not None
    assert ratio.median == 0.8
    assert bar.reached(ratio)


def test_the_workloads_have_unique_names() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
    with pytest.raises(ValueError, match="too many"):
        find(group="writes")


def test_charts_are_well_formed() -> None:
    spread = Spread(median=20, least=10, greatest=40)
    lines = [
        Series(name="ours & theirs", points=[(1, spread), (1024, spread)]),
        Series(name="zero", points=[(16, Spread(median=0, least=0, greatest=0))]),
    ]
    for drawn in (
        line_chart("Title", "callers", "op/s", lines),
        line_chart("Title", "callers", "op/s", [Series(name="one", points=[(1, spread)])]),
        bar_chart("Title", "ms", [("ours", spread), ("peer", spread)]),
        bar_chart("Title", "ms", []),
    ):
        root = ET.fromstring(drawn)
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            assert 0 <= float(text.get("x", -1)) <= width
            assert 0 <= float(text.get("y", -1)) <= height


def test_a_chart_shows_each_system() -> None:
    drawn = chart(result(*measurements(ours=[200], peer=[100])))
    assert drawn is not None
    assert "ours, one hot" in drawn
    assert "peer, one hot" in drawn
    assert chart(result()) is None


def test_the_page_shows_the_latest_results() -> None:
    page, folder = DOCS / "performance.md", DOCS / "performance"
    results = read_all(folder)
    assert filled(page.read_text(), results, Path("performance")) == page.read_text()
    for group, shown in results.items():
        drawn = chart(shown)
        assert drawn is None or (folder / f"{group}.svg").read_text() == drawn


def test_the_page_keeps_the_text_between_the_figures() -> None:
    page = "Before\n<!-- figures: writes -->\nold\n<!-- end -->\nAfter <!-- end -->\n"
    found = filled(page, {"writes": result()}, Path("charts"))
    assert found.startswith("Before\n<!-- figures: writes -->\n")
    assert found.endswith("<!-- end -->\nAfter <!-- end -->\n")
    assert "old" not in found
    assert filled(found, {"writes": result()}, Path("charts")) == found
    runs = filled(
        "<!-- figures: runs --><!-- end -->".replace("--><", "-->\n<"), {"writes": result()}, Path()
    )
    assert "| writes | 2026-01-01T00:00+00:00 | abc | 2 | 0.5 to 1.5 | python 3.11 |" in runs
    absent = filled("<!-- figures: reads -->\n<!-- end -->", {"writes": result()}, Path())
    assert absent == "<!-- figures: reads -->\n\nNot measured.\n\n<!-- end -->"
    with pytest.raises(UnknownFigures, match="reeds"):
        filled("<!-- figures: reeds -->\n<!-- end -->", {}, Path())
