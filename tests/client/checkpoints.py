"""An operator, who has a key and signs checkpoints. It shares no code with the server's command."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from credit_models.checkpoint import Checkpoint
from credit_models.merkle import MerkleTree
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


class Operator:
    """Signs checkpoints with a new key.

    Attributes:
        private_key: The file of the private key.
        public_key: The file of the public key.
        time: The time of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        self.time = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self.private_key = folder / "checkpoint.key"
        self.public_key = folder / "checkpoint.pub"
        self._folder = folder
        self._key = Ed25519PrivateKey.generate()
        self.private_key.write_bytes(
            self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.public_key.write_bytes(
            self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def make_another_kind_of_key(self) -> None:
        """Replace the files of the keys by those of a key of another kind."""
        key = generate_private_key(SECP256R1())
        self.private_key.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        self.public_key.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def checkpoint(self, app_id: int, heads: Mapping[int, bytes]) -> Path:
        """Write the checkpoint of an app, and return its file."""
        tree, lines = MerkleTree(), []
        for user_id, head in sorted(heads.items()):
            tree.add(user_id, head)
            lines.append({"user_id": user_id, "hash": b64encode(head).decode()})
        stated = Checkpoint(app_id=app_id, size=tree.size, root=tree.root(), time=self.time)
        signature = self._key.sign(stated.text.encode())
        note = stated.signed(signature, self._key.public_key().public_bytes_raw())
        file = self._folder / f"app-{app_id}.checkpoint"
        records = [*lines, {"checkpoint": note}]
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file
