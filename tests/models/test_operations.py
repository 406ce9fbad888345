"""Every write of the contract is an operation, of the kind that the contract names."""

import pytest
from credit_models import Operation
from credit_models.image import POOL
from credit_models.operations import WRITE_TYPES, AnyWrite, kind_of, operation_of, request_of


def test_every_field_of_an_operation_is_the_request_of_a_write() -> None:
    fields = {field.name for field in POOL.FindMessageTypeByName("credit.v1.Operation").fields}
    assert {kind_of(write_type()) for write_type in WRITE_TYPES} == fields
    assert len(WRITE_TYPES) == len(fields)


@pytest.mark.parametrize("write_type", WRITE_TYPES)
def test_a_request_is_the_same_there_and_back(write_type: type[AnyWrite]) -> None:
    request = write_type(app_id=7)
    operation = operation_of(request)
    assert getattr(operation, kind_of(request)) is request
    assert request_of(operation) is request


def test_an_operation_may_be_missing_or_without_a_request() -> None:
    assert request_of(None) is None
    assert request_of(Operation()) is None
