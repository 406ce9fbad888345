"""The store: is what is known of it enough to keep credits safe, and served?"""

from collections.abc import Iterator

from credit_server.doctor.finding import Finding, fails, ok, warning
from credit_server.store.report import Privilege, StoreReport, Topology

_CLOCK_WARNING_SHARE = 0.5
"""Of the difference at which a server refuses writes."""

_TRANSACTION_LIFETIME_SECONDS_MAX = 15
"""A transaction that a killed server leaves open keeps its users from writing for that long."""

_MINOR_VERSIONS_PATCHED = {
    (5, 0): (32, "CVE-2025-14847"),
    (6, 0): (27, "CVE-2025-14847"),
    (7, 0): (35, "CVE-2026-9740"),
    (8, 0): (24, "CVE-2026-9740"),
    (8, 2): (10, "CVE-2026-9740"),
    (8, 3): (3, "CVE-2026-9740"),
}
"""From which patch of a version on what anybody who reaches the port can do is mended: reading
memory, or a crash. DedupIndex in November 2026, from NVD; there may be later ones."""

_READS = frozenset({"find"})
_WRITES = frozenset({"find", "insert", "update"})
_NEEDED = {
    "user_credits": _WRITES,
    "credit_transactions": _WRITES,
    "purchases": _WRITES,
    "app_totals": _WRITES,
    "schema_version": _READS,
}


def check_store(
    facts: StoreReport, *, embedded: bool, database: str, skew_seconds_max: float = 2.0
) -> list[Finding]:
    """Judge a store.

    Args:
        facts: What is known of it.
        embedded: Whether it is this server's own, of one node by intent and on loopback.
        database: The name of the ledger's database.
        skew_seconds_max: By how much the clocks may differ before a server refuses writes.
    """
    return [
        *_reachable(facts),
        *_topology(facts),
        *_members(facts, embedded=embedded),
        *_majority_write(facts),
        *_durability(facts),
        *_version(facts, embedded=embedded),
        *_transaction_lifetime(facts),
        *_clock(facts, skew_seconds_max),
        *_schema(facts),
        *_privileges(facts, database),
    ]


def unreachable(reason: str) -> Finding:
    """Make the finding of a store that gives no answer."""
    remedy = "see the hosts, CREDIT_MONGODB_URI, the network; no more of the store could be checked"
    return fails("store", reason, remedy)


def _reachable(facts: StoreReport) -> Iterator[Finding]:
    yield ok("store", f"answers after {facts.connect_seconds * 1000:.0f} ms")


def _topology(facts: StoreReport) -> Iterator[Finding]:
    check = "topology"
    if facts.topology is Topology.STANDALONE:
        yield fails(
            check,
            f"is {facts.topology.value}, which has no transactions",
            "start mongod with --replSet NAME and run rs.initiate() once; one node is enough",
        )
    elif facts.topology is Topology.UNINITIATED:
        yield fails(check, f"is {facts.topology.value}", "run rs.initiate() once, in mongosh")
    elif not facts.has_primary:
        yield fails(
            check,
            "a replica set without a primary: it takes no writes",
            "see rs.status(): a majority of the voting members must be up and see each other",
        )
    else:
        yield ok(check, f"is {facts.topology.value} that takes writes")


def _members(facts: StoreReport, *, embedded: bool) -> Iterator[Finding]:
    check = "members"
    if facts.topology is not Topology.REPLICA_SET:
        return
    if facts.members is None:
        yield _not_permitted(check, "the members of the replica set")
        return
    voting = [member for member in facts.members if member.votes]
    data = [member for member in voting if not member.arbiter]
    # https://www.mongodb.com/docs/manual/reference/write-concern/#calculating-majority-count
    needed = min(len(voting) // 2 + 1, len(data))
    up = sum(member.up for member in data)
    away = ", ".join(member.host for member in facts.members if not member.up)
    arbiters = len(voting) - len(data)
    if up < needed:
        yield fails(
            check,
            f"{up} of {len(data)} voting members with data are up, and a majority write needs"
            f" {needed}; away: {away}",
            "bring the members back, or take the lost ones out of the set's configuration",
        )
    elif arbiters >= len(data):
        yield fails(
            check,
            f"{len(data)} voting members keep data and {arbiters} are arbiters: a majority of the"
            " votes says nothing about copies of the data",
            "replace the arbiters by members that keep data",
        )
    elif arbiters and len(data) - 1 < needed:
        # https://www.mongodb.com/docs/manual/core/replica-set-arbiter/
        yield warning(
            check,
            f"{arbiters} arbiter beside {len(data)} members with data: when one of these is lost,"
            " no write is acknowledged, although there is a primary",
            "replace the arbiter by a member that keeps data",
        )
    elif away:
        yield warning(
            check,
            f"{up} of {len(data)} voting members with data are up; away: {away}",
            "bring them back before another one is lost",
        )
    elif len(data) == 1 and not embedded:
        yield warning(
            check,
            "one node keeps the data: when it is lost, so is the ledger",
            "add two members that keep data",
        )
    else:
        yield ok(check, f"all {len(data)} voting members with data are up, {needed} are needed")


def _majority_write(facts: StoreReport) -> Iterator[Finding]:
    check = "majority write"
    written = facts.majority_write
    if written is None:
        return
    if written.error:
        yield fails(
            check,
            f"was not acknowledged: {written.error}",
            "see rs.status(): a majority of the members with data must be up and not lag",
        )
    else:
        yield ok(check, f"was acknowledged after {written.seconds * 1000:.0f} ms")


def _durability(facts: StoreReport) -> Iterator[Finding]:
    check = "durability"
    lost = "what was acknowledged is lost when the power fails on a majority at once"
    if facts.majority_journaled is False:
        yield fails(
            check,
            f"writeConcernMajorityJournalDefault is false: {lost}",
            "set it to true with rs.reconfig()",
        )
    elif facts.journal is False:
        yield fails(check, f"the journal is off: {lost}", "start mongod without --nojournal")
    elif facts.storage_engine not in (None, "wiredTiger") and (
        facts.topology is not Topology.SHARDED
    ):
        yield fails(
            check,
            f"the storage engine is {facts.storage_engine}",
            "use wiredTiger, which keeps data on disk and has transactions",
        )
    elif facts.topology is Topology.REPLICA_SET and facts.majority_journaled is None:
        yield _not_permitted(check, "whether majority writes are journaled")
    elif facts.topology is Topology.REPLICA_SET:
        yield ok(check, "majority writes are journaled")


def _version(facts: StoreReport, *, embedded: bool) -> Iterator[Finding]:
    check = "version"
    version = _numbers(facts.version)
    compatible = facts.compatibility_version
    patch, advisory = _MINOR_VERSIONS_PATCHED.get((version[0], version[1]), (0, ""))
    if version < (5, 0, 0):
        yield fails(check, f"is {facts.version}", "upgrade MongoDB to 5.0 or later")
    elif compatible is not None and _numbers(compatible)[:2] < (5, 0):
        yield fails(
            check,
            f"is {facts.version} with the features of {compatible}",
            "set the feature compatibility version to 5.0 or later",
        )
    elif version[2] < patch and not embedded:
        yield warning(
            check,
            f"is {facts.version}, which has {advisory}: anybody who reaches its port can use it",
            f"upgrade to {version[0]}.{version[1]}.{patch} or later",
        )
    else:
        features = "" if compatible is None else f" with the features of {compatible}"
        yield ok(check, f"is {facts.version}{features}")


def _transaction_lifetime(facts: StoreReport) -> Iterator[Finding]:
    check = "transaction lifetime"
    seconds = facts.transaction_lifetime_seconds
    if seconds is None:
        return
    if seconds > _TRANSACTION_LIFETIME_SECONDS_MAX:
        yield warning(
            check,
            f"transactionLifetimeLimitSeconds is {seconds}: a transaction that a killed server"
            " leaves open keeps its users from writing for that long",
            "start mongod with --setParameter transactionLifetimeLimitSeconds=10",
        )
    else:
        yield ok(check, f"is limited to {seconds} s")


def _clock(facts: StoreReport, skew_seconds_max: float) -> Iterator[Finding]:
    check = "clock"
    skew = facts.clock.certain_seconds
    side = "ahead of" if skew > 0 else "behind"
    found = f"this machine's clock is {abs(skew):.1f} s {side} MongoDB's, at least"
    remedy = "keep both machines' time with NTP"
    if abs(skew) > skew_seconds_max:
        yield fails(
            check,
            f"{found}; CREDIT_CLOCK_SKEW_SECONDS_MAX is {skew_seconds_max:g}, so a server here"
            " refuses writes",
            remedy,
        )
    elif abs(skew) > skew_seconds_max * _CLOCK_WARNING_SHARE:
        yield warning(check, f"{found}; at {skew_seconds_max:g} s writes are refused", remedy)
    else:
        yield ok(check, "MongoDB's agrees with this machine's")


def _schema(facts: StoreReport) -> Iterator[Finding]:
    check = "schema"
    if not (facts.has_primary and facts.topology.has_transactions):
        return
    state = facts.schema
    if state is None:
        yield _not_permitted(check, "the collections, their validators and indexes", serious=True)
    elif state.newer:
        yield fails(check, "; ".join(state.drift), "run a later release of credit-server")
    elif state.drift:
        yield fails(check, "; ".join(state.drift), "run: credit-server migrate")
    else:
        yield ok(check, f"has version {state.version}, with all validators and indexes")


def _privileges(facts: StoreReport, database: str) -> Iterator[Finding]:
    check = "privileges"
    if facts.privileges is None:
        return
    missing = [
        f"{action} on {collection}"
        for collection, actions in _NEEDED.items()
        for action in sorted(actions - _allowed(facts.privileges, database, collection))
    ]
    if missing:
        yield fails(
            check,
            f"the user may not {', '.join(missing)}",
            f"grant it the role readWrite on the database {database}",
        )
    else:
        yield ok(check, "the user may do what the server needs")


def _allowed(privileges: tuple[Privilege, ...], database: str, collection: str) -> frozenset[str]:
    granted = (
        privilege.actions
        for privilege in privileges
        if privilege.database in ("", database) and privilege.collection in ("", collection)
    )
    return frozenset().union(*granted)


def _not_permitted(check: str, what: str, *, serious: bool = False) -> Finding:
    found = f"the user of the connection string may not ask about {what}"
    if serious:
        return fails(check, found, "grant it the role readWrite on the database")
    return warning(check, found, "run the doctor with a user that has the role clusterMonitor")


def _numbers(version: str) -> tuple[int, int, int]:
    """Return the three numbers of a version; what follows them, as in 8.0.1-rc2, is left out."""
    release = version.partition("-")[0].split(".")
    major, minor, patch = (*(int(part) for part in release if part.isdigit()), 0, 0, 0)[:3]
    return major, minor, patch
