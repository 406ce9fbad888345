"""A whole run: first the stored crashes, then one phase after the other."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from grpc_fuzz import reflection
from grpc_fuzz.checks.check import Check
from grpc_fuzz.connectivity import why_unreachable
from grpc_fuzz.errors import Misuse, Unreachable
from grpc_fuzz.outcome import Listener, Outcome
from grpc_fuzz.phases import RUN
from grpc_fuzz.schema import Schema
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings

COVERAGE_FILE = "coverage.json"
REPLAY = "replay"


def run(
    settings: Settings,
    schema: Schema | None = None,
    *,
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Fuzz a server once.

    Args:
        settings: The settings of the run.
        schema: The contract; None to load it as the settings define.
        listeners: What receives the events of the run.
        checks: Custom checks, in addition to the built-in ones.

    Raises:
        SchemaError: The contract cannot be read, or an example does not fit it.
        Unreachable: The server does not answer.
        Misuse: The settings name a check, a phase or a message that does not exist, or no method.
    """
    return _run(settings, schema, listeners, checks, _Phases.run_all)


def fuzz(
    settings: Settings,
    schema: Schema | None = None,
    *,
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Fuzz a server with new seeds until the time limit or the limit on failures of the settings.

    The arguments and errors are those of `run`.
    """
    return _run(settings, schema, listeners, checks, _Phases.run_forever)


def replay(
    settings: Settings,
    schema: Schema | None = None,
    *,
    names: tuple[str, ...] = (),
    listeners: tuple[Listener, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Outcome:
    """Send stored crashes again: all of them, or those with the given ids.

    Raises:
        Misuse: There is no crash with an id.

    The other arguments and errors are those of `run`.
    """
    return _run(settings, schema, listeners, checks, lambda phases: phases.replay(names))


def load_schema(settings: Settings) -> Schema:
    """Read the contract from the file that the settings name, or from the server by reflection.

    Raises:
        SchemaError: The contract cannot be read.
    """
    if settings.image is not None:
        return Schema.from_file(settings.image, settings.adapters)
    files = reflection.fetch(settings.target, settings.limits, settings.metadata_of("valid"))
    return Schema(files, settings.adapters)


class _Phases:
    """The phases of one run, with the listeners that receive their events."""

    def __init__(self, session: Session, listeners: tuple[Listener, ...]) -> None:
        self._session = session
        self._listeners = listeners

    def run_all(self) -> None:
        """Send the stored crashes, then run all phases."""
        stored = [crash.case for crash in self._session.crashes.load(self._session.schema)]
        if stored:
            self._run(REPLAY, lambda session: session.send_all(stored))
        self._run_each(self._session.settings.phases)

    def run_forever(self) -> None:
        """Run all phases again and again, with other cases each time."""
        self.run_all()
        # The examples do not depend on the seed.
        phases = [name for name in self._session.settings.phases if name != "examples"]
        while not self._session.stopped:
            self._session.next_round()
            self._run_each(phases)

    def replay(self, names: tuple[str, ...]) -> None:
        """Send the stored crashes with the given ids, or all.

        Raises:
            Misuse: There is no crash with an id.
        """
        crashes = self._session.crashes
        stored = {crash.id: crash for crash in crashes.load(self._session.schema)}
        unknown = [name for name in names if name not in stored]
        if unknown:
            existing = f"it has: {', '.join(stored)}" if stored else "it has none"
            raise Misuse(f"no such crash in {crashes.directory}: {', '.join(unknown)}; {existing}")
        cases = [crash.case for name, crash in stored.items() if not names or name in names]
        self._run(REPLAY, lambda session: session.send_all(cases))

    def _run_each(self, names: Sequence[str]) -> None:
        for name in names:
            if not self._session.stopped:
                self._run(name, RUN[name])

    def _run(self, name: str, phase: Callable[[Session], None]) -> None:
        for listener in self._listeners:
            listener.on_phase(name)
        phase(self._session)


def _run(
    settings: Settings,
    schema: Schema | None,
    listeners: tuple[Listener, ...],
    checks: tuple[Check, ...],
    work: Callable[[_Phases], None],
) -> Outcome:
    start = time.monotonic()
    session: Session | None = None
    error: BaseException | None = None
    try:
        session = _open(settings, schema, listeners, checks)
        for listener in listeners:
            listener.on_start(settings, session.methods)
        work(_Phases(session, listeners))
    except BaseException as raised:
        error = raised
        raise
    finally:
        # Also after an interrupt or an error: failures are reported, and the terminal is restored.
        try:
            outcome = _outcome(session, time.monotonic() - start, error)
            with ExitStack() as calls:
                # Every listener is called, even if another one cannot write its report.
                for listener in reversed(listeners):
                    calls.callback(listener.on_end, outcome)
        finally:
            if session is not None:
                session.close()
    return outcome


def _outcome(session: Session | None, seconds: float, error: BaseException | None) -> Outcome:
    if session is None:
        return Outcome(seconds=seconds, error=error)
    session.coverage.save(session.settings.state_directory / COVERAGE_FILE)
    return Outcome(
        failures=session.with_counts(session.failures),
        deviations=session.with_counts(session.deviations),
        given_up=tuple(method.path for method in session.methods if session.given_up(method)),
        cases=session.cases,
        seconds=seconds,
        coverage=session.coverage,
        error=error,
    )


def _open(
    settings: Settings,
    schema: Schema | None,
    listeners: tuple[Listener, ...],
    checks: tuple[Check, ...],
) -> Session:
    """Return a session with a server that answers.

    Raises:
        Misuse: The settings do not fit the contract, or the server does not answer.
    """
    _check_phases(settings)
    if schema is None and settings.image is None:
        # Reflection calls the server.
        _require_http2(settings)
    schema = schema or load_schema(settings)
    _check_trailers(settings, schema)
    session = Session(settings, schema, listeners=listeners, custom_checks=checks)
    try:
        if not session.methods:
            raise Misuse(_why_no_method(schema))
        _require_http2(settings)
        problem = session.health_problem()
        if problem is not None:
            raise Unreachable(f"{settings.target} does not answer a call: {problem}")
    except BaseException:
        session.close()
        raise
    return session


def _require_http2(settings: Settings) -> None:
    why = why_unreachable(settings.target, settings.limits.request_timeout)
    if why is not None:
        raise Unreachable(why)


def _why_no_method(schema: Schema) -> str:
    if not schema.methods:
        return "the contract has no service"
    existing = ", ".join(method.path for method in schema.methods)
    return f"no method of the contract is selected; its methods are: {existing}"


def _check_phases(settings: Settings) -> None:
    unknown = [name for name in settings.phases if name not in RUN]
    if unknown:
        raise Misuse(f"no such phase: {', '.join(unknown)}; the phases are: {', '.join(RUN)}")


def _check_trailers(settings: Settings, schema: Schema) -> None:
    for name, rule in settings.trailers.items():
        try:
            schema.pool.FindMessageTypeByName(rule.message)
        except KeyError as error:
            raise Misuse(f"trailer {name}: the contract has no {rule.message}") from error
