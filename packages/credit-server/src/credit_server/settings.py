"""The server's settings: environment variables `CREDIT_*`, or options of `credit-server serve`."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class StoreSettings(BaseSettings):
    """Where the ledger is kept."""

    model_config = SettingsConfigDict(
        env_prefix="CREDIT_",
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        extra="ignore",
    )

    mongodb_uri: SecretStr | None = Field(
        default=None,
        description="MongoDB connection string of a replica set or sharded cluster;"
        " none: an embedded mongod of the server's own",
    )
    mongodb_database: str = Field(
        default="credit", min_length=1, max_length=63, description="name of the database"
    )
    data_dir: Path = Field(
        default=Path(".credit-data"), description="where the embedded mongod keeps its data"
    )
    store_timeout_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=300,
        description="how long to look for the store's primary, and to wait for each of its answers",
    )

    @model_validator(mode="after")
    def _store_is_named_or_not(self) -> Self:
        # An empty secret of a deployment must not start an empty ledger.
        if self.mongodb_uri is None and os.environ.get("CREDIT_MONGODB_URI") == "":
            raise ValueError(
                "CREDIT_MONGODB_URI is set and empty: name a replica set, or unset it for the"
                " embedded store"
            )
        return self


class ServerSettings(StoreSettings):
    """All that `credit-server serve` can be told."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=50051, ge=0, le=65535, description="port to listen on; 0: one that is free"
    )
    insecure: bool = Field(
        default=False, description="listen without TLS on an address that is not loopback"
    )
    message_bytes_max: int = Field(
        default=1_048_576, ge=1024, le=2**31 - 1, description="longest request that is taken in"
    )
    list_page_size: Count = Field(
        default=1000, description="entries of a list that are read and held at a time"
    )
    commit_lanes: int = Field(
        default=2, ge=1, le=64, description="batches of writes that may be in flight at once"
    )
    commit_waiting_max: Count = Field(
        default=4096,
        description="writes that may be without an answer, shared equally by the lanes; more are"
        " refused as OVERLOADED",
    )
    commit_batch_max: int = Field(
        default=256, ge=1, le=1000, description="writes that share one transaction of the store"
    )
    commit_retry_seconds: Seconds = Field(
        default=10.0,
        description="how long a batch is tried again while the store is contended or silent",
    )
    commit_cache_max: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        default=100_000, description="accounts, and idempotency keys, that are remembered"
    )
    health_interval_seconds: Seconds = Field(
        default=2.0, description="how often the store is asked whether it takes writes"
    )
    grace_seconds: Seconds = Field(
        default=20.0, description="how long running calls have to finish when the server stops"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console at a terminal, JSON otherwise"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged; calls are logged at info"
    )

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        if not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"CREDIT_HOST {self.host} can be reached from other machines, and the server has"
                " no TLS and no identities yet: listen on 127.0.0.1, or say --insecure"
                " (CREDIT_INSECURE=true) where the network itself is trusted"
            )
        return self


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
