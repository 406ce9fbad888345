"""The root of a checkpoint, and its signed text."""

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from credit_models.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    Leaf,
    proven_head,
    read_checkpoint,
)
from credit_models.merkle import audit_path, leaf_hash

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SIGNATURE = bytes(range(64))
CHECKPOINT = Checkpoint(
    app_id=3,
    size=2,
    root=sha256(b"").digest(),
    time=datetime(2026, 11, 30, 1, 2, 3, 4000, tzinfo=UTC),
)


def test_the_text_is_that_of_a_tlog_checkpoint() -> None:
    root = b64encode(CHECKPOINT.root).decode()
    assert CHECKPOINT.text == f"credit.v1/app/3\n2\n{root}\ntime 2026-11-30T01:02:03.004Z\n"
    key_id = sha256(b"credit.v1/app/3\n\x01" + KEY).digest()[:4]
    signature = b64encode(key_id + SIGNATURE).decode()
    signed = f"{CHECKPOINT.text}\n\N{EM DASH} credit.v1/app/3 {signature}\n"
    assert CHECKPOINT.signed(SIGNATURE, KEY) == signed


def test_the_signature_of_a_key_is_found_among_others() -> None:
    note = CHECKPOINT.signed(b"x" * 64, OTHER_KEY)
    note += "\N{EM DASH} someone else AAAA\n\N{EM DASH} credit.v1/app/3 !\nno signature\n"
    note += CHECKPOINT.signed(SIGNATURE, KEY).rpartition("\n\n")[2]
    assert read_checkpoint(note, KEY) == (CHECKPOINT, SIGNATURE)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: "",
        lambda note: note.replace("\n\n", "\n"),
        lambda note: note.replace("credit.v1/app/3\n2", "credit.v1/app/4\n2"),
        lambda note: note.replace("credit.v1", "debit.v1"),
        lambda note: note.replace("\n2\n", "\n02\n"),
        lambda note: note.replace("\n2\n", "\ntwo\n"),
        lambda note: note.replace("time 2026", "at 2026"),
        lambda note: note.replace(".004Z", ".0040Z"),
        lambda note: note.replace(".004Z", ".004+00:00"),
        lambda note: note.replace("\n\n", "\nmore\n\n"),
        lambda note: note.replace("\N{EM DASH}", "-"),
        lambda note: CHECKPOINT.signed(SIGNATURE, OTHER_KEY),
        lambda note: replace(CHECKPOINT, app_id=4).text + note[len(CHECKPOINT.text) :],
    ],
)  # fmt: skip
def test_a_text_that_is_not_a_signed_checkpoint_is_rejected(change: object) -> None:
    assert callable(change)
    note = change(CHECKPOINT.signed(SIGNATURE, KEY))
    with pytest.raises(CheckpointInvalid, match="it is not"):
        read_checkpoint(note, KEY)


HEADS = {user_id: bytes([user_id]) * 33 for user_id in (3, 5, 6, 9, 12)}


def _proof(*indexes: int) -> tuple[Checkpoint, list[Leaf]]:
    """Return a checkpoint of `HEADS`, and the leaves with these indexes."""
    nodes = [leaf_hash(*each) for each in HEADS.items()]
    users = list(HEADS)
    leaves = [
        Leaf(
            user_id=users[index],
            head=HEADS[users[index]],
            index=index,
            path=audit_path(nodes, index)[0],
        )
        for index in indexes
    ]
    root = audit_path(nodes, 0)[1]
    return replace(CHECKPOINT, size=len(nodes), root=root), leaves


@pytest.mark.parametrize(
    ("user_id", "indexes"),
    [(3, [0]), (5, [1]), (12, [4]), (9, [2, 3]), (2, [0]), (4, [0, 1]), (8, [2, 3]), (13, [4])],
)
def test_leaves_prove_the_head_of_a_user_or_that_there_is_none(
    user_id: int, indexes: list[int]
) -> None:
    assert proven_head(*_shuffled(user_id, indexes)) == HEADS.get(user_id)


def _shuffled(user_id: int, indexes: list[int]) -> tuple[Checkpoint, int, list[Leaf]]:
    checkpoint, leaves = _proof(*indexes)
    return checkpoint, user_id, leaves[::-1]


def test_a_tree_without_leaves_has_no_head() -> None:
    assert proven_head(replace(CHECKPOINT, size=0), 7, []) is None


@pytest.mark.parametrize(
    ("user_id", "indexes"),
    [(3, []), (3, [1]), (2, [1]), (4, [0]), (4, [1]), (4, [0, 2]), (8, [1, 3]), (13, [3]), (7, [])],
)
def test_leaves_that_leave_room_for_the_user_prove_nothing(
    user_id: int, indexes: list[int]
) -> None:
    checkpoint, leaves = _proof(*indexes)
    with pytest.raises(CheckpointInvalid, match=f"no proof for user {user_id}"):
        proven_head(checkpoint, user_id, leaves)


# Any: the values of any field.
@pytest.mark.parametrize(
    "change",
    [
        {"user_id": 4},
        {"head": bytes(33)},
        {"index": 2},
        {"index": -1},
        {"path": []},
        {"path": [bytes(32)] * 3},
    ],
)
def test_a_leaf_that_is_not_in_the_tree_is_rejected(change: dict[str, Any]) -> None:
    checkpoint, (leaf,) = _proof(1)
    for user_id in (5, 4):
        with pytest.raises(CheckpointInvalid, match="does not lead to the signed root"):
            proven_head(checkpoint, user_id, [replace(leaf, **change)])
