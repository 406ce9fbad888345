"""gRPC on HTTP/2: what a call is, and how it is served. Knows no credits."""
