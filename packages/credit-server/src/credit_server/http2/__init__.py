"""HTTP/2: connections, frames and streams. Knows neither gRPC nor credits."""

import credit_server.http2.private_names  # noqa: F401 - before what relies on them
