"""The gRPC side of the server. Wire types stop here."""
