"""A private MongoDB for a server without a database of its own: one `mongod` on one directory.

`mongod` starts and stops it, `process` finds and runs the program, `data_directory` guards the
files, `running` finds a `mongod` that runs already, and `errors` explains why one failed.
"""

from credit_server.embedded.errors import (
    DataDirectoryInUse,
    MongodFailed,
    MongodNotFound,
    NoDatabase,
)
from credit_server.embedded.mongod import FREE_BYTES_MIN, EmbeddedMongod, open_uri
from credit_server.embedded.process import MONGOD_REMEDY, find_mongod
from credit_server.embedded.running import has_database, running_uri
from credit_server.errors import EmbeddedError

__all__ = [
    "FREE_BYTES_MIN",
    "MONGOD_REMEDY",
    "DataDirectoryInUse",
    "EmbeddedError",
    "EmbeddedMongod",
    "MongodFailed",
    "MongodNotFound",
    "NoDatabase",
    "find_mongod",
    "has_database",
    "open_uri",
    "running_uri",
]
