"""One run in the making: sends cases, judges replies, and keeps what was found."""

import dataclasses
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from grpc_fuzz import checks, wire
from grpc_fuzz.binding import bound
from grpc_fuzz.checks.liveness import ANSWERS_BEFORE_DEADLINE
from grpc_fuzz.checks.relations import IDEMPOTENT_REPLAY, must_be_alone
from grpc_fuzz.client import Client
from grpc_fuzz.crashes import Crashes, crash_id
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import (
    Case,
    Check,
    Context,
    Failure,
    FailureKey,
    Finding,
    Method,
    Reply,
)
from grpc_fuzz.rate import RateLimit
from grpc_fuzz.reach import Reach
from grpc_fuzz.reproduce import replay_line, reproducers
from grpc_fuzz.schema import Schema
from grpc_fuzz.selection import matches
from grpc_fuzz.settings import Settings
from grpc_fuzz.turns import Turns

# A method that hangs in so many calls in a row is not called any more: each takes a whole deadline.
HANGS_MAX = 8
# After a sound reply the next one is probe enough; a probe every so many cases is for the rest.
_PROBE_EVERY = 50


class Observer(Protocol):
    """Who is told how a run goes on. Called from all workers."""

    def on_case(self, case: Case, reply: Reply, failures: list[Failure]) -> None:
        """A case was sent and judged; the failures are those not seen before."""

    def on_failure(self, failure: Failure, name: str) -> None:
        """A failure was recorded, and is kept under that name."""


class Session:
    """The state that all phases of a run share. Safe to share between threads.

    Attributes:
        settings: What the run was told.
        schema: The contract.
        methods: The methods that are fuzzed.
        context: What checks may use.
        reach: What the run has reached.
        failures: What was found and decides the exit code, in order, each key once.
        deviations: How the gRPC runtime deviates, where that does not decide; each key once.
        cases: How many cases were sent.
    """

    def __init__(
        self,
        settings: Settings,
        schema: Schema,
        *,
        observers: tuple[Observer, ...] = (),
        custom_checks: tuple[Check, ...] = (),
    ) -> None:
        self.settings = settings
        self.schema = schema
        self.methods = tuple(filter(_method_filter(settings), schema.methods))
        self.context = Context(
            schema=schema,
            send=self._send,
            limits=settings.limits,
            allowed_statuses=settings.allowed_statuses,
            idempotency_key=settings.idempotency_key,
            trailers=settings.trailers,
            credentials=settings.credentials,
        )
        self.reach = Reach(schema, self.methods)
        self.failures: list[Failure] = []
        self.deviations: list[Failure] = []
        self.cases = 0
        self.crashes = Crashes(settings.state_directory / "crashes")
        self._checks = select_checks(settings, custom_checks)
        self._client = Client(settings.target, schema, settings.limits, settings.metadata_of)
        self._rate = RateLimit(settings.rate_limit)
        self._turns = Turns()
        self._repeats = settings.workers > 1 and IDEMPOTENT_REPLAY in self._checks
        self._observers = observers
        self._round = 0
        self._keys: set[FailureKey] = set()
        self._times: Counter[FailureKey] = Counter()
        self._hangs: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._end = None if settings.max_time is None else time.monotonic() + settings.max_time

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def stop(self) -> None:
        """Lets the run end with the cases that are under way."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether the run shall end: it was told to, time is up, or enough failures were found."""
        if self._stop.is_set():
            return True
        if self._end is not None and time.monotonic() >= self._end:
            return True
        most = self.settings.max_failures
        return most is not None and len(self.failures) >= most

    def given_up(self, method: Method) -> bool:
        """Whether a method is not called any more, because it hangs."""
        return self._hangs[method.path] >= HANGS_MAX

    def seed_for(self, *parts: str) -> int:
        """A seed of its own for a part of the run, the same whatever the other parts do."""
        text = "\0".join((str(self.settings.seed), str(self._round), *parts))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def reseed(self) -> None:
        """Makes the phases draw other cases when they run again; the seed still decides which."""
        self._round += 1

    def trouble(self) -> str | None:
        """Why the server does not answer calls; None where it does."""
        return self._client.trouble()

    def known(self, failure: Failure) -> bool:
        """Whether a failure with the same key is recorded already."""
        return failure.key in self._keys

    def attempt(self, case: Case) -> list[Failure]:
        """Sends a case, with the calls before it, and judges the reply by the selected checks."""
        replies: list[Reply] = []
        for call in case.before:
            replies.append(self._send(bound(call, replies, case.before, self.schema)))
        return self.exchange(bound(case, replies, case.before, self.schema))[1]

    def exchange(self, case: Case) -> tuple[Reply, list[Failure]]:
        """Sends a case alone, the calls before it having been sent, and judges the reply."""
        try:
            return self._exchange(case)
        except Exception as error:
            error.add_note(f"while case {case.id} of {case.method.path}: {case.description}")
            raise

    def _exchange(self, case: Case) -> tuple[Reply, list[Failure]]:
        if self._repeats and must_be_alone(case, self.context):
            with self._turns.alone():
                return self._send_and_judge(case)
        return self._send_and_judge(case)

    def _send_and_judge(self, case: Case) -> tuple[Reply, list[Failure]]:
        reply = self._probe(case, self._send(case))
        self.reach.count(case, reply)
        failures = [
            failure for check in self._checks for failure in self._judge(check, case, reply)
        ]
        hangs = any(failure.check == ANSWERS_BEFORE_DEADLINE.name for failure in failures)
        with self._lock:
            self.cases += 1
            path = case.method.path
            if not self.given_up(case.method):
                self._hangs[path] = self._hangs[path] + 1 if hangs else 0
            self._times.update(failure.key for failure in failures)
            news = [failure for failure in failures if not self.known(failure)]
        for observer in self._observers:
            observer.on_case(case, reply, news)
        return reply, failures

    def record(self, failure: Failure) -> None:
        """Keeps a failure, unless one with the same key is kept already."""
        with self._lock:
            most = self.settings.max_failures
            enough = most is not None and len(self.failures) >= most
            if enough or failure.key in self._keys:
                return
            made = reproducers(failure.case, self.schema, self.settings)
            made["replay"] = replay_line(crash_id(failure), self.settings)
            failure = dataclasses.replace(failure, reproducers=made)
            self._keys.add(failure.key)
            decides = self.settings.strict_wire or not failure.of_runtime
            (self.failures if decides else self.deviations).append(failure)
            name = self.crashes.keep(failure, self.settings.origin)
        for observer in self._observers:
            observer.on_failure(failure, name)

    def counted(self, failures: Iterable[Failure]) -> tuple[Failure, ...]:
        """The failures, each with the number of calls in which it was seen."""
        return tuple(
            dataclasses.replace(failure, times=max(1, self._times[failure.key]))
            for failure in failures
        )

    def _judge(self, check: Check, case: Case, reply: Reply) -> list[Failure]:
        if not check.applies(case, self.context):
            return []
        found = check.run(case, reply, self.context)
        if found is None:
            return []
        if isinstance(found, str):
            found = Finding(case=case, reply=reply, cause=found)
        failure = Failure(
            check=check.name,
            severity=check.severity,
            case=found.case,
            reply=found.reply,
            cause=found.cause,
            of_runtime=found.case.about == "runtime" and not check.always_decides,
        )
        return [failure]

    def _send(self, case: Case) -> Reply:
        self._rate.wait()
        settings = self.settings
        with self._turns.together():
            if case.wire is None:
                return self._client.send(case)
            metadata = settings.metadata_of(case.presented)
            return wire.play(case, settings.target, settings.limits, self.schema, metadata)

    def _probe(self, case: Case, reply: Reply) -> Reply:
        """Asks for the server's health where the reply does not prove it."""
        sound = case.wire is None and reply.status == "OK"
        if sound and self.cases % _PROBE_EVERY:
            return reply
        return dataclasses.replace(reply, healthy_after=self._client.healthy())


def _method_filter(settings: Settings) -> Callable[[Method], bool]:
    def selected(method: Method) -> bool:
        included = not settings.include_methods or matches(method, settings.include_methods)
        return included and not matches(method, settings.exclude_methods)

    return selected


def select_checks(settings: Settings, custom: tuple[Check, ...] = ()) -> tuple[Check, ...]:
    """The checks that the settings name; by default the usual ones and all custom ones.

    Raises:
        Misuse: The settings name a check that there is not.
    """
    available = (*checks.ALL, *custom)
    names = {check.name for check in available}
    named = {*(settings.checks or ()), *settings.extra_checks, *settings.exclude_checks}
    unknown = named - names
    if unknown:
        known = ", ".join(sorted(names))
        raise Misuse(f"no such check: {', '.join(sorted(unknown))}; there are: {known}")
    usual = {check.name for check in available if check.default}
    wanted = usual if settings.checks is None else {*settings.checks}
    wanted = (wanted | {*settings.extra_checks}) - {*settings.exclude_checks}
    return tuple(check for check in available if check.name in wanted)
