"""Check the store: can a server reach it, and does it keep credits safe?"""

from collections.abc import Iterator
from urllib.parse import parse_qsl

from credit_server.commit.clock import SKEW_SECONDS_MAX
from credit_server.doctor.credentials import readable_by_others
from credit_server.doctor.report import Finding, counted, fails, ok, warning
from credit_server.doctor.subject import Privilege, Subject, Topology
from credit_server.embedded import MONGOD_REMEDY
from credit_server.settings import is_loopback
from credit_server.store.connection import hosts_of

# The share of the clock difference at which a server rejects writes.
_CLOCK_WARNING_SHARE = 0.5

# A transaction that a killed server leaves open blocks the writes of its users for that long.
_TRANSACTION_LIFETIME_SECONDS_MAX = 15

# The first patch of each version that fixes what anyone who reaches the port can exploit: to read
# memory, or to crash the server. From NVD in November 2026; there may be later ones.
_PATCHES_MIN = {
    (5, 0): (32, "CVE-2025-14847"),
    (6, 0): (27, "CVE-2025-14847"),
    (7, 0): (35, "CVE-2026-9740"),
    (8, 0): (24, "CVE-2026-9740"),
    (8, 2): (10, "CVE-2026-9740"),
    (8, 3): (3, "CVE-2026-9740"),
}

_READS = frozenset({"find"})
_WRITES = frozenset({"find", "insert", "update"})
_ACTIONS_NEEDED = {
    "user_credits": _WRITES,
    "credit_transactions": _WRITES,
    "purchases": _WRITES,
    "app_totals": _WRITES,
    "app_policies": _WRITES,
    "alert_events": _WRITES | {"remove"},
    "removed_events": _WRITES,
    "webhooks": _WRITES | {"remove"},
    "webhook_deliveries": _WRITES | {"remove"},
    "leases": _WRITES,
    "directory": _WRITES,
    "counters": _WRITES,
    "schema_version": _READS,
}


def check_connection_string(subject: Subject) -> Iterator[Finding]:
    """Check that the connection string is private, asks for TLS and names a user.

    TLS and a user are not needed if every host is this machine. The finding never contains the
    string itself.
    """
    secret, file = subject.settings.mongodb_uri, subject.settings.mongodb_uri_file
    if secret is None:
        return
    check, uri = "connection string", secret.get_secret_value()
    exposed = None if file is None else readable_by_others(file, check)
    missing = _missing_protection(uri)
    if exposed is not None:
        yield exposed
    elif _is_local(uri):
        yield ok(check, "all hosts are this machine")
    elif not missing:
        yield ok(check, "the string asks for TLS and names a user")
    else:
        yield warning(
            check,
            f"the string names hosts of other machines, with {' and '.join(missing)}",
            "enable TLS and authentication in MongoDB, and set both in CREDIT_MONGODB_URI",
        )


def check_reachable(subject: Subject) -> Iterator[Finding]:
    """Check that the store answers, or that the first start of the server can create it."""
    check, store = "store", subject.store
    if store.unreachable:
        yield fails(
            check,
            store.unreachable,
            "check the hosts, CREDIT_MONGODB_URI and the network; the other checks of the store"
            " were not run",
        )
    elif store.not_started:
        yield fails(
            check,
            store.not_started,
            "see the check 'disk', the log of the server, and mongod.log in the data directory",
        )
    elif store.mongod_missing:
        yield fails(check, "no MongoDB URI is set, and no `mongod` was found", MONGOD_REMEDY)
    elif store.report is None:
        yield ok(check, "there is no store yet; the first start of the server creates it")
    else:
        yield ok(check, f"the store answers after {store.report.connect_seconds * 1000:.0f} ms")


def check_topology(subject: Subject) -> Iterator[Finding]:
    """Check that the store has transactions, and a primary that takes writes."""
    check, report = "topology", subject.store.report
    if report is None:
        return
    if report.topology is Topology.STANDALONE:
        yield fails(
            check,
            f"the store is {report.topology.value}, which has no transactions",
            "start mongod with --replSet NAME and run rs.initiate() once; one node is enough",
        )
    elif report.topology is Topology.UNINITIATED:
        yield fails(
            check, f"the store is {report.topology.value}", "run rs.initiate() once, in mongosh"
        )
    elif not report.has_primary:
        yield fails(
            check,
            "the store is a replica set without a primary, so it takes no writes",
            "check rs.status(): a majority of the voting members must be up and reach each other",
        )
    else:
        yield ok(check, f"the store is {report.topology.value} that takes writes")


def check_members(subject: Subject) -> Iterator[Finding]:
    """Check that enough members of the replica set keep data and are up."""
    check, report = "members", subject.store.report
    if report is None or report.topology is not Topology.REPLICA_SET:
        return
    if report.members is None:
        yield _not_permitted(check, "the members of the replica set")
        return
    voting = [member for member in report.members if member.votes]
    data = [member for member in voting if not member.arbiter]
    # https://www.mongodb.com/docs/manual/reference/write-concern/#calculating-majority-count
    needed = min(len(voting) // 2 + 1, len(data))
    up = sum(member.up for member in data)
    down = ", ".join(member.host for member in report.members if not member.up)
    arbiters = len(voting) - len(data)
    keeping = counted(len(data), "voting member")
    voters = f"{keeping} with data and {counted(arbiters, 'arbiter')}"
    if up < needed:
        yield fails(
            check,
            f"{up} of {len(data)} voting members with data are up, and a majority write needs"
            f" {needed}; down: {down}",
            "start the members, or remove the lost ones from the set's configuration",
        )
    elif arbiters >= len(data):
        yield fails(
            check,
            f"the set has {voters}, so a majority of the votes does not mean a majority of the"
            " copies",
            "replace the arbiters by members that keep data",
        )
    elif arbiters and len(data) - 1 < needed:
        # https://www.mongodb.com/docs/manual/core/replica-set-arbiter/
        yield warning(
            check,
            f"the set has {voters}: when one member with data is lost, no write is acknowledged,"
            " although there is a primary",
            "replace the arbiter by a member that keeps data",
        )
    elif down:
        yield warning(
            check,
            f"{up} of {len(data)} voting members with data are up; down: {down}",
            "start them before another one is lost",
        )
    elif len(data) == 1 and not subject.store.embedded:
        yield warning(
            check,
            "one node keeps the data: if it is lost, the ledger is lost",
            "add two members that keep data",
        )
    elif len(data) == 1:
        yield ok(check, "the one voting member with data is up")
    else:
        yield ok(check, f"all {len(data)} voting members with data are up; a write needs {needed}")


def check_majority_write(subject: Subject) -> Iterator[Finding]:
    """Check that a majority acknowledges a write."""
    check, report = "majority write", subject.store.report
    if report is None or report.majority_write is None:
        return
    written = report.majority_write
    if written.error:
        yield fails(
            check,
            f"the write was not acknowledged: {written.error}",
            "check rs.status(): a majority of the members with data must be up and not lag",
        )
    else:
        yield ok(check, f"a write was acknowledged after {written.seconds * 1000:.0f} ms")


def check_durability(subject: Subject) -> Iterator[Finding]:
    """Check that acknowledged writes survive a power failure."""
    check, report = "durability", subject.store.report
    if report is None:
        return
    lost = "acknowledged writes are lost if the power fails on a majority at once"
    replica_set = report.topology is Topology.REPLICA_SET
    sharded = report.topology is Topology.SHARDED
    if report.majority_journaled is False:
        yield fails(
            check,
            f"writeConcernMajorityJournalDefault is false: {lost}",
            "set it to true with rs.reconfig()",
        )
    elif report.journal is False:
        yield fails(check, f"the journal is off: {lost}", "start mongod without --nojournal")
    elif report.storage_engine not in (None, "wiredTiger") and not sharded:
        yield fails(
            check,
            f"the storage engine is {report.storage_engine}",
            "use wiredTiger, which keeps data on disk and has transactions",
        )
    elif replica_set and report.majority_journaled is None:
        yield _not_permitted(check, "whether majority writes are journaled")
    elif replica_set:
        yield ok(check, "majority writes are journaled")


def check_version(subject: Subject) -> Iterator[Finding]:
    """Check that MongoDB is recent enough, and has no known vulnerability."""
    check, report = "version", subject.store.report
    if report is None:
        return
    version = _numbers(report.version)
    compatible = report.compatibility_version
    features = "" if compatible is None else f" with the features of {compatible}"
    patch, advisory = _PATCHES_MIN.get((version[0], version[1]), (0, ""))
    if version < (5, 0, 0):
        yield fails(
            check, f"MongoDB is version {report.version}", "upgrade MongoDB to 5.0 or later"
        )
    elif compatible is not None and _numbers(compatible)[:2] < (5, 0):
        yield fails(
            check,
            f"MongoDB is version {report.version}{features}",
            "set the feature compatibility version to 5.0 or later",
        )
    elif version[2] < patch and not subject.store.embedded:
        yield warning(
            check,
            f"MongoDB {report.version} has {advisory}: anyone who reaches its port can exploit it",
            f"upgrade to {version[0]}.{version[1]}.{patch} or later",
        )
    else:
        yield ok(check, f"MongoDB is version {report.version}{features}")


def check_transaction_lifetime(subject: Subject) -> Iterator[Finding]:
    """Check that an abandoned transaction does not block its users for long."""
    check, report = "transaction lifetime", subject.store.report
    if report is None or report.transaction_lifetime_seconds is None:
        return
    seconds = report.transaction_lifetime_seconds
    if seconds > _TRANSACTION_LIFETIME_SECONDS_MAX:
        yield warning(
            check,
            f"transactionLifetimeLimitSeconds is {seconds}: a transaction that a killed server"
            " leaves open blocks the writes of its users for that long",
            "start mongod with --setParameter transactionLifetimeLimitSeconds=10",
        )
    else:
        yield ok(check, f"the limit is {seconds} s")


def check_clock(subject: Subject) -> Iterator[Finding]:
    """Check that the clocks of this machine and the store agree."""
    check, report = "clock", subject.store.report
    if report is None:
        return
    skew = report.clock.certain_seconds
    side = "ahead of" if skew > 0 else "behind"
    found = f"this machine's clock is at least {abs(skew):.1f} s {side} MongoDB's"
    remedy = "synchronize both machines with NTP"
    if abs(skew) > SKEW_SECONDS_MAX:
        yield fails(check, f"{found}: a server here rejects writes", remedy)
    elif abs(skew) > SKEW_SECONDS_MAX * _CLOCK_WARNING_SHARE:
        found += f"; above {SKEW_SECONDS_MAX:g} s, a server rejects writes"
        yield warning(check, found, remedy)
    else:
        yield ok(check, "MongoDB's clock agrees with this machine's")


def check_schema(subject: Subject) -> Iterator[Finding]:
    """Check that the collections, their validators and indexes are what a server needs."""
    check, report = "schema", subject.store.report
    if report is None or not (report.has_primary and report.topology.has_transactions):
        return
    state = report.schema
    if state is None:
        yield fails(
            check,
            _not_permitted_text("the collections, their validators and indexes"),
            "grant it the role readWrite on the database",
        )
    elif state.newer:
        yield fails(check, "; ".join(state.drift), "run a later release of credit-server")
    elif state.drift:
        yield fails(check, "; ".join(state.drift), "run: credit-server migrate")
    else:
        yield ok(check, f"the schema has version {state.version}, with all validators and indexes")


def check_privileges(subject: Subject) -> Iterator[Finding]:
    """Check that the user may read and write the collections."""
    check, report = "privileges", subject.store.report
    if report is None or report.privileges is None:
        return
    database = subject.settings.mongodb_database
    missing = [
        f"{action} on {collection}"
        for collection, actions in _ACTIONS_NEEDED.items()
        for action in sorted(actions - _allowed(report.privileges, database, collection))
    ]
    if missing:
        yield fails(
            check,
            f"the user may not {', '.join(missing)}",
            f"grant it the role readWrite on the database {database}",
        )
    else:
        yield ok(check, "the user may do what the server needs")


def _missing_protection(uri: str) -> list[str]:
    """Return what a connection string lacks: TLS, a user, or both."""
    scheme, _, rest = uri.partition("://")
    server, _, options_text = rest.partition("?")
    options = {name.lower(): value.lower() for name, value in parse_qsl(options_text)}
    # https://www.mongodb.com/docs/manual/reference/connection-string/: +srv enables TLS.
    tls = options.get("tls", options.get("ssl"))
    encrypted = tls in ("true", "1") or (tls is None and scheme == "mongodb+srv")
    named = "@" in server.partition("/")[0] or options.get("authmechanism") == "mongodb-x509"
    return [*([] if encrypted else ["no TLS (tls=true)"]), *([] if named else ["no user"])]


def _is_local(uri: str) -> bool:
    """Return whether all hosts of a connection string are this machine."""
    return all(is_loopback(_host(host)) for host in hosts_of(uri).split(","))


def _host(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def _allowed(privileges: tuple[Privilege, ...], database: str, collection: str) -> frozenset[str]:
    granted = (
        privilege.actions
        for privilege in privileges
        if privilege.database in ("", database) and privilege.collection in ("", collection)
    )
    return frozenset().union(*granted)


def _not_permitted(check: str, what: str) -> Finding:
    remedy = "run the doctor with a user that has the role clusterMonitor"
    return warning(check, _not_permitted_text(what), remedy)


def _not_permitted_text(what: str) -> str:
    return f"the user of the connection string may not read {what}"


def _numbers(version: str) -> tuple[int, int, int]:
    """Return the three numbers of a version, without a suffix such as that of 8.0.1-rc2."""
    release = version.partition("-")[0].split(".")
    major, minor, patch = (*(int(part) for part in release if part.isdigit()), 0, 0, 0)[:3]
    return major, minor, patch
