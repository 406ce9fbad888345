"""Why the server cannot start or go on; each message says what to do.

    Exception
    ├── StartError              the port is taken, or another thing of the machine's is in the way
    ├── PartFailed              a part of the running server ended by a bug
    ├── StoreError              (store.port) StoreMisconfigured, SchemaTooNew, StoreUnavailable
    └── EmbeddedError           (embedded) the embedded mongod: none found, directory in use, failed

What goes wrong with a single call is in `commit.errors`, `access.identity` and `api.errors`.
"""


class StartError(Exception):
    """The server cannot start. The message says what to do."""


class PartFailed(Exception):
    """A part of the server failed while it was serving, so the server has stopped.

    Attributes:
        part: Which part.
    """

    def __init__(self, part: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        super().__init__(
            f"The server has stopped because a part of it failed: {part} ({reason}). Every write"
            " that was acknowledged is stored. Start the server again, and report the error of the"
            " log as a bug."
        )
        self.part = part
