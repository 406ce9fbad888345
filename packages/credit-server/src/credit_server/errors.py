"""Why the server cannot start or go on; each message says what to do.

    Exception
    ├── StartError              the port is taken, or another thing of the machine's is in the way
    ├── StoreError              (store.port) StoreMisconfigured, SchemaTooNew, StoreUnavailable
    └── EmbeddedError           (embedded) the embedded mongod: none found, directory in use, failed

What goes wrong with a single call is in `commit.errors` and `transport.refusal`.
"""


class StartError(Exception):
    """The server cannot start. The message says what to do."""
