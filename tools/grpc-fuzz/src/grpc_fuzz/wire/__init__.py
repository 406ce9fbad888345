"""Cases that no gRPC client sends, on a raw HTTP/2 connection."""
