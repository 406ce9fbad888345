"""How writes are gathered and committed."""

from typing import Annotated

from pydantic import BaseModel, Field

from credit_server.ledger import UINT32_MAX
from credit_server.settings.units import Count, Seconds


class CommitSettings(BaseModel):
    """How writes are gathered and committed."""

    # A negative number of 32 bits arrives as at least 2**31: the default rejects all of them.
    credits_max: int = Field(
        default=2**31 - 1,
        ge=1,
        le=UINT32_MAX,
        description="the most credits that one call may add; a token or the identities file may"
        " set a lower limit. More are rejected as CREDITS_LIMIT_EXCEEDED",
    )
    commit_lanes: int = Field(
        default=2, ge=1, le=64, description="batches of writes that may be in flight at once"
    )
    commit_waiting_max: Count = Field(
        default=4096,
        description="writes that may be without an answer, shared equally by the lanes; more are"
        " refused as OVERLOADED",
    )
    commit_wait_seconds_max: Seconds = Field(
        default=0.5,
        description="how long a write may be expected to wait; more are refused as OVERLOADED",
    )
    commit_batch_max: int = Field(
        default=256, ge=1, le=1000, description="writes that share one transaction of the store"
    )
    commit_retry_seconds: Seconds = Field(
        default=10.0,
        description="how long a batch, with all its parts, is retried while the store is contended"
        " or silent",
    )
    clock_skew_seconds_max: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        default=2.0,
        description="by how much this machine's clock and the store's may differ; beyond that,"
        " writes are refused as CLOCK_SKEWED and health is NOT_SERVING until they agree again",
    )
    commit_cache_max: Annotated[int, Field(ge=0, le=100_000_000)] = Field(
        default=100_000, description="accounts, and idempotency keys, that are remembered"
    )
