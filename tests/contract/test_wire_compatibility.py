"""Today's models read the bytes of every released contract, and every release reads today's."""

from collections.abc import Mapping
from typing import Any

import pytest
from contract_check.buf import build_image
from contract_check.image import Image
from credit_models import CreditTransaction
from credit_models.codec import decode, encode
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.conftest import Copy
from tests.contract.released_images import EVERY_RELEASE, TODAY, message_names, model
from tests.contract.strategies import messages

EVERY_MESSAGE = [
    pytest.param(param.values[0], name, id=f"{param.id}-{name}")
    for param in EVERY_RELEASE
    for name in message_names(param.values[0])  # type: ignore[arg-type]  # pytest's params are objects
]
EXAMPLES = settings(max_examples=10, deadline=None)


# Any: a value has the type of its field.
def _values(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message,
        preserving_proto_field_name=True,
        use_integers_for_enums=True,
        always_print_fields_with_no_presence=True,
    )


def _is_part(part: object, whole: object) -> bool:
    """Return whether `whole` has all values of `part`; it may have further fields."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(name in whole and _is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_is_part, part, whole))
    return part == whole


def _through_todays_models(name: str, data: bytes) -> bytes:
    return encode(decode(model(name), data))


@pytest.mark.parametrize(("released", "name"), EVERY_MESSAGE)
@given(data=st.data())
@EXAMPLES
def test_todays_models_read_what_a_release_writes(
    released: Image, name: str, data: st.DataObject
) -> None:
    written = data.draw(messages(released.messages[name]))
    answered = _through_todays_models(name, written.SerializeToString())
    assert released.message_class(name).FromString(answered) == written


@pytest.mark.parametrize(("released", "name"), EVERY_MESSAGE)
@given(data=st.data())
@EXAMPLES
def test_a_release_reads_what_todays_models_write(
    released: Image, name: str, data: st.DataObject
) -> None:
    written = data.draw(messages(TODAY.messages[name]))
    sent = _through_todays_models(name, written.SerializeToString())
    read = released.message_class(name).FromString(sent)
    assert _is_part(_values(read), _values(written))


@pytest.fixture
def newer(copy: Copy) -> Image:
    """Return a later contract: with a new field that contains messages and a new enum value."""
    copy.edit(
        "  TRANSACTION_TYPE_USE = 2;\n",
        "  TRANSACTION_TYPE_USE = 2;\n  // Lent.\n  TRANSACTION_TYPE_LOAN = 77;\n",
    )
    copy.edit(
        "  string purchase_id = 10 ",
        "  // New.\n  repeated Balance others = 100;\n\n  // Old.\n  string purchase_id = 10 ",
    )
    return Image(build_image(copy.contracts, source_info=False))


def test_an_unknown_enum_value_keeps_its_number(newer: Image) -> None:
    made = newer.message_class("credit.v1.CreditTransaction")(id="t", type="TRANSACTION_TYPE_LOAN")
    read = decode(CreditTransaction, made.SerializeToString())
    assert (read.id, int(read.type)) == ("t", 77)
    assert encode(read) == made.SerializeToString()


def test_an_unknown_field_is_dropped(newer: Image) -> None:
    written = newer.message_class("credit.v1.CreditTransaction")
    made = written(id="t", sequence=3, others=[{"app_id": 1, "balance": 2}])
    read = decode(CreditTransaction, made.SerializeToString())
    assert read == CreditTransaction(id="t", sequence=3)
    assert written.FromString(encode(read)) == written(id="t", sequence=3)


def test_a_contract_with_another_wire_format_would_be_detected(copy: Copy) -> None:
    copy.edit("  uint32 balance = 2;\n", "  uint32 balance = 60;\n")
    other = Image(build_image(copy.contracts, source_info=False))
    written = TODAY.message_class("credit.v1.Balance")(app_id=1, balance=2)
    read = other.message_class("credit.v1.Balance").FromString(written.SerializeToString())
    assert not _is_part(_values(read), _values(written))
