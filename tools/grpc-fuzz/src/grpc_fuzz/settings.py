"""Everything that a run can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from grpc_fuzz.adapters import Adapter, BufValidate
from grpc_fuzz.credentials import Credentials
from grpc_fuzz.model import PHASES, Limits, Metadata, Presented, TrailerRule
from grpc_fuzz.target import Target

Mode = Literal["positive", "negative", "all"]

# Statuses that may stand between any client and any method: the call's own deadline, the
# caller's rights, and how busy the server is.
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
    """A value of one call's response that another call's request takes up.

    Attributes:
        source: "/package.Service/Method:field.path" in the response.
        target: "/package.Service/Method:field.path" in the request.
    """

    source: str
    target: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A request that somebody wrote down.

    Attributes:
        method: "/package.Service/Method".
        requests: One JSON object per message, in protobuf's own mapping.
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
        path: Where to; an existing file is replaced.
    """

    kind: Literal["junit", "ndjson"]
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a run does.

    Attributes:
        target: The server.
        image: The file with the contract; None: ask the server (reflection).
        metadata: Sent with every call.
        credentials: What proves to the server who calls; None: nothing does.
        phases: Which phases run, in this order.
        mode: Whether requests keep the constraints, break them, or both.
        checks: Names of the checks to run; None: all.
        extra_checks: Names of checks to run beside those, such as the ones that are off by default.
        exclude_checks: Names of the checks not to run.
        strict_wire: Whether deviations of the gRPC runtime decide the exit code, too.
        include_methods: Globs; a method's path must match one. Empty: all.
        exclude_methods: Globs; a method's path must match none.
        max_examples: Cases per method and kind in the fuzzing and stateful phases, at least 1.
        seed: Makes the same cases again.
        workers: How many methods are fuzzed at the same time, at least 1.
        rate_limit: Calls per second, or None.
        limits: What a reply may take.
        max_failures: The run ends after so many different failures; None: never.
        max_time: The run ends after so many seconds; None: when all is done.
        reports: Files to write.
        state_directory: Where crashes and what was reached are kept.
        adapters: How the contract's options are read.
        examples: Requests of the examples phase.
        links: Declared links of the stateful phase.
        idempotency_key: The request field that makes a call safe to repeat, or None.
        trailers: Trailers that carry messages, by name.
        allowed_statuses: Statuses that any method may answer with, declared or not.
        origin: The options that the run was started with, kept with each crash, so that `replay`
            needs none; None: the run was not started from the command line.
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
    # Any: JSON.
    origin: Mapping[str, Any] | None = None

    @property
    def positive(self) -> bool:
        """Whether requests that keep the constraints are sent."""
        return self.mode != "negative"

    def metadata_of(self, presented: Presented) -> Metadata:
        """What goes with every call, the credentials among it."""
        if self.credentials is None:
            return self.metadata
        return (*self.metadata, *self.credentials.metadata(presented))

    @property
    def negative(self) -> bool:
        """Whether requests that break a constraint are sent."""
        return self.mode != "positive"
