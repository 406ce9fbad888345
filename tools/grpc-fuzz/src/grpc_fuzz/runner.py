"""A whole run: replays what was kept, then runs phase after phase."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from grpc_fuzz import reflection
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import Check, Failure
from grpc_fuzz.phases import RUN
from grpc_fuzz.reach import Reach
from grpc_fuzz.report import Listener
from grpc_fuzz.schema import Schema, SchemaError
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings
from grpc_fuzz.work import send_all

REACH_FILE = "reach.json"
REPLAY = "replay"


class Unreachable(Misuse):
    """The server did not answer before the first case was sent. The caller's mistake."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        failures: Each check, method and cause once, in the order of finding.
        cases: How many cases were sent.
        seconds: How long the run took.
        reach: What was reached.
    """

    failures: tuple[Failure, ...]
    cases: int
    seconds: float
    reach: Reach


def load_schema(settings: Settings) -> Schema:
    """Reads the contract from the file that the settings name, or asks the server for it.

    Raises:
        SchemaError: The contract cannot be read.
    """
    if settings.image is not None:
        return Schema.from_file(settings.image, settings.adapters)
    files = reflection.fetch(settings.target, settings.limits, settings.metadata_of("valid"))
    return Schema(files, settings.adapters)


def run(
    settings: Settings,
    schema: Schema | None = None,
    *,
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Fuzzes a server once.

    Args:
        settings: What to do.
        schema: The contract; None: as the settings say.
        listeners: Who is told how it goes.
        checks: Custom checks, beside the built-in ones.

    Raises:
        SchemaError: The contract cannot be read, or an example does not fit it.
        Unreachable: The server does not answer.
        Misuse: The settings name a check, a phase or a message that there is not, or no method.
    """
    return _run(settings, schema, listeners, checks, _all_phases)


def fuzz(
    settings: Settings,
    schema: Schema | None = None,
    *,
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Fuzzes a server with ever new seeds until the settings' time is up, or enough has failed.

    Args and errors are those of `run`.
    """
    return _run(settings, schema, listeners, checks, _for_ever)


def replay(
    settings: Settings,
    schema: Schema | None = None,
    *,
    names: tuple[str, ...] = (),
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Sends kept crashes again, all of them or those that are named.

    Raises:
        Misuse: There is no crash of that name.

    The other errors are those of `run`.
    """

    def only(session: Session, listeners: tuple[Listener, ...]) -> None:
        kept = {crash.id: crash for crash in session.crashes.load(session.schema)}
        unknown = [name for name in names if name not in kept]
        if unknown:
            raise Misuse(f"no such crash: {', '.join(unknown)}")
        cases = [crash.case for name, crash in kept.items() if not names or name in names]
        _phase(session, listeners, REPLAY, lambda session: send_all(session, cases))

    return _run(settings, schema, listeners, checks, only)


_Work = Callable[[Session, tuple[Listener, ...]], None]


def _run(
    settings: Settings,
    schema: Schema | None,
    listeners: tuple[Listener, ...],
    checks: tuple[Check, ...],
    work: _Work,
) -> Outcome:
    _check_phases(settings)
    start = time.monotonic()
    schema = schema or load_schema(settings)
    _check_trailers(settings, schema)
    session = Session(settings, schema, observers=listeners, custom_checks=checks)
    try:
        if not session.methods:
            raise Misuse("no method of the contract is selected")
        if not session.healthy():
            raise Unreachable(f"{settings.target} does not answer")
        for listener in listeners:
            listener.on_start(settings, session.methods)
        try:
            work(session, listeners)
        finally:
            # Interrupted or not, what was found is told, and the terminal is given back.
            outcome = _end(session, listeners, time.monotonic() - start)
    finally:
        session.close()
    return outcome


def _end(session: Session, listeners: tuple[Listener, ...], seconds: float) -> Outcome:
    session.reach.save(session.settings.state_directory / REACH_FILE)
    failures = tuple(session.failures)
    for listener in listeners:
        listener.on_end(failures, session.cases, seconds)
    return Outcome(failures=failures, cases=session.cases, seconds=seconds, reach=session.reach)


def _check_phases(settings: Settings) -> None:
    unknown = [name for name in settings.phases if name not in RUN]
    if unknown:
        raise Misuse(f"no such phase: {', '.join(unknown)}; there are: {', '.join(RUN)}")


def _check_trailers(settings: Settings, schema: Schema) -> None:
    for name, rule in settings.trailers.items():
        try:
            schema.pool.FindMessageTypeByName(rule.message)
        except KeyError as error:
            raise Misuse(f"trailer {name}: the contract has no {rule.message}") from error


def _all_phases(session: Session, listeners: tuple[Listener, ...]) -> None:
    kept = [crash.case for crash in session.crashes.load(session.schema)]
    if kept:
        _phase(session, listeners, REPLAY, lambda session: send_all(session, kept))
    for name in session.settings.phases:
        if not session.stopped:
            _phase(session, listeners, name, RUN[name])


def _for_ever(session: Session, listeners: tuple[Listener, ...]) -> None:
    _all_phases(session, listeners)
    while not session.stopped:
        session.reseed()
        for name in session.settings.phases:
            # The examples do not depend on the seed.
            if name != "examples" and not session.stopped:
                _phase(session, listeners, name, RUN[name])


def _phase(
    session: Session,
    listeners: tuple[Listener, ...],
    name: str,
    work: Callable[[Session], None],
) -> None:
    for listener in listeners:
        listener.on_phase(name)
    work(session)


__all__ = ["Outcome", "SchemaError", "Unreachable", "fuzz", "load_schema", "replay", "run"]
