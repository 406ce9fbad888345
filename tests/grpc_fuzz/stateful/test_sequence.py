"""A value is linked to the response that it came from first."""

from grpc_fuzz.model import Case, Reply
from grpc_fuzz.stateful.sequence import CallSequence
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from tests.grpc_fuzz.contracts import shop_schema

SCHEMA = shop_schema()
PUT, GET = (SCHEMA.method(f"/shop.v1.Orders/{name}") for name in ("Put", "Get"))
ID = "0123456789abcdef0123456789abcdef"


@given(data=st.data())
def test_a_request_that_repeats_a_value_is_not_its_source(
    data: DataObject,
) -> None:
    order = SCHEMA.message_class(PUT.output)(id=ID).SerializeToString()
    repeated = SCHEMA.message_class(GET.input)(order_id=ID).SerializeToString()
    calls = CallSequence(SCHEMA, ())
    put, get = (
        Case(method=method, phase="stateful", positive=True, requests=(request,))
        for method, request in ((PUT, b""), (GET, repeated))
    )
    calls.add(put, Reply(status="OK", responses=(order,)))
    calls.add(get, Reply(status="NOT_FOUND"))

    case = calls.draw(GET, data)

    if case.requests == (repeated,):
        assert [binding.call for binding in case.bindings] == [0]
