"""Examine everything that a server with given settings depends on: the table of all checks."""

from collections.abc import Callable, Iterable

from credit_server.doctor import credentials, ledger, machine, store, webhooks
from credit_server.doctor.report import Finding, fails
from credit_server.doctor.subject import Subject, read
from credit_server.settings import ServerSettings

# In the order of the report. A check that does not apply to the settings returns no finding.
CHECKS: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    machine.check_settings,
    machine.check_variables,
    machine.check_http2,
    machine.check_address,
    machine.check_metrics,
    machine.check_workers,
    machine.check_open_files,
    credentials.check_certificate,
    credentials.check_private_key,
    credentials.check_client_ca,
    credentials.check_token_keys,
    credentials.check_identities,
    credentials.check_tls,
    machine.check_audit_log,
    store.check_connection_string,
    machine.check_data_directory,
    machine.check_disk,
    store.check_reachable,
    store.check_topology,
    store.check_members,
    store.check_majority_write,
    store.check_durability,
    store.check_version,
    store.check_transaction_lifetime,
    store.check_clock,
    store.check_schema,
    store.check_privileges,
    ledger.check_ledger,
    ledger.check_dates,
    webhooks.check_webhooks,
)


async def examine(settings: ServerSettings) -> list[Finding]:
    """Run all checks on the settings of `credit-server serve`. Start no server."""
    subject = await read(settings)
    return [finding for check in CHECKS for finding in check(subject)]


def invalid_settings(explained: str) -> Finding:
    """Return the finding of settings that no server starts with."""
    return fails("settings", explained, "correct them; no other check was run")
