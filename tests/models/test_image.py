"""The image contains the contract, in a private descriptor pool."""

import subprocess
import sys

import pytest
from credit_models.image import (
    FILE_DESCRIPTOR_SET,
    POOL,
    SERVICES,
    full_names,
    message_class,
    method_path,
    option,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto


def test_each_file_comes_after_those_that_it_imports() -> None:
    seen: set[str] = set()
    for file in FILE_DESCRIPTOR_SET.file:
        assert seen.issuperset(file.dependency)
        seen.add(file.name)
    assert {
        "credit/v1/credit.proto",
        "credit/v1/error_reason.proto",
        "credit/options/v1/options.proto",
    } <= seen


def test_the_image_contains_no_comments_and_no_fields_of_buf() -> None:
    for file in FILE_DESCRIPTOR_SET.file:
        assert not file.HasField("source_code_info")
        stripped = FileDescriptorProto.FromString(file.SerializeToString())
        stripped.DiscardUnknownFields()
        if not file.package.startswith("credit"):  # our options are unknown to Google's class
            assert stripped == file


# Registers another file with the contract's name, as a user's own protoc output does.
OTHER_CONTRACT = """
import credit_models.codec, credit_models.reasons, credit_models.constraints
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
other = FileDescriptorProto(name="credit/v1/credit.proto", package="credit.v1")
other.message_type.add(name="UserId")
Default().AddSerializedFile(other.SerializeToString())
"""


def test_googles_default_pool_remains_free_for_the_user() -> None:
    # A process of its own, because the default pool is shared and keeps what is registered.
    subprocess.run([sys.executable, "-c", OTHER_CONTRACT], check=True)


def test_a_message_class_is_created_once() -> None:
    assert message_class("credit.v1.UserId") is message_class("credit.v1.UserId")


def test_an_unknown_message_raises_key_error() -> None:
    with pytest.raises(KeyError):
        message_class("credit.v1.Nonsense")


def test_options_are_read_from_fields_methods_services_and_enum_values() -> None:
    user_id = POOL.FindMessageTypeByName("credit.v1.UserId").fields_by_name["user_id"]
    assert option(user_id, "credit.options.v1.constraint").maximum == 2**32 - 1
    method = POOL.FindMethodByName("credit.v1.CreditService.GetUserCredits")
    assert list(option(method, "credit.v1.errors")) == [1, 60, 6, 7, 66]
    assert [service.name for service in SERVICES] == [
        "AlertService",
        "CreditService",
        "DirectoryService",
        "HistoryService",
        "LedgerService",
    ]
    for service in SERVICES:
        assert list(option(service, "credit.v1.access_errors")) == [9, 10, 11, 12, 13]
    assert method_path(method) == "/credit.v1.CreditService/GetUserCredits"
    value = POOL.FindEnumTypeByName("credit.v1.ErrorReason").values_by_number[6]
    assert option(value, "credit.options.v1.error").retryable


def test_an_option_that_is_not_set_is_none() -> None:
    balance = POOL.FindMessageTypeByName("credit.v1.Balance").fields_by_name["balance"]
    assert option(balance, "credit.options.v1.constraint") is None
    unspecified = POOL.FindEnumTypeByName("credit.v1.ErrorReason").values_by_number[0]
    assert option(unspecified, "credit.options.v1.error") is None


def test_generated_classes_map_to_the_contracts_names() -> None:
    from credit_models import UserId
    from credit_models._generated.message_pool import default_message_pool

    assert full_names(default_message_pool)[UserId] == "credit.v1.UserId"
