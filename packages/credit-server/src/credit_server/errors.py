"""The errors of a server that cannot start or continue; each message states what to do.

    Exception
    ├── StartError              the port is taken, or something else on the machine prevents a start
    │   └── WorkerFailed        a worker ended before it served
    ├── PartFailed              a part of the running server ended because of a bug
    ├── StoreError              (store.port) StoreMisconfigured, SchemaTooNew, StoreUnavailable
    └── EmbeddedError           the embedded mongod: none found, directory in use, failed

The errors of a single call are in `commit.errors`, `access.identity` and `api.errors`.
"""


class StartError(Exception):
    """The server cannot start. The message states what to do."""


class WorkerFailed(StartError):
    """A worker ended before it served.

    Attributes:
        status: Its exit status, or minus the number of the signal that ended it. If the status is
            above 0, the worker has printed the reason.
    """

    def __init__(self, number: int, ending: str, status: int) -> None:
        super().__init__(f"Worker {number} ended before it served: {ending}.")
        self.status = status


class EmbeddedError(Exception):
    """The embedded `mongod` cannot serve. Its kinds are in `embedded.errors`."""


class PartFailed(Exception):
    """A part of the server failed while it was serving, so the server has stopped.

    Attributes:
        part: The name of the part.
    """

    def __init__(self, part: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        super().__init__(
            f"The server has stopped because a part of it failed: {part} ({reason}). Every write"
            " that was acknowledged is stored. Start the server again, and report the error in the"
            " log as a bug."
        )
        self.part = part
