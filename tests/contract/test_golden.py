"""The bytes of every message equal the golden bytes that were committed.

`golden/NAME.json` has the cases of a message: its JSON form and its bytes in hexadecimal. A case is
never rewritten; a new field gets a new case.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from credit_models.codec import decode, encode
from google.protobuf.json_format import MessageToDict, ParseDict

from tests.contract.released_images import PACKAGE, RELEASED, TODAY, message_names, model

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True, kw_only=True, slots=True)
class Golden:
    """One message as JSON and as bytes."""

    name: str
    case: str
    json: dict[str, Any]  # Any: any value of JSON
    data: bytes


def _golden() -> Iterator[Golden]:
    for path in sorted(FOLDER.glob("*.json")):
        for entry in json.loads(path.read_text()):
            yield Golden(
                name=f"{PACKAGE}.{path.stem}",
                case=entry["case"],
                json=entry["json"],
                data=bytes.fromhex(entry["hex"]),
            )


GOLDEN = list(_golden())


# One test per case, because pytest takes longer for a test than these checks take.
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden.name}-{golden.case}")
def test_the_models_google_and_every_release_agree_with_the_bytes(golden: Golden) -> None:
    made = model(golden.name).from_dict(golden.json)
    assert bytes(made) == golden.data, "by the models' own serializer"

    read = decode(model(golden.name), golden.data)
    assert read == made
    assert encode(read) == golden.data

    google = TODAY.message_class(golden.name)
    assert ParseDict(golden.json, google()).SerializeToString(deterministic=True) == golden.data
    parsed = google.FromString(golden.data)
    assert MessageToDict(parsed, preserving_proto_field_name=True) == golden.json

    for version, released in RELEASED.items():
        if golden.name in released.messages:
            earlier = released.message_class(golden.name).FromString(golden.data)
            assert earlier.SerializeToString(deterministic=True) == golden.data, version


@pytest.mark.parametrize("name", message_names(TODAY))
def test_every_field_of_every_message_is_in_a_golden_case(name: str) -> None:
    cases = [golden for golden in GOLDEN if golden.name == name]
    covered = {field for golden in cases for field in golden.json}
    assert covered == {field.name for field in TODAY.messages[name].fields}
    assert any(golden.data == b"" for golden in cases)
