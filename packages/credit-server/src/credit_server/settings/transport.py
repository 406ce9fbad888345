"""Where the server listens, and what it takes from whom."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from credit_server.http2.unix_socket import socket_path
from credit_server.settings.connection import ConnectionSettings
from credit_server.settings.units import Count, Seconds

_PREFIX_BYTES = 5
"""What gRPC writes before each message: whether it is compressed, and its length."""


class TransportSettings(ConnectionSettings):
    """Where the server listens, and what it takes from whom."""

    host: str = Field(
        default="127.0.0.1",
        description="address to listen on; unix:PATH: a Unix domain socket, which needs no port",
    )
    port: int = Field(
        default=50051, ge=0, le=65535, description="port to listen on; 0: one that is free"
    )
    message_bytes_max: int = Field(
        default=1_048_576,
        ge=1024,
        le=2**31 - 1,
        description="longest request that is taken in, inflated where it is compressed",
    )
    calls_max: Count = Field(
        default=2048,
        description="calls that may run at once; more are refused as OVERLOADED",
    )
    call_deadline_seconds: Seconds = Field(
        default=30.0, description="how long a call has whose client sets no deadline"
    )
    stream_deadline_seconds: Seconds = Field(
        default=600.0,
        description="the same for the calls that stream a list; it ends with DEADLINE_EXCEEDED, and"
        " a client continues it with after_sequence, as the SDK does by itself",
    )
    deadline_seconds_max: Seconds = Field(
        default=3600.0, description="longest deadline; a client's longer one is shortened to it"
    )
    loop_lag_seconds_max: Seconds = Field(
        default=1.0,
        description="how late the server's event loop may be; beyond it new calls are refused as"
        " OVERLOADED",
    )
    overload_streams_max: Count = Field(
        default=768,
        description="calls that all clients together may have open while calls are refused;"
        " clients keep back what is more",
    )
    list_page_size: Count = Field(
        default=100,
        description="entries of a list that are read and held at a time; a page is made into"
        " messages at one go, and other calls wait meanwhile",
    )
    list_pages_at_once: Count = Field(
        default=4, description="pages that are read and made into messages at the same time"
    )
    list_wait_seconds_max: Seconds = Field(
        default=5.0,
        description="how long a list may wait for its turn to make a page; beyond it the list is"
        " refused as OVERLOADED",
    )
    drain_seconds: float = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="how long a server that stops still takes in connections and calls, while its"
        " health says NOT_SERVING; more than the interval of the load balancer's health checks",
    )
    grace_seconds: Seconds = Field(
        default=20.0, description="how long running calls then have to finish"
    )

    @field_validator("host")
    @classmethod
    def _socket_has_a_path(cls, host: str) -> str:
        socket_path(host)
        return host

    @model_validator(mode="after")
    def _longest_message_can_arrive(self) -> Self:
        needed = self.message_bytes_max + _PREFIX_BYTES
        if self.connection_request_bytes_max < needed:
            raise ValueError(
                f"no message of CREDIT_MESSAGE_BYTES_MAX {self.message_bytes_max} could arrive on a"
                " connection that holds CREDIT_CONNECTION_REQUEST_BYTES_MAX"
                f" {self.connection_request_bytes_max}: lower the former, or raise the latter to"
                f" {needed} or more"
            )
        return self
