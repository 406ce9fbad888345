"""What can go wrong with the embedded `mongod`; every message says what to do.

EmbeddedError
├── MongodNotFound      the machine has none: the operator installs one
├── DataDirectoryInUse  somebody else holds the data: the operator stops them or picks another place
└── MongodFailed        `mongod` did not start, or the data directory cannot be used

The three are named after the condition, without `Error` at the end, like the refusals elsewhere.
"""


class EmbeddedError(Exception):
    """The embedded `mongod` cannot serve."""


class MongodNotFound(EmbeddedError):
    """No `mongod` on PATH, and none installed with the `embedded` extra."""


class DataDirectoryInUse(EmbeddedError):
    """Another live process holds the data directory."""


class MongodFailed(EmbeddedError):
    """`mongod` was started and ended or hung before it could serve."""
