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


each_golden = pytest.mark.parametrize(
    "golden", GOLDEN, ids=lambda golden: f"{golden.name}-{golden.case}"
)


@each_golden
def test_the_models_read_and_write_the_bytes(golden: Golden) -> None:
    read = decode(model(golden.name), golden.data)
    assert read == model(golden.name).from_dict(golden.json)
    assert encode(read) == golden.data


@each_golden
def test_the_models_own_serializer_agrees(golden: Golden) -> None:
    assert bytes(model(golden.name).from_dict(golden.json)) == golden.data


@each_golden
def test_googles_classes_read_and_write_the_bytes(golden: Golden) -> None:
    google = TODAY.message_class(golden.name)
    assert ParseDict(golden.json, google()).SerializeToString(deterministic=True) == golden.data
    read = google.FromString(golden.data)
    assert MessageToDict(read, preserving_proto_field_name=True) == golden.json


@each_golden
def test_every_release_writes_the_same_bytes_again(golden: Golden) -> None:
    for version, released in RELEASED.items():
        if golden.name in released.messages:
            read = released.message_class(golden.name).FromString(golden.data)
            assert read.SerializeToString(deterministic=True) == golden.data, version


@pytest.mark.parametrize("name", message_names(TODAY))
def test_every_field_of_every_message_is_in_a_golden_case(name: str) -> None:
    cases = [golden for golden in GOLDEN if golden.name == name]
    covered = {field for golden in cases for field in golden.json}
    assert covered == {field.name for field in TODAY.messages[name].fields}
    assert any(golden.data == b"" for golden in cases)
