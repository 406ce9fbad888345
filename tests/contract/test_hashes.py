"""The hashes of transactions are those of the contract's examples and of the page's program."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from credit_models import CreditTransaction, TransactionType
from credit_models.codec import decode
from credit_models.hashes import transaction_hash
from credit_models.image import message_class
from credit_testing.pages import blocks
from google.protobuf.json_format import ParseDict

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
EXAMPLES = json.loads((ROOT / "contracts" / "hashes.json").read_text(encoding="utf-8"))
(PROGRAM,) = (
    code
    for code in blocks((ROOT / "docs" / "tamper-evidence.md").read_text(), "python")
    if "def transaction_hash" in code
)


# Any: a program has names of many types, and the JSON form of a transaction too.
@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(PROGRAM, names)
    return names


@pytest.mark.parametrize(
    "example",
    EXAMPLES,
    ids=lambda example: (
        f"{example['transaction']['sequence']}-{example['transaction']['type'][17:]}"
    ),
)
def test_every_implementation_computes_the_same_hash(
    page: dict[str, Any], example: dict[str, Any]
) -> None:
    form = example["transaction"]
    expected = base64.b64decode(form["hash"])
    assert page["hashed_bytes"](form).hex() == example["bytes"]
    assert page["transaction_hash"](form) == expected
    # Any: protobuf makes this class at run time.
    google: Any = ParseDict(form, message_class("credit.v1.CreditTransaction")())
    message = decode(CreditTransaction, google.SerializeToString())
    assert message.hash == expected
    assert transaction_hash(message) == expected


def test_the_examples_have_every_type_and_are_chained() -> None:
    forms = [example["transaction"] for example in EXAMPLES]
    types = {form["type"].removeprefix("TRANSACTION_TYPE_") for form in forms}
    assert types == TransactionType.__members__.keys() - {"UNSPECIFIED"}
    heads: dict[tuple[int, int], str] = {}
    for form in forms:
        place = form["user_id"], form["app_id"]
        assert form.get("previous_hash") == heads.get(place)
        heads[place] = form["hash"]


@pytest.mark.parametrize(
    "transaction",
    [CreditTransaction(), CreditTransaction(created_at=NOW, type=TransactionType(-1))],
    ids=["without a time", "of a negative type"],
)
def test_a_transaction_that_no_server_can_have_hashed_is_an_error(
    transaction: CreditTransaction,
) -> None:
    with pytest.raises(ValueError, match="the transaction"):
        transaction_hash(transaction)
