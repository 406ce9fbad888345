"""The contract is read from an image, with its methods and rules."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_fuzz.errors import SchemaError
from grpc_fuzz.schema import Schema

from tests.grpc_fuzz.contracts import features_schema, image_of, shop_schema


def test_methods_are_read_with_their_streaming_and_idempotency() -> None:
    found = {
        method.name: (method.client_streaming, method.server_streaming, method.idempotency)
        for method in features_schema().methods
    }

    assert found == {
        "One": (False, False, "IDEMPOTENCY_UNKNOWN"),
        "Up": (True, False, "IDEMPOTENT"),
        "Down": (False, True, "NO_SIDE_EFFECTS"),
        "Both": (True, True, "IDEMPOTENCY_UNKNOWN"),
        "Unsure": (False, False, "IDEMPOTENCY_UNKNOWN"),
    }


def test_a_method_is_found_by_its_path() -> None:
    assert features_schema().method("/features.v1.Features/Up").name == "Up"
    with pytest.raises(KeyError):
        features_schema().method("/features.v1.Features/Sideways")


def test_files_may_come_in_any_order() -> None:
    files = FileDescriptorSet.FromString(image_of("features.proto"))
    backwards = FileDescriptorSet(file=reversed(files.file))

    assert len(Schema(backwards).methods) == len(features_schema().methods)


def test_an_image_without_an_import_is_rejected() -> None:
    files = FileDescriptorSet.FromString(image_of("features.proto"))
    alone = FileDescriptorSet(file=[file for file in files.file if file.name == "features.proto"])

    with pytest.raises(SchemaError, match=r"features\.proto"):
        Schema(alone)


def test_a_file_that_is_no_image_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="not a FileDescriptorSet"):
        Schema.from_image(b"\x0a\xff")
    with pytest.raises(SchemaError, match="No such file"):
        Schema.from_file(tmp_path / "missing.binpb")


def test_methods_without_declared_errors_declare_nothing() -> None:
    assert features_schema().methods[0].declared is None
    assert features_schema().methods[0].declared_statuses is None


def test_declared_errors_are_read_from_custom_options() -> None:
    declared = {
        error.reason: (error.status, error.metadata, error.details)
        for method in shop_schema().methods
        for error in method.declared or ()
    }

    assert declared["NO_ORDER"] == ("NOT_FOUND", ("order_id",), ())
    assert declared["INVALID"] == ("INVALID_ARGUMENT", (), ("BadRequest",))
