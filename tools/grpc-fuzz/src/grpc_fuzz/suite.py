"""Tests for pytest, made from a contract: `@schema.parametrize()`, `case.call_and_validate()`."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

from grpc_fuzz.adapters import Adapter
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import Case, Check, Context, Failure, Finding, Method, Reply, Severity
from grpc_fuzz.phases import coverage, examples, fuzzing
from grpc_fuzz.pytest_plugin import OVERRIDES
from grpc_fuzz.reproduce import reproducers
from grpc_fuzz.schema import DEFAULT_ADAPTERS, Schema
from grpc_fuzz.session import Session
from grpc_fuzz.settings import Settings
from grpc_fuzz.strategies import negatives
from grpc_fuzz.target import Target

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

CheckFunction = Callable[[Case, Reply, Context], str | Finding | None]
BeforeCall = Callable[[Case], Case | None]
AfterCall = Callable[[Case, Reply], None]
# What pytest hands to a test: the fixtures' values, of any type.
Test = Callable[..., None]

METHOD_ARGUMENT = "grpc_method"

_SessionKey = tuple[tuple[str, ...], tuple[str, ...], str, Credentials | None]


class CheckFailed(AssertionError):
    """A reply is not as it must be. Its text tells what is wrong and how to see it again.

    Attributes:
        failures: The checks that failed, each with its cause.
    """

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = tuple(failures)
        super().__init__("\n\n".join(map(_describe, failures)))


class BoundCase:
    """A case that knows where to send itself. What a test gets as its argument `case`.

    Attributes:
        case: The case itself.
    """

    def __init__(self, case: Case, session: Session, hooks: "_Hooks") -> None:
        self.case = case
        self._session = session
        self._hooks = hooks

    def __repr__(self) -> str:
        return f"<{self.case.method.path}: {self.case.description}>"

    @property
    def method(self) -> Method:
        """What is called."""
        return self.case.method

    @property
    def requests(self) -> tuple[Message, ...]:
        """The request messages, decoded."""
        parse = self._session.schema.parse
        return tuple(parse(self.method.input, data) for data in self.case.requests)

    def call(self) -> Reply:
        """Sends the case, and judges nothing."""
        return self._exchange()[0]

    def call_and_validate(self) -> Reply:
        """Sends the case and runs all checks that apply.

        Raises:
            CheckFailed: A check does not hold.
        """
        __tracebackhide__ = True
        reply, failures = self._exchange()
        if failures:
            raise CheckFailed([self._reproducible(failure) for failure in failures])
        return reply

    def _exchange(self) -> tuple[Reply, list[Failure]]:
        case = self.case
        for before in self._hooks.before_call:
            case = before(case) or case
        reply, failures = self._session.exchange(case)
        for after in self._hooks.after_call:
            after(case, reply)
        return reply, failures

    def _reproducible(self, failure: Failure) -> Failure:
        made = reproducers(failure.case, self._session.schema, self._session.settings)
        return replace(failure, reproducers=made)


class _Hooks:
    def __init__(self) -> None:
        self.before_call: list[BeforeCall] = []
        self.after_call: list[AfterCall] = []


class Suite:
    """A contract, made into tests.

    Args:
        schema: The contract.
        target: The server's "host:port", or the name of a fixture that gives it.
        settings: What else a run can be told; its target is replaced by `target`.
        credentials: What every call comes with, or the name of a fixture that gives it; None: as
            the settings say.
    """

    def __init__(
        self,
        schema: Schema,
        target: str,
        settings: Settings | None = None,
        credentials: Credentials | str | None = None,
    ) -> None:
        self.schema = schema
        self._target = target
        self._credentials = credentials
        self._settings = settings or Settings(target=Target(host="localhost", port=1))
        self._checks: list[Check] = []
        self._hooks = _Hooks()
        self._sessions: dict[_SessionKey, Session] = {}

    def check(
        self, severity: Severity = Severity.MAJOR
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Adds a check, which runs beside the built-in ones; for use as a decorator.

        The function gets the case, the reply and the context, and returns the cause of the failure
        or None. Its name and the first line of its docstring are the check's.
        """

        def add(function: CheckFunction) -> CheckFunction:
            self._checks.append(
                Check(
                    name=function.__name__,
                    severity=severity,
                    sentence=(inspect.getdoc(function) or "").partition("\n")[0],
                    applies=lambda case, context: True,
                    run=function,
                )
            )
            return function

        return add

    def before_call(self, hook: BeforeCall) -> BeforeCall:
        """Adds a hook that sees each case before it is sent, and may return another one instead."""
        self._hooks.before_call.append(hook)
        return hook

    def after_call(self, hook: AfterCall) -> AfterCall:
        """Adds a hook that sees each case with its reply, before the checks' verdict is raised."""
        self._hooks.after_call.append(hook)
        return hook

    def parametrize(
        self, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
    ) -> Callable[[Test], Test]:
        """Makes one test for each method; the function is called with every case of the method.

        The function takes a `BoundCase` named `case`, and fixtures as it likes. First come the
        examples and the cases of the coverage phase, then random ones, which hypothesis shrinks.

        Args:
            include: Globs; a method's path or name must match one. Empty: as the settings say.
            exclude: Globs; a method's path or name must match none. Empty: as the settings say.

        Raises:
            TypeError: The function is a coroutine function, or takes no `case`.
        """
        settings = replace(
            self._settings,
            include_methods=include or self._settings.include_methods,
            exclude_methods=exclude or self._settings.exclude_methods,
        )

        def decorate(test: Test) -> Test:
            _require_sound(test)

            def run(request: pytest.FixtureRequest, **arguments: Any) -> None:
                __tracebackhide__ = True
                method = arguments.pop(METHOD_ARGUMENT)
                session = self._session(settings, request)
                if "request" in inspect.signature(test).parameters:
                    arguments["request"] = request
                _run(
                    session, method, lambda case: test(case=self._bind(case, session), **arguments)
                )

            _look_like(test, run)
            mark = pytest.mark.parametrize(METHOD_ARGUMENT, self._parameters(settings))
            return cast(Test, mark(run))

        return decorate

    def _bind(self, case: Case, session: Session) -> BoundCase:
        return BoundCase(case, session, self._hooks)

    def _parameters(self, settings: Settings) -> "list[ParameterSet]":
        selected = Session(settings, self.schema)
        try:
            return [pytest.param(method, id=method.path[1:]) for method in selected.methods]
        finally:
            selected.close()

    def _session(self, settings: Settings, request: pytest.FixtureRequest) -> Session:
        text = self._target if ":" in self._target else str(request.getfixturevalue(self._target))
        settings = replace(settings, target=Target.parse(text, self._settings.target.tls))
        settings = replace(settings, **request.config.stash.get(OVERRIDES, {}))
        given = self._credentials
        if given is not None:
            named = request.getfixturevalue(given) if isinstance(given, str) else given
            settings = replace(settings, credentials=named)
        key = (settings.include_methods, settings.exclude_methods, text, settings.credentials)
        if key not in self._sessions:
            session = Session(settings, self.schema, custom_checks=tuple(self._checks))
            self._sessions[key] = session
            request.config.add_cleanup(session.close)
        return self._sessions[key]


def from_image(
    image: bytes,
    target: str,
    *,
    adapters: tuple[Adapter, ...] = DEFAULT_ADAPTERS,
    settings: Settings | None = None,
    credentials: Credentials | str | None = None,
) -> Suite:
    """Makes tests of a serialized FileDescriptorSet.

    Args:
        image: What `buf build -o -` or `protoc --include_imports -o` writes.
        target: The server's "host:port", or the name of a fixture that gives it.
        adapters: How the contract's options are read.
        settings: What else a run can be told.
        credentials: What every call comes with, or the name of a fixture that gives it.

    Raises:
        SchemaError: The contract cannot be read.
    """
    return Suite(Schema.from_image(image, adapters), target, settings, credentials)


def from_file(
    path: Path,
    target: str,
    *,
    adapters: tuple[Adapter, ...] = DEFAULT_ADAPTERS,
    settings: Settings | None = None,
    credentials: Credentials | str | None = None,
) -> Suite:
    """Makes tests of a file with a FileDescriptorSet; otherwise like `from_image`."""
    return Suite(Schema.from_file(path, adapters), target, settings, credentials)


def _require_sound(test: Test) -> None:
    if inspect.iscoroutinefunction(test):
        raise TypeError(f"{test.__name__} is a coroutine function: calls are synchronous")
    if "case" not in inspect.signature(test).parameters:
        raise TypeError(f"{test.__name__} takes no argument named case")


def _look_like(test: Test, run: Test) -> None:
    """Lets pytest see the test's name and fixtures, and the method in place of the case."""
    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        for name in ("request", METHOD_ARGUMENT)
    ]
    theirs = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(test).parameters.items()
        if name not in {"case", "request"}
    ]
    run.__name__, run.__qualname__ = test.__name__, test.__qualname__
    run.__doc__, run.__module__ = test.__doc__, test.__module__
    run.__signature__ = inspect.Signature([*ours, *theirs])  # type: ignore[attr-defined]
    run.__dict__.update(test.__dict__)  # marks that were put on before


def _run(session: Session, method: Method, test: Callable[[Case], None]) -> None:
    __tracebackhide__ = True
    for case in _listed(session, method):
        test(case)
    for kind, cases in _random(session, method):
        seed = session.seed_for("fuzzing", method.path, kind)
        hypothesis.seed(seed)(_settings(session)(hypothesis.given(cases)(_fresh(test))))()


def _fresh(test: Callable[[Case], None]) -> Callable[[Case], None]:
    # Hypothesis notes settings and seed on the function.
    def attempt(case: Case) -> None:
        test(case)

    return attempt


def _settings(session: Session) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=session.settings.max_examples,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _listed(session: Session, method: Method) -> Iterator[Case]:
    settings, schema = session.settings, session.schema
    yield from (case for case in examples.cases(session) if case.method == method)
    seed = session.seed_for("coverage", method.path)
    if settings.positive:
        yield from coverage.positive_cases(schema, method, seed)
    if settings.negative:
        yield from coverage.negative_cases(schema, method, seed)


def _random(session: Session, method: Method) -> Iterator[tuple[str, SearchStrategy[Case]]]:
    if session.settings.positive:
        yield "positive", fuzzing.positive_cases(session.schema, method)
    broken = negatives(session.schema, method.input)
    if session.settings.negative and broken:
        yield "negative", fuzzing.negative_cases(method, broken)


def _describe(failure: Failure) -> str:
    lines = [f"{failure.check} ({failure.severity.value}): {failure.cause}"]
    lines.append(f"{failure.case.method.path}: {failure.case.description}")
    for kind, text in failure.reproducers.items():
        lines.extend(("", f"{kind}:", text))
    return "\n".join(lines)
