"""The examination: gathers the facts of one server's settings, and has them judged."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from credit_server.doctor.audit_log import check_audit_log
from credit_server.doctor.books import check_books, not_looked_at, unread
from credit_server.doctor.connection_string import check_connection_string
from credit_server.doctor.dates import check_dates
from credit_server.doctor.finding import Finding, fails, ok
from credit_server.doctor.machine import (
    DirectoryFacts,
    check_address,
    check_data_directory,
    check_open_files,
    check_settings,
    open_files_limit,
)
from credit_server.doctor.metrics import check_metrics
from credit_server.doctor.papers import check_papers
from credit_server.doctor.store import check_store, unreachable
from credit_server.doctor.variables import check_variables
from credit_server.embedded import EmbeddedError, EmbeddedMongod, has_database, running_uri
from credit_server.settings import ServerSettings, unknown_variables
from credit_server.store.connection import Client
from credit_server.store.inspection import connected, inspect
from credit_server.store.port import StoreError
from credit_server.store.report import StoreReport
from credit_server.store.sample import SampleLimits, future_entries, sample_ledger

_SECONDS_OF_SUMS = 0.5
"""The part of the store's time limit that one sum over all accounts, or one search, may take."""


async def examine(settings: ServerSettings) -> list[Finding]:
    """Look at everything that a server with these settings relies on. Starts no server.

    Args:
        settings: As `credit-server serve` has them.
    """
    tls = settings.tls_certificate is not None
    findings = [
        check_settings(settings),
        check_variables(unknown_variables(os.environ)),
        await check_address(settings.host, settings.port, tls=tls),
        await check_metrics(settings),
        check_open_files(open_files_limit(), connections_max=settings.connection.connections_max),
        *check_papers(settings, now=datetime.now(UTC)),
    ]
    if settings.audit_log is not None:
        findings.append(check_audit_log(settings.audit_log))
    if settings.mongodb_uri is not None:
        uri = settings.mongodb_uri.get_secret_value()
        findings.append(check_connection_string(uri, settings.mongodb_uri_file))
        findings.extend(await _check_store(uri, settings, embedded=False))
        return findings
    findings.extend(check_data_directory(DirectoryFacts.of(settings.data_dir)))
    findings.extend(await _check_embedded(settings))
    return findings


async def _check_embedded(settings: ServerSettings) -> list[Finding]:
    if running_uri(settings.data_dir) is None and not has_database(settings.data_dir):
        return [ok("store", "there is none yet: the first start of the server makes it")]
    try:
        async with _embedded_uri(settings.data_dir) as uri:
            return await _check_store(uri, settings, embedded=True)
    except EmbeddedError as error:
        return [fails("store", str(error), "see the message, and the log in the data directory")]


@asynccontextmanager
async def _embedded_uri(data_dir: Path) -> AsyncIterator[str]:
    """Give the URI of the `mongod` that a server runs, or of one that runs for this examination."""
    uri = running_uri(data_dir)
    if uri is not None:
        yield uri
        return
    async with EmbeddedMongod(data_dir=data_dir) as mongod:
        yield mongod.uri


async def _check_store(uri: str, settings: ServerSettings, *, embedded: bool) -> list[Finding]:
    database, seconds = settings.mongodb_database, settings.store_timeout_seconds
    try:
        async with connected(uri, timeout_seconds=seconds) as client:
            facts = await inspect(client, database=database, timeout_seconds=seconds)
            findings = check_store(
                facts,
                embedded=embedded,
                database=database,
                skew_seconds_max=settings.clock_skew_seconds_max,
            )
            return findings + await _check_books(client, facts, settings)
    except StoreError as error:
        return [unreachable(str(error))]


async def _check_books(
    client: Client, facts: StoreReport, settings: ServerSettings
) -> list[Finding]:
    if facts.schema is None:
        return [not_looked_at("the store has no schema that could be checked")]
    if facts.schema.drift:
        return [not_looked_at("the schema is not what it should be")]
    seconds = settings.store_timeout_seconds * _SECONDS_OF_SUMS
    limits = SampleLimits(
        accounts_max=100,
        history_max=200,
        counted_max=100_000,
        apps_max=10,
        summed_max=100_000,
        sums_seconds=seconds,
    )
    database = settings.mongodb_database
    try:
        sample = await sample_ledger(client, database=database, limits=limits)
        future = await future_entries(
            client,
            database=database,
            tolerance_seconds=settings.clock_skew_seconds_max,
            search_seconds=seconds,
        )
    except StoreError as error:
        return [unread(str(error))]
    return [check_books(sample), check_dates(future)]
