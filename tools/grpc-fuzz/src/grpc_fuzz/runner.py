"""A whole run: replays what was kept, then runs phase after phase."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from grpc_fuzz import reflection
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import Check
from grpc_fuzz.outcome import Outcome
from grpc_fuzz.phases import RUN
from grpc_fuzz.reachable import obstacle
from grpc_fuzz.report import Listener
from grpc_fuzz.schema import Schema, SchemaError
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings
from grpc_fuzz.work import send_all

REACH_FILE = "reach.json"
REPLAY = "replay"


class Unreachable(Misuse):
    """The server did not answer before the first case was sent. The caller's mistake."""


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
            where = session.crashes.directory
            there_are = f"it has: {', '.join(kept)}" if kept else "it has none"
            raise Misuse(f"no such crash in {where}: {', '.join(unknown)}; {there_are}")
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
    start = time.monotonic()
    session: Session | None = None
    error: BaseException | None = None
    try:
        session = _open(settings, schema, listeners, checks)
        for listener in listeners:
            listener.on_start(settings, session.methods)
        work(session, listeners)
    except BaseException as raised:
        error = raised
        raise
    finally:
        # Interrupted, crashed or not: what was found is reported, and the terminal is given back.
        try:
            outcome = _end(session, listeners, time.monotonic() - start, error)
        finally:
            if session is not None:
                session.close()
    return outcome


def _open(
    settings: Settings,
    schema: Schema | None,
    listeners: tuple[Listener, ...],
    checks: tuple[Check, ...],
) -> Session:
    """A session with a server that answers.

    Raises:
        Misuse: The settings do not fit the contract, or the server does not answer.
    """
    _check_phases(settings)
    if schema is None and settings.image is None:
        # Reflection asks the server.
        _require_http2(settings)
    schema = schema or load_schema(settings)
    _check_trailers(settings, schema)
    session = Session(settings, schema, observers=listeners, custom_checks=checks)
    try:
        if not session.methods:
            raise Misuse(_why_no_method(schema))
        _require_http2(settings)
        trouble = session.trouble()
        if trouble is not None:
            raise Unreachable(f"{settings.target} does not answer a call: {trouble}")
    except BaseException:
        session.close()
        raise
    return session


def _require_http2(settings: Settings) -> None:
    why = obstacle(settings.target, settings.limits.request_timeout)
    if why is not None:
        raise Unreachable(why)


def _why_no_method(schema: Schema) -> str:
    if not schema.methods:
        return "the contract has no service"
    there_are = ", ".join(method.path for method in schema.methods)
    return f"no method of the contract is selected; there are: {there_are}"


def _end(
    session: Session | None,
    listeners: tuple[Listener, ...],
    seconds: float,
    error: BaseException | None,
) -> Outcome:
    outcome = Outcome(seconds=seconds, error=error)
    if session is not None:
        session.reach.save(session.settings.state_directory / REACH_FILE)
        outcome = replace(
            outcome,
            failures=session.counted(session.failures),
            deviations=session.counted(session.deviations),
            given_up=tuple(method.path for method in session.methods if session.given_up(method)),
            cases=session.cases,
            reach=session.reach,
        )
    with ExitStack() as calls:
        # Each is called, also where another one cannot write its report.
        for listener in reversed(listeners):
            calls.callback(listener.on_end, outcome)
    return outcome


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
