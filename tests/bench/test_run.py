"""Whole runs against the systems, so short that their figures mean nothing."""

from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from credit_bench import medici
from credit_bench.generator import requests
from credit_bench.options import Options, options, parser
from credit_bench.overload import measure
from credit_bench.results import Result
from credit_bench.run import run
from credit_bench.systems import Unavailable, Variants
from credit_bench.workloads import (
    GROUPS,
    OVERLOAD,
    STATEMENT_ROWS,
    WORKLOADS,
    Ledger,
    Operation,
    System,
    Users,
    Workload,
    find,
)
from credit_server.settings import ServerSettings

SECONDS = 0.3
pytestmark = pytest.mark.usefixtures("forked_children")


def test_the_server_accepts_the_opening_credits() -> None:
    assert ServerSettings().credits_max >= requests.OPENING_CREDITS


def chosen(mongod_uri: str, group: str, *systems: System) -> Options:
    given = options(parser().parse_args(["measure", "--mongodb-uri", mongod_uri, "--seed", "7"]))
    return replace(
        given,
        groups=(group,),
        systems=systems,
        seconds=SECONDS,
        warm_up_seconds=0.1,
        repetitions=1,
    )


async def one(given: Options, *workloads: Workload) -> Result:
    """Run one group, and check that it is clean."""
    steps: list[str] = []
    async with aclosing(run(given, steps.append, workloads)) as results:
        (result,) = [result async for result in results]
    assert result.clean, (steps, result)
    assert all(entry.sample.acknowledged for entry in result.measurements)
    return result


async def test_a_short_run_of_each_kind_of_call_is_clean(mongod_uri: str) -> None:
    given = chosen(mongod_uri, "short", *System)
    services = (System.OURS, System.PEER)
    write = Workload(group="short", systems=services, callers=4, ledger=Ledger(users=20, history=3))
    workloads = [
        write,
        replace(write, systems=(System.OURS,), users=Users.HOT),
        replace(write, operation=Operation.READ),
        replace(write, operation=Operation.LIST),
    ]
    several = replace(write, systems=(System.INSERT_MANY, System.MEDICI))
    batch = replace(write, systems=(System.OURS,), operation=Operation.BATCH, batch=1000, callers=2)
    libraries = replace(write, systems=(System.SDK, System.SDK_SYNC, System.PEER_CLIENT))
    granted = replace(write, systems=(System.OURS,), ledger=Ledger(users=2, grants=256))
    missing = replace(write, systems=(System.OURS_WORKERS, System.EARLIER))
    result = await one(given, *workloads, several, missing, batch, granted, libraries)
    measured = {entry.system for entry in result.measurements}
    assert measured >= {*services, *libraries.systems, System.INSERT_MANY}
    assert measured | set(result.unavailable) >= {System.MEDICI}
    assert result.unavailable[System.EARLIER] == "the option --earlier is not given"
    assert result.unavailable[System.OURS_WORKERS] == "the option --workers is not given"
    for entry in result.measurements:
        assert set(entry.sample.cpu_ms) <= {"server", "load"}, "the run did not start mongod"
    assert len(result.audits) == len(services) + len(libraries.systems) + 1
    assert not any(audit.only_counted for audit in result.audits.values())


async def test_a_short_run_of_the_history_and_of_watchers_is_clean(mongod_uri: str) -> None:
    ledger = Ledger(users=1, history=2 * STATEMENT_ROWS)
    write = Workload(group="short", systems=(System.OURS_UNINDEXED,), callers=2, ledger=ledger)
    workloads = [
        replace(write, watchers=1),
        replace(write, operation=Operation.LATEST),
        replace(write, operation=Operation.STATEMENT),
        replace(write, operation=Operation.EVENT, systems=(System.SDK,)),
    ]
    result = await one(chosen(mongod_uri, "short", *System), *workloads)
    assert [entry.workload for entry in result.measurements] == [each.name for each in workloads]
    assert len(result.audits) == 2


async def test_a_short_run_of_the_trivial_calls_is_clean(mongod_uri: str) -> None:
    systems = (System.LAYERS, System.TRANSPORT_H2, System.GRPCLIB, System.GRPCIO)
    workload = replace(find(group="calls", callers=64), callers=4, systems=systems)
    result = await one(chosen(mongod_uri, "calls", *workload.systems), workload)
    assert [entry.system for entry in result.measurements] == list(workload.systems)
    assert not result.audits


async def test_a_short_overload_is_clean(mongod_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # leaves a core for the other tests
    brief = partial(measure, callers=(4,), warm_up_seconds=0.1)
    monkeypatch.setattr("credit_bench.run.measure", brief)
    result = await one(chosen(mongod_uri, OVERLOAD, System.OURS))
    assert [overload.busy for overload in result.overloads] == [False, True]


async def test_an_earlier_release_that_cannot_start_is_reported(
    mongod_uri: str, tmp_path: Path
) -> None:
    given = chosen(mongod_uri, "engines", System.EARLIER)
    program = tmp_path / "credit-server"
    program.write_text("#!/bin/sh\necho no such option\nexit 2\n")
    program.chmod(0o755)
    workload = Workload(group="engines", systems=(System.EARLIER,), callers=1)
    result = await one(replace(given, variants=Variants(earlier=program)), workload)
    assert "no such option" in result.unavailable[System.EARLIER]


async def test_medici_is_reported_where_node_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="node and npm are not installed"):
        await medici.install(tmp_path)


@pytest.mark.parametrize("quick", [False, True])
def test_quick_leaves_out_what_takes_long(quick: bool) -> None:
    given = options(parser().parse_args(["measure", *(["--quick"] if quick else [])]))
    left = [
        workload
        for workload in WORKLOADS
        if workload.callers <= given.callers_max
        and workload.ledger.transactions <= given.transactions_max
    ]
    assert (len(left) == len(WORKLOADS)) is not quick
    assert {workload.group for workload in left} >= {"writes", "reads", "batches", "calls"}
    assert given.groups == (*GROUPS, OVERLOAD)
