"""How callers are known: TLS, tokens, certificates."""

from typing import Annotated

from pydantic import BaseModel, Field

from credit_server.settings.units import Count

Rate = Annotated[float, Field(ge=0, le=1_000_000)]


class IdentitySettings(BaseModel):
    """How callers are known."""

    insecure: bool = Field(
        default=False, description="listen without TLS on an address that is not loopback"
    )
    rate_per_second: Rate = Field(
        default=1000.0,
        description="calls that an identity may make per second, on average, of this server;"
        " 0: any number",
    )
    rate_burst: Count = Field(default=2000, description="calls that an identity may make at once")
    failures_per_second: Rate = Field(
        default=10.0,
        description="failed authentications that a peer address may have per second, on average;"
        " what comes beyond is refused unexamined; 0: any number",
    )
    failures_burst: Count = Field(
        default=100, description="failed authentications that a peer address may have at once"
    )
    rate_names_max: Count = Field(
        default=10_000, description="identities, and addresses, whose rates are kept count of"
    )
