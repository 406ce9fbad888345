"""Tests for pytest from a contract: `@schema.parametrize()` and `case.call_and_validate()`."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import pytest
from google.protobuf.message import Message

from grpc_fuzz.adapters import Adapter
from grpc_fuzz.checks.check import Check, Context, Finding
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.engine import engine_settings
from grpc_fuzz.model import Case, Failure, Method, Reply, Severity
from grpc_fuzz.phases import coverage, examples, fuzzing
from grpc_fuzz.pytest_plugin import OVERRIDES
from grpc_fuzz.reproduce import reproducers
from grpc_fuzz.schema import DEFAULT_ADAPTERS, Schema
from grpc_fuzz.session import Session, select_methods
from grpc_fuzz.settings import Settings
from grpc_fuzz.target import Target

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

CheckFunction = Callable[[Case, Reply, Context], str | Finding | None]
BeforeCall = Callable[[Case], Case | None]
AfterCall = Callable[[Case, Reply], None]
# A test function, which pytest calls with the values of fixtures.
Test = Callable[..., None]

METHOD_ARGUMENT = "grpc_method"

_SessionKey = tuple[tuple[str, ...], tuple[str, ...], str, Credentials | None]


class CheckFailed(AssertionError):
    """Checks failed. The message holds the causes and the ways to reproduce them.

    Attributes:
        failures: The checks that failed, each with its cause.
    """

    def __init__(self, failures: list[Failure]) -> None:
        self.failures = tuple(failures)
        super().__init__("\n\n".join(map(_describe, failures)))


@dataclass(frozen=True, slots=True)
class _Hooks:
    before_call: list[BeforeCall] = field(default_factory=list)
    after_call: list[AfterCall] = field(default_factory=list)


class BoundCase:
    """A case with the session that sends it. It is the argument `case` of a test.

    Attributes:
        case: The case.
    """

    def __init__(self, case: Case, session: Session, hooks: _Hooks) -> None:
        self.case = case
        self._session = session
        self._hooks = hooks

    def __repr__(self) -> str:
        return f"<{self.case.method.path}: {self.case.description}>"

    @property
    def method(self) -> Method:
        """The method to call."""
        return self.case.method

    @property
    def requests(self) -> tuple[Message, ...]:
        """The decoded request messages."""
        parse = self._session.schema.parse
        return tuple(parse(self.method.input, data) for data in self.case.requests)

    def call(self) -> Reply:
        """Send the case without any check, and return the reply."""
        return self._exchange()[0]

    def call_and_validate(self) -> Reply:
        """Send the case, run all checks that apply, and return the reply.

        Raises:
            CheckFailed: A check failed.
        """
        __tracebackhide__ = True
        reply, failures = self._exchange()
        if failures:
            raise CheckFailed([self._with_reproducers(failure) for failure in failures])
        return reply

    def _exchange(self) -> tuple[Reply, list[Failure]]:
        case = self.case
        for before in self._hooks.before_call:
            case = before(case) or case
        reply, failures = self._session.exchange(case)
        for after in self._hooks.after_call:
            after(case, reply)
        return reply, failures

    def _with_reproducers(self, failure: Failure) -> Failure:
        ways = reproducers(failure.case, self._session.schema, self._session.settings)
        return replace(failure, reproducers=ways)


class Suite:
    """The tests of a contract.

    Args:
        schema: The contract.
        target: The server's "host:port", or the name of a fixture that returns it.
        settings: Further settings. `target` replaces their target.
        credentials: The credentials of every call, or the name of a fixture that returns them; None
            for those of the settings.
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
        """Add a check, which runs in addition to the built-in ones; for use as a decorator.

        The function receives the case, the reply and the context, and returns the cause of the
        failure or None. The check has its name and the first line of its docstring.
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
        """Add a hook that receives each case before it is sent, and may return another one."""
        self._hooks.before_call.append(hook)
        return hook

    def after_call(self, hook: AfterCall) -> AfterCall:
        """Add a hook that receives each case and its reply before a failed check is raised."""
        self._hooks.after_call.append(hook)
        return hook

    def parametrize(
        self, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
    ) -> Callable[[Test], Test]:
        """Make one test for each method, which calls the function with every case of the method.

        The function has an argument `case`, a `BoundCase`, and any fixtures. It is called first
        with the examples and the cases of the coverage phase, then with random cases, which
        hypothesis shrinks.

        Args:
            include: Globs. The path or name of a method must match one; empty for those of the
                settings.
            exclude: Globs. The path or name of a method must match none; empty for those of the
                settings.

        Raises:
            TypeError: The function is a coroutine function, or has no argument `case`.
        """
        settings = replace(
            self._settings,
            include_methods=include or self._settings.include_methods,
            exclude_methods=exclude or self._settings.exclude_methods,
        )

        def decorate(test: Test) -> Test:
            _require_valid(test)

            def run(request: pytest.FixtureRequest, **arguments: Any) -> None:
                __tracebackhide__ = True
                method = arguments.pop(METHOD_ARGUMENT)
                session = self._session(settings, request)
                if "request" in inspect.signature(test).parameters:
                    arguments["request"] = request

                def run_case(case: Case) -> None:
                    __tracebackhide__ = True
                    test(case=BoundCase(case, session, self._hooks), **arguments)

                _run_all_cases(session, method, run_case)

            _copy_identity(test, run)
            mark = pytest.mark.parametrize(METHOD_ARGUMENT, self._parameters(settings))
            return cast(Test, mark(run))

        return decorate

    def _parameters(self, settings: Settings) -> "list[ParameterSet]":
        selected = select_methods(settings, self.schema)
        return [pytest.param(method, id=method.path[1:]) for method in selected]

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
    """Make tests from a serialized FileDescriptorSet.

    Args:
        image: The output of `buf build -o -` or `protoc --include_imports -o`.
        target: The server's "host:port", or the name of a fixture that returns it.
        adapters: The readers of the contract's options.
        settings: Further settings.
        credentials: The credentials of every call, or the name of a fixture that returns them.

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
    """Make tests from a file with a FileDescriptorSet; otherwise like `from_image`."""
    return Suite(Schema.from_file(path, adapters), target, settings, credentials)


def _require_valid(test: Test) -> None:
    if inspect.iscoroutinefunction(test):
        raise TypeError(f"{test.__name__} is a coroutine function: calls are synchronous")
    if "case" not in inspect.signature(test).parameters:
        raise TypeError(f"{test.__name__} has no argument named case")


def _copy_identity(test: Test, run: Test) -> None:
    """Give `run` the name, marks and fixtures of the test, with the method instead of the case."""
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        for name in ("request", METHOD_ARGUMENT)
    ]
    fixtures = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(test).parameters.items()
        if name not in {"case", "request"}
    ]
    run.__name__, run.__qualname__ = test.__name__, test.__qualname__
    run.__doc__, run.__module__ = test.__doc__, test.__module__
    # typeshed knows no such attribute; `inspect.signature` documents it (PEP 362).
    run.__signature__ = inspect.Signature([*added, *fixtures])  # type: ignore[attr-defined]
    run.__dict__.update(test.__dict__)  # the marks that the test has


def _run_all_cases(session: Session, method: Method, test: Callable[[Case], None]) -> None:
    __tracebackhide__ = True
    for case in _fixed_cases(session, method):
        test(case)
    for mode, cases in fuzzing.strategies(session, method):
        # A function of its own for each mode, because hypothesis stores settings and seed on it.
        def attempt(case: Case) -> None:
            test(case)

        settings = engine_settings(max_examples=session.settings.max_examples)
        seed = session.seed_for("fuzzing", method.path, mode)
        hypothesis.seed(seed)(settings(hypothesis.given(cases)(attempt)))()


def _fixed_cases(session: Session, method: Method) -> Iterator[Case]:
    yield from (case for case in examples.cases(session) if case.method == method)
    yield from coverage.cases(session, method)


def _describe(failure: Failure) -> str:
    lines = [f"{failure.check} ({failure.severity.value}): {failure.cause}"]
    lines.append(f"{failure.case.method.path}: {failure.case.description}")
    for kind, text in failure.reproducers.items():
        lines.extend(("", f"{kind}:", text))
    return "\n".join(lines)
