"""The state of one run: sends cases, judges the replies and records the failures."""

import dataclasses
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from grpc_fuzz import checks
from grpc_fuzz.checks.check import Check, Context, Finding
from grpc_fuzz.checks.liveness import ANSWERS_BEFORE_DEADLINE
from grpc_fuzz.checks.relations import IDEMPOTENT_REPLAY, needs_exclusive_access
from grpc_fuzz.contract_coverage import ContractCoverage
from grpc_fuzz.crashes import Crashes, crash_id
from grpc_fuzz.errors import Misuse
from grpc_fuzz.model import Case, Failure, FailureKey, Method, Reply
from grpc_fuzz.outcome import Listener
from grpc_fuzz.reproduce import replay_line, reproducers
from grpc_fuzz.schema import Schema
from grpc_fuzz.sender import Sender
from grpc_fuzz.settings import Settings
from grpc_fuzz.stateful.bindings import resolve_bindings

# Each call of a method that hangs takes a whole deadline, so the run gives up on the method after
# this many calls in a row.
HANGS_MAX = 8
# The next OK reply is proof enough of the server's health after an OK reply. A health check after
# every 50th case covers the rest.
_HEALTH_CHECK_EVERY = 50


class Session:
    """The state that all phases of a run share. Safe to share between threads.

    Attributes:
        settings: The settings of the run.
        schema: The contract.
        methods: The methods that are fuzzed.
        context: What checks may use.
        coverage: What the run has covered of the contract.
        failures: The failures that decide the exit code, in order, each key once.
        deviations: The deviations of the gRPC runtime that do not decide it, each key once.
        cases: How many cases were sent.
        crashes: Where failures are stored.
    """

    def __init__(
        self,
        settings: Settings,
        schema: Schema,
        *,
        listeners: tuple[Listener, ...] = (),
        custom_checks: tuple[Check, ...] = (),
    ) -> None:
        self.settings = settings
        self.schema = schema
        self.methods = select_methods(settings, schema)
        self._checks = select_checks(settings, custom_checks)
        self._sender = Sender(settings, schema)
        self.context = Context(
            schema=schema,
            send=self._sender.send,
            limits=settings.limits,
            allowed_statuses=settings.allowed_statuses,
            answered_inside=settings.answered_inside,
            unstated_rules=settings.unstated_rules,
            changing_fields=settings.changing_fields,
            idempotency_key=settings.idempotency_key,
            trailers=settings.trailers,
            credentials=settings.credentials,
        )
        self.coverage = ContractCoverage(schema, self.methods)
        self.failures: list[Failure] = []
        self.deviations: list[Failure] = []
        self.cases = 0
        self.crashes = Crashes(settings.state_directory / "crashes")
        self._has_repeats = settings.workers > 1 and IDEMPOTENT_REPLAY in self._checks
        self._listeners = listeners
        self._round = 0
        self._keys: set[FailureKey] = set()
        self._times: Counter[FailureKey] = Counter()
        self._hangs: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._end = None if settings.max_time is None else time.monotonic() + settings.max_time

    def close(self) -> None:
        """Close the connections."""
        self._sender.client.close()

    def stop(self) -> None:
        """Make the run end after the cases in progress."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether the run must end: by `stop`, by its time limit or by its limit on failures."""
        out_of_time = self._end is not None and time.monotonic() >= self._end
        return self._stop.is_set() or out_of_time or self._has_enough_failures()

    def _has_enough_failures(self) -> bool:
        most = self.settings.max_failures
        return most is not None and len(self.failures) >= most

    def given_up(self, method: Method) -> bool:
        """Return whether a method is no longer called because it hangs."""
        return self._hangs[method.path] >= HANGS_MAX

    def seed_for(self, *parts: str) -> int:
        """Return the seed of a part of the run, which does not depend on the other parts."""
        text = "\0".join((str(self.settings.seed), str(self._round), *parts))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def next_round(self) -> None:
        """Make the phases draw other cases when they run again, still decided by the seed."""
        self._round += 1

    def health_problem(self) -> str | None:
        """Return why the server does not answer calls, or None if it does."""
        return self._sender.client.health_problem()

    def is_recorded(self, failure: Failure) -> bool:
        """Return whether a failure with the same key is recorded."""
        return failure.key in self._keys

    def run_tasks(self, tasks: Iterable[Callable[[], None]]) -> None:
        """Run independent tasks on as many threads as the settings allow, and wait for all.

        Raises:
            BaseException: What a task raised, or what interrupted the waiting. All tasks that
                were running have ended by then.
        """

        def run(task: Callable[[], None]) -> None:
            try:
                task()
            except BaseException:
                # Not only below: the next task may begin before the wait ends.
                self.stop()
                raise

        with ThreadPoolExecutor(max_workers=self.settings.workers) as pool:
            results = [pool.submit(run, task) for task in tasks]
            try:
                for result in results:
                    result.result()
            except BaseException:
                self.stop()
                raise

    def send_all(self, cases: Iterable[Case]) -> None:
        """Send cases one after the other, and record every failure."""
        for case in cases:
            if self.stopped:
                return
            if self.given_up(case.method):
                continue
            for failure in self.run_case(case):
                self.record(failure)

    def run_case(self, case: Case) -> list[Failure]:
        """Send a case with the calls before it, and return the failures of its last call."""
        replies: list[Reply] = []
        for call in case.before:
            bound = resolve_bindings(call, replies, case.before, self.schema)
            replies.append(self._sender.send(bound))
        return self.exchange(resolve_bindings(case, replies, case.before, self.schema))[1]

    def exchange(self, case: Case) -> tuple[Reply, list[Failure]]:
        """Send a case without the calls before it, and return the reply and the failures."""
        try:
            if self._has_repeats and needs_exclusive_access(case, self.context):
                with self._sender.exclusive():
                    return self._send_and_judge(case)
            return self._send_and_judge(case)
        except Exception as error:
            error.add_note(f"while case {case.id} of {case.method.path}: {case.description}")
            raise

    def _send_and_judge(self, case: Case) -> tuple[Reply, list[Failure]]:
        reply = self._with_health(case, self._sender.send(case))
        self.coverage.count(case, reply)
        judged = (self._judge(check, case, reply) for check in self._checks)
        failures = [failure for failure in judged if failure is not None]
        hangs = any(failure.check == ANSWERS_BEFORE_DEADLINE.name for failure in failures)
        with self._lock:
            self.cases += 1
            path = case.method.path
            if not self.given_up(case.method):
                self._hangs[path] = self._hangs[path] + 1 if hangs else 0
            self._times.update(failure.key for failure in failures)
            unrecorded = [failure for failure in failures if not self.is_recorded(failure)]
        for listener in self._listeners:
            listener.on_case(case, reply, unrecorded)
        return reply, failures

    def _with_health(self, case: Case, reply: Reply) -> Reply:
        """Return the reply with the result of a health check where the reply is no proof itself."""
        is_proof = case.wire is None and reply.status == "OK"
        if is_proof and self.cases % _HEALTH_CHECK_EVERY:
            return reply
        return dataclasses.replace(reply, healthy_after=self._sender.client.healthy())

    def _judge(self, check: Check, case: Case, reply: Reply) -> Failure | None:
        if not check.applies(case, self.context):
            return None
        found = check.run(case, reply, self.context)
        if found is None:
            return None
        if isinstance(found, str):
            found = Finding(case=case, reply=reply, cause=found)
        return Failure(
            check=check.name,
            severity=check.severity,
            case=found.case,
            reply=found.reply,
            cause=found.cause,
            of_runtime=found.case.about == "runtime" and not check.always_decides,
        )

    def record(self, failure: Failure) -> None:
        """Record a failure, unless one with the same key is recorded."""
        with self._lock:
            if self._has_enough_failures() or self.is_recorded(failure):
                return
            ways = reproducers(failure.case, self.schema, self.settings)
            ways["replay"] = replay_line(crash_id(failure), self.settings)
            failure = dataclasses.replace(failure, reproducers=ways)
            self._keys.add(failure.key)
            decides = self.settings.strict_wire or not failure.of_runtime
            (self.failures if decides else self.deviations).append(failure)
            name = self.crashes.save(failure, self.settings.origin)
        for listener in self._listeners:
            listener.on_failure(failure, name)

    def with_counts(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """Return the failures, each with the number of calls in which it was seen."""
        return tuple(
            dataclasses.replace(failure, times=max(1, self._times[failure.key]))
            for failure in failures
        )


def select_methods(settings: Settings, schema: Schema) -> tuple[Method, ...]:
    """Return the methods that the settings include and do not exclude."""
    included = settings.include_methods or ("*",)
    return tuple(
        method
        for method in schema.methods
        if method.matches(included) and not method.matches(settings.exclude_methods)
    )


def select_checks(settings: Settings, custom: tuple[Check, ...] = ()) -> tuple[Check, ...]:
    """Return the checks that the settings name; by default the usual ones and all custom ones.

    Raises:
        Misuse: The settings name a check that does not exist.
    """
    available = (*checks.ALL, *custom)
    names = {check.name for check in available}
    named = {*(settings.checks or ()), *settings.extra_checks, *settings.exclude_checks}
    unknown = named - names
    if unknown:
        known = ", ".join(sorted(names))
        raise Misuse(f"no such check: {', '.join(sorted(unknown))}; the checks are: {known}")
    usual = {check.name for check in available if check.default}
    selected = usual if settings.checks is None else {*settings.checks}
    selected = (selected | {*settings.extra_checks}) - {*settings.exclude_checks}
    return tuple(check for check in available if check.name in selected)
