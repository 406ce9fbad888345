"""HTTP/2: connections, frames and streams, without gRPC and without credits."""

import credit_server.http2.private_names  # noqa: F401 - the check comes before the modules that rely on them
