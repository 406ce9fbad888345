"""The checkpoints of the fake service, signed with its own key."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from credit_models import (
    CheckpointLeaf,
    GetCheckpointRequest,
    GetCheckpointResponse,
    ListCheckpointsRequest,
    ListCheckpointsResponse,
    SignedCheckpoint,
)
from credit_models.checkpoint import Checkpoint, proof_indexes
from credit_models.merkle import audit_path, leaf_hash, root_of_no_leaves

from credit_client.testing.ledger import FakeLedger

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class _Made(NamedTuple):
    """A checkpoint with the heads of its users, in their order."""

    app_id: int
    signed: SignedCheckpoint
    heads: list[tuple[int, bytes]]


class FakeCheckpoints:
    """Signs the heads of a fake ledger."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._made: list[_Made] = []
        self._key: Ed25519PrivateKey | None = None

    def sign(self, app_id: int, key_file: Path) -> None:
        """Make a checkpoint of the current heads, and write the public key into a file.

        Raises:
            ImportError: The extra `verify` is not installed.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

        self._key = self._key or ed25519.Ed25519PrivateKey.generate()
        public_key = self._key.public_key()
        rows = [row for row in self._ledger.all_transactions() if row.app_id == app_id]
        heads = sorted({row.user_id: row.hash for row in rows}.items())
        nodes = [leaf_hash(*each) for each in heads]
        root = audit_path(nodes, 0)[1] if nodes else root_of_no_leaves()
        time = self._ledger.clock.now()
        stated = Checkpoint(app_id=app_id, size=len(heads), root=root, time=time)
        signature = self._key.sign(stated.text.encode())
        note = stated.signed(signature, public_key.public_bytes_raw())
        signed = SignedCheckpoint(time=time, note=note, has_proofs=True)
        self._made.append(_Made(app_id, signed, heads))
        key_file.write_bytes(
            public_key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def list(self, request: ListCheckpointsRequest) -> ListCheckpointsResponse:
        """Return the checkpoints of an app, the newest first."""
        made = [each.signed for each in self._made if each.app_id == request.app_id]
        return ListCheckpointsResponse(checkpoints=made[::-1])

    def get(self, request: GetCheckpointRequest) -> GetCheckpointResponse:
        """Return a checkpoint and the proof for a user."""
        until = request.time or self._ledger.clock.now()
        for app_id, signed, heads in reversed(self._made):
            if app_id == request.app_id and signed.time is not None and signed.time <= until:
                return GetCheckpointResponse(
                    checkpoint=signed, leaves=_proof(heads, request.user_id)
                )
        return GetCheckpointResponse()


def _proof(heads: list[tuple[int, bytes]], user_id: int | None) -> list[CheckpointLeaf]:
    if user_id is None:
        return []
    users = [user for user, _ in heads]
    indexes = proof_indexes(user_id, users, first=0, size=len(users))
    nodes = [leaf_hash(*each) for each in heads]
    return [
        CheckpointLeaf(
            user_id=users[index],
            hash=heads[index][1],
            index=index,
            path=audit_path(nodes, index)[0],
        )
        for index in indexes
    ]
