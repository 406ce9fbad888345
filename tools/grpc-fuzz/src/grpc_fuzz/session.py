"""One run in the making: sends cases, judges replies, and keeps what was found."""

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from grpc_fuzz import checks, wire
from grpc_fuzz.binding import bound
from grpc_fuzz.client import Client
from grpc_fuzz.crashes import Crashes
from grpc_fuzz.misuse import Misuse
from grpc_fuzz.model import Case, Check, Context, Failure, Finding, Method, Reply
from grpc_fuzz.rate import RateLimit
from grpc_fuzz.reach import Reach
from grpc_fuzz.reproduce import reproducers
from grpc_fuzz.schema import Schema
from grpc_fuzz.selection import matches
from grpc_fuzz.settings import Settings

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
        failures: What was found, in order, each key once.
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
        self.cases = 0
        self.crashes = Crashes(settings.state_directory / "crashes")
        self._checks = select_checks(settings, custom_checks)
        self._client = Client(settings.target, schema, settings.limits, settings.metadata_of)
        self._rate = RateLimit(settings.rate_limit)
        self._observers = observers
        self._round = 0
        self._keys: set[tuple[str, str, str]] = set()
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

    def seed_for(self, *parts: str) -> int:
        """A seed of its own for a part of the run, the same whatever the other parts do."""
        text = "\0".join((str(self.settings.seed), str(self._round), *parts))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def reseed(self) -> None:
        """Makes the phases draw other cases when they run again; the seed still decides which."""
        self._round += 1

    def healthy(self) -> bool:
        """Whether the server answers at all."""
        return self._client.healthy()

    def known(self, failure: Failure) -> bool:
        """Whether a failure with the same check, method and cause is recorded already."""
        return failure.key in self._keys

    def attempt(self, case: Case) -> list[Failure]:
        """Sends a case, with the calls before it, and judges the reply by the selected checks."""
        replies: list[Reply] = []
        for call in case.before:
            replies.append(self._send(bound(call, replies, case.before, self.schema)))
        return self.exchange(bound(case, replies, case.before, self.schema))[1]

    def exchange(self, case: Case) -> tuple[Reply, list[Failure]]:
        """Sends a case alone, the calls before it having been sent, and judges the reply."""
        reply = self._probe(case, self._send(case))
        self.reach.count(case, reply)
        failures = [
            failure for check in self._checks for failure in self._judge(check, case, reply)
        ]
        with self._lock:
            self.cases += 1
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
            failure = dataclasses.replace(
                failure, reproducers=reproducers(failure.case, self.schema, self.settings)
            )
            self._keys.add(failure.key)
            self.failures.append(failure)
            name = self.crashes.keep(failure)
        for observer in self._observers:
            observer.on_failure(failure, name)

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
        )
        return [failure]

    def _send(self, case: Case) -> Reply:
        self._rate.wait()
        if case.wire is None:
            return self._client.send(case)
        settings = self.settings
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
    """The checks that the settings name, and all custom ones that they do not exclude.

    Raises:
        Misuse: The settings name a check that there is not.
    """
    available = (*checks.ALL, *custom)
    names = {check.name for check in available}
    unknown = {*(settings.checks or ()), *settings.exclude_checks} - names
    if unknown:
        known = ", ".join(sorted(names))
        raise Misuse(f"no such check: {', '.join(sorted(unknown))}; there are: {known}")
    wanted = names if settings.checks is None else {*settings.checks}
    wanted -= {*settings.exclude_checks}
    return tuple(check for check in available if check.name in wanted)
