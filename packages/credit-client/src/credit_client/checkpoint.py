"""Read a checkpoint: the heads of an app's users, and the operator's signature of all of them.

The file is made by `credit-server checkpoint`. It has a JSON object on each line: one for each user
with `user_id` and `hash`, and at the end one with the signed `checkpoint`.
"""

import json
from base64 import b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from credit_models.checkpoint import Checkpoint as Stated
from credit_models.checkpoint import CheckpointInvalid, MerkleTree, read_checkpoint

from credit_client.errors import CheckpointRejected

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The heads of an app's users at a time, as the operator signed them.

    Attributes:
        app_id: The app.
        time: Every transaction that was acknowledged before this time is covered.
        size: The number of users whose transactions in the app have hashes.
        heads: The hash of the latest transaction in the app of each user, or of those users that
            were asked for.
    """

    app_id: int
    time: datetime
    size: int
    heads: Mapping[int, bytes]


def load_checkpoint(
    file: str | Path, *, key: str | Path, user_ids: Collection[int] | None = None
) -> Checkpoint:
    """Read a checkpoint, and check its signature. Needs `credit-client[verify]`.

    Args:
        file: The file that `credit-server checkpoint` wrote.
        key: The file with the operator's public key: Ed25519, in PEM.
        user_ids: The users whose heads are kept; None: all, which needs 0.2 GB for a million.

    Returns:
        The checkpoint.

    Raises:
        CheckpointRejected: A file has the wrong format, or the checkpoint is not signed with the
            key.
        ImportError: The extra is not installed.
        OSError: A file cannot be read.
    """
    tree, heads = MerkleTree(), dict[int, bytes]()
    try:
        public_key = _public_key(Path(key).read_bytes())
        note = ""
        with Path(file).open(encoding="utf-8") as lines:
            for line in lines:
                if note:
                    raise CheckpointInvalid("there are lines after the signed checkpoint")
                record = json.loads(line)
                if "checkpoint" in record:
                    note = str(record["checkpoint"])
                    continue
                user_id, head = int(record["user_id"]), b64decode(record["hash"], validate=True)
                tree.add(user_id, head)
                if user_ids is None or user_id in user_ids:
                    heads[user_id] = head
        stated = _checked(note, public_key)
    except (CheckpointInvalid, KeyError, TypeError, ValueError) as error:
        why = error if isinstance(error, CheckpointInvalid) else "it is not a checkpoint"
        raise CheckpointRejected(f"{file}: {why}") from error
    if (stated.size, stated.root) != (tree.size, tree.root()):
        raise CheckpointRejected(f"{file}: its heads are not those that were signed")
    return Checkpoint(app_id=stated.app_id, time=stated.time, size=stated.size, heads=heads)


def _public_key(pem: bytes) -> "Ed25519PublicKey":
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PublicKey,
        )
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ImportError:
        raise ImportError(
            "checkpoints need the package cryptography: pip install 'credit-client[verify]'"
        ) from None
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        raise CheckpointInvalid("the key is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CheckpointInvalid("the key is not an Ed25519 key")
    return key


def _checked(note: str, key: "Ed25519PublicKey") -> Stated:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see `_public_key`

    stated, signature = read_checkpoint(note, key.public_bytes_raw())
    try:
        key.verify(signature, stated.text.encode())
    except InvalidSignature:
        raise CheckpointInvalid("its signature is not valid: it was changed afterwards") from None
    return stated
