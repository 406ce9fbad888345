"""Compiling the tests' contracts."""

import tempfile
from functools import lru_cache
from pathlib import Path

from grpc_fuzz.schema import Schema
from grpc_tools import protoc  # type: ignore[import-untyped]  # it ships no types

_HERE = Path(__file__).parent


@lru_cache
def image_of(name: str) -> bytes:
    """The FileDescriptorSet of a file of this folder, with all imports."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        # protoc's own standard types come with grpcio-tools.
        standard = Path(protoc.__file__).parent / "_proto"
        paths = [f"-I{_HERE}", f"-I{standard}"]
        assert protoc.main(["protoc", *paths, "--include_imports", f"-o{image}", name]) == 0
        return image.read_bytes()


@lru_cache
def features() -> Schema:
    """A contract with every feature that a descriptor can have."""
    return Schema.from_image(image_of("features.proto"))
