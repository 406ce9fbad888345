"""Each verdict on a store, from reports that are made up, and on its connection string."""

from dataclasses import replace
from pathlib import Path

import pytest
from credit_server.doctor import store
from credit_server.doctor.examination import CHECKS
from credit_server.doctor.report import Finding, Verdict
from credit_server.store.port import ClockOffset
from credit_server.store.report import (
    MajorityWrite,
    Member,
    Privilege,
    SchemaState,
    StoreReport,
    Topology,
)
from pydantic import SecretStr

from tests.server.doctor.credential_files import written
from tests.server.doctor.subject import stored, subject_of

OK, WARNING, FAILS = Verdict.OK, Verdict.WARNING, Verdict.FAILS


def _member(number: int, *, arbiter: bool = False, up: bool = True, votes: int = 1) -> Member:
    return Member(host=f"db{number}:27017", votes=votes, arbiter=arbiter, up=up)


def _members(*kinds: str) -> tuple[Member, ...]:
    """Members by a letter each: Data, Arbiter, Lost data, Mute (no vote)."""
    return tuple(
        _member(number, arbiter=kind == "A", up=kind != "L", votes=int(kind != "M"))
        for number, kind in enumerate(kinds)
    )


WELL = StoreReport(
    connect_seconds=0.01,
    topology=Topology.REPLICA_SET,
    has_primary=True,
    version="7.0.35",
    clock=ClockOffset(least_seconds=-0.01, most_seconds=0.03),
    members=_members("D", "D", "D"),
    majority_journaled=True,
    compatibility_version="7.0",
    storage_engine="wiredTiger",
    transaction_lifetime_seconds=10,
    majority_write=MajorityWrite(seconds=0.01, error=""),
    schema=SchemaState(version=1, drift=(), newer=False),
)


def _check(report: StoreReport, *, embedded: bool = False) -> list[Finding]:
    """The findings of all checks of a store."""
    subject = stored(report, embedded=embedded, settings={"mongodb_database": "credit"})
    checks = [check for check in CHECKS if check.__module__ == store.__name__]
    return [finding for check in checks for finding in check(subject)]


def _found(report: StoreReport, check: str, *, embedded: bool = False) -> Finding:
    findings = _check(report, embedded=embedded)
    (finding,) = [finding for finding in findings if finding.check == check]
    return finding


def _checks(report: StoreReport) -> set[str]:
    return {finding.check for finding in _check(report)}


def _connection_string(uri: str, file: Path | None = None) -> Finding:
    subject = subject_of({"mongodb_uri": SecretStr(uri), "mongodb_uri_file": file})
    (finding,) = store.check_connection_string(subject)
    return finding


def test_a_sound_replica_set_has_nothing_but_ok() -> None:
    findings = _check(WELL)
    assert {finding.verdict for finding in findings} == {OK}
    assert not any(finding.remedy for finding in findings)


def test_every_finding_that_is_not_ok_has_a_remedy() -> None:
    bad = replace(
        WELL,
        has_primary=False,
        version="4.4.0",
        clock=ClockOffset(least_seconds=-60, most_seconds=-60),
        members=_members("D", "L", "L"),
        majority_journaled=False,
        transaction_lifetime_seconds=60,
        majority_write=MajorityWrite(seconds=5, error="waiting for replication timed out"),
        privileges=(),
    )
    for finding in _check(bad):
        assert (finding.verdict is OK) == (finding.remedy == ""), finding


@pytest.mark.parametrize("topology", [Topology.STANDALONE, Topology.UNINITIATED])
def test_a_store_without_transactions_fails_and_its_schema_is_not_checked(
    topology: Topology,
) -> None:
    report = replace(WELL, topology=topology, members=None, schema=None, majority_write=None)
    assert _found(report, "topology").verdict is FAILS
    assert not {"schema", "members"} & _checks(report)


def test_a_set_without_a_primary_fails_and_no_check_that_needs_one_is_run() -> None:
    report = replace(WELL, has_primary=False, majority_write=None, schema=None)
    assert _found(report, "topology").verdict is FAILS
    assert not {"schema", "majority write"} & _checks(report)


def test_a_sharded_cluster_is_checked_without_the_members_of_its_shards() -> None:
    report = replace(
        WELL,
        topology=Topology.SHARDED,
        members=None,
        majority_journaled=None,
        storage_engine=None,
        transaction_lifetime_seconds=None,
    )
    findings = _check(report)
    assert {finding.verdict for finding in findings} == {OK}


@pytest.mark.parametrize(
    ("kinds", "verdict", "says"),
    [
        ("DDD", OK, "all 3"),
        ("DDDM", OK, "all 3"),
        ("DDDDA", OK, "all 4"),  # a majority is 3, and is there when one is lost
        ("DDL", WARNING, "2 of 3"),
        ("DLL", FAILS, "1 of 3"),
        ("DDA", WARNING, "when one member with data is lost"),
        ("DLA", FAILS, "a majority write needs 2"),
        ("DA", FAILS, "a majority of the votes does not mean"),
        ("DAA", FAILS, "a majority of the votes does not mean"),
        ("D", WARNING, "one node keeps the data"),
        ("DM", WARNING, "one node keeps the data"),
    ],
)
def test_a_majority_is_counted_in_members_that_keep_data(
    kinds: str, verdict: Verdict, says: str
) -> None:
    finding = _found(replace(WELL, members=_members(*kinds)), "members")
    assert finding.verdict is verdict
    assert says in finding.found


def test_one_node_is_what_an_embedded_store_is_meant_to_be() -> None:
    assert _found(replace(WELL, members=_members("D")), "members", embedded=True).verdict is OK


def test_a_majority_write_that_is_not_acknowledged_fails() -> None:
    report = replace(WELL, majority_write=MajorityWrite(seconds=5, error="timed out"))
    assert _found(report, "majority write").verdict is FAILS


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (replace(WELL, majority_journaled=False), "writeConcernMajorityJournalDefault"),
        (replace(WELL, journal=False), "journal is off"),
        (replace(WELL, storage_engine="inMemory"), "inMemory"),
    ],
)
def test_a_store_that_loses_writes_in_a_power_failure_fails(report: StoreReport, says: str) -> None:
    finding = _found(report, "durability")
    assert finding.verdict is FAILS
    assert says in finding.found


@pytest.mark.parametrize(
    ("version", "compatible", "verdict"),
    [
        ("4.4.30", "4.4", FAILS),
        ("5.0.32", "4.4", FAILS),
        ("5.0.32", "5.0", OK),
        ("5.0.31", "5.0", WARNING),
        ("7.0.35", "6.0", OK),
        ("7.0.34", None, WARNING),
        ("8.0.24-rc1", "8.0", OK),
        ("9.0.0", "9.0", OK),
    ],
)
def test_a_version_is_new_enough_and_patched(
    version: str, compatible: str | None, verdict: Verdict
) -> None:
    report = replace(WELL, version=version, compatibility_version=compatible)
    assert _found(report, "version").verdict is verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(10, OK), (15, OK), (16, WARNING), (60, WARNING)])
def test_an_abandoned_transaction_does_not_block_for_long(seconds: int, verdict: Verdict) -> None:
    report = replace(WELL, transaction_lifetime_seconds=seconds)
    assert _found(report, "transaction lifetime").verdict is verdict


@pytest.mark.parametrize(
    ("ahead", "uncertainty", "verdict"),
    [
        (0.9, 0.0, OK),
        (1.1, 0.0, WARNING),
        (-1.1, 0.0, WARNING),
        (1.4, 0.5, OK),  # within the uncertainty of the comparison
        (2.1, 0.0, FAILS),
        (-2.1, 0.0, FAILS),
        (-31.0, 0.5, FAILS),
    ],
)
def test_clocks_agree(ahead: float, uncertainty: float, verdict: Verdict) -> None:
    clock = ClockOffset(least_seconds=ahead - uncertainty, most_seconds=ahead + uncertainty)
    assert _found(replace(WELL, clock=clock), "clock").verdict is verdict


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (SchemaState(version=0, drift=("none yet",), newer=False), "run: credit-server migrate"),
        (SchemaState(version=1, drift=("differs",), newer=False), "run: credit-server migrate"),
        (SchemaState(version=9, drift=("is 9",), newer=True), "run a later release"),
    ],
)
def test_a_schema_that_differs_fails(state: SchemaState, remedy: str) -> None:
    finding = _found(replace(WELL, schema=state), "schema")
    assert finding.verdict is FAILS
    assert finding.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("report", "check", "verdict"),
    [
        (replace(WELL, members=None), "members", WARNING),
        (replace(WELL, majority_journaled=None), "durability", WARNING),
        (replace(WELL, schema=None), "schema", FAILS),
    ],
)
def test_a_report_that_the_user_may_not_read_is_not_ok(
    report: StoreReport, check: str, verdict: Verdict
) -> None:
    finding = _found(report, check)
    assert finding.verdict is verdict
    assert "may not read" in finding.found


def _may(*actions: str, database: str = "credit", collection: str = "") -> Privilege:
    return Privilege(database=database, collection=collection, actions=frozenset(actions))


@pytest.mark.parametrize(
    ("privileges", "verdict"),
    [
        ((_may("find", "insert", "update", "remove"),), OK),
        ((_may("find", "insert", "update", "remove", database=""),), OK),
        ((_may("find"), _may("insert"), _may("update"), _may("remove")), OK),
        ((_may("find", "insert", "update"),), FAILS),
        ((_may("find"),), FAILS),
        ((_may("find", "insert", "update", "remove", database="other"),), FAILS),
        ((_may("find", "insert", "update", "remove", collection="purchases"),), FAILS),
        ((), FAILS),
    ],
)
def test_the_user_may_read_and_write_the_collections(
    privileges: tuple[Privilege, ...], verdict: Verdict
) -> None:
    assert _found(replace(WELL, privileges=privileges), "privileges").verdict is verdict


def test_a_missing_privilege_is_reported() -> None:
    report = replace(WELL, privileges=(_may("find", "insert"),))
    assert "update on purchases" in _found(report, "privileges").found


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://127.0.0.1:27017/?replicaSet=rs",
        "mongodb://localhost,127.0.0.1:27018/credit",
        "mongodb://[::1]:27017",
        "mongodb://me:hidden@db1,db2/?tls=true",
        "mongodb://me:hidden@db1,db2/?ssl=TRUE&replicaSet=rs",
        "mongodb://db1/?tls=true&authMechanism=MONGODB-X509",
        "mongodb+srv://me:hidden@cluster.example.org/",
    ],
)
def test_a_safe_connection_string_is_ok(uri: str) -> None:
    assert _connection_string(uri).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("uri", "missing"),
    [
        ("mongodb://db1:27017/", "no TLS (tls=true) and no user"),
        ("mongodb://db1", "no TLS (tls=true) and no user"),
        ("mongodb://127.0.0.1,db1/", "no TLS (tls=true) and no user"),
        ("mongodb://me:hidden@db1/?replicaSet=rs", "no TLS (tls=true)"),
        ("mongodb://db1/?tls=true", "no user"),
        ("mongodb+srv://cluster.example.org", "no user"),
        ("mongodb+srv://me:hidden@cluster.example.org/?tls=false", "no TLS (tls=true)"),
    ],
)
def test_a_missing_protection_of_a_connection_string_is_reported(uri: str, missing: str) -> None:
    finding = _connection_string(uri)
    assert finding.verdict is Verdict.WARNING
    assert finding.found.endswith(f"with {missing}")
    assert "hidden" not in f"{finding.found}{finding.remedy}"


def test_a_connection_string_in_a_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    uri = "mongodb://me:hidden@db1,db2/?tls=true"
    file = written(tmp_path / "uri", uri.encode(), 0o640)
    finding = _connection_string(uri, file)
    assert finding.verdict is Verdict.WARNING
    assert finding.remedy == f"run: chmod 600 {file}"
    file.chmod(0o600)
    assert _connection_string(uri, file).verdict is Verdict.OK
