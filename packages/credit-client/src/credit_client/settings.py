"""The settings of a client: arguments first, then `CREDIT_*` variables, then defaults."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from credit_models.http2_engine import Engine, chosen
from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from credit_client.bearer import check_token
from credit_client.keepalive import KEEPALIVE_TIMES
from credit_client.target import Target

TIMEOUT_SECONDS_MAX = 86_400.0
_CONNECT_SECONDS_MIN = 1.0

_Seconds = Annotated[float, Field(gt=0, le=TIMEOUT_SECONDS_MAX, allow_inf_nan=False)]


class Streams(StrEnum):
    """The values of `streams`."""

    AUTO = "auto"
    OFF = "off"


def _sendable(token: SecretStr) -> SecretStr:
    check_token(token.get_secret_value())
    return token


class ClientSettings(BaseSettings):
    """How a client reaches its server and how it retries calls.

    Attributes:
        target: Where the server listens: `host:port`, `[::1]:port`, a host name,
            `dns:///host:port`, or `unix:path` and `unix:///absolute/path` for a Unix domain socket.
        timeout_seconds: The time of a whole call, with all its attempts and the waits between them.
            Of a list: the time until each next message.
        retry_attempts_max: How often a call is sent at most, the first time included. 1: nothing is
            retried, not even a connection that cannot be opened.
        retry_backoff_initial_seconds: The longest wait before the second attempt; it doubles with
            each attempt. The wait itself is random, from 0 to that. Attempts to connect wait at
            least half of it.
        retry_backoff_max_seconds: Where the doubling ends.
        retry_budget_tokens: A failed attempt takes one token, a lost connection one for all its
            calls; below half of them nothing is retried, so that retries do not overload a server
            that fails. A connection that cannot be opened takes none: nothing was sent.
        retry_budget_ratio: The tokens that a successful call returns.
        channels: The number of connections that calls are spread over. Where the target's name has
            several addresses, the connections are spread over these.
        connect_timeout_seconds: The time to open a connection, at most; see
            `connect_within_seconds`.
        wait_for_ready: Whether a call waits, for as long as it has time, for a server that cannot
            be reached (gRPC's term). False: it then fails once `retry_attempts_max` attempts to
            connect have failed.
        keepalive_seconds: How often the server gets a PING while calls wait on a connection.
        keepalive_timeout_seconds: How long the server may be silent after a PING. After that the
            connection is closed, and its calls are retried on a new one.
        http2: The library for HTTP/2: nghttp2 (the extra `fast`) takes about half the CPU of h2 for
            a call. auto: nghttp2 if it is installed, else h2.
        streams: Whether concurrent writes of a connection share a stream, which takes less CPU of
            client and server. auto: they do, where the server and every proxy on the way have such
            streams. A write alone, with a request id of the app's or in a trace is always a call.
        users_app_id: The app whose directory has the users that `user_id` names by text; None: the
            app of each call. Apps that share users set the same app.
        token: Sent with each call as `authorization: Bearer …`, to identify the caller.
        token_file: A file that holds the token instead; it is read again when it has changed.
        token_insecure: Whether a token may be sent without TLS to another machine. It can be read
            on its way.
        tls: Whether connections are encrypted, with the system's CAs. Any of the files below
            implies it.
        tls_ca: PEM file with the CAs that may sign the server's certificate, instead of the
            system's.
        tls_client_certificate: PEM file with the client's own certificate and its chain.
        tls_client_key: PEM file with its key; None if the certificate's file holds it too.
    """

    # pydantic's own errors must not contain values, because a value may be a token.
    model_config = SettingsConfigDict(
        env_prefix="CREDIT_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    target: str = "localhost:50051"
    timeout_seconds: _Seconds = 10.0
    retry_attempts_max: Annotated[int, Field(ge=1, le=100)] = 8
    retry_backoff_initial_seconds: _Seconds = 0.05
    retry_backoff_max_seconds: _Seconds = 2.0
    retry_budget_tokens: Annotated[float, Field(gt=0, le=1000)] = 100.0
    retry_budget_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    channels: Annotated[int, Field(ge=1, le=64)] = 2
    connect_timeout_seconds: _Seconds = 5.0
    wait_for_ready: bool = True
    keepalive_seconds: _Seconds = KEEPALIVE_TIMES.period_seconds
    keepalive_timeout_seconds: _Seconds = KEEPALIVE_TIMES.timeout_seconds
    http2: Engine = Engine.AUTO
    streams: Streams = Streams.AUTO
    users_app_id: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    token: Annotated[SecretStr, AfterValidator(_sendable)] | None = None
    token_file: Path | None = None
    token_insecure: bool = False
    tls: bool = False
    tls_ca: Path | None = None
    tls_client_certificate: Path | None = None
    tls_client_key: Path | None = None

    @property
    def connect_within_seconds(self) -> float:
        """The time to open a connection: at most half of a call's, but a second in any case.

        A call that meets a silent address has the other half for another one. Where calls have less
        than two seconds, a connection that takes longer than a call serves the calls after it.
        """
        half = self.timeout_seconds / 2
        return min(self.connect_timeout_seconds, max(half, _CONNECT_SECONDS_MIN))

    @property
    def encrypted(self) -> bool:
        """Whether connections are made with TLS."""
        return self.tls or self.tls_ca is not None or self.tls_client_certificate is not None

    @field_validator("target")
    @classmethod
    def _target_is_an_address(cls, value: str) -> str:
        Target.parse(value)
        return value

    @field_validator("http2")
    @classmethod
    def _engine_is_installed(cls, value: Engine) -> Engine:
        chosen(value)
        return value

    @model_validator(mode="after")
    def _backoff_grows(self) -> Self:
        if self.retry_backoff_max_seconds < self.retry_backoff_initial_seconds:
            raise ValueError(
                "retry_backoff_max_seconds must not be below retry_backoff_initial_seconds"
            )
        return self

    @model_validator(mode="after")
    def _credentials_fit_together(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both given: give one")
        if self.tls_client_key is not None and self.tls_client_certificate is None:
            raise ValueError("tls_client_key is given without tls_client_certificate")
        if self.token_insecure and self.encrypted:
            raise ValueError(
                "token_insecure is for connections without TLS; with it, certificates are always"
                " verified"
            )
        return self
