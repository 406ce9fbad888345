"""The gRPC side of the server. Wire types stop here."""

import credit_server.transport.private_names  # noqa: F401 - before what relies on them
