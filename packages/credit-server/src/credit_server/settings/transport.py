"""Where the server listens, and what it takes from whom."""

from pydantic import Field

from credit_server.settings.connection import ConnectionSettings
from credit_server.settings.units import Count, Seconds


class TransportSettings(ConnectionSettings):
    """Where the server listens, and what it takes from whom."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=50051, ge=0, le=65535, description="port to listen on; 0: one that is free"
    )
    message_bytes_max: int = Field(
        default=1_048_576, ge=1024, le=2**31 - 1, description="longest request that is taken in"
    )
    list_page_size: Count = Field(
        default=1000, description="entries of a list that are read and held at a time"
    )
    grace_seconds: Seconds = Field(
        default=20.0, description="how long running calls have to finish when the server stops"
    )
