"""The root of a checkpoint, and its signed text."""

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from credit_models.checkpoint import (
    Checkpoint,
    CheckpointInvalid,
    MerkleTree,
    read_checkpoint,
)

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SIGNATURE = bytes(range(64))
CHECKPOINT = Checkpoint(
    app_id=3,
    size=2,
    root=sha256(b"").digest(),
    time=datetime(2026, 11, 30, 1, 2, 3, 4000, tzinfo=UTC),
)


def _root(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962, section 2.1, defines it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def test_the_root_is_that_of_rfc_6962() -> None:
    tree, leaves = MerkleTree(), list[bytes]()
    for number in range(70):
        assert (tree.size, tree.root()) == (number, _root(leaves))
        user_id, head = number * 3 + 1, b"\x01" + bytes([number]) * 32
        tree.add(user_id, head)
        leaves.append(user_id.to_bytes(4, "big") + head)


@pytest.mark.parametrize("user_id", [0, 6, 7, 2**32])
def test_users_are_added_in_their_order(user_id: int) -> None:
    tree = MerkleTree()
    tree.add(7, b"")
    with pytest.raises(CheckpointInvalid, match=f"user {user_id} is listed after user 7"):
        tree.add(user_id, b"")


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
