"""All settings of `credit-server serve`."""

import ipaddress
import sys
from dataclasses import replace
from math import ceil
from typing import Annotated, ClassVar, Self

from annotated_types import Ge, Le
from credit_models.http2_engine import Engine, chosen
from credit_models.ledger import UINT32_MAX
from pydantic import BeforeValidator, field_validator, model_validator

from credit_server.access.authorize import AccessLimits
from credit_server.admission.list_slots import LIST_WAIT_SECONDS_MAX
from credit_server.commit import CommitLimits
from credit_server.cpus import usable_cpus
from credit_server.grpc.handler import CallLimits
from credit_server.http2.limits import ConnectionLimits
from credit_server.http2.unix_socket import socket_path
from credit_server.settings.access import AccessSettings
from credit_server.settings.fields import Group, Settings
from credit_server.settings.store import StoreSettings
from credit_server.settings.telemetry import TelemetrySettings
from credit_server.store.port import USER_IDS_FROM
from credit_server.units import Seconds

_CALLS = Group(
    title="Limits on calls",
    names={
        "calls_max": "calls_max",
    },
)
_ACCESS = Group(
    title="Limits on callers",
    names={
        "rate_per_second": "calls_per_second",
        "failures_per_second": "failures_per_second",
    },
)
_COMMIT = Group(
    title="Limits on writes",
    names={
        "commit_wait_seconds_max": "wait_seconds_max",
    },
)
_CONNECTION = Group(
    title="Limits on connections",
    names={
        "connections_max": "connections_max",
        "connections_per_peer_max": "connections_per_peer_max",
        "connection_idle_seconds": "idle_seconds",
        "connection_age_seconds": "age_seconds",
    },
)


def _cpus_if_auto(value: object) -> object:
    if value == "auto":
        return usable_cpus()
    if isinstance(value, str) and not value.strip().isdecimal():
        raise ValueError(f"must be auto or a whole number, got {value!r}")
    return value


class WriteSettings(Settings):
    """What a write must be like; the committer's own limits are in `CommitLimits`."""

    title: ClassVar[str] = _COMMIT.title

    # A negative number of 32 bits arrives as at least 2**31: the default rejects all of them.
    credits_max: Annotated[int, Ge(1), Le(UINT32_MAX)] = 2**31 - 1
    """The most credits that one call may add. A token or the identities file may set a lower
    limit. More are rejected as CREDITS_LIMIT_EXCEEDED."""

    settle_per_second: Annotated[float, Ge(1), Le(100_000)] = 200.0
    """How many apps of users per second the server settles: it writes entries that are due by time,
    such as the end of a grant. Balances are correct before that too. One server at a time does this
    work."""

    begin_hash_chains: bool = True
    """Whether a user's entries in an app get hashes if none has one yet. An entry after one with a
    hash always gets one. Turn it off while servers of 0.3.0 run: these cannot read the account of a
    user with hashes."""

    user_ids_from: Annotated[int, Ge(1), Le(UINT32_MAX)] = USER_IDS_FROM
    """Least number that is assigned to a user with a text id. Set it above all numbers that apps
    assign to their users themselves. A lower value than before has no effect."""


class WebhookSettings(Settings):
    """Which URLs webhooks may have."""

    title: ClassVar[str] = "Webhooks"

    webhook_allow_private: bool = False
    """Whether webhooks may have private, loopback and link-local addresses, and http URLs. Set it
    only if you trust every identity that may set webhooks: the server then sends requests into its
    own network."""


class ServerSettings(
    TelemetrySettings, WebhookSettings, WriteSettings, AccessSettings, StoreSettings
):
    """All settings of `credit-server serve`."""

    title: ClassVar[str] = "Address and stop"

    host: str = "127.0.0.1"
    """Address to listen on, or unix:PATH for a Unix domain socket, which needs no port."""

    port: Annotated[int, Ge(0), Le(65535)] = 50051
    """Port to listen on; 0: any free port."""

    workers: Annotated[int, Ge(1), Le(256), BeforeValidator(_cpus_if_auto)] = 1
    """Processes that serve calls (Linux). auto: one for each CPU that the server may use. A
    supervisor process starts them, spreads connections evenly and replaces workers that die. Each
    gets an equal part of the limits on rates and on connections; other limits are per worker."""

    drain_seconds: Annotated[float, Ge(0), Le(3600)] = 2.0
    """Time that a server that stops still accepts connections and calls, while its health reports
    NOT_SERVING. Set more than the interval of the load balancer's health checks."""

    grace_seconds: Seconds = 20.0
    """Time that running calls then have to finish."""

    http2: Engine = Engine.AUTO
    """Library that reads and writes HTTP/2: nghttp2 (credit-server[fast]) takes about half the
    CPU of h2 for a call. auto: nghttp2 if it is installed, else h2."""

    access: Annotated[AccessLimits, _ACCESS] = AccessLimits()
    call: Annotated[CallLimits, _CALLS] = CallLimits()
    commit: Annotated[CommitLimits, _COMMIT] = CommitLimits()
    connection: Annotated[ConnectionLimits, _CONNECTION] = ConnectionLimits()

    @field_validator("host")
    @classmethod
    def _socket_has_a_path(cls, host: str) -> str:
        socket_path(host)
        return host

    @field_validator("workers")
    @classmethod
    def _system_can_pass_connections(cls, workers: int) -> int:
        if workers > 1 and sys.platform != "linux":
            raise ValueError("more than one worker requires Linux; set it to 1")
        return workers

    @field_validator("http2")
    @classmethod
    def _engine_is_installed(cls, engine: Engine) -> Engine:
        chosen(engine)
        return engine

    def of_one_worker(self) -> Self:
        """Return the settings of one worker, with its part of the server's limits.

        Rates and connections are limits of the server. What may run or wait at once is a limit of a
        process: each worker has all of it.
        """
        access, connection = self.access, self.connection
        return self.model_copy(
            update={
                "access": replace(
                    access,
                    calls_per_second=access.calls_per_second / self.workers,
                    failures_per_second=access.failures_per_second / self.workers,
                ),
                "connection": replace(
                    connection,
                    connections_max=ceil(connection.connections_max / self.workers),
                    connections_per_peer_max=ceil(
                        connection.connections_per_peer_max / self.workers
                    ),
                ),
            }
        )

    @model_validator(mode="after")
    def _limits_follow_others(self) -> Self:
        """Set the limits that depend on settings.

        With the default settings, the limits keep the defaults of the classes that define them.
        """
        # An identity with slow calls leaves three quarters of the calls to others.
        running_max = max(1, self.call.calls_max // 4)
        self.access = replace(self.access, calls_running_max=running_max)
        # An installation that allows longer waits has a slow machine or a slow store.
        lag = max(self.call.loop_lag_seconds_max, 2 * self.commit.wait_seconds_max)
        self.call = replace(self.call, loop_lag_seconds_max=lag)
        # A list may wait for its turn, and then for two answers of the store.
        stalled = LIST_WAIT_SECONDS_MAX + 2 * self.store_timeout_seconds
        stalled = max(self.connection.stalled_seconds, stalled)
        self.connection = replace(self.connection, stalled_seconds=stalled)
        return self

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        if self.insecure or is_loopback(self.host):
            return self
        missing = []
        if self.tls_certificate is None:
            missing.append("no TLS (set CREDIT_TLS_CERTIFICATE and CREDIT_TLS_KEY)")
        if not self.has_identities:
            missing.append("no identities (set CREDIT_TOKEN_KEYS or CREDIT_IDENTITIES_FILE)")
        if missing:
            raise ValueError(
                f"CREDIT_HOST {self.host} can be reached from other machines, and the server has"
                f" {' and '.join(missing)}: set them, listen on 127.0.0.1, or, where the network"
                " itself is trusted, pass --insecure (CREDIT_INSECURE=true)"
            )
        return self


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if host == "localhost" or socket_path(host) is not None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
