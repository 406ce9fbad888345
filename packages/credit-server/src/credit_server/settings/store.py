"""Where the ledger is kept."""

import os
from pathlib import Path
from typing import Annotated, ClassVar, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import SecretStr, field_validator, model_validator

from credit_server.settings.fields import Settings


class StoreSettings(Settings):
    """Where the ledger is kept: the settings of `credit-server migrate`."""

    title: ClassVar[str] = "Store"

    mongodb_uri: SecretStr | None = None
    """MongoDB connection string of a replica set or sharded cluster. Without one the server runs
    an embedded mongod. Put a connection string with a password into the variable or a file, not
    on the command line."""

    mongodb_uri_file: Path | None = None
    """File that holds the connection string, instead of --mongodb-uri."""

    mongodb_database: Annotated[str, MinLen(1), MaxLen(63)] = "credit"
    """Name of the database."""

    data_dir: Path = Path(".credit-data")
    """Folder where the embedded mongod keeps its data."""

    store_timeout_seconds: Annotated[float, Ge(0.1), Le(300)] = 5.0
    """Time to look for the store's primary, and to wait for each of its answers."""

    @field_validator("data_dir")
    @classmethod
    def _expanded(cls, path: Path) -> Path:
        try:
            return path.expanduser()
        except RuntimeError:
            raise ValueError(
                f"the home directory {path.parts[0]} does not exist: write the full path"
            ) from None

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
        # A deployment whose secret is empty must not start an empty ledger.
        for variable in ("CREDIT_MONGODB_URI", "CREDIT_MONGODB_URI_FILE"):
            if self.mongodb_uri is None and os.environ.get(variable) == "":
                raise ValueError(
                    f"{variable} is set and empty: name a replica set, or unset the variable to"
                    " use the embedded store"
                )
        return self
