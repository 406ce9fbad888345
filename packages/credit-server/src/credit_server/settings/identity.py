"""How callers are known: TLS, tokens, certificates."""

from pydantic import BaseModel, Field


class IdentitySettings(BaseModel):
    """How callers are known."""

    insecure: bool = Field(
        default=False, description="listen without TLS on an address that is not loopback"
    )
