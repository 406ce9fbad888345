"""The settings of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grpc_fuzz.adapters import Adapter, BufValidate
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import PHASES, Limits, Metadata, Presented, TrailerRule
from grpc_fuzz.target import Target

Mode = Literal["positive", "negative", "all"]

# Statuses that any method may return: they depend on the deadline of the call, the caller's
# permissions and the load of the server.
ALLOWED_STATUSES = frozenset(
    {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A value from the response to one call that the request of another call takes.

    Attributes:
        source: "/package.Service/Method:field.path" in the response.
        target: "/package.Service/Method:field.path" in the request.
    """

    source: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A request of the configuration.

    Attributes:
        method: "/package.Service/Method".
        requests: One JSON object per message, in the JSON mapping of protobuf.
        positive: Whether the requests keep every constraint.
        description: What the example shows.
    """

    method: str
    # Any: JSON.
    requests: tuple[Mapping[str, Any], ...]
    positive: bool = True
    description: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A file that a run writes.

    Attributes:
        kind: The format.
        path: The path of the file. An existing file is replaced.
    """

    kind: Literal["junit", "ndjson"]
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        target: The server.
        image: The file with the contract; None to ask the server (reflection).
        metadata: The metadata of every call.
        credentials: The credentials of every call, or None.
        phases: The phases that run, in this order.
        mode: Whether requests keep the constraints, break them, or both.
        checks: The names of the checks to run; None for the default.
        extra_checks: The names of further checks, such as those that are off by default.
        exclude_checks: The names of the checks that do not run.
        strict_wire: Whether deviations of the gRPC runtime decide the exit code, too.
        include_methods: Globs. The path or name of a method must match one; empty for all methods.
        exclude_methods: Globs. The path or name of a method must match none.
        max_examples: The cases per method and mode in the fuzzing and stateful phases, at least 1.
        coverage_values: The limit on values for each field, and for each constraint to break, in
            the coverage phase, at least 1. None for all; of random values, five.
        seed: Decides which cases are sent.
        workers: The number of methods that are fuzzed at the same time, at least 1.
        rate_limit: The limit on calls per second, or None.
        limits: The limits on the time of a reply.
        max_failures: The number of different failures that ends the run, or None.
        max_time: The time that ends the run, in seconds, or None.
        reports: The report files to write.
        state_directory: The directory of the crashes and of the coverage of the last run.
        adapters: The readers of the contract's options.
        examples: The requests of the examples phase.
        links: The declared links of the stateful phase.
        idempotency_key: The request field that makes a call safe to repeat, or None.
        trailers: The trailers that carry messages, by name.
        allowed_statuses: The statuses that any method may return, declared or not.
        answered_inside: Globs of fields, such as `operations*.*`. If one of them breaks a
            constraint, the response reports it, and the status may be OK.
        unstated_rules: Fields, such as `TransferRequest.to_user_id`, with rules that no option
            states. A valid request may be rejected for these fields alone.
        changing_fields: Paths in responses, such as `receipt.replayed`, that may differ when a call
            is repeated.
        origin: The options with which the run was started. They are stored with each crash, so
            `replay` needs none. None if the run was not started from the command line.
    """

    target: Target
    image: Path | None = None
    metadata: Metadata = ()
    credentials: Credentials | None = None
    phases: tuple[str, ...] = PHASES
    mode: Mode = "all"
    checks: tuple[str, ...] | None = None
    extra_checks: tuple[str, ...] = ()
    exclude_checks: tuple[str, ...] = ()
    strict_wire: bool = False
    include_methods: tuple[str, ...] = ()
    exclude_methods: tuple[str, ...] = ()
    max_examples: int = 100
    coverage_values: int | None = None
    seed: int = 0
    workers: int = 1
    rate_limit: float | None = None
    limits: Limits = field(default_factory=Limits)
    max_failures: int | None = None
    max_time: float | None = None
    reports: tuple[Report, ...] = ()
    state_directory: Path = Path(".grpc-fuzz")
    adapters: tuple[Adapter, ...] = field(default_factory=lambda: (BufValidate(),))
    examples: tuple[Example, ...] = ()
    links: tuple[Link, ...] = ()
    idempotency_key: str | None = None
    trailers: Mapping[str, TrailerRule] = field(default_factory=dict)
    allowed_statuses: frozenset[str] = ALLOWED_STATUSES
    answered_inside: tuple[str, ...] = ()
    unstated_rules: tuple[str, ...] = ()
    changing_fields: tuple[str, ...] = ()
    # Any: JSON.
    origin: Mapping[str, Any] | None = None

    @property
    def positive(self) -> bool:
        """Whether the run sends requests that keep the constraints."""
        return self.mode != "negative"

    def metadata_of(self, presented: Presented) -> Metadata:
        """Return the metadata of every call, with credentials of a kind."""
        if self.credentials is None:
            return self.metadata
        return (*self.metadata, *self.credentials.metadata(presented))

    @property
    def negative(self) -> bool:
        """Whether the run sends requests that break a constraint."""
        return self.mode != "positive"
