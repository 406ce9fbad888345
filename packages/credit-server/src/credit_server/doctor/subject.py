"""Read what the checks judge: the machine, the store and a sample of the ledger.

The checks are functions of a `Subject`, so each verdict can be tested without the fault itself.
This is the only module of the doctor that imports what the store reports about itself.
"""

import asyncio
import errno
import os
import resource
import shutil
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from credit_models.timeouts import Timeout
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest

from credit_server.commit.clock import SKEW_SECONDS_MAX
from credit_server.cpus import usable_cpus
from credit_server.embedded import (
    DataDirectoryInUse,
    EmbeddedError,
    MongodNotFound,
    find_mongod,
    has_database,
    open_uri,
    running_uri,
)
from credit_server.http2.listener import try_address
from credit_server.http2.unix_socket import socket_path
from credit_server.settings import ServerSettings, unknown_variables
from credit_server.store.port import StoreError
from credit_server.store.report import Privilege, StoreReport, Topology, connected, inspect
from credit_server.store.sample import (
    AppSum,
    FutureEntries,
    FutureEntry,
    LedgerSample,
    SampledAccount,
    SampleLimits,
    future_entries,
    sample_ledger,
)
from credit_server.store.undelivered import DEAD_LETTERS_COUNTED_MAX, dead_letters

__all__ = [
    "DEAD_LETTERS_COUNTED_MAX",
    "AppSum",
    "DataDirectory",
    "FutureEntries",
    "FutureEntry",
    "LedgerReading",
    "LedgerSample",
    "Privilege",
    "SampledAccount",
    "StoreReading",
    "StoreReport",
    "Subject",
    "Topology",
    "read",
]

_SERVICE = "credit.v1.CreditService"
# How long a program that listens on an address of the settings may take to answer.
_ANSWER_SECONDS = 2.0
# The help line of each of credit's own metrics begins with this: see `telemetry.metrics`.
_OWN_METRIC = b"# HELP credit_"
_SCRAPE_BYTES_MAX = 4 * 1024 * 1024

# The share of the store's time limit that a sum over all accounts, or a search, may take.
_SCAN_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class DataDirectory:
    """The data directory of the embedded store.

    Attributes:
        path: Its absolute path.
        mode: Its permissions; None if it does not exist.
        writable: Whether this process can write to it, or create it.
        free_bytes: The free space on its disk.
    """

    path: Path
    mode: int | None
    writable: bool
    free_bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the state of a directory that need not exist."""
        absolute = Path(os.path.realpath(path))
        mode, is_possible = None, True
        try:
            mode = stat.S_IMODE(absolute.stat().st_mode)
        except FileNotFoundError:
            pass
        except OSError:  # such as a symbolic link to itself, or a file in place of a folder
            is_possible = False
        existing = absolute
        while not os.path.exists(existing):  # noqa: PTH110 - `Path.exists` raises without permission
            existing = existing.parent
        return cls(
            path=absolute,
            mode=mode,
            writable=is_possible and os.access(existing, os.W_OK | os.X_OK),
            free_bytes=shutil.disk_usage(existing).free,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerReading:
    """A sample of the ledger.

    Attributes:
        sample: The latest accounts and apps.
        future: The entries that are dated after the store's time.
        error: Why the ledger cannot be read; empty if it can.
    """

    sample: LedgerSample = field(default_factory=LedgerSample)
    future: FutureEntries = field(default_factory=FutureEntries)
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReading:
    """What was read of the store.

    Attributes:
        embedded: Whether it is the server's own, of one node by design and on loopback.
        report: What it reports about itself; None if nothing was read.
        ledger: A sample of the ledger; None if its schema does not allow to read it.
        dead_letters: The number of events of each app that could not be delivered to a webhook, by
            app; None if they cannot be read.
        unreachable: Why the store does not answer; empty if it does.
        not_started: Why the embedded store does not start; empty if it does.
        mongod_missing: Whether there is no embedded store yet, and no `mongod` to make one.
    """

    embedded: bool = False
    report: StoreReport | None = None
    ledger: LedgerReading | None = None
    dead_letters: Mapping[int, int] | None = None
    unreachable: str = ""
    not_started: str = ""
    mongod_missing: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What the checks judge.

    Attributes:
        settings: The settings of `credit-server serve`.
        now: The time, with its zone.
        open_files_max: The number of files that a process may open.
        cpus: The number of CPUs that the server may use.
        unknown_variables: The variables `CREDIT_*` that are not settings, each as a phrase.
        address_error: Why a server cannot listen on its address; None if it can.
        address_serving: Whether a credit-server that listens there serves; None if none answers.
        metrics_error: Why a server cannot listen on the address of its metrics; None if it can.
        metrics_served: Whether a credit-server serves its metrics on that address.
        data_directory: The data directory; None if the settings name a MongoDB.
        store: What was read of the store.
    """

    settings: ServerSettings
    now: datetime
    open_files_max: int
    cpus: int
    unknown_variables: tuple[str, ...] = ()
    address_error: OSError | None = None
    address_serving: bool | None = None
    metrics_error: OSError | None = None
    metrics_served: bool = False
    data_directory: DataDirectory | None = None
    store: StoreReading = field(default_factory=StoreReading)


async def read(settings: ServerSettings) -> Subject:
    """Read everything that a server with these settings depends on. Start no server."""
    embedded = settings.mongodb_uri is None
    subject = Subject(
        settings=settings,
        now=datetime.now(UTC),
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        cpus=usable_cpus(),
        unknown_variables=tuple(unknown_variables(os.environ)),
        data_directory=DataDirectory.of(settings.data_dir) if embedded else None,
    )
    subject = await read_addresses(subject)
    return replace(subject, store=await _read_store(settings))


async def read_addresses(subject: Subject) -> Subject:
    """Return the subject with what listens on the addresses of calls and metrics."""
    settings = subject.settings
    error = await _listen_error(settings.host, settings.port)
    metrics_error = (
        await _listen_error(settings.metrics_host, settings.metrics_port)
        if settings.metrics
        else None
    )
    return replace(
        subject,
        address_error=error,
        address_serving=await _serving(settings) if _in_use(error) else None,
        metrics_error=metrics_error,
        metrics_served=_in_use(metrics_error) and await _shows_metrics(settings),
    )


def _in_use(error: OSError | None) -> bool:
    return error is not None and error.errno == errno.EADDRINUSE


async def _listen_error(host: str, port: int) -> OSError | None:
    try:
        await try_address(host, port)
    except OSError as error:
        return error
    return None


async def _serving(settings: ServerSettings) -> bool | None:
    """Return whether the server that listens on the address serves; None without an answer."""
    context = None if settings.tls_certificate is None else _any_certificate()
    path = socket_path(settings.host)
    if path is None:
        channel = Channel(_reached(settings.host), settings.port, ssl=context)
    else:
        channel = Channel(path=path, ssl=context)
    try:
        async with Timeout(_ANSWER_SECONDS):
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=_SERVICE))
    except (GRPCError, StreamTerminatedError, OSError, TimeoutError):
        return None
    finally:
        channel.close()
    return bool(answer.status == answer.SERVING)


async def _shows_metrics(settings: ServerSettings) -> bool:
    """Return whether the program on the address of the metrics serves a credit-server's."""
    found = b""
    try:
        async with Timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(
                _reached(settings.metrics_host), settings.metrics_port
            )
            try:
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                while _OWN_METRIC not in found and len(found) < _SCRAPE_BYTES_MAX:
                    part = await reader.read(_SCRAPE_BYTES_MAX)
                    if not part:
                        break
                    found += part
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return _OWN_METRIC in found


def _reached(host: str) -> str:
    """Return the address at which this machine reaches a server that listens on `host`."""
    # An address of all interfaces is reached through loopback.
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound


def _any_certificate() -> ssl.SSLContext:
    """Return a context that verifies no certificate: only health is requested, and no secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


async def _read_store(settings: ServerSettings) -> StoreReading:
    if settings.mongodb_uri is not None:
        uri = settings.mongodb_uri.get_secret_value()
        return await _read_report(uri, settings, embedded=False)
    try:
        if running_uri(settings.data_dir) is None and not has_database(settings.data_dir):
            return _without_database()
        async with open_uri(settings.data_dir) as uri:
            return await _read_report(uri, settings, embedded=True)
    except DataDirectoryInUse:
        return StoreReading(
            embedded=True,
            not_started=f"a server uses {settings.data_dir}, but its mongod is not running",
        )
    except EmbeddedError as error:
        return StoreReading(embedded=True, not_started=str(error))


def _without_database() -> StoreReading:
    try:
        find_mongod()
    except MongodNotFound:
        return StoreReading(embedded=True, mongod_missing=True)
    return StoreReading(embedded=True)


async def _read_report(uri: str, settings: ServerSettings, *, embedded: bool) -> StoreReading:
    database, seconds = settings.mongodb_database, settings.store_timeout_seconds
    try:
        async with connected(uri, timeout_seconds=seconds) as client:
            report = await inspect(client, database=database, timeout_seconds=seconds)
            if report.schema is None or report.schema.drift:
                return StoreReading(embedded=embedded, report=report)
            try:
                sample = await sample_ledger(
                    client,
                    database=database,
                    limits=SampleLimits(
                        accounts_max=100,
                        history_max=200,
                        counted_max=100_000,
                        apps_max=10,
                        summed_max=100_000,
                        sums_seconds=seconds * _SCAN_SHARE,
                    ),
                )
                future = await future_entries(
                    client,
                    database=database,
                    tolerance_seconds=SKEW_SECONDS_MAX,
                    search_seconds=seconds * _SCAN_SHARE,
                )
                ledger = LedgerReading(sample=sample, future=future)
                dead = await dead_letters(client, database=database)
            except StoreError as error:
                ledger, dead = LedgerReading(error=str(error)), None
            return StoreReading(embedded=embedded, report=report, ledger=ledger, dead_letters=dead)
    except StoreError as error:
        return StoreReading(embedded=embedded, unreachable=str(error))
