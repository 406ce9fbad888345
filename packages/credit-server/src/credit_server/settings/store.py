"""Where the ledger is kept."""

import os
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
        " none: an embedded mongod of the server's own. One with a password belongs into the"
        " variable or a file",
    )
    mongodb_uri_file: Path | None = Field(
        default=None, description="file that holds the connection string, instead of mongodb_uri"
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
    def _uri_from_its_file(self) -> Self:
        if self.mongodb_uri_file is None:
            return self
        if self.mongodb_uri is not None:
            raise ValueError("CREDIT_MONGODB_URI and CREDIT_MONGODB_URI_FILE are both set: set one")
        try:
            uri = self.mongodb_uri_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ValueError(
                f"CREDIT_MONGODB_URI_FILE {self.mongodb_uri_file} cannot be read: {reason}"
            ) from None
        if not uri:
            raise ValueError(
                f"CREDIT_MONGODB_URI_FILE {self.mongodb_uri_file} is empty: write the connection"
                " string into it"
            )
        self.mongodb_uri = SecretStr(uri)
        return self

    @model_validator(mode="after")
    def _store_is_named_or_not(self) -> Self:
        # An empty secret of a deployment must not start an empty ledger.
        for variable in ("CREDIT_MONGODB_URI", "CREDIT_MONGODB_URI_FILE"):
            if self.mongodb_uri is None and os.environ.get(variable) == "":
                raise ValueError(
                    f"{variable} is set and empty: name a replica set, or unset it for the"
                    " embedded store"
                )
        return self
