"""The commands `credit-server verify` and `credit-server repair`."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from credit_server.access.audit import AuditFile, ordinary_log
from credit_server.embedded import open_uri
from credit_server.errors import StartError
from credit_server.settings import StoreSettings
from credit_server.store.repairing import open_repairing
from credit_server.store.verification import open_verification, schema_drift
from credit_server.verify.correction import Correction, Order, State
from credit_server.verify.progress_file import ProgressFile
from credit_server.verify.repair import repairs
from credit_server.verify.report import EXIT_FINDINGS, EXIT_SOUND
from credit_server.verify.run import Advance, Target, verify, verify_user
from credit_server.verify.span_check import Found


@contextmanager
def opened(settings: StoreSettings) -> Iterator[Target]:
    """Yield the database that the settings name, or the one of the embedded mongod.

    If a server runs, its mongod is used. Otherwise this starts one for the duration of the context.

    Raises:
        EmbeddedError: There is no database yet, or it cannot be started.
    """
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        if settings.mongodb_uri is not None:
            uri = settings.mongodb_uri.get_secret_value()
        else:
            uri = runner.run(stack.enter_async_context(open_uri(settings.data_dir)))
        try:
            yield Target(
                uri=uri,
                database=settings.mongodb_database,
                timeout_seconds=settings.store_timeout_seconds,
            )
        finally:
            runner.run(stack.aclose())


def run_verify(
    settings: StoreSettings, *, jobs: int, users: list[int], progress_path: Path | None
) -> Found:
    """Verify the database that the settings name.

    Args:
        settings: Where the database is.
        jobs: How many processes check users.
        users: The users to check, and nothing else; empty: everything.
        progress_path: The file that keeps the progress; None to keep none.

    Raises:
        StoreError: The store cannot be read.
        EmbeddedError: The embedded mongod cannot be started.
        ProgressUnusable: The file of the progress cannot be used.
    """
    with opened(settings) as target:
        return _verified(target, jobs=jobs, users=users, progress_path=progress_path)


def _verified(target: Target, *, jobs: int, users: list[int], progress_path: Path | None) -> Found:
    if users:
        found = Found()
        for user_id in users:
            found.add_all(verify_user(target, user_id))
        return found
    progress = None
    # The blocking driver connects first. The asynchronous one leaves a socket open if it is closed
    # while it tries to reach a store.
    seconds = target.timeout_seconds
    with open_verification(target.uri, target.database, seconds) as reader:
        if progress_path is not None:
            progress = ProgressFile(progress_path, reader.identity())
        drift = asyncio.run(
            schema_drift(target.uri, database=target.database, timeout_seconds=seconds)
        )
    with ExitStack() as stack:
        advance = _advance(stack, target)
        return verify(target, drift=drift, jobs=jobs, progress=progress, advance=advance)


def _advance(stack: ExitStack, target: Target) -> Advance:
    """Return the receiver of the progress: a bar at a terminal, otherwise one that ignores it."""
    if not sys.stderr.isatty():
        return lambda _: None
    from credit_server.progress import bar  # noqa: PLC0415 - see its first lines

    with open_verification(target.uri, target.database, target.timeout_seconds) as reader:
        entries = reader.estimated_entries()
    return stack.enter_context(bar(entries, "entries"))


def run_repair(
    settings: StoreSettings,
    order: Order,
    *,
    jobs: int,
    users: list[int],
    audit_path: Path | None,
) -> list[Correction]:
    """Verify, and correct what was found.

    Args:
        settings: Where the database is.
        order: The operator's options.
        jobs: How many processes check users.
        users: The users to correct, and nothing else; empty: everything.
        audit_path: The audit log; None: the ordinary log.

    Raises:
        StartError: The audit log cannot be opened.
        StoreError: The store cannot be used, or its schema is that of another release.
            Corrections before the error are written.
    """
    with opened(settings) as target:
        with open_repairing(target.uri, target.database, target.timeout_seconds) as reader:
            reader.require_schema()
        sink = ordinary_log
        if audit_path is not None:
            try:
                sink = AuditFile(audit_path)
            except OSError as error:
                raise StartError(
                    f"The audit log {audit_path} cannot be opened: {error.strerror}."
                ) from error
        found = _verified(target, jobs=jobs, users=users, progress_path=None)
        corrections = []
        with open_repairing(target.uri, target.database, target.timeout_seconds) as reader:
            for correction in repairs(reader, found, order):
                corrections.append(correction)
                if correction.state is State.DONE:
                    sink(_audit_line(correction, order))
        return corrections


def _audit_line(correction: Correction, order: Order) -> dict[str, str | int]:
    return {
        "method": "credit-server repair",
        "user_id": correction.user_id,
        "app_id": correction.app_id,
        "created_by": order.created_by,
        "note": order.reason,
        "findings": ", ".join(correction.findings),
        "actions": "; ".join(correction.actions),
        "transaction_id": ", ".join(correction.transaction_ids),
        "status": "OK",
    }


def repair_exit_code(corrections: list[Correction]) -> int:
    """Return 0 if everything was corrected, and 1 otherwise."""
    done = all(correction.state is State.DONE for correction in corrections)
    return EXIT_SOUND if done else EXIT_FINDINGS


def repair_json(corrections: list[Correction]) -> str:
    """Return a JSON document of all corrections."""
    return json.dumps(
        [{**asdict(each), "state": each.state.value} for each in corrections], indent=2
    )


def repair_text(corrections: list[Correction]) -> str:
    """Return a line for each action, and a summary with the next step."""
    lines = []
    for each in corrections:
        place = f"user {each.user_id}" if each.user_id else "database"
        if each.app_id:
            place = f"app {each.app_id}"
        lines.append(f"{each.state.value:<7}  {place}: {', '.join(each.findings)}")
        lines += [f"         {action}" for action in each.actions]
    counts = {state: sum(each.state is state for each in corrections) for state in State}
    if not corrections:
        lines.append("nothing to correct")
    elif counts[State.PLANNED]:
        lines.append(
            f"{counts[State.PLANNED]} corrections, {counts[State.REFUSED]} refused; nothing was"
            " written: repeat with --apply"
        )
    else:
        lines.append(f"{counts[State.DONE]} corrected, {counts[State.REFUSED]} refused")
    return "\n".join(lines)
