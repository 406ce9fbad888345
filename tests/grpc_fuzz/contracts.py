"""The contracts of the tests, compiled from the .proto files of this folder."""

import tempfile
from functools import lru_cache
from pathlib import Path

from grpc_fuzz.adapters import CustomErrorOptions, CustomFieldOptions, CustomOptions
from grpc_fuzz.schema import Schema
from grpc_tools import protoc  # type: ignore[import-untyped]  # it ships no types

_HERE = Path(__file__).parent
_RULES = ("minimum", "maximum", "length_min", "length_max", "required")

SHOP_OPTIONS = CustomOptions(
    field_options=CustomFieldOptions(extension="shop.v1.rule", map={name: name for name in _RULES}),
    error_options=CustomErrorOptions(
        extension="shop.v1.errors",
        rule="shop.v1.refusal",
        reason_prefix="REASON_",
        metadata="metadata",
        details="details",
    ),
)


@lru_cache
def image_of(name: str) -> bytes:
    """Return the FileDescriptorSet of a file of this folder, with all imports."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        # protoc's own standard types come with grpcio-tools.
        standard = Path(protoc.__file__).parent / "_proto"
        paths = [f"-I{_HERE}", f"-I{standard}"]
        assert protoc.main(["protoc", *paths, "--include_imports", f"-o{image}", name]) == 0
        return image.read_bytes()


@lru_cache
def features_schema() -> Schema:
    """Return a contract with every feature that a descriptor can have."""
    return Schema.from_image(image_of("features.proto"))


@lru_cache
def shop_schema() -> Schema:
    """Return the contract of the shop, with its rules and errors."""
    return Schema.from_image(image_of("shop.proto"), [SHOP_OPTIONS])


@lru_cache
def jobs_schema() -> Schema:
    """Return the contract of the job service."""
    return Schema.from_image(image_of("jobs.proto"))
