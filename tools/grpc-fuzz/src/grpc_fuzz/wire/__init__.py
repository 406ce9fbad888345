"""What no gRPC client would send: cases on a raw HTTP/2 connection."""

from grpc_fuzz.wire.phase import catalogue, run
from grpc_fuzz.wire.play import play

__all__ = ["catalogue", "play", "run"]
