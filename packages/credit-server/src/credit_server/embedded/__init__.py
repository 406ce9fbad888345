"""A private MongoDB for a server that was given none: one `mongod`, one node, one directory.

`mongod` is the process's life, `executable` finds the program, `data_directory` guards the files,
`process` runs it, `orphan` ends one that outlived its server, `diagnosis` says why one failed,
`running` finds that of a server which runs.
"""

from credit_server.embedded.errors import (
    DataDirectoryInUse,
    EmbeddedError,
    MongodFailed,
    MongodNotFound,
)
from credit_server.embedded.executable import find_mongod
from credit_server.embedded.mongod import EmbeddedMongod
from credit_server.embedded.running import has_database, running_uri

__all__ = [
    "DataDirectoryInUse",
    "EmbeddedError",
    "EmbeddedMongod",
    "MongodFailed",
    "MongodNotFound",
    "find_mongod",
    "has_database",
    "running_uri",
]
